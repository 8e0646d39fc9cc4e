"""Colours of plots, and figures as files and inside pages."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gantailor.search.limits import format_macs
from gantailor.supernet.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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


def svgs(figures: Sequence[Figure], *, salt: str) -> list[str]:
    """For a page: one ``<svg>`` element for each figure."""
    return [svg(figure, salt=f"{salt}{number}") for number, figure in enumerate(figures)]


def data_url(picture: bytes, kind: str = "png") -> str:
    """A picture inside a page."""
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()


def label_costs(axes: Axes, *, log: bool) -> None:
    """Numbers on the axis of MACs, three at least whatever its range: a logarithmic one has none within a decade."""
    from matplotlib.ticker import MaxNLocator, NullFormatter

    if log:
        axes.set_xscale("log")
    low, high = axes.get_xlim()
    if 0 < low < high < 1.05 * low:  # a point and its budget: a difference of nothing should look like that
        low, high = low / 1.05, high * 1.05
    powers = [] if not log or low <= 0 else range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks = [first * 10**power for power in powers for first in (1, 2, 5)]
    for found in (ticks[::3], ticks, MaxNLocator(nbins=6).tick_values(low, high)):
        inside = [tick for tick in found if low <= tick <= high]
        if len(inside) >= 3:
            break
    names = [format_macs(tick) for tick in inside]
    axes.set_xticks(inside, names if len(set(names)) == len(names) else [f"{tick:,.0f}" for tick in inside])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(low, high)
