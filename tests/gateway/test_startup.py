"""What the gateway's process loads: no agent, no engine, no worker."""

from __future__ import annotations

import json
import subprocess
import sys

_CODE = "import json, sys; import k2think.gateway.serve; print(json.dumps(sorted(sys.modules)))"
AGENTS = {f"k2think.agents.{name}" for name in ("planner", "generator", "verifier", "safety", "backends")}
ENGINES = {"openvino_genai", "openvino", "torch", "transformers", "vllm", "openai", "cerebras", "sympy", "math_verify"}
WORKERS = {f"k2think.workers.{name}" for name in ("runner", "runtime", "pool", "app", "worker")}


def test_the_gateway_starts_without_any_agent_engine_or_worker() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True, timeout=60)

    loaded = set(json.loads(done.stdout))

    assert "k2think.workers.submit" in loaded
    assert not loaded & (AGENTS | ENGINES | WORKERS)
