"""Where the time of a training step goes: a table by kind of work and by operation, and a trace to open."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

STEPS = 5  # that are measured
BEFORE = 2  # one that loads libraries, one that warms the profiler
# Kinds of work by parts of PyTorch's names; the first that fits
KINDS = {
    "convolutions": ("conv",),
    "matrix products": ("mm", "linear", "matmul", "einsum"),
    "norms": ("norm",),
    "optimisers": ("_fused_adam", "optimizer", "_foreach_", "zero_grad"),
    "padding and resizing": ("pad", "upsample", "interpolate"),
    "copies and layouts": ("copy", "contiguous", "clone", "_to_copy", "cat", "index", "slice", "select"),
    "random numbers": ("uniform", "aten::rand", "normal_", "random", "dropout", "bernoulli"),
}
ELSEWHERE, REST = "Python, and waiting for data", "elementwise and the rest"


class StepProfile:
    """Measures some steps of a training that goes on. It is called after each step.

    Attributes:
        rows: a mapping for each operation, the longest first: ``kind``, ``operation``, ``calls`` and ``milliseconds``
            in a step, ``share`` of the step; empty before the measured steps have ended.
    """

    def __init__(self, trace: Path, steps: int = STEPS) -> None:
        self.trace, self.rows, self._seen = trace, list[dict[str, Any]](), 0
        self._profiler: profile | None = profile(
            activities=_activities(),
            schedule=schedule(wait=BEFORE - 1, warmup=1, active=steps, repeat=1),
            on_trace_ready=self._take,
            acc_events=True,
        )
        self._profiler.start()

    def __call__(self) -> bool:
        """A step has ended; whether it was the last that is measured."""
        if self._profiler is None:
            return False
        self._seen += 1
        self._profiler.step()
        return bool(self.rows) and self.close()

    def close(self) -> bool:
        """Measure no more; whether there are rows that were not told before: a short training has fewer steps."""
        if self._profiler is None:
            return False
        self._profiler.stop()
        self._profiler = None
        return bool(self.rows)

    def _take(self, measured: profile) -> None:
        if self._seen <= BEFORE:
            return
        self.trace.parent.mkdir(parents=True, exist_ok=True)
        measured.export_chrome_trace(str(self.trace))
        on_device = ProfilerActivity.CUDA in _activities()
        self.rows = _rows(measured.key_averages(), self._seen - BEFORE, on_device=on_device)

    def by_kind(self) -> dict[str, float]:
        """Milliseconds of a step by kind of work, the longest first."""
        found: dict[str, float] = {}
        for row in self.rows:
            found[row["kind"]] = found.get(row["kind"], 0.0) + row["milliseconds"]
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def to_csv(self) -> bytes:
        """All rows, as UTF-8."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=["kind", "operation", "calls", "milliseconds", "share"])
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue().encode()

    def __str__(self) -> str:
        kinds = self.by_kind()
        whole = sum(kinds.values())
        lines = [f"a step takes {whole:.1f} ms:"]
        return "\n".join([*lines, *(f"  {ms:8.1f} ms {ms / whole:5.0%}  {kind}" for kind, ms in kinds.items())])


def _rows(events: Any, steps: int, *, on_device: bool) -> list[dict[str, Any]]:
    """Of each operation the time that is its own, on the device where there is one, in a step."""
    rows = []
    for event in events:
        microseconds = event.self_device_time_total if on_device else event.self_cpu_time_total
        if microseconds > 0:
            rows.append(
                {
                    "kind": _kind(event.key),
                    "operation": event.key,
                    "calls": round(event.count / steps, 1),
                    "milliseconds": round(microseconds / 1000 / steps, 4),
                }
            )
    whole = sum(row["milliseconds"] for row in rows)
    for row in rows:
        row["share"] = round(row["milliseconds"] / whole, 4)
    return sorted(rows, key=lambda row: -row["milliseconds"])


def _activities() -> set[ProfilerActivity]:
    return supported_activities()  # type: ignore[no-untyped-call, no-any-return]


def _kind(operation: str) -> str:
    name = operation.lower()
    if name.startswith("profilerstep"):
        return ELSEWHERE
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), REST)
