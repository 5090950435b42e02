"""Cerebras Inference, through its own SDK (cerebras-cloud-sdk).

The client is made on first use, one per process and event loop, without the SDK's blocking warm-up request, without its
retries (they are `call_model`'s) and without proxies or redirects. `max_completion_tokens` is what the quota reserves up
front, so it is always sent. Keep-alive comments are swallowed by the SDK: only chunks satisfy the idle timeout here.
"""

import asyncio
import importlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any, cast

from ...schemas.completion import CompletionRequest, Delta, StreamItem
from ...schemas.errors import (
    BackendError,
    ConfigurationError,
    MalformedResponse,
    ModelNotFound,
    Overloaded,
    Stalled,
    StreamBroken,
    Unreachable,
)
from ...schemas.settings import CEREBRAS_URL, BackendSettings
from .errors import Origin, rate_limits, status_error, stream_error
from .wire import CompletionReader, chat_body

if TYPE_CHECKING:
    from cerebras.cloud.sdk import AsyncCerebras

CONNECTIONS_MAX = 10_000
KEEPALIVE_CONNECTIONS_MAX = 100
KEY_VARIABLE = "CEREBRAS_API_KEY or K2THINK_<ROLE>__API_KEY"


class CerebrasBackend:
    """Completions from Cerebras Inference. See `Backend` for the contract."""

    def __init__(self, settings: BackendSettings, *, name: str) -> None:
        """Check the settings and that the SDK is installed. Raises ConfigurationError."""
        try:
            # Here and not in the first call, whose time-out it would eat: importing the SDK takes about a second.
            importlib.import_module("cerebras.cloud.sdk")
        except ImportError as exc:
            raise ConfigurationError(f"backend {name!r} needs Cerebras' SDK: pip install 'k2think[cerebras]'") from exc
        if settings.api_key is None or not settings.api_key.get_secret_value().strip():
            raise ConfigurationError(f"backend {name!r} needs a key: set {KEY_VARIABLE}")
        key = settings.api_key.get_secret_value().strip()
        if not key.isascii() or not key.isprintable():
            raise ConfigurationError(f"backend {name!r}: api_key has characters that no HTTP header can carry")
        if not settings.model:
            raise ConfigurationError(f"backend {name!r} needs a model name: set K2THINK_<ROLE>__MODEL")
        self.name = name
        self.model = settings.model
        self.templates = settings.templates
        self._settings = settings
        self._key = key
        # The SDK adds /v1 itself; a base_url that carries it, as for every other kind, is meant the same.
        self._base_url = (settings.base_url or CEREBRAS_URL).rstrip("/").removesuffix("/v1")
        self._client: AsyncCerebras | None = None
        self._closed = False

    @property
    def origin(self) -> Origin:
        """Whom this backend's errors are about."""
        return Origin(
            name=self.name,
            address=self._base_url.partition("?")[0],
            model=self.model,
            key_variable=KEY_VARIABLE,
            secret=self._settings.api_key,
        )

    async def stream(
        self, request: CompletionRequest, *, unseen: list[Delta] | None = None
    ) -> AsyncGenerator[StreamItem, None]:
        """Yield deltas, then exactly one `Finish`. See `Backend.stream`."""
        body = chat_body(
            request,
            model=self.model,
            max_tokens=self._settings.max_tokens,
            max_tokens_field="max_completion_tokens",
        )
        headers = {"X-Request-Id": request.request_id} if request.request_id else {}
        reader = CompletionReader(request, origin=self.origin)
        loop = asyncio.get_running_loop()
        due, waited = loop.time() + self._settings.first_token_timeout_s, "without a first token"
        response = await self._within(due, waited, self._create(body, headers))
        try:
            payloads = await self._within(due, waited, self._payloads(response))
            while True:
                payload = await self._within(due, waited, anext(payloads, None))
                if payload is None:
                    break
                delta = reader.read(payload)
                if delta is not None:
                    waited = "between two pieces of the stream"
                    yield delta
                if waited != "without a first token":
                    due = loop.time() + self._settings.idle_timeout_s
            # The SDK hides `[DONE]`: a finish reason is what tells that the completion is complete.
            yield reader.finish(done=False, rate_limits=rate_limits(response.headers))
        finally:
            await response.http_response.aclose()

    async def probe(self) -> dict[str, str]:
        """Ask for the list of models and check that ours is on it. Raises BackendError."""
        listed = await self._within(
            asyncio.get_running_loop().time() + self._settings.connect_timeout_s * 2, "", self._open().models.list()
        )
        served = sorted(model.id for model in listed.data if model.id)
        if self.model not in served:
            names = ", ".join(served[:10]) or "no model"
            raise ModelNotFound(
                self.origin.say(f"does not serve the model {self.model!r}; it serves {names}"), status=404
            )
        return {"address": self.origin.address, "model": self.model}

    async def aclose(self) -> None:
        """Close connections; running streams end with StreamBroken."""
        self._closed = True
        if self._client is not None:
            await self._client.close()

    def _open(self) -> "AsyncCerebras":
        if self._closed:
            raise StreamBroken(self.origin.say("was closed in this process"))
        if self._client is None:
            import httpx
            from cerebras.cloud.sdk import AsyncCerebras

            timeout = httpx.Timeout(None, connect=self._settings.connect_timeout_s)
            limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=KEEPALIVE_CONNECTIONS_MAX)
            self._client = AsyncCerebras(
                api_key=self._key,
                base_url=self._base_url,
                timeout=timeout,
                max_retries=0,
                warm_tcp_connection=False,
                http_client=httpx.AsyncClient(
                    base_url=self._base_url, timeout=timeout, limits=limits, trust_env=False, follow_redirects=False
                ),
            )
        return self._client

    async def _create(self, body: dict[str, Any], headers: dict[str, str]) -> Any:
        create = cast(Any, self._open().chat.completions.with_raw_response.create)
        return await create(**body, extra_headers=headers)

    async def _payloads(self, response: Any) -> AsyncIterator[Any]:
        kind = str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()
        if kind == "application/json":
            return _once(json.loads(await response.http_response.aread()))
        if kind != "text/event-stream":
            hint = "an HTML page: is base_url right?" if kind == "text/html" else f"content type {kind!r}"
            raise MalformedResponse(self.origin.say(f"answered with {hint}"))
        return _plain(await response.parse())

    async def _within(self, due: float, waited: str, work: Any) -> Any:
        """Await `work` until `due` (the loop's time in seconds), foreign errors mapped."""
        try:
            async with asyncio.timeout_at(due):
                return await work
        except BackendError:
            raise
        except TimeoutError as exc:
            raise Stalled(self.origin.say(f"silent {waited} for too long")) from exc
        except Exception as exc:
            if self._closed:
                raise StreamBroken(self.origin.say("was closed in this process")) from exc
            raise self._mapped(exc) from exc

    def _mapped(self, exc: Exception) -> Exception:
        import httpx
        from cerebras.cloud import sdk

        origin = self.origin
        if isinstance(exc, sdk.APIStatusError):
            if exc.response.status_code == 200:
                return stream_error(exc.body, origin=origin)
            return status_error(exc.status_code, exc.body, headers=exc.response.headers, origin=origin)
        if isinstance(exc, sdk.APIResponseValidationError | ValueError | UnicodeError | AttributeError):
            return MalformedResponse(origin.say(f"the response does not follow the protocol ({exc})"))
        if isinstance(exc, sdk.APITimeoutError | sdk.APIConnectionError):
            cause = exc.__cause__ or exc
            return Unreachable(origin.say(f"cannot be reached ({str(cause) or type(cause).__name__})"))
        if isinstance(exc, httpx.HTTPError | httpx.StreamError | OSError):
            return StreamBroken(origin.say(f"the connection broke ({str(exc) or type(exc).__name__})"))
        if isinstance(exc, sdk.APIError):
            return Overloaded(origin.say(exc.message))
        return exc


async def _once(payload: Any) -> AsyncGenerator[Any, None]:
    if isinstance(payload, dict) and not cast(dict[str, Any], payload).get("choices") and "error" not in payload:
        raise ValueError("the reply has no choices")
    yield payload


async def _plain(chunks: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """Yield the SDK's chunk objects as the JSON that they were."""
    async for chunk in chunks:
        yield chunk.to_dict(mode="python", warnings=False) if hasattr(chunk, "to_dict") else chunk
