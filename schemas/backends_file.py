"""K2THINK_BACKENDS_FILE: named backends in a TOML file, a table for each."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from .errors import ConfigurationError

VARIABLE = "K2THINK_BACKENDS_FILE"


class BackendsFile(PydanticBaseSettingsSource):
    """The source of settings that goes behind all others; the name of its file comes from them."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: the file fills one field."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the backends of the file. Raises ConfigurationError."""
        path = self.current_state.get("backends_file")
        return {"backends": read_backends(Path(path).expanduser())} if path else {}


def read_backends(path: Path) -> dict[str, dict[str, Any]]:
    """Read a file of backends: their fields by their names, not checked yet. Raises ConfigurationError."""
    try:
        found = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{VARIABLE}: {path} is not valid TOML: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{VARIABLE}: {path} is no text in UTF-8") from exc
    except OSError as exc:
        raise ConfigurationError(f"{VARIABLE}: {path} cannot be read: {exc.strerror}") from exc
    for name, table in found.items():
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"{VARIABLE}: {name!r} in {path} stands outside of any backend; begin each with its name, such as [fast]"
            )
    return found
