"""A server on loopback that does, per request, what a test says, and tells what it was asked."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from segfolio.data.dataset import RemoteFile

Answer = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Serves `files` by path with ranges and ETags; the first requests are answered by `script`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.script: list[Answer] = []
        self.asked: list[tuple[str, str | None]] = []  # path and Range of each request

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def offer(self, path: str, content: bytes, unpack: str | None = None) -> RemoteFile:
        """Serve a file; returns it with its right checksum."""
        self.files[path] = content
        return RemoteFile(self.url(path), f"sha256:{hashlib.sha256(content).hexdigest()}", unpack)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"]))
        (self.server.script.pop(0) if self.server.script else serve())(self)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def serve(
    sent: int | None = None, claimed: int = 0, ranges: bool = True, if_range: bool = True, tag: str | None = None
) -> Answer:
    """The file, or what of it is asked for.

    Args:
        sent: bytes of the body after which the connection breaks.
        claimed: added to the true length in Content-Length.
        ranges: whether Range is understood.
        if_range: whether If-Range is understood.
        tag: ETag; that of the contents where None, "" for none.
    """

    def answer(handler: Handler) -> None:
        content = handler.server.files[handler.path]
        etag = f'"{hashlib.md5(content).hexdigest()}"' if tag is None else tag
        start, wish = 0, handler.headers["If-Range"]
        if ranges and (match := re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")):
            start = int(match[1]) if not (if_range and wish and wish != etag) else 0
        if start >= len(content):
            handler.send_error(416)
            return
        body = content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if etag:
            handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(body) + claimed))
        handler.end_headers()
        handler.wfile.write(body[:sent])

    return answer


def status(code: int, **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
