"""A TCP proxy that can be told to be slow, to cut everything into slices, to fall silent, to lose connections, and to reset them."""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

READ_BYTES = 65_536
SLICES_MAX = 200
"""Slices of one piece at most: the rest of it goes in one."""
_RESET = struct.pack("ii", 1, 0)

Target = Path | tuple[str, int]
"""A Unix socket, or host and port."""


@dataclass(eq=False)
class _Link:
    """A connection that is passed on."""

    here: asyncio.StreamWriter
    """To the client."""
    beyond: asyncio.StreamWriter | None = None
    """To the server; None = not yet connected."""
    lost: bool = False
    """Whether all that is sent into it is swallowed, and neither side hears of the other's end."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether the server may be told that the client of a lost one has gone."""

    def abort(self) -> None:
        """Reset both sides."""
        for writer in (self.here, self.beyond):
            if writer is not None:
                _abort(writer)


class Proxy:
    """Listens on a free port of loopback. Belongs to one event loop."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0
        """Where it listens."""
        self.latency_s = 0.0
        """What each piece waits."""
        self.slice_bytes = 0
        """How small pieces are cut; 0 = not at all."""

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=READ_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and all connections."""
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.abort()

    def heal(self) -> None:
        """Pass everything on as it comes."""
        self.latency_s, self.slice_bytes = 0.0, 0
        self._flowing.set()

    def hang(self) -> None:
        """Keep connections open and take new ones, and pass nothing on: both sides see a peer that says nothing."""
        self._flowing.clear()

    def lose(self) -> None:
        """Swallow for ever what comes on the connections that there are, and reset none of them; new ones work."""
        for link in self._links:
            link.lost = link.beyond is not None

    def end_lost(self) -> None:
        """Tell servers, as their kernels would some day, that clients of lost connections have gone. No client is told."""
        for link in self._links:
            link.over.set()

    def reset(self) -> None:
        """Reset (RST) all connections that are not lost, on both sides."""
        for link in list(self._links):
            if not link.lost:
                link.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            await self._flowing.wait()
            if writer.is_closing():  # it was reset while all was silent: the server must never hear of it
                return
            back, link.beyond = await self._connect()
            there = asyncio.ensure_future(self._pipe(link, reader, link.beyond))
            here = asyncio.ensure_future(self._pipe(link, back, writer))
            await asyncio.wait((there, here), return_when=asyncio.FIRST_COMPLETED)
            if link.lost:
                await there
                writer.close()
                await link.over.wait()
            for pipe in (there, here):
                pipe.cancel()
            await asyncio.gather(there, here, return_exceptions=True)
        except (OSError, asyncio.CancelledError):  # it is cancelled when all is over
            _abort(writer)
        finally:
            self._links.discard(link)
            for each in (writer, link.beyond):
                if each is not None:
                    each.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(str(self._target), limit=READ_BYTES)
        return await asyncio.open_connection(*self._target, limit=READ_BYTES)

    async def _pipe(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(READ_BYTES):
                if link.lost:
                    continue
                if self.latency_s:
                    await asyncio.sleep(self.latency_s)
                size = self.slice_bytes
                for _ in range(SLICES_MAX if size else 0):
                    if len(piece) <= size:
                        break
                    await self._flowing.wait()
                    writer.write(piece[:size])
                    piece = piece[size:]
                    await writer.drain()
                    await asyncio.sleep(0)
                await self._flowing.wait()
                writer.write(piece)
                await writer.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    link = writer.get_extra_info("socket")
    if link is not None and link.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
