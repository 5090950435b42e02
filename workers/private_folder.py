"""The temporary folder of a private stack. Its owner holds a lock in it for life, so that whoever comes later sees what is left over."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

PREFIX = "k2think-private-stack-"
OWNER_FILE = "k2think-owner.lock"


@contextlib.contextmanager
def private_folder() -> Generator[Path]:
    """Yield a new temporary folder; remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / "owner").open("x") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)
            # Only now is it a name that others look for.
            os.rename(owner.name, folder / OWNER_FILE)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove our own such folders whose owner was killed, and nothing else."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            with (folder / OWNER_FILE).open("r+") as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
