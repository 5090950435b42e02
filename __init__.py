"""k2think: plan, sample, verify, screen. The K2-Think reasoning system as software to run in production.

An independent implementation of arXiv 2509.07604; not by the paper's authors.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the client when it is asked for: whoever wants the message types alone needs no httpx."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from . import client
    except ModuleNotFoundError as exc:
        if exc.name != "httpx":
            raise
        raise ModuleNotFoundError("the client needs httpx: pip install 'k2think[client]'", name="httpx") from exc
    return getattr(client, name)
