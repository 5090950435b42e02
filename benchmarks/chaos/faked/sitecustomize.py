"""For children whose clock is libfaketime's: it breaks the sleep of Python 3.11 and later where monotonic clocks stay true.

Up to libfaketime 0.9.10, `clock_nanosleep` until a monotonic time fails with EINVAL
(https://github.com/wolfcw/libfaketime/issues/426). Waiting for nothing to be readable sleeps as well.
"""

import select
import time


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep
