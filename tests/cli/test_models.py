"""`k2think models`: what is here, what a hub gives or refuses, what can be brought to the embedded engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.cli import Cli
from harness.hub import COMMIT, TOKEN, Hub, serving_hub
from k2think.cli.model_conversion import check_source, check_space
from k2think.cli.model_hub import download, look_up, wanted_files
from k2think.schemas.errors import (
    ConfigurationError,
    InvalidRequest,
    K2ThinkError,
    NotFound,
    Overloaded,
    StoreFull,
    Unauthorized,
    Unreachable,
)

pytest.importorskip("openvino_genai", reason="the embedded engine is not installed (extra `embedded`)")
pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra `models`)")

BUNDLED = Path(__file__).parents[2] / "models" / "k2think-mini"
READY = "K2THINK_GENERATOR__MODEL="


@pytest.fixture
def endpoint(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's own library asks the test's hub, without a token."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that has the bundled model under the name of me/mini."""
    with serving_hub(Hub({"me/mini": BUNDLED})) as served:
        yield served


def pull(cli: Cli, hub: Hub, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    apart = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cli.folder / "hub"), "HF_TOKEN": "", "HF_HUB_DOWNLOAD_TIMEOUT": "5"}
    return cli.run("models", "pull", *arguments, **(apart | more))


def models_of(cli: Cli) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in cli.json("models", "list")}


def huggingface_folder(folder: Path, **config: Any) -> Path:
    """A folder that looks like a checkpoint; its weights are nothing."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"} | config)
    )
    (folder / "model.safetensors").write_bytes(b"0" * 100)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


# ---- What is here


def test_the_bundled_model_is_listed_with_what_is_in_the_data_folder(cli: Cli) -> None:
    models = cli.folder / "data" / "models"
    shutil.copytree(BUNDLED, models / "lab" / "mine")
    (models / "lab" / "mine" / "k2think.json").write_text('{"templates": "mini"}')
    huggingface_folder(models / "raw")
    huggingface_folder(models / ".downloads" / "half")
    rows = models_of(cli)
    assert list(rows) == ["k2think-mini", "lab/mine", "raw"]
    bundled, mine, raw = rows.values()
    assert bundled["usable"]
    assert bundled["bundled"]
    assert 1_150_000 < bundled["parameters"] < 1_250_000
    assert (bundled["weights"], bundled["context_tokens"], bundled["templates"]) == ("fp16", 512, "mini")
    assert (mine["parameters"], mine["templates"], mine["path"]) == (
        bundled["parameters"],
        "mini",
        str(models / "lab/mine"),
    )
    assert not raw["usable"]
    assert "k2think models convert raw" in raw["problem"]
    text = cli.run("models", "list").stdout
    assert "1.2 M" in text
    assert "lab/mine" in text


def test_a_name_from_the_data_folder_is_a_model_setting(cli: Cli) -> None:
    shutil.copytree(BUNDLED, cli.folder / "data" / "models" / "lab" / "mine")
    # A folder of the same name where the command runs is not meant.
    (cli.folder / "lab" / "mine").mkdir(parents=True)
    named = {"K2THINK_GENERATOR__MODEL": "lab/mine", "K2THINK_GENERATOR__TEMPLATES": "mini"}
    done = cli.run("solve", "What is 347 + 58?", **named)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "405"
    unknown = cli.run("solve", "1 + 1", K2THINK_GENERATOR__MODEL="lab/other")
    assert unknown.returncode == 2
    assert "k2think models list" in unknown.stderr


# ---- From the hub


def test_an_openvino_repository_is_ready_at_once(cli: Cli, hub: Hub) -> None:
    done = pull(cli, hub, "me/mini", "--revision", COMMIT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{READY}me/mini\n"
    row = models_of(cli)["me/mini"]
    assert row["usable"]
    kept = {file.name for file in Path(row["path"]).iterdir()}
    assert "README.md" in kept
    assert not kept & {"curve.svg", "metrics.jsonl", ".cache"}
    # Asked again, nothing is downloaded.
    hub.ranges.clear()
    assert pull(cli, hub, "me/mini").stdout == done.stdout
    assert not hub.ranges


def test_a_download_goes_on_where_it_broke(cli: Cli, hub: Hub, tmp_path: Path) -> None:
    large = shutil.copytree(BUNDLED, tmp_path / "large")
    (large / "openvino_more.bin").write_bytes(b"0123456789" * 2_500_000)
    hub.models["me/large"] = large
    # One connection breaks, another file cannot be had at all.
    hub.breaks_after["openvino_more.bin"] = 15_000_000
    hub.lost.add("openvino_model.bin")
    broken = pull(cli, hub, "me/large")
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "answers 500" in broken.stderr
    first = {name for name, _ in hub.ranges}
    hub.lost.clear()
    hub.ranges.clear()
    done = pull(cli, hub, "me/large")
    assert done.returncode == 0, done.stderr
    assert "openvino_model.bin" in {name for name, _ in hub.ranges}
    assert not {name for name, _ in hub.ranges} & (first - {"openvino_more.bin"})
    for name in ("openvino_more.bin", "openvino_model.bin"):
        assert (cli.folder / "data/models/me/large" / name).read_bytes() == (large / name).read_bytes()


def test_a_broken_connection_is_taken_up_inside_a_file(hub: Hub, endpoint: None, tmp_path: Path) -> None:
    large = shutil.copytree(BUNDLED, tmp_path / "large")
    (large / "openvino_more.bin").write_bytes(b"0123456789" * 2_500_000)
    hub.models["me/large"] = large
    hub.breaks_after["openvino_more.bin"] = 15_000_000
    stale = tmp_path / "got" / ".cache" / "huggingface" / "download" / "x.incomplete"
    stale.parent.mkdir(parents=True)
    stale.write_text("left by a process that was killed")
    os.utime(stale, (0, 0))
    download(look_up("me/large", revision=None), tmp_path / "got")
    assert (tmp_path / "got" / "openvino_more.bin").read_bytes() == (large / "openvino_more.bin").read_bytes()
    (_, again) = (wanted for name, wanted in hub.ranges if name == "openvino_more.bin")
    assert int(again.removeprefix("bytes=").rstrip("-")) >= 10_000_000
    assert not stale.exists()


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("unknown", NotFound, "has no model 'me/other'"),
        ("gated", Unauthorized, "ask for access"),
        ("bad_name", InvalidRequest, "OWNER/NAME"),
        ("revision", NotFound, "no revision 'gone'"),
        ("overloaded", Overloaded, "answers 503"),
        ("too_many", Overloaded, "no more requests for now"),
        ("token", Unauthorized, "refuses the token"),
        ("away", Unreachable, "check the network"),
        ("offline", ConfigurationError, "HF_HUB_OFFLINE"),
        ("full", StoreFull, "free some space"),
        ("gguf", ConfigurationError, "no weights that can be used"),
    ],
)
def test_what_a_hub_refuses_is_explained(
    hub: Hub,
    endpoint: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    kind: type[K2ThinkError],
    said: str,
) -> None:
    name, revision = {"unknown": "me/other", "bad_name": "not a name"}.get(what, "me/mini"), None
    match what:
        case "gated":
            hub.gated.add("me/mini")
        case "revision":
            revision = "gone"
        case "overloaded" | "too_many" | "token":
            hub.status = {"overloaded": 503, "too_many": 429, "token": 403}[what]
        case "away":
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        case "offline":
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        case "full":
            hub.claimed_bytes = 10**15
        case "gguf":
            (tmp_path / "gguf").mkdir()
            (tmp_path / "gguf" / "model.gguf").write_bytes(b"GGUF")
            hub.models["me/mini"] = tmp_path / "gguf"
        case _:
            pass
    with pytest.raises(kind, match=said):
        download(look_up(name, revision=revision), tmp_path / "got")


def test_a_refusal_is_one_line_and_leaves_nothing(cli: Cli, hub: Hub) -> None:
    hub.gated.add("me/mini")
    done = pull(cli, hub, "me/mini")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: me/mini is gated")
    assert done.stderr.count("\n") == 1
    opened = pull(cli, hub, "me/mini", "--weight-format", "int8", HF_TOKEN=TOKEN)
    assert opened.returncode == 2
    assert "drop --weight-format" in opened.stderr
    assert TOKEN not in opened.stderr
    assert not list((cli.folder / "data" / "models").iterdir())


def test_one_form_of_the_weights_and_no_code_is_downloaded() -> None:
    twice = dict.fromkeys(
        ("config.json", "model.safetensors", "pytorch_model.bin", "consolidated.safetensors", "run.py"), 1
    )
    assert wanted_files(twice | {"onnx/model.onnx": 1, "LICENSE": 1}) == ["config.json", "LICENSE", "model.safetensors"]
    older = {"config.json": 1, "pytorch_model.bin": 1}
    assert wanted_files(older) == ["config.json", "pytorch_model.bin"]
    ready = {"openvino_model.xml": 1, "openvino_model.bin": 1, "pytorch_model.bin": 1, "openvino_tokenizer.xml": 1}
    assert "pytorch_model.bin" not in wanted_files(ready)


# ---- Any folder


def test_an_openvino_folder_is_checked_and_may_be_copied(cli: Cli) -> None:
    done = cli.run("models", "convert", str(BUNDLED))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{READY}{BUNDLED}\n"
    copied = cli.run("models", "convert", str(BUNDLED), "--out", "data/models/copy")
    assert copied.stdout == f"{READY}copy\n"
    again = cli.run("models", "convert", str(BUNDLED), "--out", "data/models/copy")
    assert again.returncode == 2
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no_config", "it has no config.json"),
        ("broken_config", "config.json cannot be read"),
        ("no_text", "BertForMaskedLM writes no text"),
        ("no_weights", "has no weights"),
        ("no_tokenizer", "has no tokenizer"),
        ("no_template", "has no chat template"),
    ],
)
def test_what_cannot_be_converted_is_explained(tmp_path: Path, what: str, said: str) -> None:
    architectures = ["BertForMaskedLM"] if what == "no_text" else ["Qwen2ForCausalLM"]
    folder = huggingface_folder(tmp_path / "model", architectures=architectures)
    gone = {"no_config": "config.json", "no_weights": "model.safetensors", "no_tokenizer": "tokenizer.json"}
    if what in gone:
        (folder / gone[what]).unlink()
    if what == "no_template":
        (folder / "chat_template.jinja").unlink()
    if what == "broken_config":
        (folder / "config.json").write_text("{")
    with pytest.raises(ConfigurationError, match=said):
        check_source(folder)


def test_a_template_inside_the_tokenizers_configuration_counts(tmp_path: Path) -> None:
    folder = huggingface_folder(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    check_source(folder)


def test_too_little_space_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(StoreFull, match=r"the environment takes 1000000\.0 GB"):
        check_space(tmp_path, 10**15, what="the environment")


def test_wrong_arguments_install_nothing(cli: Cli) -> None:
    for words, said in (
        (["nowhere"], "k2think models pull nowhere"),
        ([str(BUNDLED), "--weight-format", "int4"], "drop --weight-format"),
    ):
        done = cli.run("models", "convert", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (cli.folder / "data" / "conversion").exists()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("weight_format", ["int8"], ids=["real"])
def test_a_checkpoint_is_converted_and_solves(cli: Cli, tmp_path: Path, weight_format: str) -> None:
    """The bundled model, back in Hugging Face's form, through the real converters: installed first, which takes minutes."""
    pytest.importorskip("safetensors", reason="safetensors is not installed (extra `dev`)")
    from k2think.training.mini.huggingface import export

    folder = tmp_path / "mini-hf"
    assert export(BUNDLED, folder) == 1_196_544
    (folder / "k2think.json").write_text('{"templates": "mini"}')
    words = cli.command("models", "convert", str(folder), "--weight-format", weight_format)
    done = subprocess.run(words, env=cli.environment, cwd=cli.folder, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{READY}mini-hf\n"
    row = models_of(cli)["mini-hf"]
    assert (row["weights"], row["templates"]) == ("int8", "mini")
    solved = cli.run(
        "solve", "What is 347 + 58?", K2THINK_GENERATOR__MODEL="mini-hf", K2THINK_GENERATOR__TEMPLATES="mini"
    )
    assert solved.stdout.strip() == "405", solved.stderr
    # The environment is there already; an architecture that nobody knows is named.
    odd = huggingface_folder(tmp_path / "odd", architectures=["OddForCausalLM"], model_type="odd")
    refused = cli.run("models", "convert", str(odd))
    assert refused.returncode == 2
    assert "cannot convert models of the kind 'odd'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_folder_that_loads_nothing_is_told(cli: Cli) -> None:
    folder = shutil.copytree(BUNDLED, cli.folder / "bad")
    (folder / "openvino_model.bin").write_bytes(b"")
    done = cli.run("models", "convert", str(folder))
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be loaded" in done.stderr
