"""The embedded engine: one thread owns openvino-genai's continuous-batching pipelines and steps them.

Everything that touches a pipeline or its tokenizer happens on that thread; the event loop talks to it through a queue and
hears from it through `call_soon_threadsafe`, once a step. A step that raises leaves its pipeline unusable (it stays in its
scheduling phase), so the engine then ends, with an error for every request in it, and a new one must be made.
"""

import asyncio
import atexit
import json
import queue
import re
import threading
import time
from concurrent.futures import Future
from typing import Any

from ...schemas.completion import Delta, Finish, FinishReason, StreamItem, TokenUsage
from ...schemas.errors import BackendError, BadRequest, ConfigurationError, ContextTooLong, StreamBroken
from .detokenise import Detokeniser
from .lumps import merged
from .openvino_generation import EngineSettings, Generation
from .openvino_pipelines import Pipelines
from .stops import StopScanner

JOIN_TIMEOUT_S = 10.0
DELIVERY_S = 0.01
"""Seconds that deltas may wait to be handed over together: waking the event loop for each costs more than the token."""
LUMP_S = 0.05
"""The same where nobody watches."""


class Engine:
    """A loaded model on its own thread."""

    def __init__(self, settings: EngineSettings, *, refused_schemas: set[str]) -> None:
        """Start the thread; loading goes on there. `ready` tells when it is over.

        `refused_schemas` outlives the engine: schemas that ended one before.
        """
        self.settings = settings
        self._refused_schemas = refused_schemas
        self.ready: Future[None] = Future()
        """Done when the model is loaded; carries ConfigurationError when it cannot be."""
        self._commands: queue.SimpleQueue[Generation | None] = queue.SimpleQueue()
        self._active: list[Generation] = []
        self._outbox: dict[Generation, None] = {}
        """Generations with something unsent, in order."""
        self._failure: str | None = None
        self._lock = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="openvino-engine", daemon=True)
        # A daemon thread inside native code must not outlive the interpreter's own end.
        atexit.register(self.close)
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """Why the engine ended, in words; None = it serves."""
        return self._failure

    @property
    def running(self) -> int:
        """Requests that hold a place in the pipeline."""
        return len(self._active)

    def submit(self, generation: Generation) -> None:
        """Queue a request. Raises StreamBroken when the engine has ended."""
        with self._lock:
            if self._failure is not None:
                raise StreamBroken(self._failure)
            self._commands.put(generation)

    def cancel(self, generation: Generation) -> None:
        """Abort a request; its slot is free before the next step."""
        generation.cancelled = True

    def close(self) -> None:
        """End the thread; running requests get StreamBroken. Blocks until the current step is over. May be called twice."""
        atexit.unregister(self.close)
        self._closing = True
        self._commands.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        failure = f"the embedded engine ({self.settings.model}) was closed"
        try:
            self._load()
        except Exception as exc:
            failure = f"the model folder {self.settings.folder} cannot be loaded: {_one_line(exc)}"
            self._end(failure)
            self.ready.set_exception(ConfigurationError(failure))
            return
        self.ready.set_result(None)
        try:
            while not self._closing:
                self._take_commands()
                self._pipelines.step()
                self._collect()
        except Exception as exc:
            failure = self._broken(exc)
        finally:
            self._end(failure)
            self._release()

    def _load(self) -> None:
        self._pipelines = Pipelines(self.settings)
        self._codec = self._pipelines.codec
        self._delivered_at = 0.0

    def _take_commands(self) -> None:
        arrived: list[Generation] = []
        wait = not self._active and not self._pipelines.busy
        while True:
            try:
                generation = self._commands.get(block=wait)
            except queue.Empty:
                break
            if generation is None:
                break
            wait = False
            if not generation.cancelled:
                arrived.append(generation)
        for generation in [one for one in self._active if one.cancelled]:
            self._drop(generation)
        # Those that came together are a load together.
        self._pipelines.heed(len(self._active) + len(arrived))
        for generation in arrived:
            try:
                self._add(generation)
            except BackendError as exc:
                self._tell(generation, exc)
            except Exception as exc:
                said = f"the embedded engine refuses the request: {_one_line(exc)}"
                self._tell(generation, BadRequest(said))

    def _add(self, generation: Generation) -> None:
        request = generation.request
        generation.schema = json.dumps(request.json_schema) if request.json_schema is not None else ""
        if generation.schema in self._refused_schemas:
            raise BadRequest("the embedded engine refuses the JSON schema: its grammar cannot be built")
        tensor = self._codec.prompt(request.messages)
        generation.prompt_tokens = int(tensor.shape[1])
        room = self.settings.context_tokens - generation.prompt_tokens
        if room < 1:
            raise ContextTooLong(
                f"the prompt has {generation.prompt_tokens:,} tokens; {self.settings.model} takes "
                f"{self.settings.context_tokens:,} with the completion"
            )
        generation.detokeniser = Detokeniser(literal=self._codec.literal)
        generation.stops = StopScanner(request.stop)
        generation.added_at = time.monotonic()
        limit = min(request.max_tokens or self.settings.max_tokens, self.settings.max_tokens, room)
        self._pipelines.add(generation, tensor, limit)
        self._active.append(generation)

    def _collect(self) -> None:
        grown: list[tuple[Generation, str]] = []
        ended: list[Generation] = []
        for generation in self._active:
            text, before = "", generation.completion_tokens
            while generation.handle.can_read():
                for output in generation.handle.read().values():
                    text += self._read(generation, output)
            generation.verifications += 0 < before < generation.completion_tokens
            grown.append((generation, text))
            if not self._pipelines.runs(generation):
                ended.append(generation)
        windows = [window for generation, _ in grown for window in generation.detokeniser.windows()]
        texts = self._codec.decode_many(windows)
        for index, (generation, text) in enumerate(grown):
            text += generation.detokeniser.take(texts[2 * index], texts[2 * index + 1])
            self._pass_on(generation, generation.stops.feed(text))
            if generation in ended:
                self._pass_on(generation, generation.stops.feed(generation.detokeniser.finish(self._codec.decode)))
                self._pass_on(generation, generation.stops.finish())
            if generation.stops.stopped:
                self._finish(generation, FinishReason.stop)
            elif generation in ended:
                self._finish(
                    generation, FinishReason.length if self._pipelines.cut_off(generation) else FinishReason.stop
                )
        if self._outbox and time.monotonic() - self._delivered_at >= min(map(_patience_s, self._outbox)):
            self._deliver()

    def _read(self, generation: Generation, output: Any) -> str:
        ids = [int(token) for token in output.generated_ids]
        if ids and not generation.completion_tokens:
            generation.first_token_at = time.monotonic()
        generation.completion_tokens += len(ids)
        generation.engine_reason = output.finish_reason
        return generation.detokeniser.add(ids, self._codec.decode)

    def _pass_on(self, generation: Generation, text: str) -> None:
        if text:
            self._tell(generation, Delta(text=text))

    def _tell(self, generation: Generation, item: StreamItem | BackendError) -> None:
        generation.unsent.append(item)
        self._outbox[generation] = None

    def _finish(self, generation: Generation, reason: FinishReason) -> None:
        now = time.monotonic()
        first = generation.first_token_at or now
        usage = TokenUsage(prompt=generation.prompt_tokens, completion=generation.completion_tokens)
        end = Finish(
            finish_reason=reason,
            usage=usage,
            model=self.settings.model,
            engine_queue_s=generation.added_at - generation.submitted_at,
            engine_prompt_s=first - generation.added_at,
            engine_completion_s=now - first,
            draft_acceptance=generation.draft_acceptance,
            accepted_length=generation.accepted_length,
        )
        self._tell(generation, end)
        self._drop(generation)

    def _drop(self, generation: Generation) -> None:
        if self._pipelines.runs(generation):
            generation.handle.cancel()
        self._active.remove(generation)

    def _deliver(self) -> None:
        self._delivered_at = time.monotonic()
        by_loop: dict[asyncio.AbstractEventLoop, list[Generation]] = {}
        for generation in self._outbox:
            generation.urgent = False
            by_loop.setdefault(generation.loop, []).append(generation)
        self._outbox.clear()
        for loop, generations in by_loop.items():
            try:
                loop.call_soon_threadsafe(_put, generations)
            except RuntimeError:
                # The loop is closed: nobody listens any more.
                for generation in generations:
                    generation.cancelled = True

    def _broken(self, exc: Exception) -> str:
        """Note what made a step fail. A schema that the grammar compiler rejects fails inside the step: refuse it from now on."""
        said = _one_line(exc)
        if "schema" in str(exc) or "grammar" in str(exc):
            for generation in [one for one in self._active if one.schema and not one.completion_tokens]:
                self._refused_schemas.add(generation.schema)
                self._tell(generation, BadRequest(f"the embedded engine refuses the JSON schema: {said}"))
                self._active.remove(generation)
        return f"the embedded engine ({self.settings.model}) failed: {said}"

    def _end(self, failure: str) -> None:
        with self._lock:
            self._failure = failure
        waiting = list(self._active)
        while True:
            try:
                generation = self._commands.get(block=False)
            except queue.Empty:
                break
            if generation is not None:
                waiting.append(generation)
        for generation in waiting:
            self._tell(generation, StreamBroken(failure))
        self._deliver()

    def _release(self) -> None:
        """Free the model; requests that were running are cancelled first, which the pipeline wants in good order."""
        try:
            for generation in self._active:
                generation.handle.cancel()
            if self._closing:
                self._pipelines.step()
        except RuntimeError:
            pass
        self._active.clear()
        del self._pipelines, self._codec


def _patience_s(generation: Generation) -> float:
    """Return the seconds that what is unsent may wait."""
    # The event loop may have taken it meanwhile.
    last = generation.unsent[-1:]
    if generation.urgent or (last and not isinstance(last[0], Delta)):
        return 0.0
    return DELIVERY_S if generation.watched else LUMP_S


def _put(generations: list[Generation]) -> None:
    """Hand over what is unsent, on the consumers' event loop; the engine's thread adds to it meanwhile."""
    for generation in generations:
        unsent = generation.unsent
        count = len(unsent)
        deltas = [item for item in unsent[:count] if isinstance(item, Delta)]
        for item in (*merged(deltas), *(item for item in unsent[:count] if not isinstance(item, Delta))):
            generation.items.put_nowait(item)
        del unsent[:count]


def _one_line(exc: BaseException) -> str:
    """Return what the engine says, without the time and the source file of its build machine."""
    text = re.sub(r"\[[\d:]+\] |(Exception from |at )?/\S+\.(cc|cpp|hpp|h):\d+:?", "", str(exc))
    return " ".join(text.split())[:300] or type(exc).__name__
