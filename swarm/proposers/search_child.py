"""Searches files for a regular expression, as a process of its own.

A regular expression of a model's can take for ever, and nothing stops Python's matcher from inside.
Run by path, alone; takes JSON on stdin: `pattern`, `limit` (of characters) and `files`, a list of
name and path. Prints `name:line: text` for each line that matches.
"""

from __future__ import annotations

import json
import re
import sys

LINE = 300
LARGEST = 4_000_000


def main() -> None:
    """Do one search."""
    order = json.load(sys.stdin)
    pattern, left = re.compile(order["pattern"]), int(order["limit"])
    for name, path in order["files"]:
        with open(path, "rb") as file:
            data = file.read(LARGEST)
        if b"\0" in data[:8192]:
            continue
        for number, line in enumerate(data.decode(errors="replace").split("\n"), start=1):
            if pattern.search(line) is None:
                continue
            found = f"{name}:{number}: {line.rstrip(chr(13))[:LINE]}"
            left -= len(found) + 1
            if left < 0:
                print("[there is more: narrow the pattern or the glob]")
                return
            print(found, flush=True)


if __name__ == "__main__":
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    main()
