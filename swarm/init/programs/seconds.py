"""Times a command: five starts of it, one line each. Written by `swarm init`; it may be changed."""

import subprocess
import sys
import time

for _ in range(5):
    begun = time.perf_counter()
    done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.stdout.buffer.write(done.stdout)
        sys.exit(f"{sys.argv[1:]} ended with status {done.returncode}")
    print(f"METRIC seconds={time.perf_counter() - begun:.6f}")
