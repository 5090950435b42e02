"""A way to a Redis on which connections go silent without a word, as behind a router that has forgotten them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path


class SilentLink:
    """Listens on a free port of loopback."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._open: list[asyncio.Event] = []
        self.url = ""
        """As K2THINK_BROKER_URL takes it."""

    @property
    def connections(self) -> int:
        """Connections that there have been."""
        return len(self._open)

    def silence(self) -> None:
        """Pass nothing on any more on the connections that there are; new ones work."""
        for flowing in self._open:
            flowing.clear()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Listen."""
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        tasks = asyncio.all_tasks()
        try:
            yield
        finally:
            server.close()
            for task in asyncio.all_tasks() - tasks:
                task.cancel()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flowing = asyncio.Event()
        flowing.set()
        self._open.append(flowing)
        back, beyond = await asyncio.open_unix_connection(self._socket)
        try:
            await asyncio.gather(_pipe(reader, beyond, flowing), _pipe(back, writer, flowing))
        finally:
            beyond.close()
            writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
    while data := await reader.read(65_536):
        await flowing.wait()
        writer.write(data)
        await writer.drain()
    writer.close()
