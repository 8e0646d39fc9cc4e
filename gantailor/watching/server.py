"""The page served on this machine alone, by the standard library."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gantailor.run.folder import RunFolder
from gantailor.supernet.errors import ConfigError
from gantailor.watching.page import policy, render
from gantailor.watching.view import View

ADDRESS = "127.0.0.1"  # nobody else's machine reaches it


class Pages:
    """The page of a run folder, drawn anew when a file of it has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._known: tuple[object, bytes] | None = None

    def page(self) -> bytes:
        """As it is now."""
        with self._lock:
            state = self._state()
            if self._known is None or self._known[0] != state:
                self._known = (state, render(View.read(self.folder), live=True).encode())
            return self._known[1]

    def _state(self) -> object:
        """Names, sizes and times of what is shown; and whether a process works there."""
        found = []
        for place in (self.folder, self.folder / "samples", self.folder / "export"):
            for file in sorted(place.glob("*")):
                try:
                    stat = file.lstat()
                except OSError:  # it was replaced at this moment
                    continue
                found.append((str(file), stat.st_size, stat.st_mtime_ns))
        return RunFolder(self.folder).free, tuple(found)


class _Handler(BaseHTTPRequestHandler):
    """Answers with the one page there is."""

    server: _Server
    server_version, sys_version = "gantailor", ""

    def do_GET(self) -> None:
        """The page, or that it is as it was."""
        if not self._is_meant():
            return
        content = self.server.pages.page()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        same = self.headers.get("If-None-Match") == tag
        self.send_response(304 if same else 200)
        self.send_header("ETag", tag)
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Security-Policy", f"{policy(live=True)}; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", "0" if same else str(len(content)))
        self.end_headers()
        if not same:
            self.wfile.write(content)

    def _is_meant(self) -> bool:
        """Whether the page was asked for, by a name of this machine: another's could be turned to this address."""
        host = (self.headers.get("Host") or "").partition(":")[0]
        if host not in (ADDRESS, "localhost"):
            self.send_error(403, "asked for by another name")
            return False
        if self.path.partition("?")[0] != "/":
            self.send_error(404, "there is one page, /")
            return False
        return True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the run's."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, pages: Pages, port: int) -> None:
        self.pages = pages
        super().__init__((ADDRESS, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: who asked has gone."""


@contextmanager
def serving(folder: Path, port: int) -> Iterator[_Server]:
    """A server of the page within the block.

    Args:
        port: 0: any that is free.

    Raises:
        ConfigError: the port is taken.
    """
    try:
        server = _Server(Pages(folder), port)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--port {port} cannot be used ({getattr(error, 'strerror', None) or error}); choose another, or 0 for any "
            "that is free"
        ) from None
    try:
        yield server
    finally:
        server.server_close()
