"""From a targets file to targets that can be opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...schemas.errors import ConfigurationError
from ...schemas.settings import Settings
from .base import Opens
from .definition import Definition, Kind


def make_targets(definitions: Mapping[str, Definition], settings: Settings, folder: Path) -> list[Opens]:
    """Return the targets, checked as far as it goes without a connection; `folder`: of the run. Raises ConfigurationError."""
    return [_make(name, definition, settings, folder) for name, definition in definitions.items()]


def _make(name: str, definition: Definition, settings: Settings, folder: Path) -> Opens:
    if definition.kind is Kind.endpoint:
        from .endpoint import Endpoint

        return Endpoint(name, definition, settings)
    if definition.base_url is not None:
        try:
            from .gateway import GatewayPolicy
        except ModuleNotFoundError as exc:
            if exc.name != "httpx":
                raise
            raise ConfigurationError(
                f"target {name!r}: asking a gateway needs the client: pip install 'k2think[client]'"
            ) from exc
        return GatewayPolicy(name, definition)
    from .embedded import EmbeddedPolicy

    return EmbeddedPolicy(name, definition, folder)
