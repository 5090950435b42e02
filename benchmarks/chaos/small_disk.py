"""A small file system that can be full, seen by this process and its children only. Linux, and only as root."""

import contextlib
import ctypes
import os
import subprocess
from pathlib import Path

CLONE_NEWNS = 0x20000
PIECE = b"0" * 1_048_576


def own_mounts() -> bool:
    """Give this process a list of mounts of its own, which goes away with it and its children; False = not allowed."""
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
            return False
    except (OSError, AttributeError):
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False).returncode == 0


def mount_small(folder: Path, size_mb: int) -> None:
    """Put an empty file system of this size in memory on the folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)], check=True)


def unmount(folder: Path) -> None:
    """Take it away again."""
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


def fill(path: Path) -> None:
    """Write into the file until nothing more fits."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, PIECE)
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, PIECE[:1])
    finally:
        os.close(descriptor)
