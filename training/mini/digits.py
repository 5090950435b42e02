"""Digit-by-digit traces of addition, subtraction and multiplication.

A small model does not learn whole-number jumps; it learns one-digit steps, least significant digit first, with carry
(``c``) and borrow (``b``) flags. Operands are padded to one length, so the digits of a step stay a fixed distance apart.
"""

from __future__ import annotations


def add(a: int, b: int) -> str:
    """Trace of ``a + b`` for ``a, b >= 0``: ``47+08:7+8=5c,4+0c=5>55``."""
    size = max(len(str(a)), len(str(b)))
    left, right = str(a).zfill(size), str(b).zfill(size)
    carry = 0
    steps: list[str] = []
    for p, q in zip(reversed(left), reversed(right), strict=True):
        total = int(p) + int(q) + carry
        steps.append(f"{p}+{q}{'c' if carry else ''}={total % 10}{'c' if total > 9 else ''}")
        carry = total // 10
    return f"{left}+{right}:{','.join(steps)}>{a + b}"


def subtract(a: int, b: int) -> str:
    """Trace of ``a - b`` for ``a, b >= 0``. When ``a < b`` the sign comes first: ``3<5:-;5-3:5-3=2>2;-2``."""
    if a < b:
        return f"{a}<{b}:-;{subtract(b, a)};-{b - a}"
    size = len(str(a))
    left, right = str(a), str(b).zfill(size)
    borrow = 0
    steps: list[str] = []
    for p, q in zip(reversed(left), reversed(right), strict=True):
        rest = int(p) - int(q) - borrow
        steps.append(f"{p}-{q}{'b' if borrow else ''}={rest % 10}{'b' if rest < 0 else ''}")
        borrow = int(rest < 0)
    return f"{left}-{right}:{','.join(steps)}>{a - b}"


def multiply(a: int, b: int) -> str:
    """Trace of ``a * b`` for ``0 <= a <= 99`` and one digit ``b``: ``47*6:7*6=42,4*6=24+4=28>282``."""
    carry = 0
    steps: list[str] = []
    for p in reversed(str(a)):
        product = int(p) * b
        steps.append(f"{p}*{b}={product}" + (f"+{carry}={product + carry}" if carry else ""))
        carry = (product + carry) // 10
    return f"{a}*{b}:{','.join(steps)}>{a * b}"


def tail_number(trace: str) -> str:
    """The number that a trace of this module ends in, as text."""
    return trace[max(trace.rfind(">"), trace.rfind(";")) + 1 :]
