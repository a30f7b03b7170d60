"""Pages, measured: what is served, what counts as a difference, what a report says; the ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import chromium
import psutil
import pytest
from PIL import Image
from test_docs import TOP

HARNESS = TOP / "harness" / "page"
PROGRAM = HARNESS / "page.py"
EXAMPLE = HARNESS / "example"


class Done(NamedTuple):
    status: int
    out: str
    err: str
    result: dict[str, Any]


def page(*words: object, folder: Path, **env: str) -> Done:
    """Run the harness as swarm would."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, words)],
        cwd=folder,
        env={**environment(folder), "SWARM_RESULT": str(result), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(result.read_text()) if result.exists() else {}
    return Done(done.returncode, done.stdout, done.stderr, said)


def environment(folder: Path) -> dict[str, str]:
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    where = {"HOME": str(folder), "TMPDIR": str(scratch), "LIGHTHOUSE": str(chromium.OWN)}
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **where}


def part(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of the harness, as `page.py` does."""
    monkeypatch.syspath_prepend(HARNESS)
    for known in ("reports", "pictures", "serving"):
        monkeypatch.delitem(sys.modules, known, raising=False)
    return __import__(name)


# --- pictures ---------------------------------------------------------------------------------


def png(size: tuple[int, int], colour: str = "white", *spots: tuple[int, int, int, int]) -> bytes:
    picture = Image.new("RGB", size, colour)
    for spot in spots:
        picture.paste((0, 0, 0), spot)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("after", "share", "rows"),
    [
        (png((100, 50)), 0.0, None),
        (png((100, 50), "#f0f0f0"), 0.0, None),  # nearer than `near`
        (png((100, 50), "#e0e0e0"), 1.0, (0, 50)),
        (png((100, 50), "white", (0, 10, 50, 20)), 0.1, (10, 20)),
        (png((100, 100)), 0.5, (50, 100)),  # what only one has differs, though it is white
        (png((50, 50)), 0.5, (0, 50)),
    ],
)
def test_the_share_of_pixels_that_differ(
    after: bytes, share: float, rows: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pictures = part("pictures", monkeypatch)
    drawn = tmp_path / "diff.png"
    found = pictures.difference(png((100, 50)), after, 24, drawn)
    assert (found.share, found.rows) == (pytest.approx(share), rows)
    with Image.open(drawn) as picture:
        colours = picture.convert("RGB").getcolors() or []
        marked = sum(count for count, colour in colours if colour == pictures.MARK)
        assert marked == share * picture.width * picture.height


def test_a_file_that_is_no_picture_is_the_fault_of_whose_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = part("pictures", monkeypatch)
    with pytest.raises(pictures.UsageError, match="the reference is not a picture"):
        pictures.difference(b"x", png((1, 1)), 24)
    with pytest.raises(pictures.NoAnswerError, match="the page's picture is not"):
        pictures.difference(png((1, 1)), b"x", 24)


# --- the server -------------------------------------------------------------------------------


def test_a_folder_is_served_as_a_host_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serving = part("serving", monkeypatch)
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "index.html").write_text("<p>hello" * 100)
    (site / "about.html").write_text("about")
    (site / "sub" / "index.html").write_text("sub")
    (tmp_path / "secret.txt").write_text("secret")
    (site / "way.txt").symlink_to(tmp_path / "secret.txt")

    def get(path: str, **headers: str) -> Any:
        return urlopen(Request(address + path, headers=headers), timeout=30)

    with serving.serving(site) as address:
        plain, packed = get("/"), get("/", **{"Accept-Encoding": "gzip"})
        assert plain.headers["Content-Type"] == "text/html; charset=utf-8"
        assert packed.headers["Content-Encoding"] == "gzip"
        assert len(packed.read()) < 100 < len(plain.read())
        assert get("/about").read() == b"about"
        assert get("/sub").url.endswith("/sub/")
        for path in ("/none", "/../secret.txt", "/%2e%2e/secret.txt", "/way.txt", "/%00"):
            with pytest.raises(HTTPError, match="404"):
                get(path)
    with serving.serving(site, compress=False) as address:
        assert get("/", **{"Accept-Encoding": "gzip"}).headers["Content-Encoding"] is None


# --- what Lighthouse says ---------------------------------------------------------------------


def lhr(fcp: float = 1000, *, score: float = 0.5) -> dict[str, Any]:
    """A report with what is read of it."""
    numbers = {
        "first-contentful-paint": fcp,
        "largest-contentful-paint": 2000,
        "total-blocking-time": 0,
        "speed-index": 1,
        "cumulative-layout-shift": 0.25,
        "total-byte-weight": 5000,
    }
    audits = {
        name: {"numericValue": value, "score": score, "title": name}
        for name, value in numbers.items()
    }
    audits["image-alt"] = {
        "score": 0,
        "title": "No words for a picture",
        "details": {"items": [{"node": {"snippet": "<img>"}}]},
    }
    refs = {"performance": [{"id": name, "weight": 1} for name in numbers]}
    refs["accessibility"] = [{"id": "image-alt", "weight": 10}]
    names = ("performance", "accessibility", "best-practices", "seo")
    categories = {n: {"score": score, "auditRefs": refs.get(n, [])} for n in names}
    return {"categories": categories, "audits": audits}


def test_a_metric_is_the_median_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = part("reports", monkeypatch)
    runs = [lhr(900), lhr(5000), lhr(1000, score=0.9)]
    found = reports.metrics(runs, {"fcp": 3, "seo": 1})
    assert (found["fcp"], found["seo"], found["composite"]) == (1000, 50, 50)
    assert found["cls"] == 0.25
    assert reports.spread(runs, {"fcp": 1})["fcp"] == 4100
    assert "cls" not in reports.spread(runs, {"fcp": 1})


def test_what_costs_most_is_found_first(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = part("reports", monkeypatch)
    first, second, *_ = reports.findings(lhr())
    assert (first.category, first.lost, first.places) == ("accessibility", 100, ["<img>"])
    assert second.category == "performance"


def test_a_report_without_a_number_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = part("reports", monkeypatch)
    broken = lhr()
    broken["audits"]["largest-contentful-paint"] = {"errorMessage": "NO_LCP"}
    with pytest.raises(reports.NoAnswerError, match="`lcp`: NO_LCP"):
        reports.metrics([broken], {"seo": 1})
    failed = {**lhr(), "runtimeError": {"code": "NO_FCP", "message": "it painted nothing"}}
    with pytest.raises(reports.NoAnswerError, match="it painted nothing"):
        reports.metrics([lhr(), failed], {"seo": 1})


# --- the command line -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["measure", ".", "--weights", "speed=1"], "'speed' is none of performance"),
        (["measure", ".", "--weights", "seo=0"], "all weights are 0"),
        (["measure", ".", "--only", "seo", "--weights", "fcp=1"], "`fcp` is not measured"),
        (["measure", ".", "--path", "about"], "a path such as /about.html"),
        (["shoot", ".", "--reference", "r", "--sizes", "412"], "WIDTHxHEIGHT is wanted"),
        (["look", ".", "--reference", "r", "--tolerance", "200%"], "from 0% to 100%"),
    ],
)
def test_a_command_line_that_cannot_be_used(words: list[str], said: str, tmp_path: Path) -> None:
    done = page(*words, folder=tmp_path)
    assert done.status == 2
    assert said in done.err


def test_what_is_missing_is_said_with_what_to_install(tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    words = ("measure", ".")
    assert "`apt install chromium`" in page(*words, folder=tmp_path, PATH=str(bare)).err
    for program, said in (("chromium", "no `node` on PATH"), ("node", "npm install lighthouse@")):
        (bare / program).write_text("#!/bin/sh\n")
        (bare / program).chmod(0o755)
        done = page(*words, folder=tmp_path, PATH=str(bare), LIGHTHOUSE="")
        assert (done.status, said in done.err) == (2, True), done.err
    done = page(*words, folder=tmp_path, PATH=str(bare), CHROME_PATH="none")
    assert "CHROME_PATH: 'none' is not a program" in done.err
    (bare / "chromium").write_text("#!/bin/sh\necho it has no screen >&2\nexit 7\n")
    done = page(
        *words, folder=tmp_path, PATH=f"{bare}:/usr/bin:/bin", LIGHTHOUSE=str(fake(tmp_path))
    )
    assert (done.status, done.err) == (2, "page: Chromium ended with 7: it has no screen\n")


def fake(folder: Path) -> Path:
    """Something that passes for the npm package until it is used."""
    (folder / "core").mkdir(exist_ok=True)
    (folder / "core" / "index.js").touch()
    return folder


@chromium.needed
def test_a_site_that_cannot_be_built_or_is_not_there(tmp_path: Path) -> None:
    words = ("measure", ".", "--serve", "dist", "--build")
    done = page(*words, "echo half a page; echo no paper >&2; exit 3", folder=tmp_path)
    assert (done.status, done.out) == (1, "half a page\n")
    assert done.err == "page: no answer: --build: exit 3: no paper\n"
    done = page(*words, 'test -z "$SWARM_RESULT"', folder=tmp_path)
    assert (done.status, done.err) == (
        1,
        "page: no answer: --serve: the build has left no folder dist\n",
    )
    done = page("look", ".", "--reference", "none", folder=tmp_path)
    assert done.status == 2
    assert "`page.py shoot` makes the pictures" in done.err
    done = page(
        "look", ".", "--reference", "r", "--path", "/a/b", "--path", "/a-b", folder=tmp_path
    )
    assert "pictures of two pages would have one name" in done.err
    bare = [sys.executable, "-S", str(PROGRAM), "shoot", ".", "--reference", "r"]
    made = subprocess.run(
        bare, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert made.returncode == 2
    assert "has no Pillow to compare pictures with: `pip install pillow`" in made.stderr
    assert not (tmp_path / "r").exists()


# --- in the browser ---------------------------------------------------------------------------


@chromium.needed
def test_a_page_is_measured_and_looked_at(tmp_path: Path) -> None:
    """Every metric, and a build that puts another picture in the reference's place: in vain."""
    site = tmp_path / "site"
    site.mkdir()
    head = '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    text = f"<!doctype html><html><head>{head}</head><body><h1>Hello</h1></body></html>"
    (site / "index.html").write_text(text)
    small = ("--sizes", "412x300", "--reference", "pictures")
    made = page("shoot", site, *small, folder=tmp_path)
    assert (made.status, made.out, made.err) == (0, "pictures/index-412.png\n", "")
    build = "sed -i 's/Hello/Good bye, and do not come again/' index.html; rm ../pictures/*"
    words = ("--build", build, "--runs", "1", "--wait", "250", "--save", "seen")
    done = page("measure", site, *words, *small, folder=tmp_path)
    assert (done.status, done.err) == (0, "")
    found = done.result["metrics"]
    scores = {"composite", "performance", "accessibility", "best_practices", "seo"}
    assert found.keys() == scores | {*("fcp", "lcp", "tbt", "si", "cls", "bytes", "pixels_changed")}
    assert all(0 < found[name] <= 100 for name in scores)
    assert found["cls"] == 0
    assert 100 < found["bytes"] < 2000
    assert 0.005 < found["pixels_changed"] < 0.2
    assert "does not have a `[lang]` attribute" in done.result["feedback"]
    assert (tmp_path / "seen" / "diff-index-412.png").is_file()
    assert nobody(tmp_path)


@chromium.needed
def test_a_signal_ends_the_browser_too(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>Hello")
    program = subprocess.Popen(
        [sys.executable, str(PROGRAM), "measure", ".", "--runs", "9"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: any("--type=renderer" in words for words in commands(tmp_path)))
        program.send_signal(signal.SIGTERM)
        assert program.wait(60) == 128 + signal.SIGTERM
    finally:
        program.kill()
        program.wait()
    assert nobody(tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []


def until(holds: Any, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def commands(folder: Path) -> list[list[str]]:
    """Find the command lines of what runs with this folder as its home or scratch."""
    found: list[list[str]] = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join((*process.cmdline(), *process.environ().values())):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


def nobody(folder: Path) -> bool:
    until(lambda: not commands(folder), 30)
    return True
