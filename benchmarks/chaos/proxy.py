"""A TCP proxy that can be told to be slow, to cut everything into slices, to fall silent, and to reset connections."""

import asyncio
import contextlib
import socket
import struct
from pathlib import Path

READ_BYTES = 65_536
SLICES_MAX = 200
"""Slices of one piece at most: the rest of it goes in one."""
_RESET = struct.pack("ii", 1, 0)

Target = Path | tuple[str, int]
"""A Unix socket, or host and port."""


class Proxy:
    """Listens on a free port of loopback. Belongs to one event loop."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
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
        self.reset()

    def heal(self) -> None:
        """Pass everything on as it comes."""
        self.latency_s, self.slice_bytes = 0.0, 0
        self._flowing.set()

    def hang(self) -> None:
        """Keep connections open and take new ones, and pass nothing on: both sides see a peer that says nothing."""
        self._flowing.clear()

    def reset(self) -> None:
        """Reset (RST) all connections, on both sides."""
        for writer in list(self._writers):
            _abort(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        beyond: asyncio.StreamWriter | None = None
        try:
            await self._flowing.wait()
            back, beyond = await self._connect()
            self._writers.add(beyond)
            pipes = [
                asyncio.ensure_future(self._pipe(reader, beyond)),
                asyncio.ensure_future(self._pipe(back, writer)),
            ]
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
        except OSError:
            _abort(writer)
        finally:
            for each in (writer, beyond):
                if each is not None:
                    self._writers.discard(each)
                    each.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(str(self._target), limit=READ_BYTES)
        return await asyncio.open_connection(*self._target, limit=READ_BYTES)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(READ_BYTES):
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
