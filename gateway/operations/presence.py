"""The gateway's own row of signs of life, with its counters."""

import asyncio

from ...workers.presence import Presence, process_id
from ..services import Services


async def keep_presence(services: Services) -> None:
    """Give signs of life until cancelled, then take the row away."""
    presence = Presence(services.settings, services.database, worker=process_id("gateway"), role="gateway")
    presence.start()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await presence.close()
