"""What a module logs, however the tests before have configured logging."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture


def captured(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[Any]:
    """Return the list that every event of the module's `log` goes into from now on."""
    capture = LogCapture()
    log = structlog.wrap_logger(None, processors=[capture], wrapper_class=structlog.stdlib.BoundLogger)
    monkeypatch.setattr(module, "log", log)
    return capture.entries
