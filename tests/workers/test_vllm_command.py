"""The command line of a vLLM server, for each version and each kind of speculation."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from harness.vllm_stand_in import options
from k2think.agents.backends.vllm_options import read_version
from k2think.schemas.errors import ConfigurationError
from k2think.schemas.speculation import Speculation
from k2think.workers.vllm_command import VllmServer, ask_version, find_program

NEW = (0, 32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def server(
    model: Path | str, *, version: tuple[int, int] = NEW, speculation: str | None = None, **more: object
) -> VllmServer:
    chosen = None if speculation is None else Speculation.read(speculation)
    return VllmServer(Path("/bin/vllm"), version, str(model), "m", speculation=chosen, **more)  # type: ignore[arg-type]


def config(model: Path | str, speculation: str, **more: object) -> dict[str, object]:
    words = server(model, speculation=speculation, **more).command()
    return json.loads(words[words.index("--speculative-config") + 1])


def test_the_plain_command(model: Path) -> None:
    assert server(model, version=(0, 12)).command() == [
        *("/bin/vllm", "serve", str(model), "--served-model-name", "m", "--host", "127.0.0.1", "--port", "8000"),
        "--enable-prefix-caching",
    ]


def test_everything_at_once_is_understood(model: Path) -> None:
    made = server(
        model, speculation="ngram", port=8001, tensor_parallel=4, context_tokens=4096, extra=("--dtype", "float32")
    )

    chosen = options(made.command()[2:])

    assert (chosen.port, chosen.tensor_parallel_size, chosen.max_model_len, chosen.dtype) == (8001, 4, 4096, "float32")
    assert chosen.enable_per_request_metrics
    assert chosen.per_request_spec_decode_metrics == "summary"


@pytest.mark.parametrize(
    ("version", "times", "acceptance"),
    [
        ((0, 12), False, False),
        ((0, 24), False, False),
        ((0, 25), True, False),
        ((0, 28), True, False),
        ((0, 29), True, True),
    ],
    ids=["0.12", "0.24", "0.25", "0.28", "0.29"],
)
def test_a_version_gets_the_flags_that_it_knows(
    model: Path, version: tuple[int, int], times: bool, acceptance: bool
) -> None:
    words = server(model, version=version, speculation="ngram").command()

    assert ("--enable-per-request-metrics" in words) == times
    assert ("--per-request-spec-decode-metrics" in words) == acceptance


def test_acceptance_is_not_asked_of_a_server_without_speculation(model: Path) -> None:
    # vLLM would not start.
    assert "--per-request-spec-decode-metrics" not in server(model).command()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("ngram", {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2, "prompt_lookup_max": 4}),
        ("draft:org/small", {"method": "draft_model", "model": "org/small", "num_speculative_tokens": 4}),
        ("eagle:org/EAGLE-LLaMA3", {"method": "eagle", "model": "org/EAGLE-LLaMA3", "num_speculative_tokens": 3}),
        ("eagle:org/Qwen3_eagle3", {"method": "eagle3", "model": "org/Qwen3_eagle3", "num_speculative_tokens": 3}),
        ("mtp", {"method": "mtp", "num_speculative_tokens": 1}),
    ],
    ids=["ngram", "draft", "eagle", "eagle3", "mtp"],
)
def test_each_kind_of_speculation(model: Path, word: str, expected: dict[str, object]) -> None:
    assert config(model, word) == expected
    assert config(model, word, speculative_tokens=7) == {**expected, "num_speculative_tokens": 7}
    assert str(Speculation.read(word)) == word


def test_the_folder_of_a_draft_model_is_made_absolute(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)

    assert config("model", "draft:./model")["model"] == str(model)


@pytest.mark.parametrize("word", ["", "Ngram", "draft", "draft:", "eagle", "mtp:x", "ngram:4", "medusa:x"])
def test_a_wrong_word_is_refused_with_those_that_exist(word: str) -> None:
    with pytest.raises(ValueError, match=r"choose ngram .*draft:MODEL.*eagle:MODEL.* mtp"):
        Speculation.read(word)


def test_a_draft_model_needs_a_version_that_has_them(model: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"need vLLM 0\.15 or newer, this is 0\.14: use ngram"):
        server(model, version=(0, 14), speculation="draft:x").command()


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no model folder"):
        server(tmp_path / "nothing").command()
    with pytest.raises(ConfigurationError, match=r"no config\.json"):
        server(tmp_path).command()
    with pytest.raises(ConfigurationError, match="there is no model folder"):
        server("org/model", speculation=f"draft:{tmp_path}/nothing").command()


def test_a_tokenizer_that_is_kept_apart_is_named(model: Path) -> None:
    (model / "tokenizer").mkdir()
    (model / "tokenizer" / "tokenizer.json").write_text("{}")

    words = server(model).command()
    assert words[words.index("--tokenizer") + 1] == str(model / "tokenizer")
    # One beside the weights alone is found by vLLM itself.
    (model / "tokenizer" / "tokenizer.json").rename(model / "tokenizer.json")
    assert "--tokenizer" not in server(model).command()


def test_the_settings_that_use_it(model: Path) -> None:
    (model / "k2think.json").write_text('{"templates": "mini"}')
    made = server(model, speculation="ngram", host="::", port=8001)

    assert made.settings(context_tokens=512, max_tokens_default=4096) == {
        "K2THINK_GENERATOR__BACKEND": "vllm",
        "K2THINK_GENERATOR__BASE_URL": "http://127.0.0.1:8001/v1",
        "K2THINK_GENERATOR__MODEL": "m",
        "K2THINK_GENERATOR__TEMPLATES": "mini",
        "K2THINK_GENERATOR__SPECULATIVE": "ngram",
        "K2THINK_GENERATOR__MAX_TOKENS": "256",
    }
    assert "K2THINK_GENERATOR__MAX_TOKENS" not in made.settings(context_tokens=32_768, max_tokens_default=4096)
    assert server(model, host="::1").url == "http://[::1]:8000/v1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.32.0\n", (0, 32)),
        ("Triton is installed, but has no CPU backend.\n0.32.0+cpu\n", (0, 32)),
        ("vllm 0.19.1", (0, 19)),
        ("0.31.0rc2.dev12+g0a1b2c3", (0, 31)),
        ("v1.0.0", (1, 0)),
    ],
    ids=["plain", "after_a_warning", "with_its_name", "development", "with_a_v"],
)
def test_the_version_is_read(text: str, expected: tuple[int, int]) -> None:
    assert read_version(text) == expected


def test_what_is_no_version_or_too_old_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no version of vLLM: 'hello 3 times'"):
        read_version("hello 3 times")
    with pytest.raises(ConfigurationError, match=r"vLLM 0\.11 is too old: 0\.12 or newer"):
        read_version("0.11.2")


def test_a_program_that_does_not_tell_its_version(tmp_path: Path) -> None:
    broken = tmp_path / "vllm"
    broken.write_text("#!/bin/sh\necho 'ModuleNotFoundError: No module named torch' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(ConfigurationError, match=r"exit code 1.*No module named torch"):
        ask_version(broken)
    broken.write_text("no program")
    with pytest.raises(ConfigurationError, match="does not run"):
        ask_version(broken)


def test_the_program_is_looked_for_beside_this_python_and_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, on_path = tmp_path / "env" / "vllm", tmp_path / "bin" / "vllm"
    for path in (beside, on_path):
        path.parent.mkdir()
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(on_path.parent))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env" / "python"))

    assert find_program(None) == beside
    beside.unlink()
    assert find_program(None) == on_path
    on_path.unlink()
    with pytest.raises(ConfigurationError, match=r"vLLM was not found: install it .* --vllm"):
        find_program(None)
    with pytest.raises(ConfigurationError, match="there is no program"):
        find_program(tmp_path / "nothing")
