"""What a tenant may do in a time: requests in a minute, tokens in a day.

(Unfinished jobs are counted where a job is accepted, stored bytes where a file is: in SQL, so that they hold exactly.)
"""

import math

import redis

from ..schemas.errors import LimitReached
from ..store.tenants import Tenant
from ..workers.outage import REDIS, outage_of
from ..workers.queues import REQUESTS_PREFIX
from .directory import DAY_S
from .services import Services

MINUTE_S = 60
_KEPT_S = 3 * MINUTE_S


async def count_request(services: Services, tenant: Tenant, *, now: float) -> None:
    """Count a request that creates something, at `now` (Unix time in seconds). Raises LimitReached; it counts nothing then.

    The counts lie in Redis. When that is away or was emptied, requests pass.
    """
    if tenant.tokens_per_day is not None:
        used = await services.directory.tokens_today(tenant.tenant, now=now)
        if used >= tenant.tokens_per_day:
            raise LimitReached(
                f"this tenant may use {tenant.tokens_per_day} tokens a day (UTC), and has used {used} "
                "(`k2think tenants set --tokens-per-day` sets the limit)",
                retry_after_s=DAY_S - now % DAY_S,
            )
    limit = tenant.requests_per_minute
    if limit is None:
        return
    try:
        wait_s = await _count(services, tenant.tenant, limit, now)
    except (redis.RedisError, OSError) as exc:
        outage_of(REDIS).lost(exc)
        return
    outage_of(REDIS).back()
    if wait_s is not None:
        raise LimitReached(
            f"this tenant may send {limit} requests a minute that create something, and has sent them: wait "
            f"{math.ceil(wait_s)} s (`k2think tenants set --requests-per-minute` sets the limit)",
            retry_after_s=wait_s,
        )


def wait_of(limit: int, *, before: int, now: int, elapsed_s: float) -> float | None:
    """Return the seconds to wait before a request is within `limit` a minute; None = it is.

    `now` requests came in this minute with this one, of which `elapsed_s` are over, and `before` in the one before. Of
    those so many still count as lie in the last sixty seconds, were they spread evenly: nobody gets the limit of two
    minutes in one moment because a new minute has begun.
    """
    if limit < 1:
        return MINUTE_S
    if now <= limit:
        # The part of the minute before that still counts shrinks until this request fits.
        fits_at_s = MINUTE_S * (1 - (limit - now) / before) if before else 0.0
        return None if fits_at_s <= elapsed_s else fits_at_s - elapsed_s
    counted = now - 1
    return MINUTE_S - elapsed_s + max(0.0, MINUTE_S * (1 - (limit - 1) / counted))


async def _count(services: Services, tenant: str, limit: int, now: float) -> float | None:
    minute = int(now // MINUTE_S)
    key = f"{REQUESTS_PREFIX}{tenant}:{minute}"
    async with services.redis.pipeline(transaction=False) as pipeline:
        pipeline.incr(key)
        pipeline.expire(key, _KEPT_S)
        pipeline.get(f"{REQUESTS_PREFIX}{tenant}:{minute - 1}")
        counted, _, before = await pipeline.execute()
    wait_s = wait_of(limit, before=int(before or 0), now=int(counted), elapsed_s=now % MINUTE_S)
    if wait_s is not None:
        await services.redis.decr(key)
    return wait_s
