"""Runs assertions against an answer that lives in another interpreter: the names that the tests lack stand for its own.

`tests.py` reads `tests.json` beside it. Requests to the answer go out on standard output, its replies come in on
standard input; what came of each test goes to standard error, a line each, after a word that only this side knows.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

FOLDER = os.path.dirname(os.path.abspath(sys.argv[0]))
sys.path.insert(0, FOLDER)
from wire import Unreadable, Wire, restore  # noqa: E402  # pyright: ignore[reportImplicitRelativeImport]

sys.path.remove(FOLDER)

LINE_BYTES_MAX = 64_000_000
OWN_MODULE = "tests"
"""Module of the classes that the tests define themselves: only those are rebuilt from what the answer tells."""


class AnswerEnded(BaseException):
    """The answer's interpreter is gone: no `except Exception` of a test may take that for a verdict."""


class Link:
    """The answer's objects, as the tests see them."""

    def __init__(self, replies: Any, requests: Any, names: dict[str, Any]) -> None:
        self._replies = replies
        self._requests = requests
        self._names = names
        self._functions: list[Callable[..., Any]] = []
        self._remotes: dict[int, Remote] = {}
        self.wire = Wire(
            classes=self.class_named,
            known=lambda kind: self.class_named(kind.__name__) is kind,
            other=self._keep,
            fetch=self._fetch,
        )

    def class_named(self, name: str) -> type | None:
        """Return the tests' own class of that name; what they import is not their own."""
        found = self._names.get(name)
        return found if isinstance(found, type) and found.__module__ == OWN_MODULE else None

    def read(self) -> dict[str, Any]:
        """Return the next line from the answer."""
        line = self._replies.readline(LINE_BYTES_MAX)
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            raise AnswerEnded
        return reply

    def ask(self, do: str, **more: Any) -> Any:
        """Have something done in the other interpreter; raises what it raised there."""
        given = self.wire.encode(more["given"]) if "given" in more else None
        self._say({"do": do, **more, **({} if given is None else {"given": given})})
        while "back" in (reply := self.read()):
            self._say(self._call_back(reply))
        if "error" in reply:
            raise _raised(reply["error"])
        if "after" in reply:
            restore(more["given"], self.wire.decode(reply["after"]))
        return self.wire.decode(reply["ok"])

    def _say(self, request: dict[str, Any]) -> None:
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        except BrokenPipeError:
            raise AnswerEnded from None

    def _call_back(self, reply: dict[str, Any]) -> dict[str, Any]:
        try:
            positional, named = self.wire.decode(reply["given"])
            return {"ok": self.wire.encode(self._functions[reply["back"]](*positional, **named))}
        except Exception as exc:
            return {"error": {"text": f"{type(exc).__name__}: {exc}"}}

    def _keep(self, value: object) -> list[Any]:
        if isinstance(value, Remote):
            return ["handle", value._number]  # pyright: ignore[reportPrivateUsage]  else it would hide a name of the answer's
        if callable(value):
            self._functions.append(value)
            return ["callback", len(self._functions) - 1]
        raise TypeError(f"a {type(value).__name__} of the tests cannot be handed to the answer")

    def _fetch(self, coded: list[Any]) -> object:
        if coded[0] == "callback":
            return self._functions[coded[1]]
        if coded[0] != "handle":
            raise Unreadable(f"unknown kind {coded[0]!r}")
        return self._remotes.setdefault(coded[1], Remote(self, coded[1], str(coded[2])))


class Remote:
    """An object of the answer's. Its own operators are asked only about two objects of the answer's, never about the
    tests' values: an object that calls itself equal to everything, or nothing apart, is equal to none of those."""

    __slots__ = ("_kind", "_link", "_number")

    def __init__(self, link: Link, number: int, kind: str) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_kind", kind)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self._link.ask("call", on=self._number, given=(list(positional), named))

    def __getattr__(self, name: str) -> Any:
        return self._link.ask("attribute", on=self._number, name=name)

    def __setattr__(self, name: str, value: object) -> None:
        self._link.ask("set", on=self._number, name=name, given=value)

    def __setitem__(self, place: object, value: object) -> None:
        self._link.ask("item", on=self._number, given=(place, value))

    def __getitem__(self, place: object) -> Any:
        return self._link.ask("binary", on=self._number, name="getitem", given=place)

    def __iter__(self) -> Iterator[Any]:
        items = self._unary("iter")
        while True:
            try:
                yield items._unary("next")
            except StopIteration:
                return

    def __next__(self) -> Any:
        return self._unary("next")

    def __contains__(self, value: object) -> bool:
        return any(value == item for item in self)

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Remote) and bool(self._link.ask("instance", on=self._number, given=value))

    def __bool__(self) -> bool:
        return bool(self._unary("bool"))

    def __str__(self) -> str:
        return str(self._unary("str"))

    def __repr__(self) -> str:
        return str(self._unary("repr"))

    def __hash__(self) -> int:
        return hash(self._unary("hash"))

    def __len__(self) -> int:
        return self._unary("len")

    def __int__(self) -> int:
        return self._unary("int")

    def __float__(self) -> float:
        return self._unary("float")

    def __index__(self) -> int:
        return self._unary("index")

    def __abs__(self) -> Any:
        return self._unary("abs")

    def __neg__(self) -> Any:
        return self._unary("neg")

    def __eq__(self, other: object) -> Any:
        return self._link.ask("binary", on=self._number, name="eq", given=other) if isinstance(other, Remote) else False

    def __ne__(self, other: object) -> Any:
        return self._link.ask("binary", on=self._number, name="ne", given=other) if isinstance(other, Remote) else True

    def _unary(self, name: str) -> Any:
        return self._link.ask("unary", on=self._number, name=name)


def _between_two(name: str) -> Callable[[Remote, object], Any]:
    def operate(self: Remote, other: object) -> Any:
        if not isinstance(other, Remote):
            return NotImplemented
        return self._link.ask("binary", on=self._number, name=name, given=other)  # pyright: ignore[reportPrivateUsage]

    return operate


for _method, _operation in (
    ("add", "add"), ("sub", "sub"), ("mul", "mul"), ("truediv", "truediv"), ("floordiv", "floordiv"), ("mod", "mod"),
    ("pow", "pow"), ("matmul", "matmul"), ("and", "and_"), ("or", "or_"), ("xor", "xor"), ("lshift", "lshift"),
    ("rshift", "rshift"), ("lt", "lt"), ("le", "le"), ("gt", "gt"), ("ge", "ge"),
):  # fmt: skip
    setattr(Remote, f"__{_method}__", _between_two(_operation))


def _raised(error: dict[str, Any]) -> Exception:
    """Return the exception that the answer raised, of the nearest kind that is safe to raise here."""
    for name in error.get("kinds", []):
        kind = getattr(builtins, str(name), None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return _marked(kind(error.get("text", "")))
            except TypeError:  # UnicodeDecodeError and its like want more
                continue
    return _marked(RuntimeError(f"{error.get('type')}: {error.get('text')}"))


def _marked(exc: Exception) -> Exception:
    exc.__dict__["of_answer"] = True
    return exc


def _is_broken(exc: Exception) -> bool:
    """Whether the tests cannot be run here at all, whatever the answer."""
    return isinstance(exc, ModuleNotFoundError) and "of_answer" not in exc.__dict__


def names_used(trees: list[ast.Module]) -> list[str]:
    """Return the names that the tests use, in order, without those that they bind themselves as a whole."""
    loaded, bound = dict[str, None](), set[str]()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                loaded[node.id] = None
        for statement in tree.body:
            bound |= _bound_by(statement)
    return [name for name in loaded if name not in bound]


def names_checked(trees: list[ast.Module]) -> set[str]:
    """Return the names handed to `check`, as the tests of HumanEval and LeetCode end: those are the answer's."""
    found = set[str]()
    for statement in (statement for tree in trees for statement in tree.body):
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "check":
            found |= {node.id for argument in call.args for node in ast.walk(argument) if isinstance(node, ast.Name)}
    return found


def _bound_by(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    return {
        node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    }


class Run:
    """The tests of one answer."""

    def __init__(self, plan: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        self._plan = plan
        self._report = report
        self._names: dict[str, Any] = {"__name__": OWN_MODULE, "__builtins__": builtins}

    def all(self, replies: Any, requests: Any) -> None:
        """Run them, one after the other in one namespace."""
        try:
            # What is the data set's own, before the answer has said a word.
            exec(compile(self._plan["prefix"], "prefix", "exec"), self._names)  # noqa: S102
            setup = ast.parse(self._plan["setup"], "setup")
            tests = [ast.parse(test, "test") for test in self._plan["tests"]]
            compiled = [compile(tree, "test", "exec") for tree in tests]
            prepared = compile(setup, "setup", "exec")
        except Exception as exc:
            self._report({"broken": f"{type(exc).__name__}: {exc}"})
            return
        for name in names_checked(tests):  # such as the function of which the prefix holds the head alone
            self._names.pop(name, None)
        link = Link(replies, requests, self._names)
        try:
            first = link.read()
            if "error" in first:
                left = first["error"].get("type") == "SystemExit"
                self._rest("exited_early" if left else "failed", _words(first["error"]))
                return
            self._borrow(link, names_used([setup, *tests]))
            exec(prepared, self._names)  # noqa: S102
        except AnswerEnded:
            self._rest("exited_early", "the answer ended before the tests began")
            return
        except Exception as exc:
            if _is_broken(exc):
                self._report({"broken": f"{type(exc).__name__}: {exc}"})
            else:
                self._rest("failed", f"before the tests: {type(exc).__name__}: {exc}")
            return
        for number, code in enumerate(compiled):
            if not self._one(code, self._plan["tests"][number]):
                return

    def _one(self, code: Any, source: str) -> bool:
        try:
            exec(code, self._names)  # noqa: S102
        except AnswerEnded:
            self._rest("exited_early", "the answer ended before the test did")
            return False
        except SystemExit as exc:  # unittest.main() and its like
            if exc.code:
                self._report({"passed": False, "reason": "failed", "detail": f"the test left with {exc.code!r}"})
                return True
        except Exception as exc:
            if _is_broken(exc):
                self._report({"broken": f"{type(exc).__name__}: {exc}"})
                return False
            self._report({"passed": False, "reason": "failed", "detail": _where(exc, source)})
            return True
        self._report({"passed": True, "reason": "passed", "detail": ""})
        return True

    def _rest(self, reason: str, detail: str) -> None:
        self._report({"passed": False, "reason": reason, "detail": detail, "rest": True})

    def _borrow(self, link: Link, names: list[str]) -> None:
        """Let the names that the tests lack stand for the answer's; builtins only when the tests name nothing else of it."""
        classes = [name for name, value in self._names.items() if isinstance(value, type)]
        missing = [name for name in names if name not in self._names]
        for wanted in (
            [name for name in missing if not hasattr(builtins, name)],
            [name for name in missing if hasattr(builtins, name)],
        ):
            found = [name for name in link.ask("names", names=wanted, classes=classes) if name in wanted]
            for name in found:
                self._names[name] = link.ask("name", name=name)
            if found:
                return


def _words(error: dict[str, Any]) -> str:
    return f"{error.get('type')}: {error.get('text')}"


def _where(exc: Exception, source: str) -> str:
    lines = source.splitlines()
    line, step = None, exc.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == "test":
            line = step.tb_lineno
        step = step.tb_next
    shown = f" in `{lines[line - 1].strip()[:200]}`" if line is not None and 0 < line <= len(lines) else ""
    text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    return text[:300] + shown


def main() -> None:
    """Take the pipes away from the tests' own input and output, and run."""
    replies, requests = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    with open(os.path.join(FOLDER, "tests.json"), encoding="utf-8") as file:
        plan = json.load(file)

    def report(line: dict[str, Any]) -> None:
        os.write(2, f"\n{plan['word']} {json.dumps(line)}\n".encode())

    Run(plan, report).all(replies, requests)


if __name__ == "__main__":
    main()
