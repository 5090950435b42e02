"""What the package shows to the outside: its version, the two clients, and one console script."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib.metadata import distribution

import k2think
import pytest

CLIENT_METHODS = {
    *("submit", "get", "list", "wait", "stream", "solve", "cancel", "trace"),
    *("upload_file", "get_file", "list_files", "file_content", "download_file", "delete_file"),
    *("create_batch", "get_batch", "list_batches", "cancel_batch", "watch_batch", "wait_batch"),
    *("submit_batch", "batch_results", "solve_batch"),
}
"""What both clients can do, besides being opened and closed."""


def test_the_top_of_the_package_holds_the_version_and_the_clients() -> None:
    assert sorted(k2think.__all__) == ["AsyncClient", "Client", "__version__"]
    assert k2think.__version__ == distribution("k2think").version
    shown = {name for name, value in vars(k2think).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert shown <= {"Any", "TYPE_CHECKING"}, "the clients are loaded when they are asked for"
    with pytest.raises(AttributeError, match="nothing"):
        _ = k2think.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["Client", "AsyncClient"])
def test_both_clients_have_the_same_methods(name: str) -> None:
    cls = getattr(k2think, name)
    public = {method for method in dir(cls) if not method.startswith("_")}
    inner = {"ask", "ask_for", "run", "iterate", "close" if name == "Client" else "aclose"}
    assert public - inner == CLIENT_METHODS
    assert not [method for method in CLIENT_METHODS if not getattr(cls, method).__doc__]


def test_the_client_needs_little_and_the_package_less() -> None:
    code = (
        "import json, sys, k2think; first = 'httpx' in sys.modules; from k2think import Client; "
        "print(json.dumps([first, *{name.partition('.')[0] for name in sys.modules}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    early, *loaded = json.loads(done.stdout)
    assert not early
    assert {"httpx", "pydantic"} <= set(loaded)
    heavy = {"aiohttp", "alembic", "celery", "fastapi", "kombu", "redis", "sqlalchemy", "structlog", "openai"}
    assert not heavy & set(loaded)


def test_without_httpx_the_client_says_what_to_install() -> None:
    code = "import sys; sys.modules['httpx'] = None; from k2think import Client"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "pip install 'k2think[client]'" in done.stderr.splitlines()[-1]


def test_the_console_script_is_k2think() -> None:
    scripts = {e.name: e for e in distribution("k2think").entry_points if e.group == "console_scripts"}
    assert {name: script.value for name, script in scripts.items()} == {"k2think": "k2think.cli:main"}
    main = scripts["k2think"].load()
    assert callable(main)
    assert not [p for p in inspect.signature(main).parameters.values() if p.default is p.empty]
