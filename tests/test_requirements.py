"""What a module needs at import is in the base install; what only some installs have is imported where it is used."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FOLDERS = ("agents", "cli", "client", "grading", "schemas", "store", "workers")
"""`training` is left out: its modules need its own extra, and nothing outside it imports them at start-up."""

NEEDS_MORE_THAN_THE_BASE = {
    "grading/symbolic.py": {"sympy", "math_verify", "latex2sympy2_extended"},
    **{f"grading/inside/{name}.py": {"wire"} for name in ("answer", "tests")},  # mounted beside each other in a sandbox
    **{f"client/{name}.py": {"httpx"} for name in ("asynchronous", "exchange", "failures", "links", "sync")},
}
"""Modules that only their own process or caller imports: who asks for the client without httpx is told what to install."""


def plain(name: str) -> str:
    """Spell a distribution's name the one way (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def base_distributions() -> set[str]:
    """Return every distribution that `pip install k2think` brings, those of the requirements included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(line) for line in project["dependencies"]]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (plain(wanted.name), extra) in seen:
                continue
            try:
                needed = requires(wanted.name) or []
            except PackageNotFoundError:
                continue
            seen.add((plain(wanted.name), extra))
            parsed = [Requirement(line) for line in needed]
            waiting += [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def imports_at_start(tree: ast.Module) -> Iterator[str]:
    """Yield the top-level names imported when the module is, leaving out functions, `try` and `if TYPE_CHECKING`."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.If | ast.ClassDef | ast.With):
            waiting += [*node.body, *(node.orelse if isinstance(node, ast.If) else [])]


def modules() -> list[Path]:
    return [ROOT / "__init__.py", *(file for name in FOLDERS for file in sorted((ROOT / name).rglob("*.py")))]


@pytest.fixture(scope="module")
def base() -> set[str]:
    return base_distributions()


def test_what_is_imported_at_start_is_in_the_base_install(base: set[str]) -> None:
    owners = packages_distributions()
    strange: dict[str, set[str]] = {}
    for file in modules():
        name = file.relative_to(ROOT).as_posix()
        for imported in imports_at_start(ast.parse(file.read_text(encoding="utf-8"))):
            known = imported in sys.stdlib_module_names or {plain(owner) for owner in owners.get(imported, [])} & base
            if not known and imported not in NEEDS_MORE_THAN_THE_BASE.get(name, set()):
                strange.setdefault(name, set()).add(imported)
    assert not strange


def test_the_list_of_exceptions_is_not_stale() -> None:
    for name, allowed in NEEDS_MORE_THAN_THE_BASE.items():
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        assert allowed <= set(imports_at_start(tree)), name


def test_the_base_is_walked_through_its_requirements(base: set[str]) -> None:
    assert {"celery", "vine", "redis", "pydantic-core", "yarl"} <= base, "requirements of requirements, and extras"
    assert not {"torch", "openvino", "openai", "sympy", "pytest"} & base


def test_the_search_for_imports_knows_what_runs_at_import() -> None:
    code = (
        "import a.b\nfrom c.d import e\nfrom . import f\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import g\nelse:\n    import h\n"
        "def i():\n    import j\nclass K:\n    import l\n"
    )
    assert set(imports_at_start(ast.parse(code))) == {"a", "c", "typing", "h", "l"}
