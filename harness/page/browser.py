"""A Chromium of one's own, and a visit to one page in it.

Owns where Chromium, node and Lighthouse are found, the flags, and the end of all their processes.
What is done in the browser is in `visit.mjs`; knows no metrics and no pictures.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import processes
from ending import NoAnswerError, UsageError

LIGHTHOUSE = "12.8.2"
"""The version that this was tried with: the last one for Node 18 and 20."""
FLAGS = (
    "--headless=new",
    # Chromium's own sandbox needs namespaces, and swarm's sandbox allows no new ones. Without it
    # a page is held by swarm's walls, which also hold everything else that a candidate brings.
    "--no-sandbox",
    "--disable-dev-shm-usage",  # whatever size /dev/shm has
    "--disable-gpu",
    "--disable-quic",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-breakpad",  # or a process for crashes stays behind
    "--disable-features=Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",  # the page is on loopback
    "--mute-audio",
    "--hide-scrollbars",
    # The same for the camera and for Lighthouse, which cannot be told to ask for less motion.
    "--force-prefers-reduced-motion",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--remote-debugging-port=0",
)
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
START_S = 60.0
"""For Chromium to listen; it takes one second, and a minute on a machine with much other work."""
LONG = 60
"""Characters of a folder; Chromium makes a socket there, whose path may have 107."""
SLACK_S = 30.0
"""Beyond the time for each step, so that `visit.mjs` can say which of them took too long."""
WITHHELD = ("SWARM_RESULT", "SWARM_CASES")
"""Variables that are for the harness, and not for what it starts."""


KINDS = ("-top.png", ".png", ".txt")
"""The files of a look: the window at first, the whole page after scrolling, and its words."""


class Tools(NamedTuple):
    """What a visit needs, besides a page."""

    chromium: str
    node: str
    lighthouse: Path
    """The folder of the npm package."""


class Picture(NamedTuple):
    """A look to take: pictures, and the words that can be seen."""

    width: int
    height: int
    """Of the window."""
    mobile: bool
    stem: Path
    """What the names of the files begin with; they end with `KINDS`."""


class Visit(NamedTuple):
    """What is asked of the browser."""

    url: str
    timeout_s: float
    """For each picture and each run."""
    pictures: Sequence[Picture] = ()
    runs: int = 0
    form_factor: str = "mobile"
    flags: Mapping[str, Any] = {}
    """Settings of Lighthouse, by its own names."""


def tools() -> Tools:
    """Find what a visit needs.

    Raises:
        UsageError: something is missing; the message says what to install.
    """
    return Tools(_chromium(), _node(), _lighthouse())


def _chromium() -> str:
    for variable in ("CHROME_PATH", "CHROMIUM"):
        if named := os.environ.get(variable):
            if found := shutil.which(named):
                return found
            raise UsageError(f"{variable}: {named!r} is not a program that can be seen here")
    for name in CHROMIUMS:
        if found := shutil.which(name):
            return found
    raise UsageError(
        "there is no Chromium: `apt install chromium`, or name one in CHROME_PATH"
        " (for swarm: in `env`, and its folder in `sandbox: {read_only: ...}`)"
    )


def _node() -> str:
    found = shutil.which("node")
    if found is None:
        raise UsageError("there is no `node` on PATH: Lighthouse needs Node 18 or newer")
    return found


def _lighthouse() -> Path:
    here = Path.cwd()
    places = [folder / "node_modules" / "lighthouse" for folder in (here, *here.parents)]
    if named := os.environ.get("LIGHTHOUSE"):
        places = [Path(named), Path(named) / "node_modules" / "lighthouse"]
    elif program := shutil.which("lighthouse"):
        # A link, as npm makes it: <package>/cli/index.js
        places.append(Path(program).resolve().parent.parent)
    for place in places:
        if (place / "core" / "index.js").is_file():
            return place
    what = f"LIGHTHOUSE names {named!r}, which is not the npm package" if named else "not found"
    raise UsageError(
        f"Lighthouse: {what}; `npm install lighthouse@{LIGHTHOUSE}` in the site's folder or"
        " `npm install -g`, or name the package's folder in LIGHTHOUSE"
    )


def visit(asked: Visit, use: Tools) -> list[dict[str, Any]]:
    """Take the pictures, and give Lighthouse's reports.

    Raises:
        NoAnswerError: the page could not be visited.
        UsageError: the tools do not run.
    """
    with tempfile.TemporaryDirectory(prefix="page-") as folder, _running(use, Path(folder)) as port:
        out = Path(folder, "answer.json")
        task = {
            **asked._asdict(),
            "pictures": [{**each._asdict(), "stem": str(each.stem)} for each in asked.pictures],
            "flags": dict(asked.flags),
            "port": port,
            "lighthouse": str(use.lighthouse),
            "out": str(out),
        }
        done = processes.run(
            (use.node, str(Path(__file__).with_name("visit.mjs"))),
            cwd=Path(folder),
            env=environment(),
            stdin=json.dumps(task).encode(),
            timeout_s=asked.timeout_s * (len(asked.pictures) + asked.runs) + SLACK_S,
            cancel=Event(),
        )
        if done.problem is not None:
            why = done.problem.removeprefix("exit 1: ")  # what `visit.mjs` says itself
            raise NoAnswerError(f"the visit to {asked.url}: {why}")
        answer = json.loads(out.read_text("utf-8"))
    for picture in answer["pictures"]:
        if picture["status"] != 200:
            raise NoAnswerError(f"{picture['url']}: HTTP status {picture['status']}")
    return answer["reports"]


def environment() -> dict[str, str]:
    """What a process that is started sees."""
    return {name: value for name, value in os.environ.items() if name not in WITHHELD}


@contextmanager
def _running(use: Tools, folder: Path) -> Generator[int]:
    """Run a Chromium with a new profile, and give the port on which it is told what to do."""
    profile, log = folder / "profile", folder / "chromium.log"
    argv = (use.chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank")
    own = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR"), str(folder))
    if len(str(folder)) > LONG:
        own["TMPDIR"] = "/proc/self/cwd"
    with log.open("wb") as said:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env={**environment(), **own},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield _port(process, profile / "DevToolsActivePort", log)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _port(process: "subprocess.Popen[bytes]", file: Path, log: Path) -> int:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            if lines := file.read_text().splitlines():
                return int(lines[0])
        time.sleep(0.05)
    how = "does not listen" if process.returncode is None else f"ended with {process.returncode}"
    said = log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"]
    why = next((line for line in said if ":FATAL:" in line), said[-1])
    raise UsageError(f"Chromium {how}: {why}")
