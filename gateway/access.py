"""Who is calling."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from ..schemas.doors import KeyScope
from .services import Services, services_of

DEFAULT_TENANT = "default"


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of whatever the request touches."""

    tenant: str
    """Every query is filtered by it."""
    key_id: str | None
    """The key that was shown; None = none is needed here."""
    scope: KeyScope = KeyScope.api
    """What the key opens."""


async def identify(request: Request, services: Annotated[Services, Depends(services_of)]) -> Caller:
    """Return the caller (a FastAPI dependency). Raises AccessDenied."""
    return Caller(DEFAULT_TENANT, None)


async def identify_creator(caller: Annotated[Caller, Depends(identify)]) -> Caller:
    """As `identify`, for requests that create something: they count against the tenant's limits. Raises LimitReached."""
    return caller


AnyCaller = Annotated[Caller, Depends(identify)]
"""Parameter type of endpoints that look or change."""
Creator = Annotated[Caller, Depends(identify_creator)]
"""Parameter type of endpoints that create something."""
TheServices = Annotated[Services, Depends(services_of)]
"""Parameter type of endpoints that need the services."""
