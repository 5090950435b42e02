"""Real engines that serve k2think-mini, whichever are installed: the embedded one, and vLLM as a server or in this process."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import k2think
from harness.stack import clean_environment, free_port
from k2think.agents.backends.registry import create_backend
from k2think.agents.backends.vllm import VllmBackend
from k2think.schemas.backend_settings import BackendSettings
from k2think.training.mini.huggingface import export

VLLM_KINDS = ["vllm", "vllm-ngram", "vllm-draft", "vllm_engine", "vllm_engine-ngram"]
KINDS = ["openvino", *(VLLM_KINDS if importlib.util.find_spec("vllm") else [])]
"""Kind of backend, and its speculation."""
NAME = "k2think-mini"
EXACT = ["--dtype", "float32"]
"""vLLM would turn the weights into bfloat16, which costs a model of this size its sums."""
VLLM_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}
START_TIMEOUT_S = 900.0
STOP_TIMEOUT_S = 60.0


@dataclass
class RealEngine:
    """What the suite runs on."""

    kind: str
    """Kind of backend."""
    speculation: str | None
    """As `--speculative` takes it; None = none."""
    settings: dict[str, Any]
    """Settings of a backend on it."""
    ready_line: str = ""
    """What `k2think vllm up` said when it was ready; empty = it was not used."""
    made: list[Any] = field(default_factory=list)

    def backend(self, **more: Any) -> Any:
        """Return a new backend on it. (Of an engine in this process there can be but one at a time.)"""
        settings = BackendSettings.model_validate({"backend": self.kind, **self.settings, **more})
        self.made.append(create_backend(settings, name=self.kind))
        return self.made[-1]

    async def close(self) -> None:
        """Close all backends that were made."""
        for backend in self.made:
            await backend.aclose()
        self.made.clear()


async def running(backend: Any) -> int:
    """Return how many requests the engine works on."""
    if not isinstance(backend, VllmBackend):
        return int(backend.running)
    text = await backend.get_text(backend._metrics_url)  # pyright: ignore[reportPrivateUsage]
    return int(
        sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("vllm:num_requests_running{"))
    )


def checkpoint(folder: Path) -> Path:
    """Write k2think-mini as a Hugging Face checkpoint; return its folder."""
    out = folder / NAME
    export(Path(k2think.__file__).parent / "models" / NAME, out)
    return out


def speculation_of(name: str, model: Path) -> str | None:
    """Return the word for `ngram` or `draft` (the model drafts for itself); None = none."""
    return {"ngram": "ngram", "draft": f"draft:{model}"}.get(name)


@contextmanager
def real_engine(kind: str, folder: Path) -> Iterator[RealEngine]:
    """Yield an engine of a kind in `KINDS`, running where it is a server; `folder` takes its files."""
    name, _, speculates = kind.partition("-")
    if name == "openvino":
        yield RealEngine(name, None, {"threads": 1})
        return
    model = checkpoint(folder)
    speculation = speculation_of(speculates, model)
    common: dict[str, Any] = {"speculative": speculation, "templates": "mini", "max_tokens": 256}
    if name == "vllm_engine":
        options = {"dtype": "float32"}
        yield RealEngine(name, speculation, {**common, "model": str(model), "engine_options": options})
        return
    with vllm_up(model, folder, speculation) as (url, said):
        yield RealEngine(name, speculation, {**common, "base_url": url, "model": NAME}, said)


@contextmanager
def vllm_up(model: Path, folder: Path, speculation: str | None) -> Iterator[tuple[str, str]]:
    """Run `k2think vllm up`; yield the base URL and what it said, and see that nothing of it is left."""
    port = free_port()
    words = [sys.executable, "-m", "k2think.cli", "vllm", "up", str(model), "--port", str(port), "--served-name", NAME]
    words += ["--speculative", speculation] if speculation else []
    output = folder / "vllm-up.txt"
    with output.open("w") as stream:
        process = subprocess.Popen(
            [*words, "--", *EXACT],
            env={**clean_environment(), **VLLM_ENVIRONMENT, "K2THINK_DATA_DIR": str(folder / "data")},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        end = time.monotonic() + START_TIMEOUT_S
        while "Use it with" not in output.read_text():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < end, output.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", output.read_text()
    finally:
        process.terminate()
        assert process.wait(STOP_TIMEOUT_S) == 0, output.read_text()
