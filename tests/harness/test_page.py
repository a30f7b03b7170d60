"""Pages, measured: what is served, what counts as a difference, what a report says; the ends."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import Request, urlopen

import chromium
import psutil
import pytest
from PIL import Image
from test_docs import TOP

CHANGED = ("pixels_changed", "text_changed")
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
    monkeypatch.syspath_prepend(HARNESS.parent / "checklist")
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


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ("", "", 0),
        ("", "a word", 1),
        ("to be or not to be", "be or  not\nto be to", 0),  # lines and order are on the picture
        ("to be or not to be", "to be", 4 / 6),
        ("to be", "to be or not to be", 4 / 6),
    ],
)
def test_the_share_of_words_that_differ(
    before: str, after: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = part("pictures", monkeypatch)
    assert pictures.words_changed(before.encode(), after.encode()) == pytest.approx(share)


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


def test_a_folder_and_a_page_with_odd_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serving = part("serving", monkeypatch)
    for name in ("日本", "a\r\nX-Evil: 1", "both", "empty/index.html"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "index.html").write_text("in it") if "/" not in name else None
    (tmp_path / "both.html").write_text("beside it")
    (tmp_path / "loop").symlink_to("loop")

    def get(path: str) -> Any:
        return urlopen(address + path, timeout=30)

    with serving.serving(tmp_path) as address:
        assert get("/%E6%97%A5%E6%9C%AC?a=%20b").url.endswith("/%E6%97%A5%E6%9C%AC/?a=%20b")
        evil = get("/a%0D%0AX-Evil:%201")
        assert (evil.read(), evil.headers["X-Evil"]) == (b"in it", None)
        assert get("/favicon.ico").status == 204
        assert get("/both").read() == b"beside it"
        assert get("/both/").read() == b"in it"
        for path in ("/loop", "/loop/", "/empty/"):
            with pytest.raises(HTTPError, match="404"):
                get(path)


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
    broken["audits"]["largest-contentful-paint"]["scoreDisplayMode"] = "error"
    broken["categories"]["performance"]["score"] = None  # as Lighthouse then has it
    with pytest.raises(reports.NoAnswerError, match=r"`performance`: .*audit `lcp`: NO_LCP"):
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
        (["look", ".", "--reference", "r", "--near", "300"], "from 0 to 255 is wanted, not 300"),
        (["measure", ".", "--save", "seen"], "--save: there is nothing to compare with"),
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
    done = page(*words, "ln -s / dist", folder=tmp_path)
    assert (done.status, "--serve: dist leads out of ." in done.err) == (1, True), done.err
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
    names = [f"index-412{kind}" for kind in ("-top.png", ".png", ".txt")]
    assert (made.status, made.err) == (0, "")
    assert made.out.splitlines() == [f"pictures/{name}" for name in names]
    build = "sed -i 's/Hello/Good bye, and do not come again/' index.html; rm ../pictures/*"
    words = ("--build", build, "--runs", "1", "--wait", "250", "--save", "seen")
    done = page("measure", site, *words, *small, folder=tmp_path)
    assert (done.status, done.err) == (0, "")
    found = done.result["metrics"]
    scores = {"composite", "performance", "accessibility", "best_practices", "seo"}
    assert found.keys() == scores | {*("fcp", "lcp", "tbt", "si", "cls", "bytes"), *CHANGED}
    assert all(0 < found[name] <= 100 for name in scores)
    assert found["cls"] == 0
    assert 100 < found["bytes"] < 2000
    assert 0.005 < found["pixels_changed"] < 0.2
    assert found["text_changed"] == 1
    assert "does not have a `[lang]` attribute" in done.result["feedback"]
    assert (tmp_path / "seen" / "diff-index-412.png").is_file()
    assert nobody(tmp_path)


PHONE = '<!doctype html><meta name="viewport" content="width=device-width"><title>A page</title>'
WINDOW = ("--sizes", "412x300", "--reference")
WORDS = "<h1>Hello, whoever you are</h1>"
TALL = "<div style='height: 700px'></div>"


def site(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "index.html").write_text(PHONE + text)
    return folder / name


@chromium.needed
def test_a_page_sees_the_same_of_the_camera_and_of_every_run(tmp_path: Path) -> None:
    """What it can ask for in one line, and what an earlier visit could have left."""
    seen: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(unquote(self.path))
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
    facts = (
        "localStorage.n = 1 + +(localStorage.n ?? 0);"
        "const facts = [localStorage.n, document.cookie, devicePixelRatio, innerWidth, innerHeight,"
        " screen.width, screen.orientation.type, navigator.userAgent, navigator.maxTouchPoints,"
        " JSON.stringify(navigator.userAgentData), navigator.webdriver,"
        " matchMedia('(prefers-reduced-motion: reduce)').matches, 'ontouchstart' in window];"
        "document.cookie = 'been=here';"
        f"new Image().src = 'http://127.0.0.1:{listener.server_address[1]}/'"
        " + encodeURIComponent(facts.join(' | '));"
    )
    asking = site(tmp_path, "asking", f"{WORDS}<script>{facts}</script>")
    phone = ("--sizes", "412x823", "--reference")
    try:
        assert page("shoot", asking, *phone, "r", folder=tmp_path).status == 0
        words = ("--runs", "2", "--wait", "250", "--only", "seo")
        done = page("measure", asking, *words, *phone, "r", folder=tmp_path)
    finally:
        listener.shutdown()
        listener.server_close()
    assert (done.status, done.err) == (0, "")
    assert len(seen) == 4
    assert len(set(seen)) == 1, seen
    assert seen[0].startswith("/1 |  | 1.75 | 412 | 823 |")


@chromium.needed
def test_a_page_that_only_looks_alike(tmp_path: Path) -> None:
    """One that is there once somebody scrolls, and a photograph of the reference."""
    assert (
        page("shoot", site(tmp_path, "a", WORDS + TALL), *WINDOW, "r", folder=tmp_path).status == 0
    )
    waits = f"window.scrollTo = () => {{}}; document.body.innerHTML = `{TALL}`;"
    comes = f"addEventListener('scroll', () => document.body.innerHTML = `{WORDS}{TALL}`);"
    lazy = site(tmp_path, "b", f"<body><script>{waits}{comes}</script>")
    done = page("look", lazy, *WINDOW, "r", folder=tmp_path)
    assert done.status == 1
    assert "index-412.png: 0.00% of the pixels" in done.out
    assert "index-412.txt: 0.00% of the words" in done.out
    assert "of the pixels of a picture differ" in done.err

    photo = "<img src='photo.png' style='position: absolute; top: 0; left: 0; width: 412px'>"
    tiny = "<div style='position: absolute; width: 1px; height: 1px; overflow: hidden'>"
    flat = site(tmp_path, "c", f"{TALL}{tiny}{WORDS}</div>{photo}")
    shutil.copy(tmp_path / "r" / "index-412.png", flat / "photo.png")
    done = page("look", flat, *WINDOW, "r", "--tolerance", "2%", folder=tmp_path)
    assert (done.status, "100.00% of the words differ" in done.err) == (1, True), done


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<script>location = 'http://nowhere.example/x'</script>", "leaves the site for http://no"),
        ("<script>location = '/none.html?x'</script>", "/none.html?x: HTTP status 404"),
        (
            f"{TALL}<script>onscroll = () => location = '/there'</script>",
            "it is there, and then goes on to http://127.0.0.1",
        ),
        (
            f"{TALL}<script>onscroll = () => document.body.style.height = '99999px'</script>",
            "higher than the 9362 px",
        ),
        ("<script>setInterval(() => fetch('?' + Math.random()), 50)</script>", "longer than 3 s"),
    ],
)
@chromium.needed
def test_a_page_of_which_there_is_no_picture_says_why(text: str, said: str, tmp_path: Path) -> None:
    limit = "3" if "3 s" in said else "180"
    folder = site(tmp_path, "a", WORDS + text)
    done = page("shoot", folder, *WINDOW, "r", "--timeout", limit, folder=tmp_path)
    assert (done.status, said in done.err) == (1, True), done.err


@chromium.needed
def test_what_a_build_leaves_running_does_not_change_what_is_served(tmp_path: Path) -> None:
    """It waits for the browser, and for half a minute at most; a page with a dialog is seen."""
    place = site(tmp_path, "a", f"{WORDS}<script>alert('Hello')</script>")
    assert page("shoot", place, *WINDOW, "r", folder=tmp_path).status == 0
    wait = "touch there; for i in $(seq 600); do ls ../tmp/page-* && break; sleep 0.05; done"
    later = f"setsid sh -c '{wait}; echo > dist/index.html' > /dev/null 2>&1 &"
    build = f"mkdir dist; cp index.html dist; {later} until test -e there; do sleep 0.05; done"
    words = ("--build", build, "--serve", "dist")
    done = page("look", place, *words, *WINDOW, "r", folder=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert (place / "dist" / "index.html").read_text() == "\n"
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
