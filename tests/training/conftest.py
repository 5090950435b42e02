"""The shipped model folder, loaded once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import k2think
import pytest
from k2think.training.mini.engine import FolderEngine


@pytest.fixture(scope="session")
def shipped_folder() -> Path:
    return Path(k2think.__file__).parent / "models" / "k2think-mini"


@pytest.fixture(scope="session")
def shipped(shipped_folder: Path) -> FolderEngine:
    pytest.importorskip("openvino_genai", reason="the embedded engine is not installed (extra `embedded`)")
    return FolderEngine(shipped_folder)
