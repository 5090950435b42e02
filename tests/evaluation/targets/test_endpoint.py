"""Plain endpoints: whose key goes where, what the prompt is, and what the manifest tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from k2think.agents.backends.simulator import Fault, Reply, SimulatedServer
from k2think.evaluation.cache import Cache
from k2think.evaluation.records import read_run
from k2think.evaluation.targets.opening import make_targets
from k2think.schemas.errors import ConfigurationError, InvalidRequest, Unauthorized
from k2think.schemas.evaluation import Status
from k2think.schemas.settings import read_settings

KEY = "sk-of-the-tests-123456"


async def test_a_key_is_read_from_its_file_and_written_nowhere(bench: Any, make_item: Any, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    async with SimulatedServer(bench.replies, api_key=KEY) as server:
        with pytest.raises(Unauthorized):
            await bench.run([make_item("q")], targets={"sim": bench.definition(base_url=server.url)})
        targets = {"sim": bench.definition(base_url=server.url, key_file=str(file))}
        assert (await bench.run([make_item("q")], targets=targets)).complete
    written = [path.read_text() for path in (bench.folder / "run").iterdir()]
    assert len(written) == 3
    assert not any(KEY in text for text in written)


async def test_a_backend_of_the_settings_brings_its_place_and_its_prices(bench: Any, make_item: Any) -> None:
    fast = {"backend": "openai", "base_url": bench.server.url, "model": "simulated", "price_completion": 1e6}
    bench.settings = read_settings(data_dir=bench.folder / "data", backends={"fast": fast})
    named = {"base_url": None, "model": None, "backend": "fast"}
    await bench.run([make_item("q")], targets={"sim": bench.definition(**named)})
    spent = bench.outcomes()["q"].spent["generator"]
    assert spent.cost == spent.usage.completion
    (spec,) = read_run(bench.folder / "run").manifest.targets
    assert (spec.model, spec.base_url) == ("simulated", bench.server.url)
    assert spec.revision is None
    with pytest.raises(ConfigurationError, match="unknown backend 'slow': choose one of fast,"):
        make_targets({"sim": bench.definition(**{**named, "backend": "slow"})}, bench.settings, bench.folder)


async def test_a_backend_that_thinks_longer_is_asked_itself_and_goes_on_with_no_other_run(
    bench: Any, make_item: Any, tmp_path: Path
) -> None:
    targets = {"sim": bench.definition(base_url=None, model=None, backend="fast")}

    def think(effort: str) -> None:
        fast = {"backend": "openai", "base_url": bench.server.url, "model": "simulated", "reasoning_effort": effort}
        bench.settings = read_settings(data_dir=bench.folder / "data", backends={"fast": fast})

    with Cache(tmp_path / "cache.db") as cache:
        think("low")
        await bench.run([make_item("q")], targets=targets, cache=cache)
        think("high")
        with pytest.raises(InvalidRequest, match=r"targets\[sim\].backends_sha256.generator was"):
            await bench.run([make_item("q")], targets=targets, cache=cache)
        assert (await bench.run([make_item("q")], name="high", targets=targets, cache=cache)).asked == 1


async def test_rows_are_asked_alike_unless_the_problem_is_to_stand_as_it_is(bench: Any, make_item: Any) -> None:
    targets = {"asked": bench.definition(), "bare": bench.definition(templates="plain")}
    await bench.run([make_item("q")], targets=targets)
    asked, bare = (call.request for call in bench.server.calls)
    assert "<answer>" in asked.text
    assert bare.messages == (("user", "[q] What is 347 + 58?"),)
    specs = read_run(bench.folder / "run").manifest.targets
    assert specs[0].template_sha256 != specs[1].template_sha256


async def test_a_server_that_is_full_is_waited_for(bench: Any, make_item: Any) -> None:
    bench.replies.by_name = {
        "q": [Reply(fault=Fault.rate_limited(retry_after="0")), Reply(text="<answer>405</answer>")]
    }
    await bench.run([make_item("q")])
    outcome = bench.outcomes()["q"]
    assert (outcome.final.status, outcome.final.correct) == (Status.graded, True)
    assert outcome.spent["generator"].calls == 1, "a refusal costs nothing"


async def test_without_seeds_none_is_sent(bench: Any, make_item: Any) -> None:
    await bench.run([make_item("q")], targets={"sim": bench.definition(seeded=False)})
    assert bench.server.calls[0].request.seed is None
    assert bench.outcomes()["q"].final.seed is None
