"""Generators of public repositories: how many trace, prove, shrink and export, and whether the proof was right.

    python benchmarks/strangers.py FOLDER    # FOLDER/owner/name: clones of the repositories in strangers.yaml
    python benchmarks/strangers.py --docs    # docs/any_generator.md and the README's count from the CSV alone

Each runs in a process of its own (``stranger.py``) on one core; its row goes into ``benchmarks/results/strangers.csv``,
and none is run twice: delete its row, or name it after the folder. Nothing of a repository but the file with the
model, and what that imports, is run: use a machine that has nothing to lose, without a network. Packages that many of
them import: einops, timm, torchvision, kornia, diffusers, monai (as ``strangers.yaml`` says).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".yaml")
RESULTS = Path(__file__).parent / "results" / "strangers.csv"
PAGE, README = ROOT / "docs" / "any_generator.md", ROOT / "README.md"
LIMIT, MOST = 60.0, 900  # seconds of one core for trace and proof; of the whole process with checks and export
COLUMNS = (
    *("name", "repository", "commit", "file", "traces", "proves", "bits", "widths", "macs", "half_share"),
    *("half_share_counted", "counts_agree", "frozen_needed", "frozen_unsupported", "inexact", "trace_seconds"),
    *("proof_seconds", "full_vs_own", "sliced_vs_extracted", "half_vs_zeroed", "wrong", "noisy", "onnx"),
    *("error", "frozen"),
)


def row(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What became of one generator."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("stranger.py")), str(folder), entry["name"]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = {"name": entry["name"], "repository": entry["repository"], "commit": entry["commit"] or entry["package"]}
    found["file"] = entry["module"].replace(".", "/") + ".py"
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=MOST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        found["error"] = f"not finished after {MOST} s"
    for line in said.splitlines():
        if line.startswith("ROW "):
            found |= json.loads(line[4:])
    return found


def run(folder: Path, names: Sequence[str], workers: int) -> None:
    """Add the rows that are missing, or those that are named."""
    entries = yaml.safe_load(LIST.read_text())
    known = pd.read_csv(RESULTS).to_dict("records") if RESULTS.exists() else []
    rows = {str(one["name"]): one for one in known}
    wanted = [entry for entry in entries if (entry["name"] in names if names else entry["name"] not in rows)]
    with ThreadPoolExecutor(workers) as pool:
        for made in pool.map(lambda entry: row(folder, entry), wanted):
            rows[made["name"]] = made
            print(made["name"], made.get("proves", False), made.get("half_share"), made.get("error", ""), flush=True)
            ordered = [rows[entry["name"]] for entry in entries if entry["name"] in rows]
            RESULTS.parent.mkdir(exist_ok=True)
            pd.DataFrame(ordered).reindex(columns=COLUMNS).to_csv(RESULTS, index=False, float_format="%.4g")


def cell(value: Any) -> str:
    """Of a table in Markdown."""
    return "" if pd.isna(value) else str(value).replace("|", "\\|").replace("\n", " ")


def share(value: float) -> str:
    """Of the MACs."""
    return "-" if pd.isna(value) else f"{value:.2f}"


def line(one: Mapping[str, Any]) -> str:
    """A generator's line of the table."""
    exports = "" if pd.isna(one["onnx"]) else "yes" if one["onnx"] == "yes" else "no"
    proved = one["proves"] is True
    beside = reasons(one["frozen"]) if proved else cell(one["error"])[:160]
    seconds = "-" if pd.isna(one["proof_seconds"]) else f"{one['trace_seconds'] + one['proof_seconds']:.0f}"
    cells = [f"{one['repository']} `{one['file']}`", one["name"], f"{one['widths']:.0f}" if proved else "-"]
    cells += [share(one["half_share_counted"]), share(one["frozen_unsupported"]), share(one["frozen_needed"])]
    return "| " + " | ".join([*cells, f"{one['inexact']:.0f}" if proved else "-", seconds, exports, beside]) + " |"


def reasons(frozen: Any) -> str:
    """What is frozen beside the output layer, with what it costs; where that is a percent and more."""
    parts = [part for part in ("" if pd.isna(frozen) else str(frozen)).split("; ") if "(0%)" not in part]
    return cell("; ".join(part for part in parts if not part.startswith("is the generator's output"))[:160])


def summary(frame: pd.DataFrame) -> str:
    """The counts, as a list in Markdown."""
    number, proved = len(frame), frame[frame.proves == True]  # noqa: E712
    shrunk = proved.half_share_counted <= 0.4
    whole = shrunk | (proved.frozen_unsupported < 0.01)
    seconds = frame.trace_seconds + frame.proof_seconds
    tried = proved[proved.onnx.notna()]
    failed = tried[tried.onnx != "yes"].to_dict("records")
    refused = [f"  - {one['name']}: {cell(one['onnx'])[:200]}" for one in failed]
    lines = [
        f"- {len(proved)} ({len(proved) / number:.0%}) trace and prove.",
        f"- {shrunk.sum()} ({shrunk.sum() / number:.0%}) keep at most 0.4 of their MACs at half widths;",
        f"  {whole.sum()} ({whole.sum() / number:.0%}) with those where less than 1% is frozen without need.",
        f"- {int((proved.wrong == True).sum())} of {proved.wrong.notna().sum()} that were checked are proved wrong.",  # noqa: E712
        f"- {int((seconds > LIMIT).sum())} take over {LIMIT:.0f} s of one core for trace and proof; the median is",
        f"  {seconds.median():.0f} s, the longest {seconds.max():.0f} s.",
        f"- {int((tried.onnx == 'yes').sum())} of {len(tried)} that were exported run in onnxruntime as in PyTorch.",
    ]
    return "\n".join([*lines, *refused])


def write_docs() -> None:
    """The page's table and counts, and the README's."""
    frame = pd.read_csv(RESULTS)
    heads = ["repository", "generator", "free widths", "MACs at half widths", "frozen without need", "frozen with need"]
    heads += ["inexact", "seconds", "ONNX", "frozen beside the output layer, or why not"]
    table = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    table += [line(one) for one in sorted(frame.to_dict("records"), key=lambda one: str(one["repository"]).lower())]
    page, repositories = PAGE.read_text(encoding="utf8"), frame.repository.nunique()
    page = between(page, "counts", f"{len(frame)} generators of {repositories} repositories:\n\n{summary(frame)}")
    PAGE.write_text(between(page, "table", "\n".join(table)), encoding="utf8")
    readme = README.read_text(encoding="utf8")
    proved = int((frame.proves == True).sum())  # noqa: E712
    text = f"lists {len(frame)} public generators, of which {proved} trace and prove."
    README.write_text(re.sub(r"lists \d+ public generators[^.]*\.", text, readme), encoding="utf8")


def between(page: str, mark: str, text: str) -> str:
    """The page with this text between its marks."""
    start, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    return f"{page[: page.index(start) + len(start)]}\n{text}\n{page[page.index(end) :]}"


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("names", nargs="*", help="to run again; default: those without a row")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--docs", action="store_true", help="only write the page")
    given = parser.parse_args()
    if not given.docs:
        run(given.folder, given.names, given.workers)
    write_docs()


if __name__ == "__main__":
    main()
