"""Conversations and problems as token ids: the chat template is the model's own, loss is taken on what the assistant says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..schemas.errors import InvalidRequest
from ..schemas.scores import Task
from .records import SftExample, Turn

IGNORED = -100
"""Label of a token on which no loss is taken."""

THINK = "<think>"
"""Begins a reply's reasoning."""

Message = dict[str, str]
"""A turn as chat templates take it: role and content."""


@dataclass(frozen=True)
class TokenisedSet:
    """Token ids with labels, and what was left out."""

    rows: list[dict[str, list[int]]]
    """`input_ids` and `labels` of each conversation."""
    too_long: int
    """Conversations above the limit, left out."""

    @property
    def tokens(self) -> int:
        """Tokens of all conversations."""
        return sum(len(row["input_ids"]) for row in self.rows)

    @property
    def counted_tokens(self) -> int:
        """Tokens on which loss is taken."""
        return sum(label != IGNORED for row in self.rows for label in row["labels"])


def tokenise_examples(
    tokenizer: Any, examples: Iterable[SftExample], *, system: str | None, max_tokens: int
) -> TokenisedSet:
    """Return the ids and labels of conversations. Raises InvalidRequest for one that the chat template cannot hold."""
    rows: list[dict[str, list[int]]] = []
    too_long = 0
    for example in examples:
        ids, labels = tokenise_example(tokenizer, example, system=system)
        if len(ids) > max_tokens:
            too_long += 1
        else:
            rows.append({"input_ids": ids, "labels": labels})
    return TokenisedSet(rows, too_long)


def tokenise_example(tokenizer: Any, example: SftExample, *, system: str | None) -> tuple[list[int], list[int]]:
    """Return the ids of one conversation, and the same with all but the assistant's turns ignored.

    A template may rewrite earlier turns (some drop their reasoning); then loss is taken on the last turn alone.
    """
    messages = as_messages(example.messages, system=system)
    whole = _ids(tokenizer, messages, begin=False)
    labels = [IGNORED] * len(whole)
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _ids(tokenizer, messages[:place], begin=True)
        after = _ids(tokenizer, messages[: place + 1], begin=False)
        if whole[: len(after)] == after and after[: len(before)] == before:
            labels[len(before) : len(after)] = after[len(before) :]
        elif place == len(messages) - 1:
            raise InvalidRequest(
                f"{example.id} of {example.source}: the model's chat template writes a conversation otherwise than it "
                "begins a reply, so no loss can be taken; choose another template (chat_template.jinja)"
            )
    end = tokenizer.eos_token_id
    last = next((index for index in range(len(labels) - 1, -1, -1) if labels[index] != IGNORED), None)
    # Some templates leave the end to the engine; without it the model would not learn to stop.
    if last is not None and end not in whole[-2:]:
        whole, labels = [*whole, end], [*labels, end]
    return whole, labels


def as_messages(turns: Iterable[Turn], *, system: str | None) -> list[Message]:
    """Return turns as chat templates take them, with a system message in front where there is none."""
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages


def prompt_of(task: Task, *, system: str | None) -> list[Message]:
    """Return a problem as a conversation that waits for its answer."""
    return as_messages([Turn(role="user", content=task.prompt)], system=system)


def opens_thinking(tokenizer: Any) -> bool:
    """Tell whether the chat template itself begins the reasoning of a reply."""
    messages = [{"role": "user", "content": "?"}]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text.rstrip().endswith(THINK)


def prompt_tokens(tokenizer: Any, prompt: list[Message]) -> int:
    """Return the length of a prompt in tokens."""
    return len(_ids(tokenizer, prompt, begin=True))


def _ids(tokenizer: Any, messages: list[Message], *, begin: bool) -> list[int]:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=begin)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
