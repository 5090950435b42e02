"""Between our types and the text in the rows."""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import Table, TextClause, text

from ..schemas.completion import ChatMessage, TokenUsage
from ..schemas.messages import Body
from ..schemas.outcomes import StepFailure, StepResult
from ..schemas.trace import CallTrace, LeftCall

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_body: TypeAdapter[Body] = TypeAdapter(Body)
_result: TypeAdapter[StepResult] = TypeAdapter(StepResult)
_prompt: TypeAdapter[list[ChatMessage]] = TypeAdapter(list[ChatMessage])
_left_calls: TypeAdapter[list[LeftCall]] = TypeAdapter(list[LeftCall])
_mapping: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def storable(value: str) -> str:
    """Return the text as a text column of both databases can hold it: NUL and lone surrogates are replaced."""
    return _whole(value.replace("\x00", REPLACEMENT) if "\x00" in value else value)


def _whole(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        # Models emit half characters. A pair of halves that came in two pieces is whole again; a lone one is replaced.
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _whole_tree(value: Any) -> Any:
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value).items()
        return {_whole_tree(key): _whole_tree(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [_whole_tree(item) for item in cast(list[Any], value)]
    return value


def dump(model: BaseModel) -> str:
    """Return the model as JSON text; lone surrogates, which JSON in UTF-8 cannot carry, are replaced."""
    try:
        return model.model_dump_json()
    except PydanticSerializationError:
        return type(model).model_validate(_whole_tree(model.model_dump())).model_dump_json()


def dump_value(value: Any) -> str:
    """Return a plain JSON value, or a list of models, as JSON text."""
    try:
        return to_json(value).decode()
    except PydanticSerializationError:
        plain = (
            [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
            if isinstance(value, list)
            else value
        )
        return to_json(_whole_tree(plain), serialize_unknown=True).decode()


def load_body(value: str) -> Body:
    """Read a message body."""
    return _body.validate_json(value)


def load_result(value: str | None) -> StepResult | None:
    """Read a step's result; None for NULL."""
    return None if value is None else _result.validate_json(value)


def load_failure(value: str | None) -> StepFailure | None:
    """Read a step's failure; None for NULL."""
    return None if value is None else StepFailure.model_validate_json(value)


def load_mapping(value: str | None) -> dict[str, Any]:
    """Read a JSON object; empty for NULL."""
    return {} if value is None else _mapping.validate_json(value)


def call_columns(call: CallTrace | None) -> dict[str, Any]:
    """Return the columns of table attempts that hold the model call; None = no model was called."""
    trace = call if call is not None and call.called else CallTrace()
    return {
        "backend": trace.backend,
        "model": storable(trace.model),
        "prompt_tokens": trace.usage.prompt,
        "completion_tokens": trace.usage.completion,
        "reasoning_tokens": trace.usage.reasoning,
        "usage_estimated": trace.usage_estimated,
        "finish_reason": trace.finish_reason,
        "time_to_first_token_s": trace.time_to_first_token_s,
        "duration_s": trace.duration_s,
        "retries": trace.retries,
        "engine_queue_s": trace.engine_queue_s,
        "draft_acceptance": trace.draft_acceptance,
        "limit_wait_s": trace.limit_wait_s,
        "engine_prompt_s": trace.engine_prompt_s,
        "engine_completion_s": trace.engine_completion_s,
        "cached_prompt_tokens": trace.cached_prompt_tokens,
        "accepted_length": trace.accepted_length,
        "left_calls": dump_value(trace.left_calls) if trace.left_calls else None,
        "wasted_prompt_tokens": trace.wasted.prompt,
        "wasted_completion_tokens": trace.wasted.completion,
        "rate_limits": dump_value(trace.rate_limits) if trace.called else None,
        "parameters": dump_value(trace.parameters) if trace.called else None,
        "answer": None if trace.answer is None else storable(trace.answer),
        "prompt": dump_value(trace.prompt) if trace.called else None,
        "raw_text": storable(trace.raw_text) if trace.called else None,
        "reasoning": storable(trace.reasoning) if trace.called else None,
    }


def load_call(row: Mapping[str, Any]) -> CallTrace | None:
    """Read the model call of a row of table attempts; None = no model was called."""
    if not row["backend"]:
        return None
    return CallTrace(
        backend=row["backend"],
        model=row["model"],
        prompt=_prompt.validate_json(row["prompt"]) if row["prompt"] else [],
        parameters=load_mapping(row["parameters"]),
        raw_text=row["raw_text"] or "",
        reasoning=row["reasoning"] or "",
        answer=row["answer"],
        usage=TokenUsage(
            prompt=row["prompt_tokens"], completion=row["completion_tokens"], reasoning=row["reasoning_tokens"]
        ),
        usage_estimated=row["usage_estimated"],
        finish_reason=row["finish_reason"],
        time_to_first_token_s=row["time_to_first_token_s"],
        duration_s=row["duration_s"],
        retries=row["retries"],
        engine_queue_s=row["engine_queue_s"],
        draft_acceptance=row["draft_acceptance"],
        limit_wait_s=row["limit_wait_s"],
        engine_prompt_s=row["engine_prompt_s"],
        engine_completion_s=row["engine_completion_s"],
        cached_prompt_tokens=row["cached_prompt_tokens"],
        accepted_length=row["accepted_length"],
        left_calls=_left_calls.validate_json(row["left_calls"]) if row["left_calls"] else [],
        rate_limits=load_mapping(row["rate_limits"]),
    )


def insert_or_ignore(table: Table, *conflict: str) -> TextClause:
    """Return an INSERT of all columns of the table that does nothing where the columns `conflict` exist already."""
    names = [column.name for column in table.columns]
    columns = ", ".join(f'"{name}"' for name in names)  # some are words of SQL
    values = ", ".join(f":{name}" for name in names)
    return text(  # names of our own columns only
        f"INSERT INTO {table.name} ({columns}) VALUES ({values}) ON CONFLICT ({', '.join(conflict)}) DO NOTHING"  # noqa: S608
    )
