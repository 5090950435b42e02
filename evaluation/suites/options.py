"""What a suite is asked for: seed and size of fresh problems, place and part of published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, JsonValue, model_validator

from ...schemas.base import Frozen


class SuiteOptions(Frozen):
    """Options of all suites; each refuses what it cannot heed."""

    n: int | None = Field(default=None, ge=1)
    """Fresh problems in all, spread over the families (`mini`); None = 800."""
    seed: int | None = Field(default=None, ge=0)
    """Of the draw (`mini`), or of the order of choices (`gpqa_diamond`); None = the suite's own."""
    report: bool = False
    """`mini`: draw from the problems that are kept for figures which are published, and are never tuned on."""
    families: tuple[str, ...] = ()
    """`mini`: these families alone. Empty = all."""
    path: Path | None = None
    """File or folder in the published format; None = from the hub."""
    hub: str | None = None
    """Data set at the hub, OWNER/NAME; None = the suite's own."""
    revision: str | None = None
    """Commit, tag or branch at the hub; None = the newest, and the manifest names the commit."""
    published_from: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    """First day of publication that counts, `YYYY-MM-DD`; None = no such bound."""
    published_until: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    """Last day that counts; None = no such bound."""
    targets_file: Path | None = None
    """`scicode`: `test_data.h5` with the expected values, which are published apart from the problems."""
    limit: int | None = Field(default=None, ge=1)
    """The first so many items alone; None = all. A part of a suite is not the suite, and reports say so."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.path is not None and (self.hub is not None or self.revision is not None):
            raise ValueError("give either a path, or a hub's data set and revision, not both")
        if self.published_from and self.published_until and self.published_from > self.published_until:
            raise ValueError(f"published_from {self.published_from} is after published_until {self.published_until}")
        return self

    def told(self) -> dict[str, JsonValue]:
        """Return what was asked for, without what was left open, as the manifest shows it."""
        return self.model_dump(mode="json", exclude_defaults=True)
