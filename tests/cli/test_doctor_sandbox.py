"""What `doctor` says of the sandbox, and what it says of settings that cannot be."""

from pathlib import Path

import pytest
from harness.sandboxes import FusionServer
from k2think.cli.checkup import State, check_sandbox
from k2think.grading.sandboxes.bubblewrap import BubblewrapSandbox
from k2think.schemas.errors import ConfigurationError
from k2think.schemas.sandbox_settings import SandboxKind, SandboxSettings
from k2think.schemas.settings import read_settings


@pytest.mark.skipif(bool(BubblewrapSandbox().problem()), reason="bubblewrap does not work here")
def test_one_that_works_is_named_with_its_bound() -> None:
    check = check_sandbox(SandboxSettings(concurrency=3))
    assert (check.state, check.detail) == (State.ok, "code answers can be tested (bubblewrap, 3 at once)")


def test_a_server_is_shown_with_its_address() -> None:
    with FusionServer() as server:
        check = check_sandbox(SandboxSettings(kind=SandboxKind.fusion, url=server.url))
        assert (check.state, server.url in check.detail) == (State.ok, True)
    check = check_sandbox(SandboxSettings(kind=SandboxKind.fusion, url=server.url))
    assert check.state is State.bad, "what was asked for does not work"
    assert "cannot be reached" in check.detail


def test_none_at_all_is_worth_a_look_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BubblewrapSandbox, "problem", lambda self: "no bwrap")
    monkeypatch.setattr("k2think.grading.sandboxes.gvisor.GVisorSandbox.problem", lambda self: "no runsc")
    check = check_sandbox(SandboxSettings())
    assert (check.state, check.fix) == (State.warning, "needed only for tasks that bring unit tests")
    assert check.detail.startswith("unit tests of code answers cannot be run: no bwrap; no runsc.")
    assert check_sandbox(SandboxSettings(kind=SandboxKind.gvisor)).state is State.bad


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("KIND", "docker", "K2THINK_SANDBOX__KIND: Input should be 'auto', 'bubblewrap', 'gvisor' or 'fusion'"),
        ("KIND", "fusion", "K2THINK_SANDBOX: the kind fusion needs K2THINK_SANDBOX__URL"),
        ("URL", "http://h/run_code", "K2THINK_SANDBOX__URL: is not the root of a server"),
        ("CONCURRENCY", "0", "K2THINK_SANDBOX__CONCURRENCY: Input should be greater than or equal to 1"),
        ("PACKAGES_DIR", "here", "K2THINK_SANDBOX__PACKAGES_DIR: must be an absolute path"),
    ],
    ids=["kind", "no_url", "url", "concurrency", "packages"],
)
def test_what_cannot_be_names_its_variable(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"K2THINK_SANDBOX__{variable}", value)
    with pytest.raises(ConfigurationError) as caught:
        read_settings()
    assert words in str(caught.value)
