"""The image and the compose file name only commands, variables, extras and folders that exist, and start in order."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.deployment import accept_command, known_variables
from k2think.schemas.settings import GatewaySettings, Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = ROOT / "docker" / "compose.yaml"
COMPOSE_ENV_EXAMPLE = ROOT / "docker" / ".env.example"
IMAGE = "k2think"
AGENTS = ("planner", "generator", "verifier", "safety")
SERVICES_OF_OURS = (*AGENTS, "intake", "sweeper", "gateway", "migrate")

_REFERENCE = re.compile(r"\$\{([A-Z0-9_]+)(?::?[-?][^}]*)?\}")


# ---- Reading the files


def dockerfile() -> list[tuple[str, str]]:
    """Parse the Dockerfile into (INSTRUCTION, rest), continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def final_stage() -> list[tuple[str, str]]:
    instructions = dockerfile()
    starts = [i for i, (word, _) in enumerate(instructions) if word == "FROM"]
    assert len(starts) > 1, "the image is built in stages"
    return instructions[starts[-1] :]


def only(instruction: str, stage: list[tuple[str, str]]) -> str:
    found = [rest for word, rest in stage if word == instruction]
    assert len(found) == 1, f"{instruction}: {found}"
    return found[0]


def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


def services() -> dict[str, dict[str, Any]]:
    return compose()["services"]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


# ---- The image


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    user = only("USER", final_stage())
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    words = [word for word, _ in final_stage()]
    assert all(words.index("USER") > i for i, word in enumerate(words) if word in ("RUN", "COPY"))


def test_the_image_keeps_its_data_in_a_volume_and_stops_on_sigterm() -> None:
    stage = final_stage()
    assert only("STOPSIGNAL", stage) == "SIGTERM"
    assert only("VOLUME", stage) == "/data"
    assert "K2THINK_DATA_DIR=/data" in only("ENV", stage).split()


def test_the_image_has_one_process_that_passes_signals_on_and_reaps() -> None:
    entry = json.loads(only("ENTRYPOINT", final_stage()))
    assert entry == ["/usr/bin/tini", "--", "k2think"]
    assert any(word == "RUN" and re.search(r"apt-get install .*\btini\b", rest) for word, rest in final_stage())


def test_the_images_own_commands_exist() -> None:
    accept_command(json.loads(only("CMD", final_stage())))


def test_a_containers_health_is_the_age_of_what_its_process_touches(tmp_path: Path) -> None:
    command = json.loads(only("HEALTHCHECK", final_stage()).partition("CMD ")[2])
    variables = dict(word.partition("=")[::2] for word in only("ENV", final_stage()).split())
    assert variables["K2THINK_ALIVE_FILE"].startswith("/tmp/"), "the only folder that compose lets a worker write"
    file = tmp_path / "alive"

    def healthy() -> bool:
        environment = {**os.environ, "K2THINK_ALIVE_FILE": str(file)}
        return subprocess.run(command, env=environment, capture_output=True, timeout=5, check=False).returncode == 0

    assert not healthy()
    file.touch()
    assert healthy()
    os.utime(file, (0, 0))
    assert not healthy()


def test_the_image_installs_extras_that_exist() -> None:
    declared = project()["project"]["optional-dependencies"]
    arguments = [rest.partition("=") for word, rest in dockerfile() if word == "ARG"]
    extras = {name: value for name, _, value in arguments}["EXTRAS"].split(",")
    assert set(extras) <= set(declared)
    assert {"embedded", "postgresql"} <= set(extras), "the default image runs alone and beside PostgreSQL"
    assert any(word == "RUN" and "[${EXTRAS}]" in rest for word, rest in dockerfile())


def test_the_image_is_of_a_python_that_the_package_accepts() -> None:
    version = next(rest for word, rest in dockerfile() if word == "ARG" and rest.startswith("PYTHON_VERSION="))
    least = project()["project"]["requires-python"].removeprefix(">=")
    assert [int(n) for n in version.partition("=")[2].split(".")] >= [int(n) for n in least.split(".")]


def test_the_image_holds_no_secret() -> None:
    for word, rest in dockerfile():
        if word in ("ARG", "ENV"):
            assert not re.search(r"PASSWORD|SECRET|TOKEN|API_KEY", rest.upper()), rest


def test_the_images_variables_exist() -> None:
    for word, rest in dockerfile():
        if word == "ENV":
            assert set(re.findall(r"K2THINK_\w+", rest)) <= known_variables()


def test_the_build_context_is_the_package_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", "everything is left out first"
    let_in = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    packages = {name.split(".")[1] for name in project()["tool"]["setuptools"]["packages"] if "." in name}
    assert let_in == packages | {
        "models",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "py.typed",
        "__init__.py",
    }
    assert [name for name in let_in if not (ROOT / name).exists()] == []
    assert "**/.env" in lines[max(i for i, line in enumerate(lines) if line.startswith("!")) :]


# ---- The services


def test_there_is_one_service_for_each_kind_of_worker() -> None:
    ours = {name: service for name, service in services().items() if service.get("image") == IMAGE}
    assert set(ours) == set(SERVICES_OF_OURS)
    for agent in (*AGENTS, "intake"):
        assert ours[agent]["command"] == ["worker", agent]


@pytest.mark.parametrize("name", SERVICES_OF_OURS)
def test_the_command_of_each_service_exists(name: str) -> None:
    accept_command(services()[name]["command"])


def test_the_commands_that_the_comments_show_exist() -> None:
    shown = re.findall(
        r"(?:exec \w+ k2think|docker run --rm k2think) (.+)", COMPOSE.read_text() + DOCKERFILE.read_text()
    )
    assert len(shown) == 3
    for line in shown:
        accept_command(shlex.split(line))


def test_each_services_image_is_built_from_files_that_exist() -> None:
    for name in SERVICES_OF_OURS:
        build = services()[name]["build"]
        context = (COMPOSE.parent / build["context"]).resolve()
        assert context == ROOT.resolve()
        assert (context / build["dockerfile"]).is_file()


def test_every_variable_of_ours_exists() -> None:
    for text in (COMPOSE.read_text(), COMPOSE_ENV_EXAMPLE.read_text(), DOCKERFILE.read_text()):
        assert set(re.findall(r"\bK2THINK_[A-Z0-9_]+|\bCEREBRAS_[A-Z_]+", text)) <= known_variables()


def test_the_variables_that_compose_reads_are_those_that_its_env_example_documents() -> None:
    read = set(_REFERENCE.findall(COMPOSE.read_text()))
    documented = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", COMPOSE_ENV_EXAMPLE.read_text(), re.MULTILINE))
    assert {name for name in documented if not name.startswith("K2THINK_")} == read


def test_the_defaults_that_the_env_example_shows_are_those_of_compose() -> None:
    defaults = dict(re.findall(r"\$\{([A-Z0-9_]+):-([^}]+)\}", COMPOSE.read_text()))
    shown = dict(re.findall(r"^#([A-Z][A-Z0-9_]+)=(.+)$", COMPOSE_ENV_EXAMPLE.read_text(), re.MULTILINE))
    assert {name: value for name, value in shown.items() if not name.startswith("K2THINK_")} == defaults


def test_workers_start_after_the_tables_exist_and_redis_answers() -> None:
    for name, service in services().items():
        if name in SERVICES_OF_OURS and name != "migrate":
            after = service["depends_on"]
            assert after["migrate"]["condition"] == "service_completed_successfully", name
            assert after["redis"]["condition"] == "service_healthy", name
            assert service["restart"] == "unless-stopped", name
            assert not service.get("container_name"), "a named container cannot be scaled"
            assert not service.get("ports"), "a published port cannot be scaled"
    assert services()["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services()["migrate"]["restart"] == "no"


def test_whatever_is_waited_for_says_how_it_is() -> None:
    for service in services().values():
        for name, how in service.get("depends_on", {}).items():
            assert name in services()
            if how["condition"] == "service_healthy":
                assert services()[name]["healthcheck"]["test"]
            if services()[name].get("profiles"):
                assert how["required"] is False, f"{name} may not have been started"


def test_a_stopped_worker_is_given_longer_than_it_takes_to_hand_back() -> None:
    for name in SERVICES_OF_OURS:
        grace = services()[name]["stop_grace_period"]
        assert float(grace.removesuffix("s")) >= 2 * Settings.model_fields["shutdown_s"].default


def test_every_gateway_serves_the_network_and_has_the_same_files() -> None:
    gateway = services()["gateway"]
    assert gateway["environment"]["K2THINK_GATEWAY__HOST"] == "0.0.0.0"  # noqa: S104
    assert gateway["environment"]["K2THINK_GATEWAY__TRUSTED_PROXIES"] == "*"
    assert gateway["environment"].items() >= services()["intake"]["environment"].items()
    # A named volume takes owner and mode from the image's folder, which is the data folder.
    assert gateway["volumes"] == [f"files:{only('VOLUME', final_stage())}"]
    assert "K2THINK_GATEWAY__FILES_DIR" not in gateway["environment"], "by default it is in the data folder"


def test_a_gateways_health_is_asked_where_it_listens_under_a_path_that_exists() -> None:
    from k2think.gateway.operations import router

    code = services()["gateway"]["healthcheck"]["test"][-1]
    asked = re.search(r"http://127\.0\.0\.1:(\d+)(/[\w/]+)", code)
    assert asked is not None
    assert int(asked[1]) == GatewaySettings.model_fields["port"].default
    assert asked[2] in {getattr(route, "path", None) for route in router.routes}


def test_redis_keeps_an_append_only_file_and_never_evicts() -> None:
    command = services()["redis"]["command"]
    assert command[0] == "redis-server"
    flags = dict(zip(command[1::2], command[2::2], strict=True))
    assert flags["--appendonly"] == "yes"
    assert flags["--maxmemory-policy"] == "noeviction"
    assert flags["--maxmemory"]
    assert "redis:/data" in services()["redis"]["volumes"]


def test_every_volume_is_declared() -> None:
    used = {v.partition(":")[0] for service in services().values() for v in service.get("volumes", [])}
    assert used == set(compose()["volumes"])


def test_vllm_speculates_and_is_asked_for_only_by_profile() -> None:
    service = services()["vllm"]
    assert service["profiles"] == ["gpu"]
    command = service["command"]
    flags = dict(zip(command[::2], command[1::2], strict=True))
    assert all(flag.startswith("--") for flag in flags)
    speculation = json.loads(flags["--speculative-config"])
    assert speculation["method"] == "ngram"
    assert speculation["num_speculative_tokens"] > 0
    assert 0 < speculation["prompt_lookup_min"] <= speculation["prompt_lookup_max"]
    assert _REFERENCE.fullmatch(flags["--model"])
    device = service["deploy"]["resources"]["reservations"]["devices"][0]
    assert device["capabilities"] == ["gpu"]
    assert device["count"] == flags["--tensor-parallel-size"]
    pointed_to = re.search(r"K2THINK_GENERATOR__BASE_URL=(\S+)", COMPOSE_ENV_EXAMPLE.read_text())
    assert pointed_to is not None
    assert pointed_to[1] == "http://vllm:8000/v1"


def test_no_password_is_written_down() -> None:
    text = COMPOSE.read_text()
    for password in re.findall(r"\w+://[^\s:/@]+:([^@\s]+)@", text):
        assert password.startswith("${POSTGRES_PASSWORD:?"), password
    for name, value in re.findall(r"^\s*(\w*(?:PASSWORD|SECRET|TOKEN|API_KEY)\w*):[ \t]*(\S.*)$", text, re.MULTILINE):
        assert _REFERENCE.fullmatch(value), name
    assert "POSTGRES_PASSWORD=\n" in COMPOSE_ENV_EXAMPLE.read_text()


# ---- The whole, read by compose itself


def compose_command() -> list[str] | None:
    """Return the words that start Docker Compose here, or None; reading a file needs no engine."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]):
            answer = subprocess.run(
                [*words, "version", "--short"], capture_output=True, text=True, timeout=30, check=False
            )
            if answer.returncode == 0 and answer.stdout.lstrip("v").startswith(("2.", "3.", "4.", "5.")):
                return words
    return None


def test_compose_itself_accepts_the_file(tmp_path: Path) -> None:
    words = compose_command()
    if words is None:
        pytest.skip("Docker Compose 2 or newer is not installed")
    shutil.copytree(COMPOSE.parent, tmp_path / "docker", ignore=shutil.ignore_patterns(".env"))
    environment = {name: value for name, value in os.environ.items() if name != "POSTGRES_PASSWORD"}

    def config() -> subprocess.CompletedProcess[str]:
        read = [*words, "-f", str(tmp_path / "docker" / "compose.yaml"), "--profile", "gpu", "config"]
        return subprocess.run(read, capture_output=True, text=True, timeout=60, check=False, env=environment)

    example = COMPOSE_ENV_EXAMPLE.read_text()
    (tmp_path / "docker" / ".env").write_text(example)
    without_password = config()
    assert "set it in docker/.env" in without_password.stderr
    assert not without_password.stdout

    (tmp_path / "docker" / ".env").write_text(example.replace("POSTGRES_PASSWORD=", "POSTGRES_PASSWORD=chosen"))
    accepted = config()
    assert accepted.returncode == 0, accepted.stderr
    assert set(yaml.safe_load(accepted.stdout)["services"]) == set(services()), accepted.stderr
