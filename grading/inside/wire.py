"""Python values as JSON, between the interpreter of the tests and the one of the answer, and with us outside.

Values travel, behaviour does not: what arrives is made of this side's own types, so that a comparison on this side is
this side's. An object of a class that the other side knows by name is rebuilt there from its attributes; anything else
stays where it is and is spoken of by a number.
"""

from __future__ import annotations

import binascii
import builtins
import collections
import sys
from collections.abc import Callable, Iterable
from typing import Any

_BITS_MAX = 10_000
"""Whole numbers with more bits travel as hexadecimals: their decimals would be slow, and Python limits them."""

_SMALL = 2**63
_PLAIN = frozenset({str, int, float, bool, type(None)})

_BUILTINS = {name: value for name, value in vars(builtins).items() if callable(value) and not name.startswith("_")}
_BUILTIN_NAMES = {id(value): name for name, value in _BUILTINS.items()}


class Unreadable(Exception):
    """What arrived is no value."""


class Wire:
    """Encodes and decodes whole messages. `other` and `fetch` deal with what stays where it is."""

    def __init__(
        self,
        *,
        classes: Callable[[str], type | None],
        known: Callable[[type], bool],
        other: Callable[[object], list[Any]],
        fetch: Callable[[list[Any]], object],
    ) -> None:
        self._class_named = classes
        self._known = known
        self._other = other
        self._fetch = fetch

    def encode(self, value: object) -> dict[str, Any]:
        """Return the message. Objects stand in a list beside the value, so that long chains of them nest nothing."""
        places: dict[int, int] = {}
        objects: list[object] = []

        def place(thing: object) -> list[Any]:
            if id(thing) not in places:
                places[id(thing)] = len(objects)
                objects.append(thing)
            return ["object", places[id(thing)]]

        message: dict[str, Any] = {"value": self._encode(value, place)}
        done: list[Any] = []
        while len(done) < len(objects):
            thing = objects[len(done)]
            attributes = {name: self._encode(held, place) for name, held in vars(thing).items()}
            done.append([type(thing).__name__, attributes])
        if done:
            message["objects"] = done
        return message

    def decode(self, message: Any) -> Any:
        """Return what :meth:`encode` was given. Raises Unreadable for anything else."""
        try:
            stated = message.get("objects", [])
            objects = [self._make(name) for name, _ in stated]
            for thing, (_, attributes) in zip(objects, stated, strict=True):
                thing.__dict__.update({name: self._decode(held, objects) for name, held in attributes.items()})
            return self._decode(message["value"], objects)
        except Unreadable:
            raise
        except Exception as exc:
            raise Unreadable(f"{type(exc).__name__}: {exc}") from exc

    def _make(self, name: str) -> Any:
        kind = self._class_named(name)
        if kind is None:
            raise Unreadable(f"no class {name!r} on this side")
        return object.__new__(kind)

    def _encode(self, value: Any, place: Callable[[object], list[Any]]) -> Any:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return str(value)
        if isinstance(value, int):
            number = int(value)
            return number if number.bit_length() <= _BITS_MAX else ["int", hex(number)]
        if isinstance(value, float):
            return float(value)
        if isinstance(value, list):
            return ["list", self._encode_all(value, place)]
        if isinstance(value, tuple):
            return ["tuple", self._encode_all(value, place)]
        if isinstance(value, dict):
            return ["dict", [[self._encode(key, place), self._encode(held, place)] for key, held in value.items()]]
        if isinstance(value, set | frozenset):
            kind = "set" if isinstance(value, set) else "frozenset"
            return [kind, self._encode_all(value, place)]
        if isinstance(value, collections.deque):
            return ["deque", self._encode_all(value, place)]
        if isinstance(value, bytes | bytearray):
            return [type(value).__mro__[-2].__name__, _as_text(value)]
        if isinstance(value, complex):
            return ["complex", [value.real, value.imag]]
        if isinstance(value, range):
            return ["range", [value.start, value.stop, value.step]]
        if id(value) in _BUILTIN_NAMES:
            return ["builtin", _BUILTIN_NAMES[id(value)]]
        if (coded := _encode_of_modules(value)) is not None:
            return coded
        if hasattr(value, "__dict__") and not isinstance(value, type) and self._known(type(value)):
            return place(value)
        return self._other(value)

    def _encode_all(self, items: Iterable[Any], place: Callable[[object], list[Any]]) -> list[Any]:
        """Encode each; the plain ones, of which long lists are made, without a call."""
        return [
            item
            if (kind := type(item)) is str or (kind is int and -_SMALL < item < _SMALL)
            else self._encode(item, place)
            for item in items
        ]

    def _decode_all(self, coded: list[Any], objects: list[Any]) -> list[Any]:
        return [item if type(item) in _PLAIN else self._decode(item, objects) for item in coded]

    def _decode(self, coded: Any, objects: list[Any]) -> Any:
        if coded is None or isinstance(coded, bool | int | float | str):
            return coded
        kind, *rest = coded
        held: Any = rest[0] if rest else None
        match kind:
            case "list":
                return self._decode_all(held, objects)
            case "tuple":
                return tuple(self._decode_all(held, objects))
            case "dict":
                return {self._decode(key, objects): self._decode(item, objects) for key, item in held}
            case "set":
                return {self._decode(item, objects) for item in held}
            case "frozenset":
                return frozenset(self._decode(item, objects) for item in held)
            case "deque":
                return collections.deque(self._decode(item, objects) for item in held)
            case "int":
                return int(held, 16)
            case "bytes":
                return binascii.a2b_base64(held)
            case "bytearray":
                return bytearray(binascii.a2b_base64(held))
            case "complex":
                return complex(*held)
            case "range":
                return range(*held)
            case "Decimal" | "Fraction" | "datetime" | "date" | "timedelta":
                return _decode_of_modules(kind, held)
            case "builtin":
                return _BUILTINS[held]
            case "array":
                return _decode_array(*rest)
            case "object":
                return objects[held]
            case _:
                return self._fetch(coded)


def _encode_of_modules(value: Any) -> list[Any] | None:
    """Return values of modules that cost much to import: where one was not imported, none of its values is about."""
    decimal, fractions, datetime = (_loaded(name) for name in ("decimal", "fractions", "datetime"))
    if decimal is not None and isinstance(value, decimal.Decimal):
        return ["Decimal", str(value)]
    if fractions is not None and isinstance(value, fractions.Fraction):
        return ["Fraction", f"{value.numerator:x}/{value.denominator:x}"]
    if datetime is not None and isinstance(value, datetime.datetime):
        return ["datetime", value.isoformat()]
    if datetime is not None and isinstance(value, datetime.date):
        return ["date", value.isoformat()]
    if datetime is not None and isinstance(value, datetime.timedelta):
        return ["timedelta", [value.days, value.seconds, value.microseconds]]
    return _encode_array(value)


def _decode_of_modules(kind: str, held: Any) -> Any:
    if kind == "Decimal":
        from decimal import Decimal

        return Decimal(held)
    if kind == "Fraction":
        from fractions import Fraction

        above, _, below = held.partition("/")
        return Fraction(int(above, 16), int(below, 16))
    import datetime

    return datetime.timedelta(*held) if kind == "timedelta" else getattr(datetime, kind).fromisoformat(held)


def _loaded(name: str) -> Any:
    """Return a module that somebody has imported; None = nobody has, or something else stands under its name."""
    wanted = {"decimal": "Decimal", "fractions": "Fraction", "datetime": "datetime", "numpy": "ndarray"}[name]
    module: Any = sys.modules.get(name)
    return module if isinstance(getattr(module, wanted, None), type) else None


def _as_text(raw: bytes | bytearray) -> str:
    return binascii.b2a_base64(raw, newline=False).decode()


def _encode_array(value: Any) -> list[Any] | None:
    numpy = _loaded("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.generic):
        value = numpy.asarray(value)
    if not isinstance(value, numpy.ndarray) or value.dtype.hasobject:
        return None
    whole = numpy.ascontiguousarray(value)
    return ["array", whole.dtype.str, list(value.shape), _as_text(whole.tobytes())]


def _decode_array(kind: str, shape: list[int], content: str) -> Any:
    import numpy  # pyright: ignore[reportMissingImports]

    array: Any = numpy.frombuffer(binascii.a2b_base64(content), dtype=numpy.dtype(kind)).reshape(shape).copy()
    return array[()] if not shape else array


def restore(original: Any, changed: Any, *, seen: set[int] | None = None) -> Any:
    """Give `original` the content of `changed`, in place where it can be changed, and return what now stands for it.

    A function may change the list that it is given; the caller's list must then change, too.
    """
    seen = set() if seen is None else seen
    if id(original) in seen or type(original) is not type(changed):
        return original if id(original) in seen else changed
    if isinstance(original, list):
        seen.add(id(original))
        before: list[Any] = list(original)
        original[:] = [
            restore(before[place], item, seen=seen) if place < len(before) else item
            for place, item in enumerate(changed)
        ]
        return original
    if isinstance(original, dict):
        seen.add(id(original))
        content = {key: restore(original.get(key), item, seen=seen) for key, item in changed.items()}
        original.clear()
        original.update(content)
        return original
    if isinstance(original, set | bytearray | collections.deque):
        original.clear()
        (original.update if isinstance(original, set) else original.extend)(changed)
        return original
    if isinstance(original, tuple):
        return tuple(restore(old, new, seen=seen) for old, new in zip(original, changed, strict=False)) + tuple(
            changed[len(original) :]
        )
    if type(original).__module__ == "numpy" and hasattr(original, "shape") and original.shape == changed.shape != ():
        original[...] = changed
        return original
    if hasattr(original, "__dict__") and not callable(original):
        seen.add(id(original))
        held = vars(original)
        content = {name: restore(held.get(name), item, seen=seen) for name, item in vars(changed).items()}
        held.clear()
        held.update(content)
        return original
    return changed
