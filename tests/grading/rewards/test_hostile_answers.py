"""Texts that take symbolic mathematics to its limits: each costs a worker process its three seconds."""

import pytest
from k2think.grading import grading_counts
from k2think.grading.score import score_sync

HOSTILE = {
    "huge exponent": "\\boxed{10^{10^{10^{10}}}}",
    "tower": "<answer>9**9**9**9</answer>",
    "factorials": "\\boxed{9!!!!!!!!!}",
    "deep fractions": "\\boxed{" + "\\frac{1}{" * 200 + "2" + "}" * 200 + "}",
    "sums": "\\boxed{" + "1+" * 50_000 + "1}",
    "float beyond range": "<answer>1e999999999</answer>",
    "deep roots": "\\boxed{" + "\\sqrt{" * 300 + "2" + "}" * 300 + "}",
    "wide sum": "\\boxed{" + "+".join(f"x_{{{n}}}^{{{n}}}" for n in range(400)) + "}",
    "nested functions": "\\boxed{" + "\\sin(" * 200 + "1" + ")" * 200 + "}",
    "integral": "\\boxed{\\int_0^{10^{9}} e^{x^{x^x}} dx}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_computation_without_end_is_a_score_and_not_a_hang(name: str) -> None:
    for truth in ("405", r"2\pi", "x^2"):
        scored = score_sync("math", HOSTILE[name], truth)
        assert scored.value == 0.0
    assert "error" not in grading_counts()
