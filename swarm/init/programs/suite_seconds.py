"""Times the tests: once to warm up, then five times in this same process, one line each, so that
the start of the interpreter and of pytest is not in it. Written by `swarm init`; it may be changed.
"""

import contextlib
import io
import sys
import time

import pytest

ARGUMENTS = ["-q", "-x", "-p", "no:cacheprovider", *sys.argv[1:]]
for turn in range(6):
    said = io.StringIO()
    begun = time.perf_counter()
    with contextlib.redirect_stdout(said):
        status = pytest.main(ARGUMENTS)
    seconds = time.perf_counter() - begun
    if status != 0:
        print(said.getvalue())
        sys.exit(f"the tests ended with status {int(status)}")
    if turn:
        print(f"METRIC seconds={seconds:.6f}")
