"""Colours of plots, and figures as files and inside pages."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from gantailor.supernet.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito: safe for the colour-blind; a grey that is seen on white and on black
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")
MARKERS = "osD^vPX<"  # and in print without colour; one more than colours, so that pairs come again late


def plain(text: str) -> str:
    """A name as it is: between dollar signs Matplotlib would read formulas."""
    return text.replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """As PNG or SVG, by the name's end."""
    write_bytes(path, rendered(figure, path.suffix[1:]))


def rendered(figure: Figure, kind: str, *, salt: str = "", font: str = "path") -> bytes:
    """The bytes of a PNG or SVG, the same for the same figure."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": salt or "gantailor", "svg.fonttype": font}):
        figure.savefig(buffer, format=kind, dpi=150)
    return buffer.getvalue()


def svg(figure: Figure, *, salt: str) -> str:
    """For a page: the ``<svg>`` element, its text as text; ``salt`` keeps ids of several figures apart."""
    text = rendered(figure, "svg", salt=salt, font="none").decode()
    return text[text.index("<svg") :]


def data_url(picture: bytes, kind: str = "png") -> str:
    """A picture inside a page."""
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()
