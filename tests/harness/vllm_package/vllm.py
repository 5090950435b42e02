"""A stand-in for the package vllm, as far as `agents/backends/vllm_engine.py` uses it: an engine whose process is a `sleep`.

It is put on the path of a test, or of a worker's process. `engines.jsonl` in the model folder gets a line per engine, `requests`
one per request. A file `does_not_start` there keeps one from coming up, `stands_still` keeps it from generating.
"""

import asyncio
import enum
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

REPLY = "<think>347+58=405</think><answer>405</answer>"
TOKEN_S = 0.002


class VLLMValidationError(Exception):
    pass


class EngineDeadError(Exception):
    pass


class EngineGenerateError(Exception):
    pass


class RequestOutputKind(enum.Enum):
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class StructuredOutputsParams:
    json: dict


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 16
    seed: int | None = None
    stop: list = field(default_factory=list)
    structured_outputs: StructuredOutputsParams | None = None
    output_kind: RequestOutputKind = RequestOutputKind.DELTA


@dataclass
class AsyncEngineArgs:
    model: str
    tensor_parallel_size: int = 1
    enable_prefix_caching: bool = False
    tokenizer: str | None = None
    max_model_len: int = 512
    speculative_config: dict | None = None
    per_request_spec_decode_metrics: str = "none"
    dtype: str = "auto"

    def create_engine_config(self):
        if self.dtype not in ("auto", "float32"):
            raise ValueError(f"Unknown dtype: {self.dtype}")
        return self


class Tokenizer:
    def apply_chat_template(self, turns, *, tokenize, add_generation_prompt):
        if turns[0]["role"] == "assistant":
            raise RuntimeError("Conversation roles must alternate")
        return "".join(turn["content"] for turn in turns)

    def encode(self, text, *, add_special_tokens):
        return [ord(character) for character in text]


class AsyncLLM:
    def __init__(self, config):
        self.model_config = config
        self._unfinished = set()
        if (Path(config.model) / "does_not_start").exists():
            raise RuntimeError("Engine core initialization failed. See root cause above.")
        self._process = subprocess.Popen(["sleep", "600"])
        with (Path(config.model) / "engines.jsonl").open("a") as file:
            file.write(json.dumps({"pid": self._process.pid, "speculative": config.speculative_config}) + "\n")

    from_vllm_config = classmethod(lambda cls, config: cls(config))

    @property
    def errored(self):
        return self._process.poll() is not None

    def get_tokenizer(self):
        return Tokenizer()

    def get_num_unfinished_requests(self):
        return len(self._unfinished)

    def shutdown(self):
        self._process.kill()
        self._process.wait()

    async def generate(self, prompt, sampling, request_id):
        if sampling.structured_outputs is not None and sampling.structured_outputs.json.get("type") == "nonsense":
            raise VLLMValidationError("Grammar error: Invalid type: nonsense")
        assert request_id not in self._unfinished
        self._unfinished.add(request_id)
        folder = Path(self.model_config.model)
        with (folder / "requests").open("a") as file:
            file.write(f"{request_id}\n")
        try:
            text = REPLY[: sampling.max_tokens]
            for number, character in enumerate(text, start=1):
                await asyncio.sleep(TOKEN_S)
                while (folder / "stands_still").exists() and not self.errored:
                    await asyncio.sleep(TOKEN_S)
                if self.errored:
                    raise EngineDeadError("EngineCore encountered an issue.")
                yield self._output(character, last=number == len(text), cut=len(text) < len(REPLY))
        finally:
            self._unfinished.discard(request_id)

    def _output(self, text, *, last, cut):
        figures = {"draft_acceptance_rate": 0.25, "mean_acceptance_length": 1.5, "num_draft_tokens": 8}
        speculates = self.model_config.per_request_spec_decode_metrics == "summary"
        completion = SimpleNamespace(
            text=text,
            token_ids=[ord(text)],
            finish_reason=None if not last else "length" if cut else "stop",
            spec_decode_metrics=SimpleNamespace(to_dict=lambda: figures) if last and speculates else None,
        )
        times = SimpleNamespace(queued_ts=1.0, scheduled_ts=1.5, first_token_ts=2.5, last_token_ts=4.5)
        return SimpleNamespace(outputs=[completion], finished=last, metrics=times, num_cached_tokens=3)


def _module(name, **content):
    module = ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module


for _folder in ("vllm.engine", "vllm.v1", "vllm.v1.engine"):
    _module(_folder, __path__=[])
_module("vllm.engine.arg_utils", AsyncEngineArgs=AsyncEngineArgs)
_module("vllm.v1.engine.async_llm", AsyncLLM=AsyncLLM)
_module("vllm.v1.engine.exceptions", EngineDeadError=EngineDeadError, EngineGenerateError=EngineGenerateError)
_module(
    "vllm.sampling_params",
    RequestOutputKind=RequestOutputKind,
    SamplingParams=SamplingParams,
    StructuredOutputsParams=StructuredOutputsParams,
)
_module("vllm.inputs", TokensPrompt=dict)
