"""LiveCodeBench's private tests: a list of tests as JSON, or that text pickled, compressed with zlib and in base64."""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from typing import Any

from ...schemas.errors import GradingError

UNPACKED_BYTES_MAX = 1_000_000_000
"""Bytes of one problem's tests at most, unpacked."""


class _TextOnly(pickle.Unpickler):
    """Reads pickled text. A pickle can name any function and have it called: here it can name none."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Refuse what is not built in: such a pickle is not the text that the data set publishes."""
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")


def unpack_tests(packed: str) -> Any:
    """Return the list of tests. Raises GradingError for anything else, and runs nothing that stands in `packed`."""
    try:
        return json.loads(packed)
    except (ValueError, RecursionError):
        pass
    try:
        raw = base64.b64decode(packed, validate=True)
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(raw, UNPACKED_BYTES_MAX)
        if unpacking.unconsumed_tail:
            raise GradingError(f"the private tests are longer than {UNPACKED_BYTES_MAX} bytes unpacked")
        stated = _TextOnly(io.BytesIO(text)).load()
        if not isinstance(stated, str | bytes):
            raise pickle.UnpicklingError("it is not text")
        return json.loads(stated)
    except GradingError:
        raise
    except (binascii.Error, zlib.error, pickle.UnpicklingError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, RecursionError, MemoryError, OverflowError) as exc:  # fmt: skip
        raise GradingError(
            f"the private tests are neither JSON nor JSON in pickle, zlib and base64 ({type(exc).__name__}: {exc})"
        ) from exc
