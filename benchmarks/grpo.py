"""GRPO in the loop made for k2think-mini against TRL's trainer: python -m benchmarks.grpo RUN/sft.pt [--steps N]

Both ask k2think-mini 64 of its own training problems a step, 8 samples each at T = 1 of at most 256 tokens, score them with the
same function and take one on-policy step, on two threads of the CPU: the loop in two processes, TRL in one. The loop begins
with the checkpoint, TRL with the bundled model, whose samples are about as long: `completion_tokens` tells. Prints JSON:
seconds a step without the first step, samples a second, and how many times as fast the loop is.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from k2think.training.mini.grpo import GrpoPlan, run_grpo
from k2think.training.mini.journal import read_metrics

K2THINK = Path(sys.executable).with_name("k2think")
PROMPTS, SAMPLES, TOKENS, THREADS = 64, 8, 256, 2
TRL = f"""
model: {{name: FOLDER/model, dtype: float32}}
data: {{train: [FOLDER/data/tasks.jsonl]}}
grpo: {{prompts: {PROMPTS}, rollouts: {SAMPLES}, update_prompts: {PROMPTS}, micro_batch: 128, max_prompt_tokens: 128,
       max_completion_tokens: {TOKENS}, temperature: 1.0, kl: 0.0, loss: token_mean}}
optimizer: {{learning_rate: 1.0e-6, schedule: constant, warmup_steps: 0}}
run: {{out: FOLDER/run, steps: STEPS, save_every: 1000, evaluate_every: 1000, device: cpu, threads: {THREADS}}}
cluster: {{nodes: 1, gpus_per_node: 1}}
"""


def of_the_loop(checkpoint: Path, folder: Path, steps: int) -> dict[str, Any]:
    """Return what the loop's journal says; its last step holds a trial and is left out."""
    plan = GrpoPlan(checkpoint, steps=steps + 2, asks=PROMPTS // THREADS, samples=SAMPLES, peak_rate=1e-6, limit=TOKENS)
    run_grpo(plan, folder, seed=1, workers=THREADS)
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if 1 <= row["step"] <= steps + 1]
    return figures([(row["wall_s"], row["length"]) for row in rows])


def of_trl(folder: Path, steps: int) -> dict[str, Any]:
    """Return what the journal of `k2think train grpo` says."""
    config = folder / "grpo.yaml"
    config.write_text(TRL.replace("FOLDER", str(folder)).replace("STEPS", str(steps + 1)), encoding="utf-8")
    for words in (
        ["mini-export", f"{folder}/model"],
        ["mini-data", "--out", f"{folder}/data"],
        ["grpo", str(config)],
    ):
        subprocess.run([K2THINK, "train", *words], check=True, stdout=sys.stderr)
    rows = read_metrics(folder / "run" / "metrics.jsonl")
    return figures([(row["wall_s"], row["completion_tokens"]) for row in rows])


def figures(steps: list[tuple[float, float]]) -> dict[str, Any]:
    """Return the figures of steps, each with the seconds since the run began and the mean length of its samples."""
    (first, _), *rest = steps
    step_s = (rest[-1][0] - first) / len(rest)
    return {
        "steps": len(rest),
        "step_s": round(step_s, 2),
        "samples_per_s": round(PROMPTS * SAMPLES / step_s, 1),
        "completion_tokens": round(sum(length for _, length in rest) / len(rest), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="sft.pt of a run of `k2think train mini`")
    parser.add_argument("--steps", type=int, default=6, help="steps that are timed of each (default 6)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k2think-grpo-") as folder:
        loop = of_the_loop(options.checkpoint, Path(folder) / "loop", options.steps)
        trl = of_trl(Path(folder), options.steps)
    times = round(trl["step_s"] / loop["step_s"], 2)
    print(json.dumps({"loop": loop, "trl": trl, "times_as_fast": times, "machine": platform.machine()}, indent=2))


if __name__ == "__main__":
    main()
