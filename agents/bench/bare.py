"""Bare clients of servers: what one would write in ten lines, to tell what ours costs on top of it."""

import json
import time
from collections.abc import Sequence
from typing import Any

import aiohttp

from ...schemas.backend_settings import BackendSettings
from ...schemas.completion import CompletionRequest
from ...schemas.errors import Unreachable
from ..backends.cerebras import CerebrasBackend
from ..backends.errors import status_error
from ..backends.openai import OpenAIBackend
from .clients import over_streams
from .figures import Run, Sample


class BareHttp:
    """An aiohttp loop that reads lines and parses each."""

    def __init__(self, backend: OpenAIBackend, settings: BackendSettings) -> None:
        """Take address, model and body from our backend, so that the same is asked of the same."""
        self._backend = backend
        self._url = f"{backend.origin.address}/chat/completions"
        key = settings.api_key.get_secret_value().strip() if settings.api_key else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers)

    async def run(self, requests: Sequence[CompletionRequest], streams: int) -> Run:
        """See `Client.run`."""
        return await over_streams(requests, streams, self._call)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _call(self, request: CompletionRequest) -> Sample:
        began = time.monotonic()
        first_s: float | None = None
        usage: dict[str, int] = {}
        text: list[str] = []
        try:
            async with self._session.post(self._url, json=self._backend.body(request)) as response:
                if response.status != 200:
                    raw = await response.read()
                    raise status_error(response.status, raw, headers=response.headers, origin=self._backend.origin)
                async for line in response.content:
                    if not line.startswith(b"data:") or line.strip() == b"data: [DONE]":
                        continue
                    chunk = json.loads(line[5:])
                    usage = chunk.get("usage") or usage
                    for choice in chunk.get("choices") or ():
                        delta = choice.get("delta") or {}
                        piece = delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content")
                        if piece and first_s is None:
                            first_s = time.monotonic() - began
                        text.append(piece or "")
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise Unreachable(
                self._backend.origin.say(f"the bare client failed ({exc or type(exc).__name__})")
            ) from exc
        return _sample(began, first_s, usage.get("prompt_tokens"), usage.get("completion_tokens"), text)


class BareCerebras:
    """Cerebras' SDK with its aiohttp transport, as its documentation shows it."""

    def __init__(self, backend: CerebrasBackend, settings: BackendSettings) -> None:
        """Take address, model and body from our backend, so that the same is asked of the same."""
        from cerebras.cloud.sdk import AsyncCerebras, DefaultAioHttpClient

        self._backend = backend
        self._sdk = AsyncCerebras(
            api_key=settings.api_key.get_secret_value().strip() if settings.api_key else "",
            base_url=backend.origin.address,
            max_retries=0,
            warm_tcp_connection=False,
            http_client=DefaultAioHttpClient(),
        )

    async def run(self, requests: Sequence[CompletionRequest], streams: int) -> Run:
        """See `Client.run`."""
        return await over_streams(requests, streams, self._call)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    async def _call(self, request: CompletionRequest) -> Sample:
        from cerebras.cloud.sdk import CerebrasError

        began = time.monotonic()
        first_s: float | None = None
        usage: Any = None
        text: list[str] = []
        try:
            body: dict[str, Any] = self._backend.body(request)
            chunks: Any = await self._sdk.chat.completions.create(**body)
            async for chunk in chunks:
                usage = chunk.usage or usage
                for choice in chunk.choices or ():
                    piece = choice.delta.content or choice.delta.reasoning
                    if piece and first_s is None:
                        first_s = time.monotonic() - began
                    text.append(piece or "")
        except CerebrasError as exc:
            raise Unreachable(self._backend.origin.say(f"the bare client failed ({exc})")) from exc
        return _sample(began, first_s, usage and usage.prompt_tokens, usage and usage.completion_tokens, text)


def _sample(
    began: float, first_s: float | None, prompt_tokens: int | None, tokens: int | None, text: list[str]
) -> Sample:
    """Return the figures of a call; where the server counts nothing, pieces stand for tokens, as ours does."""
    pieces = sum(bool(piece) for piece in text)
    counted = pieces if tokens is None else tokens
    return Sample(first_s, time.monotonic() - began, prompt_tokens or 0, counted)
