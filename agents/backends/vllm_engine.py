"""A vLLM engine that belongs to this process: no server, no HTTP; one process per group of GPUs.

vLLM's `AsyncLLM` keeps its engine in child processes of ours and talks to them by sockets. It is loaded on a thread, which
takes minutes, while the event loop goes on. Cancelling or closing a stream aborts its request in the engine. An engine that
dies takes its running streams with it (StreamBroken) and is not made anew in this process: `serve` returns, the worker hands
back its steps and ends, and whoever keeps workers alive starts another. Calls that come in between wait, so that their steps
are handed back instead of failed.

Run with vLLM 0.32. vLLM and torch are imported only here, when the engine is loaded.
"""

# pyright: reportMissingImports=false
# (vLLM is no requirement of ours: who wants its engine installs it)

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import itertools
import os
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import Any

from ...schemas.backend_settings import BackendSettings
from ...schemas.completion import CompletionRequest, Delta, Finish, FinishReason, StreamItem, TokenUsage
from ...schemas.errors import BadRequest, ConfigurationError, ContextTooLong, Overloaded, Stalled, StreamBroken
from ...schemas.speculation import Speculation
from .openvino_folder import own_templates
from .vllm import described, draft_counters, sampling_facts
from .vllm_options import (
    CALL_ACCEPTANCE_SINCE,
    Version,
    model_place,
    own_tokenizer,
    read_version,
    speculative_config,
)
from .vllm_sampling import ASKED, CALLS, PROMPT, TOKENS_EACH, Place
from .wire import NOT_TOLD, Drafting, drafting_of, encodable

LOOK_S = 0.5
"""Seconds between two looks whether the engine lives."""
REFRESH_S = 1.0
"""Seconds that the means of speculation are used before they are read again."""
_FINISH = {"length": FinishReason.length, "abort": FinishReason.cancelled}


class VllmEngineBackend:
    """Completions from a vLLM engine of this process. See `Backend` for the contract."""

    def __init__(self, settings: BackendSettings, *, name: str) -> None:
        """Check the settings, the package and the model folder; load nothing. Raises ConfigurationError."""
        if importlib.util.find_spec("vllm") is None:
            raise ConfigurationError(
                f"backend {name!r} needs vLLM in the worker's environment: pip install vllm, or use a server (backend vllm)"
            )
        if settings.model is None:
            raise ConfigurationError(f"backend {name!r} needs a model: set K2THINK_<ROLE>__MODEL to a folder or a name")
        self.name = name
        self._place = model_place(settings.model)
        self.model = Path(self._place).name
        self.templates = settings.templates or own_templates(Path(self._place))
        self._settings = settings
        self._arguments = engine_arguments(
            settings, self._place, version=read_version(importlib.metadata.version("vllm"))
        )
        self._loading: Future[Any] | None = None
        self._engine: Any = None
        self._closed = asyncio.Event()
        self._waits: set[asyncio.Timeout] = set()
        """The waiting of each running stream; ended by `aclose`."""
        self._numbers = itertools.count()
        # A tokenizer is for one thread at a time.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="vllm-tokenizer")
        self._counters = draft_counters("")
        self._drafting = NOT_TOLD
        self._read_at = 0.0

    @property
    def running(self) -> int:
        """Requests inside the engine."""
        return 0 if self._engine is None else self._engine.get_num_unfinished_requests()

    async def serve(self) -> str:
        """Load the engine; return, when it has died by itself, why. Raises ConfigurationError. See `OwnsEngine`."""
        try:
            engine = await self._loaded()
        except StreamBroken as exc:
            return str(exc)
        while not engine.errored:  # noqa: ASYNC110  vLLM has no event for it
            await asyncio.sleep(LOOK_S)
        return self._say("the engine died; its own messages are in this process's output")

    async def stream(
        self, request: CompletionRequest, *, unseen: list[Delta] | None = None
    ) -> AsyncGenerator[StreamItem, None]:
        """Yield deltas, then exactly one `Finish`. See `Backend.stream`."""
        engine = await self._living()
        prompt = await self._prompt(engine, request)
        room = engine.model_config.max_model_len - len(prompt)
        if room < 1:
            raise ContextTooLong(
                self._say(f"the prompt has {len(prompt):,} tokens, the context {engine.model_config.max_model_len:,}")
            )
        limit = min(request.max_tokens or self._settings.max_tokens, room)
        outputs = self._generate(engine, prompt, self._sampling(request, limit), request.request_id)
        seconds, waited = self._settings.first_token_timeout_s, "without a first token"
        tokens = silent = 0
        try:
            while True:
                output = await self._next(outputs, seconds, waited)
                (completion,) = output.outputs
                tokens += len(completion.token_ids)
                silent += len(completion.token_ids)
                if completion.text:
                    yield Delta(text=completion.text, pieces=max(1, silent))
                    silent = 0
                seconds, waited = self._settings.idle_timeout_s, "between two tokens"
                if output.finished:
                    yield self._finish(output, completion, prompt_tokens=len(prompt), tokens=tokens)
                    return
        finally:
            await outputs.aclose()

    async def probe(self) -> dict[str, str]:
        """Tell what is loaded, or what would be: loading takes minutes and the GPU's memory. Raises BackendError."""
        facts = {"model": self.model, "engine": f"vLLM {importlib.metadata.version('vllm')}"}
        if self._engine is None:
            return {**facts, "speculation": self._settings.speculative or "off", "loaded": "by the worker, not here"}
        engine = await self._loaded()
        facts["context"] = f"{engine.model_config.max_model_len:,} tokens"
        counters = draft_counters(_exposition())
        facts["speculation"] = described(counters)
        return facts if counters is None else facts | sampling_facts(await self._sampled(engine))

    async def aclose(self) -> None:
        """End the engine; running streams end with StreamBroken."""
        self._closed.set()
        now = asyncio.get_running_loop().time()
        for wait in tuple(self._waits):
            wait.reschedule(now)
        engine, self._engine, self._loading = self._engine, None, None
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)
        self._tokenizing.shutdown(wait=False)

    def drafting(self) -> Drafting:
        """Return the recent means, where a call ended without figures of its own (at a stop string)."""
        now = asyncio.get_running_loop().time()
        if self._settings.speculative is not None and now - self._read_at >= REFRESH_S:
            self._read_at, before = now, self._counters
            self._counters = draft_counters(_exposition())
            if self._counters is not None and (lately := self._counters.since(before)).drafted > 0:
                self._drafting = lately.drafting
        return self._drafting

    async def _loaded(self) -> Any:
        """Return the engine, loaded once. Raises StreamBroken when it did not come up, ConfigurationError for wrong options."""
        if self._engine is None and not self._closed.is_set():
            if self._loading is None:
                self._loading = Future()
                # A daemon: a process that is told to stop while it loads must not wait for minutes.
                Thread(target=self._load_into, args=(self._loading,), name="vllm-load", daemon=True).start()
            loaded = asyncio.wrap_future(self._loading)
            closed = asyncio.create_task(self._closed.wait())
            try:
                # The loading is not cancelled with a caller: others wait for it.
                await asyncio.wait((loaded, closed), return_when=asyncio.FIRST_COMPLETED)
            finally:
                closed.cancel()
            if not self._closed.is_set():
                self._engine = loaded.result()
        if self._closed.is_set():
            raise StreamBroken(self._say("was closed"))
        return self._engine

    def _load_into(self, loading: "Future[Any]") -> None:
        try:
            engine = self._load()
            if self._closed.is_set():
                engine.shutdown()
            loading.set_result(engine)
        except Exception as exc:
            loading.set_exception(exc)

    async def _living(self) -> Any:
        """Return the engine; of a dead one, wait for the end of this process, which hands the step back. Raises BackendError."""
        with contextlib.suppress(StreamBroken):
            engine = await self._loaded()
            if not engine.errored:
                return engine
        limit_s = self._settings.first_token_timeout_s
        try:
            await asyncio.wait_for(self._closed.wait(), limit_s)
        except TimeoutError as exc:
            raise Stalled(self._say(f"the engine is dead, and for {limit_s:g} s nobody ended this process")) from exc
        raise StreamBroken(self._say("was closed"))

    def _load(self) -> Any:
        # As vLLM's own program does it: what is forked from a process with threads may hang.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            arguments = AsyncEngineArgs(**self._arguments)
            config = arguments.create_engine_config()
        except (TypeError, ValueError, OSError, NotImplementedError) as exc:
            raise ConfigurationError(self._say(f"vLLM refuses its options: {_one_line(exc)}")) from exc
        try:
            return AsyncLLM.from_vllm_config(config)
        except (RuntimeError, ValueError, OSError) as exc:
            raise StreamBroken(self._say(f"the engine did not start: {_one_line(exc)}")) from exc

    async def _prompt(self, engine: Any, request: CompletionRequest) -> list[int]:
        """Return the token ids of the conversation under the model's chat template."""
        turns = [{"role": turn.role, "content": encodable(turn.content)} for turn in request.messages]

        def tokenised() -> list[int]:
            tokenizer = engine.get_tokenizer()
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            return list(tokenizer.encode(text, add_special_tokens=False))

        try:
            return await asyncio.get_running_loop().run_in_executor(self._tokenizing, tokenised)
        except Exception as exc:  # a template may raise anything
            raise BadRequest(self._say(f"the chat template refuses the conversation: {_one_line(exc)}")) from exc

    def _sampling(self, request: CompletionRequest, max_tokens: int) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        schema = request.json_schema
        return SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=max_tokens,
            seed=request.seed,
            stop=[stop for stop in request.stop if stop],
            structured_outputs=None if schema is None else StructuredOutputsParams(json=schema),
            output_kind=RequestOutputKind.DELTA,
        )

    def _generate(self, engine: Any, prompt: list[int], sampling: Any, request_id: str) -> AsyncGenerator[Any, None]:
        from vllm.inputs import TokensPrompt

        # An id must be unique inside the engine, and a call may be repeated under the same one.
        name = f"{request_id or self.name}-{next(self._numbers)}"
        return engine.generate(TokensPrompt(prompt_token_ids=prompt), sampling, name)

    async def _next(self, outputs: AsyncGenerator[Any, None], seconds: float, waited: str) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            async with asyncio.timeout(seconds) as wait:
                self._waits.add(wait)
                try:
                    return await anext(outputs)
                finally:
                    self._waits.discard(wait)
        except TimeoutError as exc:
            if self._closed.is_set():
                raise StreamBroken(self._say("was closed")) from exc
            raise Stalled(self._say(f"silent for {seconds:g} s {waited}")) from exc
        except (EngineDeadError, EngineGenerateError, StopAsyncIteration) as exc:
            raise StreamBroken(self._say(f"ended the stream ({_one_line(exc)})")) from exc
        except Exception as exc:  # vLLM's own tree, and ValueError where a version has none
            if getattr(exc, "http_status", 0) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise Overloaded(self._say(f"cannot serve now: {_one_line(exc)}")) from exc
            raise BadRequest(self._say(f"refuses the request: {_one_line(exc)}")) from exc

    def _finish(self, output: Any, completion: Any, *, prompt_tokens: int, tokens: int) -> Finish:
        times = output.metrics
        figures = completion.spec_decode_metrics
        drafting = self.drafting() if figures is None else drafting_of(figures.to_dict())
        return Finish(
            finish_reason=_FINISH.get(completion.finish_reason, FinishReason.stop),
            usage=TokenUsage(prompt=prompt_tokens, completion=tokens),
            model=self.model,
            engine_queue_s=_between(times, "queued_ts", "scheduled_ts"),
            engine_prompt_s=_between(times, "scheduled_ts", "first_token_ts"),
            engine_completion_s=_between(times, "first_token_ts", "last_token_ts"),
            cached_prompt_tokens=output.num_cached_tokens,
            draft_acceptance=drafting.acceptance,
            accepted_length=drafting.accepted_length,
        )

    async def _sampled(self, engine: Any) -> list[Place]:
        """Return a few sampled tokens with their log-probabilities. Raises BackendError."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        prompt = await self._prompt(
            engine, CompletionRequest.model_validate({"messages": [{"role": "user", "content": PROMPT}]})
        )
        sampling = SamplingParams(
            n=CALLS, max_tokens=TOKENS_EACH, temperature=1.0, logprobs=ASKED, output_kind=RequestOutputKind.FINAL_ONLY
        )
        outputs = self._generate(engine, prompt, sampling, "sampling")
        try:
            output = await self._next(outputs, self._settings.first_token_timeout_s, "without a completion")
        finally:
            await outputs.aclose()
        places: list[Place] = []
        for completion in output.outputs:
            for token, candidates in zip(completion.token_ids, completion.logprobs, strict=True):
                places.append((candidates[token].logprob, [candidate.logprob for candidate in candidates.values()]))
        return places

    def _say(self, text: str) -> str:
        return f"backend {self.name!r} (vLLM engine, {self.model}): {text}"


def engine_arguments(settings: BackendSettings, place: str, *, version: Version) -> dict[str, Any]:
    """Return the arguments of vLLM's AsyncEngineArgs. Raises ConfigurationError."""
    arguments: dict[str, Any] = {
        "model": place,
        "tensor_parallel_size": settings.tensor_parallel,
        "enable_prefix_caching": True,
    }
    if (tokenizer := own_tokenizer(place)) is not None:
        arguments["tokenizer"] = tokenizer
    if settings.context_tokens is not None:
        arguments["max_model_len"] = settings.context_tokens
    if settings.speculative is not None:
        speculation = Speculation.read(settings.speculative)
        tokens = settings.speculative_tokens
        arguments["speculative_config"] = speculative_config(speculation, tokens=tokens, version=version)
        if version >= CALL_ACCEPTANCE_SINCE:
            arguments["per_request_spec_decode_metrics"] = "summary"
    return {**arguments, **settings.engine_options}


def _exposition() -> str:
    """Return this process's Prometheus metrics, in which vLLM keeps its counters."""
    from prometheus_client import generate_latest

    return generate_latest().decode()


def _between(times: Any, start: str, end: str) -> float | None:
    """Return the seconds between two of vLLM's timestamps; None = one was not taken."""
    first, last = getattr(times, start, 0.0), getattr(times, end, 0.0)
    return last - first if first > 0 and last > 0 else None


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:300] or type(exc).__name__
