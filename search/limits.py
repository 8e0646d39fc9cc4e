"""Limits on costs, as a user writes them: ``2.6G``, ``0.1x``, ``macs<=2.6G, latency_ms<=12@laptop.json``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from gantailor.supernet.errors import BudgetError

COSTS = ("macs", "params", "latency_ms")
LARGEST = 1e18  # more than anything costs
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
_ALLOWED = (
    "write it as 2.6G, 800M or 0.1x (a share of the generator), or as limits with commas between them: "
    "macs<=2.6G, params<=1M, macs>=1G, latency_ms<=12@PROFILE"
)


def format_macs(macs: float) -> str:
    """``2639000000`` as ``2.64G``."""
    for unit in ("G", "M", "K"):
        if macs >= _UNITS[unit]:
            return f"{macs / _UNITS[unit]:.4g}{unit}"
    return f"{macs:.4g}"


@dataclass(frozen=True)
class Limit:
    """Bounds on one cost, both allowed values themselves; ``profile`` names the file of a latency."""

    metric: str
    upper: float = math.inf
    lower: float = 0.0
    profile: str = ""


def parse_budget(text: str | int, *, full: Mapping[str, int]) -> tuple[Limit, ...]:
    """``2.6G``, ``0.1x``, or limits such as ``macs<=2.6G, params<=1M, latency_ms<=12@laptop.json``.

    Args:
        full: the whole generator's ``macs`` and ``params``, for shares.

    Raises:
        BudgetError: it cannot be read.
    """
    limits: dict[tuple[str, str], Limit] = {}
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(?:(\w+)\s*(<=|>=)\s*)?([0-9.]+(?:e[0-9]+)?)\s*([KMGBTx]?)\s*(?:@\s*(\S+))?\s*", part)
        metric, sign, number, unit, profile = match.groups() if match else ("", "", "0", "", None)
        metric = metric or "macs"
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if match is None or not 0 < value < LARGEST or metric not in COSTS:
            raise BudgetError(f"budget {str(text)!r} cannot be read; {_ALLOWED}")
        if (metric == "latency_ms") != bool(profile) or (metric == "latency_ms" and unit):
            raise BudgetError(
                f"budget {str(text)!r}: a latency limit is in milliseconds and names its profile, latency_ms<=12@FILE "
                "(made by: gantailor profile)"
            )
        if not unit and not profile and value < 1:
            raise BudgetError(f"budget {str(text)!r} is less than one; write {number}x for a share of the generator")
        value *= full[metric] if unit == "x" else _UNITS[unit]
        value = value if metric == "latency_ms" else float(int(value))
        known = limits.get((metric, profile or ""), Limit(metric, profile=profile or ""))
        bounds = (known.upper, value) if sign == ">=" else (value, known.lower)
        limits[metric, profile or ""] = Limit(metric, *bounds, profile or "")
    return tuple(limits.values())
