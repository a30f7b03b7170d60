"""Whether a change has been tried before: what two changes have in common, by text alone. Pure."""

from __future__ import annotations

import re

_HEADER = ("diff --git ", "index ", "--- ", "+++ ", "@@ ", "new file mode", "similarity index")


def change_key(diff: str) -> str:
    """Reduce a diff to what it changes: no places, no context, no blank lines, no idle blanks.

    Indentation stays: in Python it is meaning. Empty for an empty diff, and for one that was cut,
    of which too little is known.
    """
    found: list[str] = []
    for line in diff.splitlines():
        if line.startswith("[... "):
            return ""
        if line.startswith(("+++ ", "--- ")):
            found.append(line[:4] + line[6:])
        elif line.startswith(_HEADER) or not line.startswith(("+", "-")):
            continue
        elif body := line[1:].rstrip():
            indent = len(body) - len(body.lstrip())
            found.append(line[0] + body[:indent] + re.sub(r"\s+", " ", body[indent:]))
    return "\n".join(found)


def summary_key(summary: str) -> str:
    """Reduce a summary to its words: no case, no punctuation but what numbers are made of."""
    words = re.findall(r"[^\W_]+(?:[.\-][0-9]+)*", summary.lower())
    return " ".join(words)
