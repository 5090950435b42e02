"""What the memory allows: decoding reads all weights once a step, so a step takes at least their bytes over the bandwidth.

All streams of a batch share one reading, so N streams may have N times as many tokens, until arithmetic is what is scarce.
Speculation brings several tokens a step and may exceed it; the cache of keys and values, and layers of which only some are
read (mixture of experts), are left out.
"""

import ctypes
import threading
import time
from dataclasses import dataclass

COPY_BYTES_MIN = 1_000_000
COPY_BYTES_MAX = 512_000_000
COPY_S = 0.1
COPY_TIMES = 6
"""Seconds for which copying is measured, and how often."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """The limit, as far as it is known."""

    bandwidth_bytes_per_s: float | None
    """Bytes per second that come out of the memory; None = not known."""
    bandwidth_from: str
    """Where that is from, in words; empty = not known."""
    model_bytes: int | None
    """Bytes that one step reads; None = not known."""

    def tokens_per_s(self, streams: int) -> float | None:
        """Return the tokens of all streams per second at most; None = not known."""
        if self.bandwidth_bytes_per_s is None or not self.model_bytes:
            return None
        return streams * self.bandwidth_bytes_per_s / self.model_bytes


def copy_bandwidth(block_bytes: int, *, threads: int) -> float:
    """Return bytes per second that `threads` threads read by copying blocks that together have this size.

    Blocks of the model's size stay in the caches in which the model would. What is written is not counted: decoding
    writes next to nothing, so a machine may reach somewhat more. The best of several short times counts, since what else
    runs on the machine only ever slows it.
    """
    size = min(COPY_BYTES_MAX, max(COPY_BYTES_MIN, block_bytes)) // threads
    copied = [0] * threads
    ready, stop = threading.Barrier(threads + 1), threading.Event()

    def copy(number: int) -> None:
        source, target = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
        ctypes.memset(source, 1, size)  # pages that were never touched are all one page
        ctypes.memset(target, 1, size)
        ready.wait()
        while not stop.is_set():
            ctypes.memmove(target, source, size)  # without Python's lock
            copied[number] += size

    workers = [threading.Thread(target=copy, args=(number,), daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    rates: list[float] = []
    for _ in range(COPY_TIMES):
        began, before = time.monotonic(), sum(copied)
        time.sleep(COPY_S)
        rates.append((sum(copied) - before) / (time.monotonic() - began))
    stop.set()
    for worker in workers:
        worker.join()
    return max(rates)
