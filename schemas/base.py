"""The two model bases that every type in this folder derives from."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable value that refuses unknown fields: what crosses a process border is understood in full or not at all."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        # A traceback in a log must not hold what people asked.
        hide_input_in_errors=True,
    )


class Mutable(BaseModel):
    """Record that is filled in while work goes on (a trace of a running call)."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_assignment=False)
