"""Cerebras Inference: requests are made by its own SDK (cerebras-cloud-sdk) over aiohttp, replies are read as everywhere.

The SDK's aiohttp transport costs about half of httpx's CPU. It gives what it knows best, address, headers, fields and errors;
what it has opened is read by `OpenAIBackend.stream`, with its time-outs, its limits and its lumps, which the SDK's own
reading does not have and which costs less than checking the types of every token (docs/backends.md has the figures). The
client is made on first use, one per process and event loop, without the SDK's blocking warm-up request, without its
retries (they are `call_model`'s) and without proxies, redirects or cookies. `max_completion_tokens` is what the quota
reserves up front, so it is always sent.
"""

import asyncio
import importlib
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

import aiohttp

from ...schemas.backend_settings import CEREBRAS_URL, BackendSettings
from ...schemas.errors import (
    BackendError,
    ConfigurationError,
    MalformedResponse,
    Overloaded,
    Stalled,
    StreamBroken,
    Unreachable,
)
from .errors import Origin, status_error
from .openai import PROBE_TIMEOUT_S, OpenAIBackend

if TYPE_CHECKING:
    from cerebras.cloud.sdk import AsyncCerebras

KEY_VARIABLE = "CEREBRAS_API_KEY or K2THINK_<ROLE>__API_KEY"
MODELS_SHOWN = 50

_opened: ContextVar[list[aiohttp.ClientResponse]] = ContextVar("k2think_cerebras_opened")
"""What the SDK's request under way has opened: the SDK hands out a wrapped response only."""


async def _keep_opened(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    response = await handler(request)
    _opened.get([]).append(response)
    return response


class CerebrasBackend(OpenAIBackend):
    """Completions from Cerebras Inference. See `Backend` for the contract."""

    default_url = CEREBRAS_URL
    middlewares = (_keep_opened,)

    def __init__(self, settings: BackendSettings, *, name: str) -> None:
        """Check the settings and that the SDK is installed. Raises ConfigurationError."""
        try:
            # Here and not in the first call, whose time-out it would eat: importing the SDK takes about a second.
            importlib.import_module("cerebras.cloud.sdk")
            importlib.import_module("httpx_aiohttp")
        except ImportError as exc:
            raise ConfigurationError(f"backend {name!r} needs Cerebras' SDK: pip install 'k2think[cerebras]'") from exc
        if settings.api_key is None or not settings.api_key.get_secret_value().strip():
            raise ConfigurationError(f"backend {name!r} needs a key: set {KEY_VARIABLE}")
        if not settings.model:
            raise ConfigurationError(f"backend {name!r} needs a model name: set K2THINK_<ROLE>__MODEL")
        # The SDK adds /v1 itself; a base_url that carries it, as for every other kind, is meant the same.
        address = (settings.base_url or CEREBRAS_URL).rstrip("/").removesuffix("/v1")
        super().__init__(settings.model_copy(update={"base_url": address}), name=name)
        self._key = settings.api_key.get_secret_value().strip()
        self._max_tokens_field = "max_completion_tokens"
        self._client: AsyncCerebras | None = None

    @property
    def origin(self) -> Origin:
        """Whom this backend's errors are about."""
        return Origin(
            name=self.name,
            address=str(self._url.with_query(None)).rstrip("/"),
            model=self.model,
            key_variable=KEY_VARIABLE,
            secret=self._settings.api_key,
        )

    def served_facts(self, wanted: str, served: dict[str, dict[str, Any]]) -> dict[str, str]:
        """Return what to tell, the account's models included. Raises ModelNotFound when `wanted` is none of them."""
        names = sorted(served)
        more = f" and {len(names) - MODELS_SHOWN} more" if len(names) > MODELS_SHOWN else ""
        return {**super().served_facts(wanted, served), "models": ", ".join(names[:MODELS_SHOWN]) + more}

    async def served_models(self) -> dict[str, dict[str, Any]]:
        """Return the account's models, by id. Raises BackendError."""
        due = asyncio.get_running_loop().time() + PROBE_TIMEOUT_S
        listed = await self._within(due, f"for {PROBE_TIMEOUT_S:g} s", self._sdk().models.list())
        try:
            return {model.id: model.to_dict(mode="json", warnings=False) for model in listed.data if model.id}
        except (AttributeError, TypeError) as exc:
            raise MalformedResponse(self.origin.say("its list of models is not one; is base_url right?")) from exc

    async def aclose(self) -> None:
        """Close connections; running streams end with StreamBroken."""
        await super().aclose()
        if self._client is not None:
            await self._client.close()

    async def _post(
        self, body: dict[str, Any], *, request_id: str, due: float, origin: Origin
    ) -> aiohttp.ClientResponse:
        # Compressed, the end of each token would have to wait for the next.
        headers = {"Accept-Encoding": "identity"}
        if request_id:
            headers["X-Request-Id"] = request_id
        create = cast(Any, self._sdk().chat.completions.with_raw_response.create)
        opened: list[aiohttp.ClientResponse] = []
        mark = _opened.set(opened)
        try:
            await self._within(due, "without a first token", create(**body, extra_headers=headers))
        finally:
            _opened.reset(mark)
        return opened[-1]

    def _sdk(self) -> "AsyncCerebras":
        session = self._open_session()
        if self._client is None:
            import httpx
            from cerebras.cloud.sdk import AsyncCerebras
            from httpx_aiohttp import AiohttpTransport

            address = str(self._url).rstrip("/")
            timeout = httpx.Timeout(None, connect=self._settings.connect_timeout_s)
            self._client = AsyncCerebras(
                api_key=self._key,
                base_url=address,
                timeout=timeout,
                max_retries=0,
                warm_tcp_connection=False,
                http_client=httpx.AsyncClient(
                    base_url=address,
                    timeout=timeout,
                    transport=AiohttpTransport(client=session, trust_env=False),
                    trust_env=False,
                    follow_redirects=False,
                ),
            )
        return self._client

    async def _within(self, due: float, waited: str, work: Awaitable[Any]) -> Any:
        """Await `work` of the SDK until `due` (the loop's time in seconds), foreign errors mapped."""
        try:
            async with asyncio.timeout_at(due):
                return await work
        except BackendError:
            raise
        except TimeoutError as exc:
            raise Stalled(self.origin.say(f"silent {waited}")) from exc
        except Exception as exc:
            if self._closed:
                raise StreamBroken(self.origin.say("was closed in this process")) from exc
            raise self._mapped(exc) from exc

    def _mapped(self, exc: Exception) -> Exception:
        from cerebras.cloud import sdk

        origin = self.origin
        if isinstance(exc, sdk.APIStatusError):
            return status_error(exc.response.status_code, exc.body, headers=exc.response.headers, origin=origin)
        if isinstance(exc, aiohttp.ClientResponseError | sdk.APIResponseValidationError | ValueError):
            return MalformedResponse(origin.say(f"the response does not follow the protocol ({exc})"))
        if isinstance(exc, sdk.APIConnectionError):
            cause = exc.__cause__ or exc
            return Unreachable(origin.say(f"cannot be reached ({str(cause) or type(cause).__name__})"))
        if isinstance(exc, aiohttp.ClientError | OSError):
            return Unreachable(origin.say(f"cannot be reached ({str(exc) or type(exc).__name__})"))
        if isinstance(exc, sdk.APIError):
            return Overloaded(origin.say(exc.message))
        return exc
