"""`k2think bench backend`: what it prints, draws and refuses."""

import json
import socket
from pathlib import Path
from xml.etree import ElementTree

import pytest
from harness.cli import Cli
from k2think.cli.bench import check_plot, chosen_backend, levels_of
from k2think.schemas.errors import ConfigurationError, InvalidRequest
from k2think.schemas.settings import Settings

NAMED = {"quick": {"backend": "openai", "model": "m", "classes": ["cheap"]}}
SMALL = ("--streams", "1,2", "--calls", "1", "--rounds", "2", "--output-tokens", "10", "--prompt-tokens", "8")


def test_a_role_is_measured_for_people_and_drawn(simulated_cli: Cli) -> None:
    done = simulated_cli.run("bench", "backend", "generator", *SMALL, "--plot", "figures.svg")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "generator (openai), model simulated"
    header = next(number for number, line in enumerate(lines) if line.lstrip().startswith("STREAMS"))
    for streams, line in zip(("1", "2"), lines[header + 1 : header + 3], strict=True):
        assert line.split()[0] == streams
        assert "%" in line, "overhead"
    assert any(line.startswith("overhead from ") for line in lines)
    assert "limit: not known" in done.stdout
    # What goes on is told on standard error only.
    assert "2 streams, round 2 of 2, ours" in done.stderr
    assert "each client makes 6 calls" in done.stderr
    assert "round" not in done.stdout.replace("2 rounds of", "")
    drawing = ElementTree.fromstring((simulated_cli.folder / "figures.svg").read_text(encoding="utf-8"))  # noqa: S314
    texts = ["".join(part.itertext()) for part in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert "generator: simulated" in texts
    assert "as the server is, bare client" in texts


def test_a_named_backend_is_measured_for_scripts(simulated_cli: Cli) -> None:
    url = simulated_cli.environment["K2THINK_GENERATOR__BASE_URL"].removesuffix("/v1")
    named = {"fast": {"backend": "cerebras", "base_url": url, "model": "simulated", "api_key": "csk-secret-9"}}
    limit = ("--memory-bandwidth", "100", "--model-size", "10")
    found = simulated_cli.json("bench", "backend", "fast", *SMALL, *limit, K2THINK_BACKENDS=json.dumps(named))
    assert (found["backend"], found["kind"], found["model"]) == ("fast", "cerebras", "simulated")
    assert found["load"]["streams"] == [1, 2]
    assert found["machine"]["cpus"] >= 1
    (variant,) = found["variants"]
    assert variant["facts"]["models"] == "simulated"
    for level in variant["levels"]:
        assert level["ours"]["calls"] == level["bare"]["calls"] == level["streams"] * 2
        assert len(level["overhead_rounds"]) == 2
        assert level["limit_tokens_per_s"] == 10.0 * level["streams"]
    assert "csk-secret-9" not in json.dumps(found)


def test_a_kind_takes_the_settings_of_the_role_that_has_it_and_other_places(simulated_cli: Cli) -> None:
    found = simulated_cli.json("bench", "backend", "openai", *SMALL, "--no-bare")
    assert found["model"] == "simulated"
    assert found["variants"][0]["levels"][0]["bare"] is None
    missing = simulated_cli.run("bench", "backend", "openai", *SMALL, "--model", "nothing")
    assert missing.returncode == 1
    assert "does not serve the model 'nothing'; it serves simulated" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], ["unknown backend 'nobody'", "quick", "planner", "openvino"]),
        (["openvino", "--streams", "1,two"], ["--streams", "'1,two'", "1,2,4,8"]),
        (["openvino", "--plot", "missing/figures.svg"], ["--plot", "there is no folder", "missing"]),
        (["openvino", "--memory-bandwidth", "-1"], ["--memory-bandwidth"]),
        (["cerebras", "--plot", "figures.svg"], ["CEREBRAS_API_KEY"]),
    ],
)
def test_bad_usage(cli: Cli, arguments: list[str], words: list[str]) -> None:
    done = cli.run("bench", "backend", *arguments, K2THINK_BACKENDS=json.dumps(NAMED))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr, done.stderr
    assert not (cli.folder / "figures.svg").exists(), "nothing is drawn when nothing was measured"


@pytest.mark.parametrize("text", ["", "0", "1,,2", "-1", "1;2", "4097", "9" * 30, "²"])
def test_streams_that_are_no_list_of_numbers(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"--streams.*from 1 to 4,096"):
        levels_of(text)


def test_streams_are_sorted_and_each_measured_once() -> None:
    assert levels_of(" 8, 1,2 ,2") == (1, 2, 8)
    with pytest.raises(InvalidRequest, match="at most 16 levels"):
        levels_of(",".join(map(str, range(1, 18))))


def test_a_plot_that_could_not_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "folder.svg").mkdir()
    for name, words in (("a.png", "must end in .svg"), ("no/a.svg", "there is no folder"), ("folder.svg", "cannot be")):
        with pytest.raises(InvalidRequest, match=words):
            check_plot(tmp_path / name)
    check_plot(tmp_path / "a.SVG")


@pytest.mark.parametrize(
    ("name", "words"),
    [("cheap", "'cheap' is a class of backends.*quick"), ("safety", "K2THINK_SAFETY__"), ("nobody", "quick, planner")],
)
def test_names_that_stand_for_no_backend(name: str, words: str) -> None:
    settings = Settings.model_validate({"backends": NAMED})
    with pytest.raises(ConfigurationError, match=words):
        chosen_backend(settings, name)


def test_a_host_that_cannot_be_reached(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        done = cli.run("bench", "backend", "openai", "--base-url", url, "--model", "m", *SMALL)
    assert done.returncode == 1
    assert f"backend 'openai' at {url}: cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_teaches(cli: Cli) -> None:
    text = " ".join(cli.run("bench", "backend", "--help", COLUMNS="200").stdout.split())
    for words in (
        "time to first token",
        "at most 3 %",
        "--streams",
        "they cost money",
        "k2think bench backend openvino",
    ):
        assert words in text
