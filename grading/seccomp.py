"""Which system calls a sandboxed program may not make: as a classic BPF filter for bubblewrap, as a list for gVisor.

Refused are new processes (threads stay allowed; a process limit does not bind a sandbox that root starts), new
namespaces and mounts, looking into other processes, memory that no limit counts (memfd, System V), sockets of other
families than Unix and IP (those belong to no network namespace), and the corners of the kernel that exploits come from.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from dataclasses import dataclass

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
CLONE_THREAD = 0x00010000
"""Flag of `clone`: a thread of this process, not a process."""
_X32_BIT = 0x40000000

SOCKET_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
"""What `socket` may make."""


@dataclass(frozen=True, slots=True)
class _Machine:
    audit: int
    """AUDIT_ARCH of linux/audit.h."""
    column: int
    """Place of its numbers in the table."""


_MACHINES = {"x86_64": _Machine(0xC000003E, 0), "aarch64": _Machine(0xC00000B7, 1)}

_CLONE, _SOCKET, _CLONE3 = (56, 220), (41, 198), (435, 435)

_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # name: numbers on x86_64 and aarch64; None where there is no such call
    "fork": (57, None),
    "vfork": (58, None),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "personality": (135, 92),
}

REFUSED_NAMES = tuple(_REFUSED)
"""Calls that are refused whatever their arguments; `clone` and `socket` are looked at more closely."""


def filter_program() -> bytes | None:
    """Return the filter for this machine as `bwrap --seccomp` reads it, or None on an architecture that is not in the table."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return None
    column = machine.column
    refused = [numbers[column] for numbers in _REFUSED.values() if numbers[column] is not None]
    lines: list[tuple[int, str | None, str | None, int]] = [
        # (operation, where to when it holds, where to when not, value); None = to the next line
        (_LOAD, None, None, _OFFSET_ARCHITECTURE),
        (_JUMP_EQUAL, None, "kill", machine.audit),
        (_LOAD, None, None, _OFFSET_NUMBER),
        (_JUMP_GREATER_EQUAL, "refuse", None, _X32_BIT),
        (_JUMP_EQUAL, "absent", None, _CLONE3[column]),
        (_JUMP_EQUAL, "clone", None, _CLONE[column]),
        (_JUMP_EQUAL, "socket", None, _SOCKET[column]),
        *((_JUMP_EQUAL, "refuse", None, number) for number in refused if number is not None),
    ]
    marks = {"allow": len(lines)}
    lines.append((_RETURN, None, None, _ALLOW))
    marks["clone"] = len(lines)
    lines += [
        (_LOAD, None, None, _OFFSET_FIRST_ARGUMENT),
        (_JUMP_ANY_BIT, "allow_late", "refuse", CLONE_THREAD),
    ]
    marks["socket"] = len(lines)
    lines.append((_LOAD, None, None, _OFFSET_FIRST_ARGUMENT))
    lines += [(_JUMP_EQUAL, "allow_late", None, family) for family in SOCKET_FAMILIES]
    marks["refuse"] = len(lines)
    lines.append((_RETURN, None, None, _ERRNO | errno.EPERM))
    marks["absent"] = len(lines)  # the C library then falls back to `clone`, whose flags can be read
    lines.append((_RETURN, None, None, _ERRNO | errno.ENOSYS))
    marks["kill"] = len(lines)
    lines.append((_RETURN, None, None, _KILL))
    marks["allow_late"] = len(lines)  # jumps go forward only
    lines.append((_RETURN, None, None, _ALLOW))

    def distance(place: int, mark: str | None) -> int:
        return 0 if mark is None else marks[mark] - place - 1

    return b"".join(
        struct.pack("=HBBI", operation, distance(place, true), distance(place, false), value)
        for place, (operation, true, false, value) in enumerate(lines)
    )
