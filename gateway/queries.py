"""What is asked for after the question mark: a parameter that an endpoint does not have is refused, not passed over."""

from fastapi import Request
from fastapi.dependencies.models import Dependant

from ..schemas.errors import InvalidRequest

_NAME_CHARS_MAX = 64


async def refuse_unknown_parameters(request: Request) -> None:
    """Raise InvalidRequest that names the first parameter of the query that the endpoint does not have (a FastAPI dependency)."""
    known = _names(request.scope["route"].dependant)
    for given in request.query_params:
        name = given.partition("[")[0][:_NAME_CHARS_MAX]
        if given not in known:
            there_are = f"there are: {', '.join(sorted(known))}" if known else "there are none here"
            raise InvalidRequest(f"{name}: no such parameter of the query; {there_are}", param=name)


def _names(dependant: Dependant) -> set[str]:
    return {field.alias for field in dependant.query_params}.union(*map(_names, dependant.dependencies))
