"""A whole trace as text."""

from pathlib import Path

from k2think.cli.trace_text import trace_lines
from k2think.schemas.trace import JobTrace

GOLDEN = Path(__file__).parents[1] / "schemas" / "golden" / "job_trace.json"


def test_a_call_tells_the_engines_own_times_and_its_speed() -> None:
    text = "\n".join(trace_lines(JobTrace.model_validate_json(GOLDEN.read_text(encoding="utf-8"))))
    assert "tokens: prompt 10 (8 cached), completion 20, of these reasoning 15 (our count)" in text
    assert "80.0 tokens per second" in text
    assert "before or beside it: backend slow (hedge_lost), 0.500 s, tokens: prompt 10, completion 3" in text
    for words in ("0.062 s in the engine's queue", "0.031 s of prompt processing", "0.250 s of decoding"):
        assert words in text
