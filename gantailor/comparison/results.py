"""What a comparison's finished runs come to: table, plots, pictures and one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from gantailor.comparison import drawing, fairness, runs
from gantailor.comparison.runs import UNTRAINED, Entry, result_scores
from gantailor.evaluators.scores import evenly
from gantailor.reports import figures
from gantailor.reports.pages import with_policy
from gantailor.reports.scores import differences_of, warn
from gantailor.reports.tables import csv_bytes
from gantailor.run.inputs import placed_teacher
from gantailor.run.run import Run
from gantailor.search.methods.method import method as find_method
from gantailor.supernet import calling
from gantailor.supernet.device import computed
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import read_rows, write_bytes
from gantailor.supernet.quantization.activation_ranges import load_fake_quantized
from gantailor.zoo.data.pictures import is_picture, picture_grid, to_rgb

SHOWN = 6  # pictures in the grid
PLACES = ("method", "budget", "seed", "metric")  # that halves are of


def results(entries: Sequence[Entry]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for each finished run, and mean and standard deviation of what was measured, by method and budget."""
    frame = pd.DataFrame([entry.row() for entry in entries if entry.done])
    if frame.empty:
        raise ConfigError(f"{str(entries[0].folder.parent)!r} has no finished run yet")
    measured = [name for name in frame.columns if name not in (*runs.STAMPS, "seed", "params")]
    grouped = frame[measured].groupby(["method", "budget"], sort=False)
    wide = grouped.agg(["mean", "std"])
    wide["seeds"] = grouped.size()
    return frame, wide


def unlike_entries(entries: Sequence[Entry]) -> list[str]:
    """A line for each finished run and score that does not compare with the first run's: other data or protocols."""
    rows = {entry.folder.name: entry.scores().get("subnet", {}) for entry in entries if entry.done}
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return [
        f"{name}: {line}"
        for name in names
        for line in differences_of({key: row[name]["provenance"] for key, row in rows.items() if name in row})
    ]


def references(entries: Sequence[Entry]) -> dict[str, dict[str, float]]:
    """Scores and MACs of what nothing is trained for, each from the first run that has it.

    The ``teacher``, and the ``input`` as it is (``input, enlarged`` and ``input, nearest`` where outputs are larger):
    no generator at all, so no MACs.
    """
    found: dict[str, dict[str, float]] = {}
    for entry in entries:
        for name, scores in entry.scores().items():
            if name in UNTRAINED and name not in found:
                macs = 0 if name != "teacher" else _teacher_macs(entry)
                found[name] = {"macs": macs} | {metric: score["value"] for metric, score in scores.items()}
    return {name: found[name] for name in UNTRAINED if name in found}


def halves_of(entries: Sequence[Entry]) -> fairness.Halves:
    """Scores on random halves of the test pictures, of finished runs and of the teacher, where runs have them."""
    found: dict[tuple[str, str, int, str], np.ndarray] = {}
    for entry in entries:
        scores = entry.scores() if entry.done else {}
        rows = {(entry.method, entry.budget, entry.seed): result_scores(scores)} if scores else {}
        for key, row in {**rows, fairness.TEACHER: scores.get("teacher", {})}.items():
            found |= {(*key, metric): np.array(score["halves"]) for metric, score in row.items() if "halves" in score}
    return found


def halves_frame(halves: fairness.Halves) -> pd.DataFrame:
    """It as a table: what each row is of, and its halves in a column each."""
    rows = [dict(zip(PLACES, key, strict=True)) | dict(enumerate(values, 1)) for key, values in halves.items()]
    return pd.DataFrame(rows)


def _teacher_macs(entry: Entry) -> int:
    teacher = entry.open().setup.traced_teacher
    return teacher.macs(teacher.full_config(), convention=entry.config.convention)


def histories(entries: Sequence[Entry]) -> pd.DataFrame:
    """The search's score as the methods' own trainings went: a row for each look (``train.watch_kimg``)."""
    rows = []
    for entry in entries:
        if find_method(entry.config.method).searches:  # a supernet's looks are at several widths, not at the budget
            continue
        log = entry.folder / f"{find_method(entry.config.method).name}.watch.jsonl"
        for line in read_rows(log):
            step, score = list(line.values())[:2]
            kimg = step * entry.config.train.batch / 1000
            rows.append(
                {"method": entry.method, "budget": entry.budget, "seed": entry.seed, "kimg": kimg, "score": score}
            )
    frame = pd.DataFrame(rows)
    return frame.drop_duplicates(["method", "budget", "seed", "kimg"], keep="last") if rows else frame


def result_of(run: Run) -> nn.Module:
    """What a run's scores in the table are of."""
    subnet = run.subnet()[1]
    return (load_fake_quantized(run.folder.subnet_ranges, subnet) or subnet).to(run.setup.device)


@torch.no_grad()
def pictures(entries: Sequence[Entry]) -> tuple[list[str], bytes]:
    """A row for each of a few test pictures, every method of these runs (its first seed); what the columns are."""
    runs = {entry.method: entry.open() for entry in reversed(entries)}
    first = {entry.method: runs[entry.method] for entry in entries}  # in the order of the methods
    one = next(iter(runs.values()))
    pairs, background = one.setup.data("test"), one.config.data.background
    inputs, targets = pairs.batch(evenly(len(pairs), SHOWN))
    taught = next((run.setup for run in first.values() if run.setup.taught), None)
    teacher = {} if taught is None else {"teacher": computed(placed_teacher(taught), inputs)}
    made = {name: computed(result_of(run), inputs) for name, run in first.items()}
    columns = {"input": calling.first(inputs), **teacher, **made, "real": targets}
    shown = {name: to_rgb(images, background) for name, images in columns.items() if is_picture(images)}
    return list(shown), picture_grid(list(shown.values()), names=list(shown))


def _changed(
    frame: pd.DataFrame, teacher: Mapping[str, float] | None, halves: fairness.Halves, metrics: Sequence[str]
) -> dict[str, str]:
    """Tables of what changes beside the first method, and beside the teacher, by their titles."""
    found = {"What changes beside the first method": fairness.changes(frame, metrics, halves)}
    if teacher is not None:
        known = [name for name in metrics if name in teacher]
        taught = fairness.with_teacher(frame, teacher)
        found["What changes beside the teacher"] = fairness.changes(taught, known, halves) if known else []
    return {title: "\n".join([*lines, "", fairness.CHANGES_SAID, ""]) for title, lines in found.items() if lines}


def write_comparison(entries: Sequence[Entry], folder: Path, said: Sequence[str] = ()) -> str:
    """Everything that is made of finished runs; the table.

    Args:
        said: lines about how the runs were made, which stand below it.
    """
    frame, wide = results(entries)
    untrained, history, halves = references(entries), histories(entries), halves_of(entries)
    missing = [entry.folder.name for entry in entries if not entry.done]
    unlike = [*unlike_entries(entries), *fairness.unequal_costs(wide)]
    warn(unlike)
    notes = [*said, *unlike]
    text, figure = drawing.markdown(wide, untrained, missing), drawing.draw(wide, untrained)
    changed = _changed(frame, untrained.get("teacher"), halves, drawing.metrics_of(wide))
    images = {"compare": ("Scores against MACs and training time", figures.rendered(figure, "png"))}
    if not history.empty:
        write_bytes(folder / "history.csv", csv_bytes(history))
    if len(history) and history.duplicated(["method", "budget", "seed"]).any():  # one look is no course
        order = list(dict.fromkeys(wide.index.get_level_values("method")))
        drawn = drawing.draw_histories(history, entries[0].open().setup.search_metric, order)
        title = "The search's score while each method decides, a thin line for each seed"
        images["history"] = (title, figures.rendered(drawn, "png"))
    for budget in dict.fromkeys(entry.budget for entry in entries):
        if done := [entry for entry in entries if entry.done and entry.budget == budget]:
            shown, sheet = pictures(done)
            images[f"pictures-{budget}"] = (f"Budget {budget}: {', '.join(shown)}", sheet)
    write_bytes(folder / "results.csv", csv_bytes(frame))
    if halves:
        write_bytes(folder / "halves.csv", csv_bytes(halves_frame(halves)))
    title = f"Mean and standard deviation over seeds, test split; MACs: {entries[0].config.convention}"
    tables = [(title, text), *changed.items()]
    text += "".join(f"\n{line}\n" for line in (*(one.rstrip() for one in changed.values()), *notes))
    write_bytes(folder / "table.md", text.encode())
    figures.save(figure, folder / "compare.svg")
    for name, (_, data) in images.items():
        write_bytes(folder / f"{name}.png", data)
    page = drawing.page(tables, dict(images.values()), said=drawing.said_best(wide, untrained), notes=notes)
    write_bytes(folder / "compare.html", with_policy(page))
    return text
