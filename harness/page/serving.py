"""A folder served on loopback, as a plain static host does it.

Owns the server: any free port, the answers, and their compression. Nothing outside of the folder is
served. Knows no browser.
"""

import gzip
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

TEXTS = ("text/", "application/javascript", "application/json", "image/svg+xml", "application/xml")
"""Kinds of files that hosts send compressed; pictures and fonts are compressed already."""


class Quiet(ThreadingHTTPServer):
    """A server that says nothing of a browser that hung up."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass it over."""


class Handler(SimpleHTTPRequestHandler):
    """One request for a file."""

    protocol_version = "HTTP/1.1"
    folder: Path
    compress: bool
    extensions_map = {  # noqa: RUF012  the same on every machine, whatever its mime.types says
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".webmanifest": "application/manifest+json",
        ".svg": "image/svg+xml",
        ".xml": "application/xml",
        ".txt": "text/plain; charset=utf-8",
        ".png": "image/png",
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".gif": "image/gif",
        ".webp": "image/webp",
        ".avif": "image/avif",
        ".ico": "image/x-icon",
        ".woff": "font/woff",
        ".woff2": "font/woff2",
        ".ttf": "font/ttf",
        ".mp4": "video/mp4",
        ".wasm": "application/wasm",
        ".pdf": "application/pdf",
        "": "application/octet-stream",
    }

    def do_GET(self) -> None:
        """Answer with a file, or with 404."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with the head only."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        asked = urlsplit(self.path)
        path = "/" + unquote(asked.path).lstrip("/")  # `//host/` would lead to another host
        file = self._file(path)
        if file is None and path == "/favicon.ico":
            # A browser asks for it unbidden. After a 404 it asks no more, in none of its contexts:
            # the first run alone would have that request, and the error.
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()
            return
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        if file.is_dir():  # so that relative links lead where they should
            self.send_response(HTTPStatus.MOVED_PERMANENTLY)
            rest = f"?{asked.query}" if asked.query else ""
            self.send_header("Location", quote(path) + "/" + rest)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, kind = file.read_bytes(), self.guess_type(str(file))
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        takes = self.headers.get("Accept-Encoding", "")
        if self.compress and kind.startswith(TEXTS) and "gzip" in takes:
            data = compressed(data)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _file(self, path: str) -> Path | None:
        """Find the file of an address: within the folder, also where a link leads."""
        try:
            file = (self.folder / path.lstrip("/")).resolve()
            if path.endswith("/"):
                file /= "index.html"
            elif not file.is_file():  # as hosts do: /about is about.html, also beside a folder
                page = file.with_name(file.name + ".html")
                file = page if page.is_file() else file
            inside = file.resolve().is_relative_to(self.folder)
        except (OSError, ValueError, RuntimeError):  # RuntimeError: links that lead in a circle
            return None
        found = file.is_file() or (file.is_dir() and not path.endswith("/"))
        return file if inside and found else None

    def log_message(
        self,
        format: str,  # noqa: A002  its name in the library
        *args: object,
    ) -> None:
        """Say nothing."""


@lru_cache(maxsize=256)
def compressed(data: bytes) -> bytes:
    """Compress; the same bytes every time."""
    return gzip.compress(data, 6, mtime=0)


@contextmanager
def serving(folder: Path, *, compress: bool = True) -> Generator[str]:
    """Serve a folder, and give its address, without a slash at the end."""
    own = {"folder": Path(os.path.realpath(folder)), "compress": compress}
    server = Quiet(("127.0.0.1", 0), type("Own", (Handler,), own))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
