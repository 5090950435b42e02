"""The choice among sandboxes, the bound on programs at once, SandboxFusion's wire, and runsc's command line."""

import asyncio
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from harness.sandboxes import FusionServer
from k2think.grading import trials
from k2think.grading.sandboxes.base import (
    DEFAULT_LIMITS,
    MAX_PROGRAM_BYTES,
    MAX_TESTS_BYTES,
    Program,
    Sandbox,
    SandboxLimits,
    SandboxResult,
    script,
)
from k2think.grading.sandboxes.bubblewrap import BubblewrapSandbox
from k2think.grading.sandboxes.choice import BoundedSandbox, candidates, choose
from k2think.grading.sandboxes.fusion import FusionSandbox
from k2think.grading.sandboxes.gvisor import GVisorSandbox
from k2think.schemas.errors import GradingError, SandboxUnavailable
from k2think.schemas.sandbox_settings import SandboxKind, SandboxSettings
from pydantic import ValidationError

WORKS = not BubblewrapSandbox().problem()
needs_bubblewrap = pytest.mark.skipif(not WORKS, reason="bubblewrap does not work here")
NOWHERE = "http://127.0.0.1:9"


# ---- Which one


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, ["bubblewrap", "gvisor"]),
        ({"url": NOWHERE}, ["bubblewrap", "gvisor", "fusion"]),
        ({"kind": "gvisor", "url": NOWHERE}, ["gvisor"]),
        ({"kind": "fusion", "url": NOWHERE}, ["fusion"]),
    ],
    ids=["auto", "auto_with_url", "gvisor", "fusion"],
)
def test_the_order_in_which_they_are_tried(settings: dict[str, Any], kinds: list[str]) -> None:
    assert [sandbox.kind for sandbox in candidates(SandboxSettings(**settings))] == kinds


def test_none_that_works_is_refused_with_every_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for kind in (BubblewrapSandbox, GVisorSandbox):
        monkeypatch.setattr(
            f"k2think.grading.sandboxes.choice.{kind.__name__}", lambda packages, k=kind: k(packages=packages)
        )
    from k2think.grading.sandboxes import choice

    choice._made.cache_clear()  # pyright: ignore[reportPrivateUsage]
    try:
        with pytest.raises(SandboxUnavailable) as caught:
            choose(SandboxSettings(url=NOWHERE))
    finally:
        choice._made.cache_clear()  # pyright: ignore[reportPrivateUsage]
    said = str(caught.value)
    for words in (
        "bwrap (bubblewrap) is not installed",
        "runsc (gVisor) is not installed",
        NOWHERE,
        "never runs generated code",
    ):
        assert words in said


@needs_bubblewrap
def test_one_that_works_is_chosen_and_bounded() -> None:
    assert choose(SandboxSettings()).kind is SandboxKind.bubblewrap
    assert choose(SandboxSettings()).concurrency == os.cpu_count()
    assert choose(SandboxSettings(concurrency=7)).concurrency == 7


def test_packages_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match=r"K2THINK_SANDBOX__PACKAGES_DIR is .*pip install --target"):
        choose(SandboxSettings(packages_dir=tmp_path / "none"))


@needs_bubblewrap
async def test_packages_of_the_folder_can_be_imported_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text("SIDES = 3\n")
    source = "import shapes\nprint(shapes.SIDES)\nopen(shapes.__file__, 'a')"
    shown = await choose(SandboxSettings(packages_dir=tmp_path)).run(script(source), stdin="", limits=DEFAULT_LIMITS)
    assert shown.stdout == "3\n"
    assert "Read-only file system" in shown.stderr
    without = await choose(SandboxSettings()).run(script(source), stdin="", limits=DEFAULT_LIMITS)
    assert "No module named 'shapes'" in without.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "docker"}, "auto"),
        ({"kind": "fusion"}, "needs K2THINK_SANDBOX__URL"),
        ({"url": "ftp://host"}, "pattern"),
        ({"url": "http://host/run_code"}, "leave out /run_code"),
        ({"url": "http://me:secret@host"}, "holds a name or password"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"packages_dir": "packages"}, "absolute path"),
        ({"speed": 3}, "Extra inputs"),
    ],
    ids=["kind", "no_url", "scheme", "path", "password", "concurrency", "relative", "unknown"],
)
def test_wrong_settings_are_refused_in_words(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SandboxSettings(**given)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


# ---- How many at once


class Counting:
    """A sandbox that runs nothing and counts who is inside."""

    kind = SandboxKind.bubblewrap

    def __init__(self) -> None:
        self.inside = self.most = 0

    def problem(self) -> str:
        return ""

    async def run(self, program: Program, *, stdin: str, limits: SandboxLimits, renewals: int = 0) -> SandboxResult:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.001)
        self.inside -= 1
        return SandboxResult("ok", 0, "", "", 0.0)

    async def run_pair(self, tests: Program, answer: Program, *, limits: SandboxLimits) -> SandboxResult:
        return await self.run(tests, stdin="", limits=limits)


def test_the_bound_holds_for_many_answers_at_once_and_in_each_event_loop() -> None:
    counting = Counting()
    inner: Sandbox = counting
    bounded = BoundedSandbox(inner, 3)

    async def many() -> None:
        single = [bounded.run(script(""), stdin="", limits=DEFAULT_LIMITS) for _ in range(20)]
        pairs = [bounded.run_pair(script(""), script(""), limits=DEFAULT_LIMITS) for _ in range(20)]
        await asyncio.gather(*single, *pairs)

    for _ in range(2):
        asyncio.run(many())
    assert (counting.most, counting.inside) == (3, 0)


# ---- How long


@pytest.mark.parametrize("sandbox", [BubblewrapSandbox(), FusionSandbox(NOWHERE)], ids=["local", "fusion"])
async def test_too_long_an_answer_fails_and_too_long_tests_are_an_error(sandbox: Sandbox) -> None:
    short, long, longer = (script("#" * size) for size in (1, MAX_PROGRAM_BYTES + 1, MAX_TESTS_BYTES + 1))
    for refused in (
        await sandbox.run(long, stdin="", limits=DEFAULT_LIMITS),
        await sandbox.run_pair(long, long, limits=DEFAULT_LIMITS),
    ):
        assert (refused.outcome, refused.stderr) == ("failed", "the program is longer than 4000000 bytes")
    with pytest.raises(GradingError, match="the tests cannot be run here: they are longer than 32000000 bytes"):
        await sandbox.run_pair(longer, short, limits=DEFAULT_LIMITS)


# ---- SandboxFusion


@needs_bubblewrap
async def test_fusion_runs_programs_over_its_wire() -> None:
    with FusionServer() as server:
        sandbox = choose(SandboxSettings(kind=SandboxKind.fusion, url=f"{server.url}/"))
        good = await sandbox.run(script("print(input()[::-1])"), stdin="abc\n", limits=DEFAULT_LIMITS)
        bad = await sandbox.run(script("raise SystemExit(3)"), stdin="", limits=DEFAULT_LIMITS)
        late = await sandbox.run(script("while True: pass"), stdin="", limits=SandboxLimits(wall_s=0.5))
    assert (good.outcome, good.stdout) == ("ok", "cba\n")
    assert (bad.outcome, bad.exit_code, late.outcome) == ("failed", 3, "timeout")
    assert set(server.requests[0]) == {
        "language", "code", "files", "stdin", "compile_timeout", "run_timeout", "memory_limit_MB",
    }  # fmt: skip


@needs_bubblewrap
async def test_fusion_runs_assertions_apart_from_the_answer_in_one_container(monkeypatch: pytest.MonkeyPatch) -> None:
    with FusionServer() as server:
        sandbox = BoundedSandbox(FusionSandbox(server.url), 2)
        monkeypatch.setattr(trials, "require_sandbox", lambda: sandbox)
        results = await trials.try_assertions("def f(x):\n    return x + 1", ["assert f(1) == 2", "assert f(1) == 3"])
        left = await trials.try_assertions("import os\nos._exit(0)", ["assert True"])
        calls = [trials.Call((1,), (2,)), trials.Call((2,), (2,))]
        called = await trials.try_calls("def f(x):\n    return x + 1", "f", calls)
    assert [result.reason for result in results] == ["passed", "failed"]
    assert "assert f(1) == 3" in results[1].detail
    assert [result.reason for result in left] == ["exited_early"]
    assert [result.passed for result in called] == [True, False]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (500, "answers 500"),
        (b"<html>", "does not speak SandboxFusion"),
        ({"status": "SandboxError", "message": "no worker is free", "run_result": None}, "no worker is free"),
        ({"status": "Success", "message": "", "run_result": None}, "no reason told"),
        ({"status": "Failed", "message": "", "run_result": {"status": "Error", "stderr": "x"}}, "failed"),
    ],
    ids=["status", "html", "sandbox_error", "nothing_ran", "command_error"],
)
async def test_a_fault_of_the_server_is_never_a_verdict(fault: Any, words: str) -> None:
    with FusionServer(fault) as server, pytest.raises(SandboxUnavailable, match=words):
        await FusionSandbox(server.url).run(script("print(1)"), stdin="", limits=DEFAULT_LIMITS)


async def test_a_server_that_is_away_is_told() -> None:
    with pytest.raises(SandboxUnavailable, match="cannot be reached"):
        await FusionSandbox(NOWHERE).run(script("print(1)"), stdin="", limits=DEFAULT_LIMITS)
    assert "cannot be reached" in FusionSandbox(NOWHERE).problem()


# ---- gVisor, by a stand-in that keeps what it is asked: the real one is in test_escapes_gvisor.py

STAND_IN = """#!{python}
import json, pathlib, sys
bundle = next(word.partition('=')[2] for word in sys.argv if word.startswith('--bundle='))
config = json.loads((pathlib.Path(bundle) / 'config.json').read_text())
root = pathlib.Path(config['root']['path'])
files = {{file.name: file.read_text() for file in (root / 'code').iterdir()}}
print(json.dumps({{'words': sys.argv[1:], 'config': config, 'files': files, 'bundle': bundle}}))
"""


async def test_runsc_is_asked_for_a_container_without_network_or_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "runsc"
    program.write_text(STAND_IN.format(python=os.path.realpath(sys.executable)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    limits = SandboxLimits(cpu_s=4, memory_bytes=100 * 2**20, disk_bytes=2**20)
    given = Program({"main.py": "print(1)", "other.py": "x = 1"}, "main.py", ("word",))
    result = await GVisorSandbox(packages=tmp_path).run(given, stdin="", limits=limits)
    asked = json.loads(result.stdout)
    assert {"--network=none", "--rootless", "--oci-seccomp", "run"} <= set(asked["words"])
    assert asked["files"] == {"main.py": "print(1)", "other.py": "x = 1"}
    process, mounts = asked["config"]["process"], asked["config"]["mounts"]
    assert asked["config"]["root"]["readonly"]
    assert not any(process["capabilities"].values())
    assert process["noNewPrivileges"]
    assert process["user"]["uid"] == 65534
    bounds = {one["type"]: one["hard"] for one in process["rlimits"]}
    assert (bounds["RLIMIT_AS"], bounds["RLIMIT_CPU"], bounds["RLIMIT_FSIZE"]) == (100 * 2**20, 5, 2**20)
    assert all("ro" in mount["options"] for mount in mounts if mount["type"] == "bind")
    assert {mount["destination"] for mount in mounts if mount["type"] != "bind"} == {"/proc", "/tmp"}
    assert "/packages" in {mount["destination"] for mount in mounts}
    assert process["args"][-2:] == ["/code/main.py", "word"]
    refused = {name for rule in asked["config"]["linux"]["seccomp"]["syscalls"] for name in rule["names"]}
    assert {"unshare", "ptrace", "fork", "clone"} <= refused
    assert not os.path.exists(asked["bundle"]), "the container's folder goes away"
