"""Command ``watch``: a page of a run while it goes on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import write_bytes
from gantailor.watching.page import render
from gantailor.watching.server import ADDRESS, serving
from gantailor.watching.view import View


def watch(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Serve the page until Ctrl-C, or write it once."""
    folder = Path(arguments.run)
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise ConfigError(f"{arguments.run!r} {what}; give a run folder, as runs/run")
    if arguments.once is not None:
        out = Path(arguments.once)
        if not out.absolute().parent.is_dir():
            raise ConfigError(f"--once {arguments.once!r} cannot be written: its folder does not exist; make it first")
        if out.is_dir():
            raise ConfigError(f"--once {arguments.once!r} cannot be written: it is a folder; name a file, page.html")
        write_bytes(out, render(View.read(folder), live=False).encode())
        print(out)
        return {"page": out}
    with serving(folder, arguments.port) as server:
        print(
            f"http://{ADDRESS}:{server.server_port}/ shows {arguments.run} on this machine; Ctrl-C ends it", flush=True
        )
        server.serve_forever()
    return None
