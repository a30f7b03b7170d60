"""Runs a command and puts the time before each line that it prints: nobody else sees when it came.

    python stamp.py COMMAND ARGUMENT...

It ends as the command ends. What the command reads is its own stdin.
"""

import subprocess
import sys
import time


def main() -> int:
    try:
        child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
    except OSError as error:
        print(f"cannot be started: {error}", file=sys.stderr)
        return 127
    assert child.stdout is not None
    out = sys.stdout.buffer
    for line in child.stdout:
        out.write(b"%.3f\t" % time.monotonic() + line.rstrip(b"\n") + b"\n")
        out.flush()
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
