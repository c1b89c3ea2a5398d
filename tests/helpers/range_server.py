"""A server on this machine that sends ranges of files, counts what it is asked for, and fails when a test says so."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """Files that are served, by path, and how the server behaves."""

    files: dict[str, bytes]
    etag: str = '"first"'
    modified: str = "Fri, 27 Nov 2026 10:00:00 GMT"
    ranges: bool = True
    redirect: str = ""
    """Address to which every request is sent on; '' to answer."""
    status: int = 0
    """State of every answer; 0 to answer."""
    dies_after: int | None = None
    """Number of requests that are answered; later ones end in the middle of the bytes."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and range of each request."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of the last request."""
    address: str = ""

    def sent(self) -> int:
        """Return the number of bytes that were asked for."""
        spans = [re.fullmatch(r"bytes=(\d+)-(\d+)", asked) for _, asked in self.asked]
        return sum(int(span[2]) - int(span[1]) + 1 for span in spans if span)


@contextmanager
def serving(files: dict[str, bytes | Path], **behaviour: object) -> Iterator[Served]:
    """Serve `files` on a free port of 127.0.0.1 until the block ends."""
    content = {name: file.read_bytes() if isinstance(file, Path) else file for name, file in files.items()}
    told = Served(content, **behaviour)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            told.asked.append((self.path, self.headers.get("Range", "")))
            told.headers = dict(self.headers)
            data = told.files.get(self.path.split("?")[0])
            if told.redirect:
                return self.no(302, ("Location", told.redirect))
            if told.status or data is None:
                return self.no(told.status or 404)
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if told.ranges else None
            if span is None:
                self.send_response(200)
            else:
                start, stop = int(span[1]), min(int(span[2] or len(data)) + 1, len(data))
                if start >= len(data):
                    return self.no(416)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
                data = data[start:stop]
            for name, value in (("ETag", told.etag), ("Last-Modified", told.modified)):
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if told.dies_after is not None and len(told.asked) > told.dies_after:
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return None
            self.wfile.write(data)
            return None

        def no(self, status: int, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", "0")):
                self.send_header(name, value)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
