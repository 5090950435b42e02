"""Any OpenAI-compatible server (vLLM, SGLang, llama.cpp, gateways), over aiohttp: a tenth of an SDK's CPU per call.

Timeouts. A connection must open within `connect_timeout_s`; the first token must come within `first_token_timeout_s` of the
request; after it, bytes must keep coming within `idle_timeout_s`. Keep-alive comments (`: …`) prove that the connection
lives, so they satisfy the idle timeout, but nobody lives on comments alone: `first_token_timeout_s` without a token ends
the call too. Redirects, proxies from the environment and cookies are not used: a call goes where the settings say.

`max_tokens` is sent, which every compatible server knows, except to api.openai.com, where it is `max_completion_tokens`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

import aiohttp
from yarl import URL

from ... import __version__
from ...schemas.backend_settings import BackendSettings
from ...schemas.completion import CompletionRequest, Delta, StreamItem
from ...schemas.errors import ConfigurationError, MalformedResponse, ModelNotFound, Stalled, StreamBroken, Unreachable
from .errors import Origin, rate_limits, status_error
from .lumps import merged, unread
from .options import sent_options
from .payloads import ERROR_BYTES_MAX, REPLY_BYTES_MAX, Payloads, read_limited, reason
from .wire import NOT_TOLD, CompletionReader, Drafting, chat_body

OPENAI_URL = "https://api.openai.com/v1"
PROBE_TIMEOUT_S = 10.0
KEEPALIVE_S = 30.0


class OpenAIBackend:
    """Completions from an OpenAI-compatible server. See `Backend` for the contract."""

    default_url = OPENAI_URL
    middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = ()
    """What the session of a kind lets each request pass through."""

    def __init__(self, settings: BackendSettings, *, name: str) -> None:
        """Check the settings; connect to nothing. Raises ConfigurationError."""
        self.name = name
        self.model = settings.model or ""
        self.templates = settings.templates
        self._settings = settings
        self._url = _checked_url(settings.base_url or self.default_url, name=name)
        self._headers = {
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": f"k2think/{__version__}",
            **_authorization(settings, name=name),
        }
        self._options = sent_options(settings)
        self._max_tokens_field = "max_completion_tokens" if self._url.host == "api.openai.com" else "max_tokens"
        self._session: aiohttp.ClientSession | None = None
        self._responses: set[aiohttp.ClientResponse] = set()
        self._closed = False

    @property
    def origin(self) -> Origin:
        """Whom this backend's errors are about."""
        return Origin(
            name=self.name,
            address=str(self._url.with_query(None)),
            model=self.model,
            key_variable=f"K2THINK_<ROLE>__API_KEY (or `api_key` of {self.name!r} in K2THINK_BACKENDS)",
            secret=self._settings.api_key,
        )

    async def stream(
        self, request: CompletionRequest, *, unseen: list[Delta] | None = None
    ) -> AsyncGenerator[StreamItem, None]:
        """Yield deltas, then exactly one `Finish`. See `Backend.stream`."""
        if not self.model:
            self.model = await self._only_model()
        origin = self.origin
        body = self.body(request)
        reader = CompletionReader(request, origin=origin)
        first_token_due = asyncio.get_running_loop().time() + self._settings.first_token_timeout_s
        response = await self._post(body, request_id=request.request_id, due=first_token_due, origin=origin)
        complete = False
        payloads = Payloads(
            response, settings=self._settings, due=first_token_due, origin=origin, watched=unseen is None
        )
        waiting: list[Delta] = []
        self._responses.add(response)
        try:
            await self._accept(response, payloads, origin=origin)
            payload: Any = ...
            while payload is not None:
                payload = await payloads.next()
                delta = None if payload is None else reader.read(payload)
                if delta is not None:
                    payloads.token_came()
                    waiting.append(delta)
                if unseen is None or payload is None or not payloads.at_hand:
                    waiting = merged(waiting)
                    while waiting:
                        yield waiting.pop(0)
            finish = reader.finish(
                done=payloads.done, rate_limits=rate_limits(response.headers), drafting=self.drafting()
            )
            complete = await payloads.drained()
            yield finish
        finally:
            self._responses.discard(response)
            if unseen is not None and not complete:
                unseen += merged([*waiting, *unread(payloads, reader)])
            if complete:
                response.release()
            else:
                response.close()

    def body(self, request: CompletionRequest) -> dict[str, Any]:
        """Return the JSON body that a request is sent as; the model's name must be known."""
        return chat_body(
            request,
            model=self.model,
            max_tokens=self._settings.max_tokens,
            max_tokens_field=self._max_tokens_field,
            options=self._options,
        )

    def drafting(self) -> Drafting:
        """Return what speculation has lately brought at this server, where the reply does not tell of its own call."""
        return NOT_TOLD

    async def probe(self) -> dict[str, str]:
        """Ask the server for its models and check that ours is among them. Raises BackendError."""
        served = await self.served_models()
        return self.served_facts(self.model or await self._only_model(), served)

    def served_facts(self, wanted: str, served: dict[str, dict[str, Any]]) -> dict[str, str]:
        """Return what to tell of a server with these models. Raises ModelNotFound when `wanted` is none of them."""
        if wanted not in served:
            raise ModelNotFound(
                self.origin.say(f"does not serve the model {wanted!r}; it serves {_listed(served)}"), status=404
            )
        facts = {"address": self.origin.address, "model": wanted}
        context = served[wanted].get("max_model_len")
        if isinstance(context, int):
            facts["context"] = f"{context:,} tokens"
        return facts

    async def served_models(self) -> dict[str, dict[str, Any]]:
        """Return what `/models` lists, by id. Raises BackendError."""
        text = await self.get_text(self._url / "models")
        try:
            rows = json.loads(text)["data"]
            return {str(row["id"]): cast(dict[str, Any], row) for row in rows}
        except (ValueError, KeyError, TypeError) as exc:
            raise MalformedResponse(
                self.origin.say("`/models` is not the list that an OpenAI-compatible server gives")
            ) from exc

    async def get_text(
        self, url: URL, *, body: dict[str, Any] | None = None, timeout_s: float = PROBE_TIMEOUT_S
    ) -> str:
        """Return what this server answers to a GET, or to a POST of `body` as JSON. Raises BackendError."""
        method, data = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._open_session().request(
                    method, url, data=data, headers=self._headers, allow_redirects=False
                ) as response,
            ):
                raw = await read_limited(response, REPLY_BYTES_MAX, origin=self.origin)
                if response.status != 200:
                    raise status_error(response.status, raw, headers=response.headers, origin=self.origin)
                return raw.decode("utf-8", errors="replace")
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise Unreachable(self.origin.say(f"cannot be reached ({reason(exc)})")) from exc

    async def aclose(self) -> None:
        """Close connections; running streams end with StreamBroken."""
        self._closed = True
        # Closing the session alone would leave readers waiting.
        for response in tuple(self._responses):
            response.close()
        if self._session is not None:
            await self._session.close()

    async def _only_model(self) -> str:
        served = await self.served_models()
        if len(served) != 1:
            raise ConfigurationError(
                f"backend {self.name!r} needs a model name (K2THINK_<ROLE>__MODEL): the server has {_listed(served)}"
            )
        return next(iter(served))

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise StreamBroken(self.origin.say("was closed in this process"))
        if self._session is None:
            timeout = self._settings.connect_timeout_s
            self._session = aiohttp.ClientSession(
                # No limit here: how many streams run at once is the worker's to bound, and a second queue would hide it.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=timeout, sock_connect=timeout),
                middlewares=self.middlewares,
                trust_env=False,
            )
        return self._session

    async def _post(
        self, body: dict[str, Any], *, request_id: str, due: float, origin: Origin
    ) -> aiohttp.ClientResponse:
        headers = {**self._headers, "X-Request-Id": request_id} if request_id else self._headers
        session = self._open_session()
        try:
            async with asyncio.timeout_at(due):
                response = await session.post(
                    self._url / "chat" / "completions",
                    data=json.dumps(body).encode(),
                    headers=headers,
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, OSError, RuntimeError) as exc:
            raise self._not_answered(exc, origin) from exc
        return response

    def _not_answered(self, exc: Exception, origin: Origin) -> Exception:
        """Return the error for a request that got no response."""
        if self._closed:
            return StreamBroken(origin.say("was closed in this process"))
        if isinstance(exc, aiohttp.ClientResponseError):
            return MalformedResponse(origin.say(f"does not speak HTTP ({reason(exc)})"))
        if isinstance(exc, TimeoutError) and not isinstance(exc, aiohttp.ClientError):
            return Stalled(origin.say(f"no answer within {self._settings.first_token_timeout_s:g} s: no first token"))
        if isinstance(exc, RuntimeError):
            return exc
        return Unreachable(origin.say(f"cannot be reached ({reason(exc)})"))

    async def _accept(self, response: aiohttp.ClientResponse, payloads: Payloads, *, origin: Origin) -> None:
        """Refuse a response that is no completion."""
        kind = response.content_type
        if response.status != 200:
            raw = await payloads.whole(ERROR_BYTES_MAX, cut=True)
            raise status_error(response.status, raw, headers=response.headers, origin=origin)
        if kind == "application/json":
            raw = await payloads.whole(REPLY_BYTES_MAX)
            payloads.give(raw)
        elif kind != "text/event-stream":
            hint = (
                "an HTML page: is base_url right (most end in /v1)?"
                if kind == "text/html"
                else f"content type {kind!r}"
            )
            raise MalformedResponse(origin.say(f"answered with {hint}"))


def _checked_url(text: str, *, name: str) -> URL:
    try:
        url = URL(text.rstrip("/"))
    except ValueError as exc:
        raise ConfigurationError(f"backend {name!r}: base_url is no URL") from exc
    if not url.host:
        raise ConfigurationError(f"backend {name!r}: base_url has no host")
    if url.user is not None or url.password is not None:
        raise ConfigurationError(f"backend {name!r}: base_url must not carry a user or password; use api_key")
    return url


def _authorization(settings: BackendSettings, *, name: str) -> dict[str, str]:
    key = settings.api_key.get_secret_value().strip() if settings.api_key else ""
    if not key:
        return {}
    if not key.isascii() or not key.isprintable():
        raise ConfigurationError(f"backend {name!r}: api_key has characters that no HTTP header can carry")
    return {"Authorization": f"Bearer {key}"}


def _listed(served: dict[str, dict[str, Any]]) -> str:
    names = sorted(served)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") if names else "no model"
