"""Settings of the sandbox in which code answers run."""

from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class SandboxKind(StrEnum):
    """What keeps untrusted code away from the machine."""

    auto = "auto"
    """The first of those below that works here; fusion only where its URL is set."""
    bubblewrap = "bubblewrap"
    """Namespaces, rlimits and a seccomp filter of the host's kernel, through the program bwrap."""
    gvisor = "gvisor"
    """A kernel of its own in user space, through the program runsc."""
    fusion = "fusion"
    """A SandboxFusion server over HTTP, which may be on another machine."""


class SandboxSettings(BaseModel):
    """Where code answers run. Without a sandbox that works they are not run at all."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    kind: SandboxKind = SandboxKind.auto
    """Which sandbox: auto, bubblewrap, gvisor or fusion. Nothing else is tried when one is named."""
    url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Root of a SandboxFusion server, such as http://127.0.0.1:8080, without the path /run_code. None = there is none."""
    concurrency: int | None = Field(default=None, ge=1, le=1_000)
    """Programs that one process has running in sandboxes at once; None = one for each core."""
    packages_dir: Path | None = None
    """Folder whose packages programs may import, as `pip install --target` makes it. None = Python's standard library alone."""

    @field_validator("url")
    @classmethod
    def _root(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if not parts.hostname or parts.query or parts.fragment or parts.path.rstrip("/").endswith("/run_code"):
            raise ValueError("is not the root of a server: leave out /run_code, queries and fragments")
        if parts.username or parts.password:
            raise ValueError("holds a name or password: SandboxFusion knows none, and the URL is shown in messages")
        return value.rstrip("/")

    @field_validator("packages_dir")
    @classmethod
    def _folder(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        if not value.expanduser().is_absolute():
            raise ValueError("must be an absolute path: programs of several folders read it")
        return value.expanduser()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind is SandboxKind.fusion and self.url is None:
            raise ValueError("the kind fusion needs K2THINK_SANDBOX__URL, the root of the SandboxFusion server")
        return self
