"""What the package shows to the outside: its version and one console script."""

from __future__ import annotations

import inspect
from importlib.metadata import distribution

import k2think


def test_the_top_of_the_package_holds_the_version_only() -> None:
    public = {name for name, value in vars(k2think).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public == set()
    assert k2think.__version__ == distribution("k2think").version


def test_the_console_script_is_k2think() -> None:
    scripts = {e.name: e for e in distribution("k2think").entry_points if e.group == "console_scripts"}
    assert {name: script.value for name, script in scripts.items()} == {"k2think": "k2think.cli:main"}
    main = scripts["k2think"].load()
    assert callable(main)
    assert not [p for p in inspect.signature(main).parameters.values() if p.default is p.empty]
