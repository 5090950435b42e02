"""Figures that others published, kept with their sources in `published.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from ..schemas.base import Frozen
from ..schemas.errors import InvalidRequest, NotFound, explain
from ..schemas.evaluation import Row

SHIPPED = Path(__file__).with_name("published.toml")


class Published(Frozen):
    """One figure of one model on one suite."""

    model: str = Field(min_length=1)
    """Model, as its publisher calls it."""
    aliases: tuple[str, ...] = ()
    """Other names under which it is served."""
    suite: str = Field(min_length=1)
    """Our name of the suite."""
    row: Row
    """What was measured: a single sample, or which scaffold."""
    percent: float = Field(ge=0, le=100)
    """The figure, 0..100."""
    settings: str = Field(min_length=1)
    """How it was measured, as far as the source tells."""
    source: str = Field(min_length=1)
    """Paper or page."""
    url: str = Field(pattern=r"^https?://")
    """Where it stands."""
    note: str = ""
    """What else a reader must know; empty = nothing."""

    def is_of(self, model: str) -> bool:
        """Return whether a model by this name is the one that was measured; case and the owner's name do not matter."""
        return _bare(model) in {_bare(name) for name in (self.model, *self.aliases)}


class _File(Frozen):
    figure: tuple[Published, ...] = ()


def read_published(path: Path = SHIPPED) -> tuple[Published, ...]:
    """Return the figures of a file in the form of `published.toml`. Raises NotFound, InvalidRequest."""
    try:
        text = path.read_text(encoding="utf-8")
        return _File.model_validate(tomllib.loads(text)).figure
    except OSError as exc:
        raise NotFound(f"{path} cannot be read ({exc.strerror}): name a file of published figures") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"{path} is no TOML: {exc}") from exc
    except ValidationError as exc:
        raise InvalidRequest(f"{path}: {explain(exc)}; `published.toml` in the package shows the form") from exc


def _bare(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2].casefold()
