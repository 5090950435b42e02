"""The embedded engine without us: openvino-genai's continuous batching in the plainest loop that serves many streams."""

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...schemas.completion import CompletionRequest
from ..backends.openvino_generation import EngineSettings
from ..backends.openvino_pipelines import BATCH_TOKENS_MAX, NGRAM_TOKENS_MAX
from .figures import Run, Sample


@dataclass
class _Call:
    handle: Any
    prompt_tokens: int
    began: float
    first_s: float | None = None
    ids: list[int] = field(default_factory=list[int])
    steps: int = 0


class BareOpenVINO:
    """A pipeline of its own, made as our engine makes its; stepped on a thread, so that the event loop is left alone."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._pipeline: Any = None
        self._stop = threading.Event()

    async def run(self, requests: Sequence[CompletionRequest], streams: int) -> Run:
        """See `Client.run`."""
        try:
            return await asyncio.to_thread(self._run, requests, streams)
        except asyncio.CancelledError:
            self._stop.set()
            raise

    async def aclose(self) -> None:
        """Free the model."""
        self._stop.set()
        self._pipeline = None

    def _load(self) -> Any:
        import openvino_genai as genai

        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = BATCH_TOKENS_MAX
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": self._settings.threads}
        if self._settings.speculative_tokens:
            properties["prompt_lookup"] = True
        folder = str(self._settings.folder)
        tokenizer = genai.Tokenizer(folder, INFERENCE_NUM_THREADS=self._settings.threads)
        return genai.ContinuousBatchingPipeline(folder, tokenizer, scheduler, "CPU", **properties)

    def _run(self, requests: Sequence[CompletionRequest], streams: int) -> Run:
        import openvino_genai as genai

        if self._pipeline is None:
            self._pipeline = self._load()
        pipeline, tokenizer = self._pipeline, self._pipeline.get_tokenizer()
        waiting, running, samples = list(reversed(requests)), list[_Call](), list[Sample]()
        began, cpu = time.monotonic(), time.process_time()
        while (waiting or running) and not self._stop.is_set():
            while waiting and len(running) < streams:
                running.append(self._add(pipeline, tokenizer, waiting.pop(), len(waiting)))
            pipeline.step()
            for call in tuple(running):
                grown = len(call.ids)
                while call.handle.can_read():
                    for output in call.handle.read().values():
                        call.ids += output.generated_ids
                if call.ids and call.first_s is None:
                    call.first_s = time.monotonic() - call.began
                call.steps += 0 < grown < len(call.ids)
                if call.handle.get_status() != genai.GenerationStatus.RUNNING:
                    tokenizer.decode(call.ids)
                    running.remove(call)
                    samples.append(self._sample(call))
        return Run(tuple(samples), (), time.monotonic() - began, time.process_time() - cpu)

    def _add(self, pipeline: Any, tokenizer: Any, request: CompletionRequest, number: int) -> _Call:
        import openvino_genai as genai

        began = time.monotonic()
        base = pipeline.get_config()
        config = genai.GenerationConfig()
        config.eos_token_id = base.eos_token_id
        config.stop_token_ids = base.stop_token_ids
        config.max_new_tokens = request.max_tokens or self._settings.max_tokens
        config.do_sample = request.temperature > 0
        if config.do_sample:
            config.temperature, config.top_p = request.temperature, request.top_p
            config.rng_seed = request.seed or 0
        if self._settings.speculative_tokens:
            config.num_assistant_tokens = self._settings.speculative_tokens
            config.max_ngram_size = NGRAM_TOKENS_MAX
        history = [{"role": message.role, "content": message.content} for message in request.messages]
        text = tokenizer.apply_chat_template(history, True)
        prompt = tokenizer.encode(text, add_special_tokens=False).input_ids
        return _Call(pipeline.add_request(number, prompt, config), int(prompt.shape[1]), began)

    def _sample(self, call: _Call) -> Sample:
        drafted = self._settings.speculative_tokens
        length = (len(call.ids) - 1) / call.steps if drafted and call.steps else None
        return Sample(
            first_token_s=call.first_s,
            duration_s=time.monotonic() - call.began,
            prompt_tokens=call.prompt_tokens,
            tokens=len(call.ids),
            draft_acceptance=None if length is None else (length - 1) / drafted,
            accepted_length=length,
        )
