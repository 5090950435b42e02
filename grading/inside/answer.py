"""Holds the answer and does what it is asked, line by line: the answer's interpreter, which nothing trusts.

`answer.py` runs `given.py`, the model's code, beside it. Each line of standard input is a request, each line of standard
output a reply, both JSON. What the answer itself prints goes nowhere.
"""

from __future__ import annotations

import json
import operator
import os
import sys
import types
from collections.abc import Callable
from typing import Any

FOLDER = os.path.dirname(os.path.abspath(sys.argv[0]))
sys.path.insert(0, FOLDER)
from wire import Wire  # noqa: E402  # pyright: ignore[reportImplicitRelativeImport]

sys.path.remove(FOLDER)

_UNARY: dict[str, Callable[[Any], Any]] = {
    "abs": abs, "bool": bool, "complex": complex, "float": float, "hash": hash, "index": operator.index, "int": int,
    "invert": operator.invert, "iter": iter, "len": len, "neg": operator.neg, "next": next, "pos": operator.pos,
    "repr": repr, "round": round, "str": str,
}  # fmt: skip
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name)
    for name in (
        "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift",
        "eq", "ne", "lt", "le", "gt", "ge", "getitem", "delitem",
    )
}  # fmt: skip


class Host:
    """The answer's names, and its objects that others speak of by number."""

    def __init__(self, requests: Any, replies: Any) -> None:
        self._requests = requests
        self._replies = replies
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._their_classes: set[str] = set()
        self._names: dict[str, Any] = {}
        self.wire = Wire(
            classes=self._class_named,
            known=lambda kind: kind.__name__ in self._their_classes and self._class_named(kind.__name__) is kind,
            other=self._keep,
            fetch=self._fetch,
        )

    def load(self) -> None:
        """Run the answer, as a module that is imported."""
        module = types.ModuleType("answer")
        sys.modules["answer"] = module
        self._names = module.__dict__
        path = os.path.join(FOLDER, "given.py")
        with open(path, "rb") as file:
            source = file.read()
        self._names["__file__"] = path
        exec(compile(source, path, "exec"), self._names)  # noqa: S102  what this program is for

    def serve(self) -> None:
        """Answer requests until there are no more."""
        while line := self._requests.readline():
            self.say(self.reply(json.loads(line)))

    def say(self, reply: dict[str, Any]) -> None:
        """Write one line."""
        self._replies.write(json.dumps(reply).encode() + b"\n")
        self._replies.flush()

    def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked; whatever the answer raises is told."""
        told = {"number": request["number"]} if "number" in request else {}
        try:
            return told | self._do(request)
        except BaseException as exc:
            return told | {"error": describe(exc)}

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "names":
                self._their_classes = set(request["classes"])
                return self._ok([name for name in request["names"] if name in self._names])
            case "name":
                return self._ok(self._names[request["name"]])
            case "call":
                return self._call(self._objects[request["on"]], request["given"])
            case "function":
                positional, named = self.wire.decode(request["given"])
                return self._ok(self._function(request["name"])(*positional, **named))
            case "attribute":
                return self._ok(getattr(self._objects[request["on"]], request["name"]))
            case "set":
                setattr(self._objects[request["on"]], request["name"], self.wire.decode(request["given"]))
                return self._ok(None)
            case "item":
                place, value = self.wire.decode(request["given"])
                operator.setitem(self._objects[request["on"]], place, value)
                return self._ok(None)
            case "instance":
                return self._ok(isinstance(self.wire.decode(request["given"]), self._objects[request["on"]]))
            case "unary":
                return self._ok(_UNARY[request["name"]](self._objects[request["on"]]))
            case _:
                return self._ok(
                    _BINARY[request["name"]](self._objects[request["on"]], self.wire.decode(request["given"]))
                )

    def _call(self, function: Any, given: Any) -> dict[str, Any]:
        arguments = self.wire.decode(given)
        positional, named = arguments
        told = self._ok(function(*positional, **named))
        after = self.wire.encode(arguments)
        return told if after == given else told | {"after": after}

    def _function(self, name: str) -> Any:
        """Return the method of a fresh Solution, or the function of that name."""
        solution = self._names.get("Solution")
        if isinstance(solution, type) and hasattr(solution, name):
            return getattr(solution(), name)
        return self._names[name]

    def _ok(self, value: object) -> dict[str, Any]:
        return {"ok": self.wire.encode(value)}

    def _class_named(self, name: str) -> type | None:
        found = self._names.get(name)
        return found if isinstance(found, type) else None

    def _keep(self, value: object) -> list[Any]:
        if isinstance(value, Callback):
            return ["callback", value.number]
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return ["handle", self._numbers[id(value)], type(value).__name__]

    def _fetch(self, coded: list[Any]) -> object:
        return Callback(self, coded[1]) if coded[0] == "callback" else self._objects[coded[1]]

    def call_back(self, number: int, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Have a function called that lives with the tests."""
        self.say({"back": number, "given": self.wire.encode((positional, named))})
        while "do" in (answer := json.loads(self._requests.readline())):  # the function itself asks for something
            self.say(self.reply(answer))
        if "error" in answer:
            raise RuntimeError(answer["error"]["text"])
        return self.wire.decode(answer["ok"])


class Callback:
    """A function of the tests that was handed to the answer."""

    def __init__(self, host: Host, number: int) -> None:
        self._host = host
        self.number = number

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self._host.call_back(self.number, positional, named)


def describe(exc: BaseException) -> dict[str, Any]:
    """Return an exception in words; never raises, whatever the answer made of its exceptions."""
    try:
        where, step = "", exc.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_filename.endswith("given.py"):
                where = f" (line {step.tb_lineno})"
            step = step.tb_next
        return {"type": type(exc).__name__, "text": f"{str(exc)[:1000]}{where}", "kinds": _kinds(exc)}
    except BaseException:
        return {"type": "Exception", "text": "", "kinds": ["Exception"]}


def _kinds(exc: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(exc).__mro__ if kind.__module__ == "builtins"]


def main() -> None:
    """Take the pipes away from the answer's own input and output, load it, serve."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    host = Host(requests, replies)
    try:
        host.load()
    except BaseException as exc:
        host.say({"error": describe(exc)})
        return
    host.say({"ready": True})
    host.serve()


if __name__ == "__main__":
    main()
