"""The guide of the HTTP API: it names every parameter, and its examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from k2think.schemas.chat import _NEUTRAL, ChatBody
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.policy import Policy
from k2think.schemas.responses import _NEUTRAL as RESPONSE_NEUTRAL
from k2think.schemas.responses import ResponseBody

if TYPE_CHECKING:
    from harness.live import LiveGateway

GUIDE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("Chat completions", {*ChatBody.model_fields, *_NEUTRAL, *Policy.model_fields}),
        ("Responses", {*ResponseBody.model_fields, *RESPONSE_NEUTRAL}),
        ("Jobs", set(SolveRequest.model_fields)),
    ],
)
def test_every_parameter_is_named(title: str, names: set[str]) -> None:
    named = set(re.findall(r"`([a-z_0-9]+)`", section(title)))
    assert not names - named


def test_the_examples_run_as_they_stand(
    live_gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{live_gateway.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "any text")
    examples = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len(examples) >= 7
    names: dict[str, Any] = {}
    for example in examples:
        exec(example, names)  # noqa: S102
        assert capsys.readouterr().out or "assert" in example, example
    names["client"].close()
    names["jobs"].close()
