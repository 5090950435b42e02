"""From a YAML file to a typed configuration: what is wrong is named with its line, its key, and the key that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ..schemas.errors import ConfigurationError

Config = TypeVar("Config", bound=BaseModel)
Place = tuple[str | int, ...]

CLOSE_ENOUGH = 0.6
"""How alike two keys must be for one to be suggested for the other, 0..1."""
PROBLEMS_MAX = 10


def load_config(path: Path, kind: type[Config]) -> Config:
    """Read a configuration. Raises ConfigurationError, with a line for each thing that is wrong."""
    content, lines = _parsed(path)
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path} is no configuration: it must hold {', '.join(kind.model_fields)} as keys, see configs/"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as exc:
        problems = [_problem(error, kind, lines) for error in exc.errors(include_url=False, include_context=False)]
        shown = problems[:PROBLEMS_MAX]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        raise ConfigurationError(f"{path} cannot be used:\n  " + "\n  ".join(shown)) from exc


def _parsed(path: Path) -> tuple[Any, dict[Place, int]]:
    try:
        import yaml
    except ImportError as exc:
        raise ConfigurationError("configurations are YAML: pip install 'k2think[train]'") from exc
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path} is not UTF-8 text") from exc
    lines: dict[Place, int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        for place, line in _lines(node, (), yaml):
            if place in lines:
                raise ConfigurationError(
                    f"{path}, line {line}: {_dotted(place)} stands twice (also in line {lines[place]})"
                )
            lines[place] = line
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as exc:
        where = f", line {exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise ConfigurationError(f"{path}{where} is not YAML: {exc.problem or exc}") from exc
    except yaml.YAMLError as exc:
        raise ConfigurationError(f"{path} is not YAML: {exc}") from exc


def _lines(node: Any, above: Place, yaml: Any) -> Iterator[tuple[Place, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*above, str(key.value))
            yield place, key.start_mark.line + 1
            yield from _lines(value, place, yaml)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*above, index), value.start_mark.line + 1
            yield from _lines(value, (*above, index), yaml)


def _problem(error: Any, kind: type[BaseModel], lines: dict[Place, int]) -> str:
    place: Place = tuple(error["loc"])
    known = place
    # A key that is missing has no line; the nearest above it has.
    while known and known not in lines:
        known = known[:-1]
    where = f"line {lines[known]}: " if known else ""
    name = _dotted(place)
    if error["type"] == "missing":
        return f"{where}{name} is missing"
    if error["type"] == "extra_forbidden":
        return f"{where}{name} is unknown{_suggestion(place, kind)}"
    text = error["msg"].removeprefix("Value error, ")
    return f"{where}{name}: {text}" if name else f"{where}{text}"


def _suggestion(place: Place, kind: type[BaseModel]) -> str:
    wrong = str(place[-1])
    siblings = list(_fields_at(kind, place[:-1]))
    close = difflib.get_close_matches(wrong, siblings, n=1, cutoff=CLOSE_ENOUGH)
    if close:
        return f"; did you mean {close[0]}?"
    elsewhere = [_dotted(found) for found in _all_places(kind, ()) if found[-1] == wrong]
    if elsewhere:
        return f" here; {' and '.join(elsewhere)} exists"
    return f"; known are {', '.join(siblings)}" if siblings else ""


def _fields_at(kind: type[BaseModel], place: Place) -> dict[str, Any]:
    fields = dict(kind.model_fields)
    for part in place:
        below = _model_of(fields[str(part)].annotation) if str(part) in fields else None
        if below is None:
            return {}
        fields = dict(below.model_fields)
    return fields


def _all_places(kind: type[BaseModel], above: Place) -> Iterator[Place]:
    for name, field in kind.model_fields.items():
        yield (*above, name)
        below = _model_of(field.annotation)
        if below is not None:
            yield from _all_places(below, (*above, name))


def _model_of(annotation: Hashable) -> type[BaseModel] | None:
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place)
