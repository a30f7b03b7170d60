"""Write docs/attacks.md: the table of attacks, from the catalogue that the tests play.

python scripts/make_attack_docs.py [--print]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from attacks.catalogue import ATTACKS, Attack, Rung  # noqa: E402

from swarm.sandbox.ladder import OPEN  # noqa: E402

HEAD = """\
# Attacks

<!-- Written by scripts/make_attack_docs.py from tests/attacks/catalogue.py: edit that. -->

Each of these is played by `tests/attacks` as an experiment of a real run, on every rung of the
sandbox; on bubblewrap as root and as an ordinary user. A test asserts how it ends, that it got what
it wanted only where this table says so, and that no process and no secret is left. After all of
them an honest change is measured, kept, and put on `best`.

`stopped` means that it got nothing: its verdict is in brackets where it is not an ordinary
`discard`. What is **open** on a rung is in that rung's warning, at every start and in every report.
How to get to a higher rung is in [sandbox.md](sandbox.md).
"""


def page() -> str:
    """Give the text of the page."""
    rungs = get_args(Rung)
    lines = [HEAD, "| attack | tries | " + " | ".join(f"`{r}`" for r in rungs) + " |"]
    lines.append("|---|---|" + "---|" * len(rungs))
    for attack in ATTACKS:
        cells = " | ".join(_cell(attack, rung) for rung in rungs)
        lines.append(f"| {attack.name} | {attack.tries} | {cells} |")
    lines += ["", "What each rung leaves open, by the words of its warning:", ""]
    for rung in rungs:
        lines.append(f"- `{rung}`: {', '.join(OPEN[rung]) or 'nothing of these'}")
    return "\n".join(lines) + "\n"


def _cell(attack: Attack, rung: Rung) -> str:
    if rung in attack.not_on:
        return "not tried"
    if rung in attack.opens:
        return f"**open**: {attack.opens[rung]}"
    verdict = attack.expected(rung).verdict
    return "stopped" if verdict == "discard" else f"stopped (`{verdict}`)"


if __name__ == "__main__":
    if "--print" in sys.argv:
        sys.stdout.write(page())
    else:
        (ROOT / "docs" / "attacks.md").write_text(page(), encoding="utf-8")
