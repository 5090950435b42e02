"""What a run says of itself while it goes on: a line of JSON and a line of text for each logged step, and the plot."""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (transformers belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback

from .mini.curve import read_metrics
from .plot import Panel, draw_metrics
from .run_folder import RunFolder

NAMES = {
    "loss": "loss",
    "grad_norm": "gradient_norm",
    "learning_rate": "learning_rate",
    "num_tokens": "tokens",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
    "reward": "reward",
    "reward_std": "reward_deviation",
    "frac_reward_zero_std": "no_signal_share",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "truncated_share",
    "clip_ratio/region_mean": "clipped_share",
    "kl": "kl",
    "epoch": "epoch",
}
"""The trainer's names of what is kept, and ours."""
HELD_OUT = "eval_"
"""What the trainer puts before the names of figures on held-out data."""
OF_GROUPS = {"loss", "reward_deviation", "no_signal_share", "clipped_share"}
"""What means nothing on held-out problems, where each gets one answer and nothing is learnt."""
DIGITS = 6
"""Significant digits that are kept."""

More = Callable[[bool], dict[str, Any]]
"""Further figures since the last row, by whether they are of held-out data."""


class Journal(TrainerCallback):
    """Writes metrics, plot and progress of one run."""

    def __init__(
        self,
        folder: RunFolder,
        panels: Sequence[Panel],
        more: More | None = None,
        *,
        tokens_before: float = 0.0,
        steps_per_pass: int | None = None,
    ) -> None:
        """`tokens_before`: what was read before this process, where the trainer counts from zero after a resumption;
        `steps_per_pass`: steps that make an epoch, where the trainer does not know."""
        self._folder = folder
        self._panels = panels
        self._more = more
        self._tokens_before = tokens_before
        self._steps_per_pass = steps_per_pass
        self._start = 0.0
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start, self._first_step = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "train_runtime" in logs:
            return
        held_out = any(name.startswith(HELD_OUT) for name in logs)
        figures: dict[str, Any] = {
            ours: _rounded(value)
            for theirs, ours in NAMES.items()
            if (value := logs.get(HELD_OUT + theirs if held_out else theirs)) is not None
        }
        if "tokens" in figures:
            figures["tokens"] = int(figures["tokens"] + self._tokens_before)
        if "epoch" in figures and self._steps_per_pass:
            figures["epoch"] = _rounded(state.global_step / self._steps_per_pass)
        if self._more is not None:
            figures |= self._more(held_out)
            if held_out:
                figures = {name: value for name, value in figures.items() if name not in OF_GROUPS}
        wall = time.monotonic() - self._start
        row = {"step": state.global_step, "wall_s": round(wall, 2)}
        row |= {"evaluation": figures} if held_out else figures
        with self._folder.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(self._line(state, figures, wall, held_out=held_out), flush=True)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.draw()

    def draw(self) -> None:
        """Write the plot of all metrics so far."""
        if self._folder.metrics.is_file():
            rows = read_metrics(self._folder.metrics)
            self._folder.plot.write_text(draw_metrics(rows, self._panels), encoding="utf-8")

    def _line(self, state: Any, figures: dict[str, Any], wall: float, *, held_out: bool) -> str:
        shown = ("loss", "reward", "correct_share", "no_signal_share", "grading_errors")
        parts = [f"{name.replace('_', ' ')} {figures[name]:.4g}" for name in shown if name in figures]
        done = state.global_step - self._first_step
        if not held_out and done:
            each = wall / done
            parts.append(f"{each:.2f} s a step, {each * (state.max_steps - state.global_step) / 60:.1f} min left")
        what = "  held out" if held_out else f"/{state.max_steps}"
        return f"step {state.global_step}{what}  " + "  ".join(parts)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
