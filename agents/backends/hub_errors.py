"""What the Hugging Face hub refuses, mapped into our errors: every download of a model or a data set goes through here."""

import contextlib
import errno
import sys
from collections.abc import Generator
from typing import Any, Literal

from ...schemas.errors import (
    ConfigurationError,
    InvalidRequest,
    K2ThinkError,
    NotFound,
    Overloaded,
    StoreFull,
    Unauthorized,
    Unreachable,
)

Kind = Literal["model", "data set"]


def hub_library() -> Any:
    """Return huggingface_hub, quiet. Raises ConfigurationError where it is not installed."""
    try:
        import huggingface_hub
        from huggingface_hub.utils import disable_progress_bars, logging
    except ImportError as exc:
        raise ConfigurationError("downloading needs huggingface_hub: pip install 'k2think[models]'") from exc
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    return huggingface_hub


@contextlib.contextmanager
def explained(name: str, revision: str | None, *, kind: Kind = "model") -> Generator[None]:
    """Raise what the hub's library raises as K2ThinkError, where the cause is known."""
    try:
        yield
    except Exception as exc:
        mapped = _mapped(exc, name, revision, kind)
        if mapped is None:
            raise
        raise mapped from exc


def _mapped(exc: Exception, name: str, revision: str | None, kind: Kind) -> K2ThinkError | None:
    from huggingface_hub import constants, errors

    failure: Any = exc
    place = constants.ENDPOINT
    if isinstance(exc, errors.HFValidationError):
        return InvalidRequest(f"{name!r} is no name of a {kind}: it reads OWNER/NAME, as in the hub's address of it")
    if isinstance(exc, errors.GatedRepoError):
        return Unauthorized(
            f"{name} is gated: ask for access at {place}/{name}, then set HF_TOKEN to a token of the account that was let in"
        )
    if isinstance(exc, errors.RevisionNotFoundError):
        return NotFound(f"{name} has no revision {revision!r} at {place}")
    if isinstance(exc, errors.RepositoryNotFoundError):
        return NotFound(f"{place} has no {kind} {name!r}: check the spelling; for a private one set HF_TOKEN")
    if isinstance(exc, errors.OfflineModeIsEnabled):
        return ConfigurationError("HF_HUB_OFFLINE is set, so nothing is downloaded: unset it")
    if isinstance(exc, errors.HfHubHTTPError):
        return _refused(int(failure.response.status_code), name, place)
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"no space is left for {name}: free some and ask again, the download goes on")
    kinds = {kind.__name__ for kind in type(exc).__mro__}
    if kinds & {"TransportError", "ConnectionError", "LocalEntryNotFoundError", "FileMetadataError"}:
        return Unreachable(
            f"{place} cannot be reached, or the connection broke ({type(exc).__name__}): check the network and proxy, or set "
            "HF_ENDPOINT to a mirror; asked again, the download goes on"
        )
    return None


def _refused(status: int, name: str, place: str) -> K2ThinkError:
    if status in (401, 403):
        return Unauthorized(
            f"{place} refuses the token for {name} ({status}): set HF_TOKEN to a valid one", status=status
        )
    if status == 429:
        return Overloaded(
            f"{place} takes no more requests for now (429): wait a little, or set HF_TOKEN", status=status
        )
    return Overloaded(f"{place} answers {status} for {name}: try again later; the download goes on", status=status)
