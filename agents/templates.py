"""Prompt templates: sets of text files with `{{placeholders}}`, one folder each under `templates/`, chosen per backend.

A set's `set.toml` says which files it has and how its models are to be asked. Placeholders are replaced in one pass,
so that text which itself contains `{{plan}}` stays as it is.
"""

import re
import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from ..schemas.base import Frozen
from ..schemas.completion import ChatMessage
from ..schemas.errors import ConfigurationError

DEFAULT_SET = "default"
_ROOT = Path(__file__).parent / "templates"
_PLACEHOLDER = re.compile(r"\{\{([a-z_]+)\}\}")

_ALLOWED: dict[str, frozenset[str]] = {
    "planner_system": frozenset(),
    "planner": frozenset({"problem"}),
    "generator_system": frozenset(),
    "generator": frozenset({"problem"}),
    "generator_with_plan": frozenset({"problem", "plan"}),
    "verifier_system": frozenset({"mark"}),
    "verifier": frozenset({"problem", "first", "second", "mark"}),
    "conversation": frozenset({"history", "problem"}),
    "guard": frozenset({"mark"}),
    "answer_judge_system": frozenset({"mark"}),
    "answer_judge": frozenset({"problem", "truth", "answer", "mark"}),
}
"""Placeholders that each file may use."""
_OPTIONAL = frozenset({"mark"})
"""Placeholders that a file may leave out; all others must be there."""


class PlannerMode(StrEnum):
    """How a set's plans come about."""

    model = "model"
    """One call to the model."""
    rules = "rules"
    """The first of the set's plan rules that fits; no call."""
    none = "none"
    """No plan."""


class PlanRule(Frozen):
    """A plan for the problems that contain one of some words."""

    words: tuple[str, ...]
    """Lower-case words or phrases, any of which must occur; empty = every problem."""
    topic: str
    """Topic that the rule stands for."""
    plan: str
    """The plan."""


class Manifest(Frozen):
    """`set.toml`: what a set is and how its models are asked."""

    description: str
    """For whom the set is."""
    source: str = ""
    """Where its wording comes from; empty = written for this project."""
    planner: PlannerMode
    """How plans come about."""
    judge: bool
    """Whether models of this set can compare two answers."""
    planner_structured: bool = True
    """Whether the planner is asked for JSON by schema; off = plain text."""
    judge_structured: bool = True
    """Whether the judge is asked for JSON by schema; off = plain text."""
    verdict: Literal["preference", "better_index"] = "preference"
    """Form of the judge's JSON: {"reason", "preference": A | B | tie} or {"better_index": 0 | 1, "explanation"}."""
    reply_tag: str | None = Field(default=None, pattern=r"^[a-z]+$")
    """Tag that wraps the planner's whole reply; None = none does."""
    verbatim: bool = False
    """Whether candidates are asked with the conversation exactly as it came, and their text is taken exactly as it came."""
    history: bool = True
    """Whether earlier turns are shown; off = the last user turn alone."""
    collapse_whitespace: bool = False
    """Whether runs of white space in problem, plan and answers become one space."""
    removed_tags: tuple[str, ...] = ()
    """Control tags of the model's format, taken out of problem, plan and answers."""
    planner_temperature: float = Field(default=0.3, ge=0, le=2)
    """Softmax temperature of the planner."""
    planner_max_tokens: int = Field(default=2048, ge=1)
    """Completion tokens of the planner at most, thinking included."""
    judge_temperature: float = Field(default=0.0, ge=0, le=2)
    """Softmax temperature of the judge."""
    judge_max_tokens: int = Field(default=2048, ge=1)
    """Completion tokens of the judge at most, thinking included."""
    answer_chars_max: int = Field(default=16_000, ge=100)
    """Characters of each answer that the judge sees; a longer one loses its middle."""
    files: dict[str, str] = {}
    """Template → file name in the set's folder; a verbatim set may have none."""
    plan_rules: tuple[PlanRule, ...] = ()
    """Plans of the mode `rules`, the first that fits."""


@dataclass(frozen=True, slots=True)
class TemplateSet:
    """A loaded set."""

    name: str
    """Name of its folder."""
    manifest: Manifest
    """How its models are asked."""
    texts: dict[str, str] = field(repr=False)
    """Template → text."""

    @property
    def judge(self) -> bool:
        """Whether models of this set can compare two answers."""
        return self.manifest.judge

    def has(self, template: str) -> bool:
        """Tell whether the set has a template."""
        return template in self.texts

    def render(self, template: str, **values: str) -> str:
        """Return the template with its placeholders replaced by `values`, in one pass.

        Raises ConfigurationError when the set lacks the template, KeyError when a value is missing.
        """
        text = self.texts.get(template)
        if text is None:
            raise ConfigurationError(
                f"the template set {self.name!r} has no {template!r}; its set.toml must name a file for it"
            )
        return _PLACEHOLDER.sub(lambda match: values[match.group(1)], text)

    def chat(
        self, template: str, *, system: str = "", history: tuple[ChatMessage, ...] = (), **values: str
    ) -> tuple[ChatMessage, ...]:
        """Return messages: the set's system prompt followed by the caller's, earlier turns, and the rendered user turn."""
        base = template.removesuffix("_with_plan")
        own = self.render(f"{base}_system", **values) if self.has(f"{base}_system") else ""
        instructions = "\n\n".join(text for text in (own, system) if text)
        head = (ChatMessage(role="system", content=instructions),) if instructions else ()
        return (*head, *history, ChatMessage(role="user", content=self.render(template, **values)))

    def prepared(self, text: str) -> str:
        """Return a problem, plan or answer as the set's models want it: control tags out, white space collapsed."""
        tags = self.manifest.removed_tags
        if tags:
            # A space, not nothing: what surrounds a tag must not close up to another one.
            pattern = re.compile("|".join(re.escape(tag) for tag in tags), re.IGNORECASE)
            text = pattern.sub(" ", text)
        return " ".join(text.split()) if self.manifest.collapse_whitespace else text


def known_sets() -> tuple[str, ...]:
    """Return the names of the sets that exist."""
    return tuple(sorted(folder.name for folder in _ROOT.iterdir() if (folder / "set.toml").is_file()))


@cache
def load_templates(name: str) -> TemplateSet:
    """Read a set once; raise ConfigurationError for an unknown name or a broken set."""
    if name not in known_sets():
        raise ConfigurationError(f"unknown template set {name!r}: choose one of {', '.join(known_sets())}")
    return read_set(_ROOT / name)


def read_set(folder: Path) -> TemplateSet:
    """Read a set from its folder and check every placeholder; raise ConfigurationError that says what is wrong where."""
    try:
        raw: dict[str, Any] = tomllib.loads((folder / "set.toml").read_text(encoding="utf-8"))
        manifest = Manifest.model_validate(raw)
        texts = {
            name: (folder / file).read_text(encoding="utf-8").removesuffix("\n")
            for name, file in manifest.files.items()
        }
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as exc:
        raise ConfigurationError(f"the template set in {folder} cannot be read: {exc}") from exc
    for name, text in texts.items():
        _check(f"{folder.name}/{manifest.files[name]}", name, text)
    needed = set() if manifest.verbatim else {"generator", "generator_with_plan"}
    needed |= {"planner"} if manifest.planner is PlannerMode.model else set()
    needed |= {"verifier"} if manifest.judge else set()
    if missing := sorted(needed - texts.keys()):
        raise ConfigurationError(f"the template set in {folder} lacks: {', '.join(missing)}")
    return TemplateSet(name=folder.name, manifest=manifest, texts=texts)


def _check(place: str, name: str, text: str) -> None:
    if name not in _ALLOWED:
        raise ConfigurationError(f"{place}: unknown template {name!r}: choose one of {', '.join(sorted(_ALLOWED))}")
    used = set(_PLACEHOLDER.findall(text))
    if unknown := sorted(used - _ALLOWED[name]):
        raise ConfigurationError(f"{place}: unknown placeholders: {', '.join(unknown)}")
    if missing := sorted(_ALLOWED[name] - _OPTIONAL - used):
        raise ConfigurationError(f"{place}: missing placeholders: {', '.join(missing)}")


def choose_set(backend_set: str | None, policy_set: str | None) -> str:
    """Return the set to use: the backend's own (its model was trained for it), then the policy's, then `default`."""
    return backend_set or policy_set or DEFAULT_SET
