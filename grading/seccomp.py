"""A seccomp filter that forbids new processes (threads stay allowed).

A process limit does not bind a sandbox that root starts; this does. The program is classic BPF over `seccomp_data`
(linux/seccomp.h): reject foreign architectures, `fork`, `vfork`, `clone` without CLONE_THREAD, and make `clone3`
look absent so that the C library falls back to `clone`.
"""

from __future__ import annotations

import errno
import platform
import struct

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_CLONE_THREAD = 0x00010000
_X32_BIT = 0x40000000

_NUMBERS = {
    # machine: (AUDIT_ARCH, clone, clone3, fork, vfork); 0xFFFFFFFF where the call does not exist
    "x86_64": (0xC000003E, 56, 435, 57, 58),
    "aarch64": (0xC00000B7, 220, 435, 0xFFFFFFFF, 0xFFFFFFFF),
}


def no_new_processes() -> bytes | None:
    """The filter for this machine as `bwrap --seccomp` reads it, or None on an architecture that is not in the table."""
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        return None
    architecture, clone, clone3, fork, vfork = numbers
    program = [
        (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_GREATER_EQUAL, 7, 0, _X32_BIT),  # to the refusal
        (_JUMP_EQUAL, 6, 0, fork),
        (_JUMP_EQUAL, 5, 0, vfork),
        (_JUMP_EQUAL, 5, 0, clone3),  # to "no such call"
        (_JUMP_EQUAL, 0, 2, clone),
        (_LOAD, 0, 0, _OFFSET_FIRST_ARGUMENT),
        (_JUMP_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    return b"".join(struct.pack("=HBBI", code, true, false, k) for code, true, false, k in program)
