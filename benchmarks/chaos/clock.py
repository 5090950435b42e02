"""Clocks that jump by an hour: libfaketime stands before the children's own, and a file tells it what to add.

Monotonic clocks stay true, as they do when a machine's clock is set.
"""

from pathlib import Path

LIBRARIES = (
    "usr/lib/*/faketime/libfaketime.so.1",
    "usr/lib/faketime/libfaketime.so.1",
    "usr/local/lib/faketime/*.so.1",
)
JUMP_S = 3600
"""How far a clock jumps: more than a run lasts, so that each time tells by which clock it was read."""
SITE = Path(__file__).resolve().with_name("faked")
"""Folder of what makes libfaketime and Python agree."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
RUN_MAX_S = JUMP_S / 2


def find_library() -> Path | None:
    """Return libfaketime's shared library; None = it is not installed."""
    return next((found for pattern in LIBRARIES for found in sorted(Path("/").glob(pattern))), None)


class Clocks:
    """One clock per child."""

    def __init__(self, folder: Path, library: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._library = library

    def environment(self, role: str) -> dict[str, str]:
        """Variables for the child whose clock it is."""
        self.set([role], 0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._folder / role),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Else waits until a monotonic time return at once, and threads of Python that wait for each other spin.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "PYTHONPATH": str(SITE),
            # The times of files are the disk's.
            "NO_FAKE_STAT": "1",
        }

    def set(self, roles: list[str], ahead_s: int) -> None:
        """Put these clocks ahead of the true time; 0 = right, less than 0 = behind."""
        for role in roles:
            # Whoever reads the time just now finds the old file or the new one, and none that is half written.
            written = self._folder / f"{role}.new"
            written.write_text(f"{ahead_s:+d}\n")
            written.replace(self._folder / role)


def clear_shared_memory() -> None:
    """Remove what libfaketime left in shared memory for processes that were killed."""
    for path in SHARED_MEMORY.glob("*faketime_*"):
        pid = path.name.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)


def true_time(at: float, now: float) -> float:
    """What our own clock said when a clock that was right, or off by whole jumps, said `at`; less than RUN_MAX_S ago."""
    return at - JUMP_S * round((at - now) / JUMP_S)
