"""The pipelines of one embedded engine: a plain one, and one with prompt lookup for the times of few streams.

A pipeline with prompt lookup drafts for all of its requests, always the same number of tokens (openvino-genai 2026.4 refuses
0, and fills up what the lookup does not find), so that each step computes that many more tokens. With few streams this is
arithmetic that the processor had to spare; with many it is not. So there are two pipelines over one model folder, and a
request goes into the one that suits the load when it comes; it stays there, as its random numbers do. While both have
requests they are stepped in turn, which costs two passes over the weights: the way back to speculation therefore waits until
half of the streams are gone.
"""

import time
from typing import Any

from .openvino_codec import Codec
from .openvino_generation import EngineSettings, Generation

BATCH_TOKENS_MAX = 512
"""Tokens in one step, prompts included: longer prompts are taken in pieces so that running streams go on."""
NGRAM_TOKENS_MAX = 3
"""Longest match that prompt lookup looks for."""


class Pipelines:
    """A loaded model. Made and used on the engine's thread only."""

    def __init__(self, settings: EngineSettings) -> None:
        """Load the model. Raises whatever openvino-genai raises, and ValueError without a chat template."""
        import openvino_genai as genai

        self._genai = genai
        self._settings = settings
        folder = str(settings.folder)
        tokenizer = genai.Tokenizer(folder, INFERENCE_NUM_THREADS=settings.threads)
        self.codec = Codec(tokenizer)
        always = settings.speculative_tokens > 0 and settings.speculative_streams_max == 0
        self._plain: Any = None if always else self._made(folder, lookup=False)
        self._lookup: Any = self._made(folder, lookup=True) if settings.speculative_tokens else None
        self._speculating = self._lookup is not None
        self._base = (self._plain or self._lookup).get_config()
        self._next_id = 0

    @property
    def busy(self) -> bool:
        """Whether a step would have anything to do."""
        return any(pipeline.has_non_finished_requests() for pipeline in self._all())

    def heed(self, streams: int) -> None:
        """Decide by the number of streams whether those added from now on are speculated."""
        most = self._settings.speculative_streams_max
        if self._plain is None or self._lookup is None:
            return
        if streams > most:
            self._speculating = False
        elif streams <= max(1, most // 2):
            self._speculating = True

    def add(self, generation: Generation, prompt: Any, max_tokens: int) -> None:
        """Add a request; `prompt` is the tensor of its token ids. Raises whatever openvino-genai raises."""
        pipeline = self._lookup if self._speculating else self._plain
        generation.drafted = self._settings.speculative_tokens if self._speculating else 0
        generation.handle = pipeline.add_request(self._next_id, prompt, self._config(generation, max_tokens))
        self._next_id += 1

    def step(self) -> None:
        """Let every request grow. What raises leaves its pipeline unusable."""
        for pipeline in self._all():
            if pipeline.has_non_finished_requests():
                pipeline.step()

    def runs(self, generation: Generation) -> bool:
        """Whether the pipeline still works on a request."""
        return generation.handle.get_status() == self._genai.GenerationStatus.RUNNING

    def cut_off(self, generation: Generation) -> bool:
        """Whether a request ended at its limit of tokens."""
        return generation.engine_reason == self._genai.GenerationFinishReason.LENGTH

    def _all(self) -> list[Any]:
        return [pipeline for pipeline in (self._plain, self._lookup) if pipeline is not None]

    def _made(self, folder: str, *, lookup: bool) -> Any:
        scheduler = self._genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = BATCH_TOKENS_MAX
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": self._settings.threads}
        if self._settings.exact:
            # In bf16 a step of several tokens rounds otherwise than one of a single token.
            properties["INFERENCE_PRECISION_HINT"] = "f32"
        if lookup:
            properties["prompt_lookup"] = True
        return self._genai.ContinuousBatchingPipeline(folder, self.codec.tokenizer, scheduler, "CPU", **properties)

    def _config(self, generation: Generation, max_tokens: int) -> Any:
        request = generation.request
        config = self._genai.GenerationConfig()
        config.eos_token_id = self._base.eos_token_id
        config.stop_token_ids = self._base.stop_token_ids
        config.max_new_tokens = max_tokens
        config.do_sample = request.temperature > 0
        if config.do_sample:
            config.temperature = request.temperature
            config.top_p = request.top_p
            config.rng_seed = (time.monotonic_ns() if request.seed is None else request.seed) % 2**31
        if generation.schema:
            structure = self._genai.StructuredOutputConfig()
            structure.json_schema = generation.schema
            config.structured_output_config = structure
        if generation.drafted:
            config.num_assistant_tokens = generation.drafted
            config.max_ngram_size = NGRAM_TOKENS_MAX
        config.validate()
        return config
