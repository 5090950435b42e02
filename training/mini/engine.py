"""A model folder behind OpenVINO GenAI, for evaluation: chat messages in, reply texts out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

CACHE_GIB = 1
"""Key-value cache of the engine."""
BATCH_PROMPTS = 64
"""Prompts handed over at once."""
MAX_NEW_TOKENS = 320


class FolderEngine:
    """One loaded model folder. Prompts go through the folder's own chat template and tokenizer, as any client's do."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        import openvino_genai

        self._genai: Any = openvino_genai
        scheduler: Any = self._genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GIB
        scheduler.max_num_seqs = BATCH_PROMPTS
        properties = {"INFERENCE_NUM_THREADS": threads}
        self._pipeline: Any = self._genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
        self._tokenizer: Any = self._pipeline.get_tokenizer()

    def token_ids(self, text: str) -> list[int]:
        """Ids that the folder's tokenizer gives to ``text``."""
        data = self._tokenizer.encode(text, add_special_tokens=False).input_ids.data
        return [int(index) for index in data.reshape(-1)]

    def text(self, ids: list[int]) -> str:
        """Text that the folder's detokenizer gives to ``ids``."""
        return str(self._tokenizer.decode(ids))

    def prompt(self, content: str) -> str:
        """The text that the chat template makes of one user message."""
        return str(
            self._tokenizer.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        )

    def reply(
        self,
        contents: Sequence[str],
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """One reply to each user message; temperature 0 is greedy; ``seeds`` holds one seed for each message."""
        replies: list[str] = []
        for start in range(0, len(contents), BATCH_PROMPTS):
            batch = contents[start : start + BATCH_PROMPTS]
            inputs = [
                self._tokenizer.encode(self.prompt(content), add_special_tokens=False).input_ids for content in batch
            ]
            configs = [
                self._config(temperature, top_p, seeds[start + index] if seeds else 0) for index in range(len(batch))
            ]
            results = self._pipeline.generate(inputs, configs)
            replies.extend(str(self._tokenizer.decode(result.m_generation_ids[0])) for result in results)
        return replies

    def _config(self, temperature: float, top_p: float, seed: int) -> Any:
        config: Any = self._genai.GenerationConfig()
        config.max_new_tokens = MAX_NEW_TOKENS
        config.eos_token_id = self._tokenizer.get_eos_token_id()
        config.do_sample = temperature > 0
        if config.do_sample:
            config.temperature, config.top_p, config.rng_seed = temperature, top_p, seed
        return config
