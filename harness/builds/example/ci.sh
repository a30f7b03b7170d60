#!/bin/sh
# What runs for every push: compile all, build, test.
set -e
python -m compileall -q -f src build.py tests
python build.py
python -B tests/test_bundle.py 2>&1
