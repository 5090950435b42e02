"""Starts the tests and the answer with a pipe each way between them, where one sandbox has to hold both."""

from __future__ import annotations

import os
import subprocess
import sys


def main() -> int:
    """Run both; what the tests report is this program's standard error."""
    from_tests, to_answer = os.pipe()
    from_answer, to_tests = os.pipe()
    python = [sys.executable, "-I", "-B"]
    answer = subprocess.Popen([*python, "answer.py"], stdin=from_tests, stdout=to_tests, stderr=subprocess.DEVNULL)
    tests = subprocess.Popen([*python, "tests.py"], stdin=from_answer, stdout=to_answer)
    for end in (from_tests, to_answer, from_answer, to_tests):
        os.close(end)
    status = tests.wait()
    answer.kill()
    answer.wait()
    return status


if __name__ == "__main__":
    sys.exit(main())
