"""The Python client of a gateway, for threads and for asyncio. Needs httpx and pydantic only; docs/client.md shows it."""

from .asynchronous import AsyncClient
from .batch_lines import BatchItem, LineResult, SolvedBatch
from .sync import Client

__all__ = ["AsyncClient", "BatchItem", "Client", "LineResult", "SolvedBatch"]
