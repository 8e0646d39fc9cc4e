"""The tables of ``docs/results.md`` and ``docs/results/``, made from the committed CSVs.

    python benchmarks/tables.py --plots    # write them, and draw the plots
    python benchmarks/tables.py --check    # say where a page and its CSV differ, status 1

A table stands on a page between ``<!-- table: NAME -->`` and ``<!-- end of table -->``; ``TABLES`` has what NAME is.
Cells are means over seeds with their standard deviation; the best of a group is bold, what is worse than the untouched
input (no generator at all) has a dagger.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from gantailor.comparison.fairness import TEACHER, WORSE, Halves, paired, with_teacher

UNTOUCHED = "untouched input"  # no generator at all
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", *sorted((ROOT / "docs" / "results").glob("*.md")))
PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """A column of a table, and how its figures are written.

    Attributes:
        scale: a figure of the CSV is divided by it.
        statistic: of a group's rows; ``mean`` shows the spread too, ``count`` the number of rows.
        better: -1 where less is better, 1 where more is, 0 where a figure is no score.
    """

    head: str
    name: str
    digits: int = 0
    scale: float = 1.0
    unit: str = ""
    statistic: str = "mean"
    better: int = -1

    def values(self, rows: pd.DataFrame) -> pd.Series:
        """The figures of a group; a score may be named with its extractor in brackets."""
        name = next((found for found in rows.columns if found.partition("[")[0] == self.name), self.name)
        return pd.Series(rows[name].dropna()) if name in rows else pd.Series(dtype=float)

    def middle(self, rows: pd.DataFrame) -> float:
        """What stands in the cell, without its spread."""
        values = self.values(rows)
        return float("nan") if values.empty else float(getattr(values, self.statistic)())

    def cell(self, rows: pd.DataFrame) -> str:
        """As it is written."""
        values = self.values(rows)
        if values.empty:
            return ""
        if self.statistic == "count":
            return str(len(values))
        shown = f"{self.middle(rows) / self.scale:,.{self.digits}f}"
        if self.statistic == "mean" and self.better and len(values) > 1:
            shown += f" ± {values.std() / self.scale:,.{self.digits}f}"
        return shown + self.unit


L1, FID, KID = Column("L1", "l1", 4), Column("FID", "fid"), Column("KID", "kid", 3)
MACS = Column("MACs (true)", "macs", 1, 1e6, " M", "median", 0)
MINUTES = Column("training, min", "seconds", 1, 60, "", "median", 0)
SEEDS = Column("seeds", "seed", statistic="count", better=0)
MEASURED = (MACS, L1, FID, KID, MINUTES, SEEDS)


@dataclass(frozen=True)
class Table:
    """A table of one CSV: a line for each group of rows.

    Attributes:
        by: columns of the CSV that make a group; the best of what has the same first one is bold.
        labels: other names of groups, by the value of the last of ``by``; what has none keeps its own.
        references: the teacher's row and the untouched input's stand above, both of the embedded task; else those of
            the CSV's own rows that have no budget.
        only: rows that count.
        best: groups compete, but for a ``teacher`` and the untouched input.
    """

    csv: str
    by: tuple[str, ...] = ("budget", "method")
    columns: tuple[Column, ...] = MEASURED
    labels: Mapping[str, str] = field(default_factory=dict)
    references: bool = True
    only: Callable[[pd.DataFrame], pd.Series] | None = None
    best: bool = True

    def lines(self) -> list[str]:
        """In Markdown."""
        frame = pd.read_csv(RESULTS / self.csv)
        frame = frame[self.only(frame)] if self.only else frame
        groups = [
            (key if isinstance(key, tuple) else (key,), rows) for key, rows in frame.groupby(list(self.by), sort=False)
        ]
        shown = [
            column for column in self.columns if not groups or any(not column.values(rows).empty for _, rows in groups)
        ]
        known = embedded() if self.references else of_no_budget(frame, self.by)
        lines = [row([*self.by, *(column.head for column in shown)]), "|---" * (len(self.by) + len(shown)) + "|"]
        for name, one in known.items():
            lines.append(row([*[""] * (len(self.by) - 1), name, *(_plain(column, one) for column in shown)]))
        nothing = known.get(UNTOUCHED, next((rows for key, rows in groups if key[-1] == UNTOUCHED), None))
        given = {"teacher", UNTOUCHED}
        for key, rows in groups:
            rivals = [one for other, one in groups if other[:-1] == key[:-1] and not given & {other[-1], key[-1]}]
            cells = [_marked(column, rows, rivals if self.best else [], nothing) for column in shown]
            lines.append(row([*map(str, key[:-1]), self.labels.get(str(key[-1]), str(key[-1])), *cells]))
        return lines


@dataclass(frozen=True)
class Verbatim:
    """A table whose CSV has its cells as they are shown, under ``heads`` where they are named."""

    csv: str
    heads: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """In Markdown."""
        frame = pd.read_csv(RESULTS / self.csv, dtype=str, keep_default_na=False)
        heads = self.heads or tuple(frame.columns)
        return [row(heads), "|---" * len(heads) + "|", *(map(row, frame.iloc[:, : len(heads)].to_numpy().tolist()))]


def row(cells: Sequence[Any]) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def of_no_budget(frame: pd.DataFrame, by: Sequence[str] = ("budget", "method")) -> dict[str, pd.DataFrame]:
    """Rows of what nothing is trained for: the untouched input and the teacher of a task of its own."""
    rows = frame[frame[by[0]].isna()]
    return {name: rows[rows[by[-1]] == name].drop(columns=["seed", "kimg"]) for name in rows[by[-1]]}


def halves_beside(csv: str) -> Halves:
    """Scores on halves of the test pictures, as ``gantailor compare`` writes them, where they stand beside a CSV."""
    file = RESULTS / f"{csv.removesuffix('.csv')}_halves.csv"
    if not file.exists():
        return {}
    frame = pd.read_csv(file, keep_default_na=False)
    places = frame[["method", "budget", "seed", "metric"]].itertuples(index=False, name=None)
    return {
        (method, budget, int(seed), metric.partition("[")[0]): values
        for (method, budget, seed, metric), values in zip(places, frame.iloc[:, 4:].to_numpy(float), strict=True)
    }


def embedded() -> dict[str, pd.DataFrame]:
    """Teacher and untouched input of the embedded task, a row each."""
    frame = pd.read_csv(RESULTS / "demo_comparison.csv")
    names = {UNTOUCHED: "input", "teacher": "teacher"}
    return {name: frame[frame.arm == arm].drop(columns=["seed", "kimg"]) for name, arm in names.items()}


def _plain(column: Column, rows: pd.DataFrame) -> str:
    return "" if column.statistic == "count" else column.cell(rows)


def _marked(column: Column, rows: pd.DataFrame, rivals: Sequence[pd.DataFrame], untouched: pd.DataFrame | None) -> str:
    """A cell, bold where it is the best of its group, with a dagger where it is worse than no generator."""
    shown, middle = column.cell(rows), column.middle(rows)
    if not column.better or not shown:
        return shown
    if len(rivals) > 1 and middle == (min if column.better < 0 else max)(map(column.middle, rivals)):
        shown = f"**{shown}**"
    if untouched is not None and column.better * (middle - column.middle(untouched)) < 0:
        shown += f" {WORSE}"
    return shown


@dataclass(frozen=True)
class Changes:
    """What changes against a base, in percent of it, paired by seed, with the 95% interval; bold where 0 is outside."""

    csv: str
    by: str
    base: str
    within: tuple[str, ...] = ()
    scores: tuple[str, ...] = ("l1", "kid")
    only: Callable[[pd.DataFrame], pd.Series] | None = None

    def lines(self) -> list[str]:
        """In Markdown."""
        frame = pd.read_csv(RESULTS / self.csv)
        frame = frame[self.only(frame)] if self.only else frame
        frame.columns = [name.partition("[")[0] for name in frame.columns]
        named = {"l1": "L1", "fid": "FID", "kid": "KID", "psnr_rgb": "PSNR, RGB", "psnr_y": "PSNR, Y"}
        named |= {"ssim_y": "SSIM, Y", "lpips": "LPIPS"}
        heads = [*self.within, f"beside {self.base}, %", *(named.get(score, score) for score in self.scores)]
        lines, halves = [row(heads), "|---" * len(heads) + "|"], halves_beside(self.csv)
        for key, part in frame.groupby(list(self.within), sort=False) if self.within else [((), frame)]:
            found = paired(part, self.base, self.scores, by=self.by, halves=halves)
            lines += [row([*key, change.arm, *map(change.cell, self.scores)]) for change in found]
        return lines


@dataclass(frozen=True)
class BesideTeacher:
    """How far each arm is from the teacher's scores, in percent, with the 95% interval, bold where 0 is outside.

    It is over seeds, and over pictures too where scores on halves of them stand beside the CSV.
    """

    csv: str
    scores: tuple[Column, ...] = (L1, FID, KID)

    def lines(self) -> list[str]:
        """In Markdown."""
        frame = pd.read_csv(RESULTS / self.csv)
        teacher = of_no_budget(frame).get("teacher", embedded()["teacher"])
        known = {column.name: column.middle(teacher) for column in self.scores}
        runs = frame[frame.budget.notna()].rename(columns=lambda name: name.partition("[")[0])
        heads = ["budget", "method", *(f"{column.head} beside the teacher, %" for column in self.scores)]
        lines, halves = [row(heads), "|---" * len(heads) + "|"], halves_beside(self.csv)
        for budget, part in runs.groupby("budget", sort=False):
            found = paired(with_teacher(part, known), TEACHER[0], list(known), halves=halves)
            lines += [row([budget, change.arm, *map(change.cell, known)]) for change in found]
        return lines


@dataclass(frozen=True)
class Strategies:
    """Medians over seeds of how many evaluations a search needs, a column for each problem; stopped ones as a bound."""

    csv: str

    def lines(self) -> list[str]:
        """In Markdown."""
        frame = pd.read_csv(RESULTS / self.csv)
        problems = list(dict.fromkeys(frame.problem))
        lines = [row(["strategy", *problems]), "|---" * (len(problems) + 1) + "|"]
        for name, rows in frame.groupby("strategy", sort=False):
            medians = [float(rows[rows.problem == problem].evaluations.median()) for problem in problems]
            lines.append(row([name, *("" if np.isnan(one) else f"{one:g}" for one in medians)]))
        return lines


@dataclass(frozen=True)
class Orders:
    """Kendall's tau of inherited scores, and of MACs alone, with what training alone gives."""

    csv: str

    def lines(self) -> list[str]:
        """In Markdown."""
        frame = pd.read_csv(RESULTS / self.csv)
        frame.columns = [name.partition("[")[0] for name in frame.columns]
        lines = [row(["score", "supernet", "MACs alone"]), "|---|---|---|"]
        for score in ("l1", "kid", "fid"):
            alone = frame[f"alone {score}"]
            taus = [stats.kendalltau(frame[f"inherited {score}"], alone)[0], stats.kendalltau(-frame.macs, alone)[0]]
            lines.append(row([score.upper(), *(f"{tau:.2f}" for tau in taus)]))
        return lines


ENDS = ("smallest", "tenth", "middle", "largest")
DIVERSITY = (
    *(Column("FID", "fid"), Column("KID", "kid", 3), Column("precision", "precision", 3, better=1)),
    *(Column("recall", "recall", 3, better=1), Column("coverage", "coverage", 3, better=1)),
    *(Column("LPIPS diversity", "diversity", 3, better=1), Column("FID to teacher", "teacher_fid")),
    Column("recall of teacher", "teacher_recall", 3, better=1),
)
SLIMMING = (
    *(MACS, Column("bytes (ONNX)", "bytes", 2, 1e6, " M", "median", 0)),
    *(Column("ms, 1 thread", "ms", 1, statistic="median", better=0), L1, FID, KID, SEEDS),
)
SUPER = (
    *(MACS, Column("PSNR, RGB, dB", "psnr_rgb", 2, better=1), Column("PSNR, Y, dB", "psnr_y", 2, better=1)),
    *(Column("SSIM, Y", "ssim_y", 4, better=1), Column("LPIPS", "lpips", 3), MINUTES, SEEDS),
)
TAUGHT = (MACS, L1, Column("PSNR, dB", "psnr", 2, better=1), Column("LPIPS", "lpips", 3), SEEDS)  # to the teacher
# Features of the FID Inception's Mixed_6e.
FACADES = (L1, Column("LPIPS", "lpips", 3), Column("FID768", "fid768", 2), Column("KID768", "kid768", 5))
RIVALS = ("path", "slimming", "taylor-narrowed", "uniform-narrowed")
OTHERS = ("torch-pruning", "fastnas")  # benchmarks/others.py


def _rivals(frame: pd.DataFrame) -> pd.Series:
    """The arms of five seeds, other tools' nets among them."""
    return pd.Series(frame.method.isin(RIVALS + OTHERS))


def _orders(frame: pd.DataFrame) -> pd.Series:
    """Arms of a path, and slimming, with the seeds that all of them have without a discriminator."""
    named = frame.method.str.startswith("path") | (frame.method == "slimming")
    return named & frame.budget.isin(["0.1x", "0.05x"]) & (frame.seed < 2)


def _ablation(frame: pd.DataFrame) -> pd.Series:
    """Arms of a path, and slimming, with the seeds that all of them have."""
    return (
        (frame.method.str.startswith("path") | (frame.method == "slimming"))
        & (frame.budget == "0.1x")
        & (frame.seed < 3)
    )


def _yardstick(csv: str, second: Column, digits: int = 4) -> Table:
    """Families of subnets of equal MACs, with what is known before tuning and after it."""
    count = Column("subnets", "subnet", statistic="count", better=0)
    before, after = "inherited search l1", "tuned test l1"
    columns = (count, Column("inherited L1, search", before, digits), Column("tuned L1", after, digits), second)
    return Table(csv, by=("family",), columns=columns, references=False)


TABLES: dict[str, Any] = {
    "claims": Verbatim("claims.csv"),
    "five-seeds": Table("five_seeds.csv", only=_rivals),
    "five-seeds-changes": Changes("five_seeds.csv", "method", "path", ("budget",), ("l1", "fid", "kid"), _rivals),
    "recipes": Table("recipes.csv"),
    "recipes-changes": Changes("recipes.csv", "method", "path", (), ("l1", "fid", "kid")),
    "no-discriminator": Table("no_discriminator.csv"),
    "no-discriminator-changes": Changes("no_discriminator.csv", "method", "path", ("budget",), ("l1", "fid", "kid")),
    "path-movement-no-discriminator": Table("path_movement_no_discriminator.csv"),
    "path-movement-no-discriminator-changes": Changes(
        "path_movement_no_discriminator.csv", "method", "path", ("budget",), ("l1", "fid", "kid")
    ),
    "path-movement": Table("path_movement.csv"),
    "path-movement-changes": Changes("path_movement.csv", "method", "path-measured", (), ("l1", "fid", "kid")),
    "no-discriminator-orders": Table("no_discriminator_orders.csv", only=_orders),
    "path-longer-no-discriminator": Table("path_longer_no_discriminator.csv"),
    "path-longer-no-discriminator-teacher": BesideTeacher("path_longer_no_discriminator.csv"),
    "three-budgets": Table("three_budgets.csv"),
    "three-budgets-changes": Changes("three_budgets.csv", "method", "slimming", ("budget",), ("l1", "fid", "kid")),
    "cartoongan-path": Table("cartoongan_path.csv", ("method",), TAUGHT, references=False),
    "rates": Table("rates.csv", ("method",), (L1, FID, KID, SEEDS)),
    "rates-realesrgan": Table("rates_realesrgan.csv", ("method",), SUPER[1:], references=False),
    "path-longer": Table("path_longer.csv"),
    "path-longer-teacher": BesideTeacher("path_longer.csv"),
    "facades": Table("facades_resnet.csv", columns=(MACS, *FACADES, MINUTES, SEEDS), references=False),
    "facades-teacher": BesideTeacher("facades_resnet.csv", FACADES),
    "facades-unet": Table("facades.csv", columns=(MACS, *FACADES, MINUTES, SEEDS), references=False),
    "facades-unet-teacher": BesideTeacher("facades.csv", FACADES),
    "facades-teachers": Verbatim("facades_teacher.csv"),
    "vintage": Table("vintage.csv", ("method",), TAUGHT, references=False),
    "readme": Table(
        "five_seeds.csv",
        columns=(MACS, L1, FID, KID, SEEDS),
        only=lambda frame: _rivals(frame) & (frame.budget == "0.1x"),
    ),
    "path-ablation": Table("five_seeds.csv", only=_ablation),
    "path-ablation-changes": Changes("five_seeds.csv", "method", "path", (), ("l1", "fid", "kid"), _ablation),
    "agents": Table("agents_paired.csv"),
    "agents-changes": Changes("agents_paired.csv", "method", "agents", ("budget",), ("l1", "fid", "kid")),
    "slimming-longer": Table("slimming_longer.csv"),
    "realesrgan": Table("realesrgan.csv", by=("method",), columns=SUPER, references=False),
    "realesrgan-changes": Changes("realesrgan.csv", "method", "path", scores=("psnr_rgb", "psnr_y", "ssim_y", "lpips")),
    "compare": Table("compare.csv"),
    "compare-teacher": BesideTeacher("compare.csv"),
    "hypernetwork": Table("hypernetwork.csv"),
    "short-route": Table("short_route.csv", by=("budget",), columns=(MACS, L1, FID, KID, SEEDS), best=False),
    "hypernetwork-ablations": Table("hypernetwork_ablations.csv"),
    "slimming-ablations": Table("slimming_ablations.csv"),
    "agents-before": Table("agents.csv"),
    "slimming": Table("slimming.csv", by=("arm", "precision"), columns=SLIMMING),
    "cartoongan": Verbatim("cartoongan.csv"),
    "eight-bits": Verbatim("eight_bits.csv"),
    "stylegan2-teacher": Verbatim("stylegan2_teacher.csv"),
    "stylegan2-path": Table("stylegan2_path.csv", by=("arm",), columns=(*DIVERSITY, SEEDS), references=False),
    "diversity": Table("diversity.csv", by=("arm",), columns=(*DIVERSITY, SEEDS), references=False),
    "demo-comparison": Table(
        "demo_comparison.csv",
        by=("arm",),
        columns=(MACS, Column("thousand images", "kimg", statistic="median", better=0), L1, FID, KID, SEEDS),
        only=lambda frame: ~frame.arm.isin(["teacher", "input"]),
    ),
    "shipped-path": Verbatim("shipped_path.csv"),
    "inherited": Table(
        "inherited.csv", by=("share", "run"), columns=(MACS, L1, FID, KID), only=lambda frame: frame.split == "test"
    ),
    "path": Table("path.csv"),
    "equal-macs": _yardstick("equal_macs.csv", Column("tuned KID", "tuned test kid", 4)),
    "equal-macs-realesrgan": _yardstick("equal_macs_realesrgan.csv", Column("tuned LPIPS", "tuned test lpips", 4), 5),
    "strategies": Strategies("strategies.csv"),
    "rank-correlation": Orders("rank_correlation.csv"),
    "teachers": Table("demo_comparison.csv", by=("arm",), columns=(MACS, L1, FID, KID), only=lambda f: f.arm == ""),
    "trace-verify": Verbatim(
        "trace_verify.csv",
        (
            "generator",
            "input",
            "free widths",
            "subnets tried",
            "trace s",
            "verify s",
            "by the clock",
            "load",
            "peak GiB",
        )
        + ("largest difference",),
    ),
    "step": Verbatim("step.csv", ("", "seconds", "x floor", "x reference", "GMAC/s")),
    "step-plain": Verbatim("step_plain.csv", ("", "seconds", "x floor", "x reference", "GMAC/s")),
    "options": Changes(
        "ablations.csv", "variant", "base", scores=tuple(f"{score} {end}" for end in ENDS for score in ("l1", "kid"))
    ),
}


def written(page: str) -> str:
    """A page with its tables made anew.

    Raises:
        KeyError: it has a table that is not known here.
    """
    return PLACE.sub(lambda found: found[1] + "\n".join([*TABLES[found[2]].lines(), found[3]]), page)


PLOTS = {"compare": "compare", "hypernetwork": "hypernetwork"}  # a picture in docs: its CSV
HISTORIES = {"compare_history": ("compare_history", "compare"), "agents_history": ("agents_history", "agents")}


def draw() -> None:
    """The plots beside the tables, as ``gantailor compare`` draws them."""
    from gantailor.comparison import drawing
    from gantailor.reports import figures

    untouched = {
        name: {score: float(one[col].iloc[0]) for score, col in _columns(one)} for name, one in embedded().items()
    }
    for picture, csv in PLOTS.items():
        frame = pd.read_csv(RESULTS / f"{csv}.csv").rename(columns=lambda name: name.partition("[")[0])
        frame = frame.drop(columns=["seed", *(name for name in ("version", "date") if name in frame)])
        grouped = frame.groupby(["method", "budget"], sort=False)
        figure = drawing.draw(grouped.agg(["mean", "std"]), untouched)
        (ROOT / "docs" / f"{picture}.png").write_bytes(figures.rendered(figure, "png"))
    for picture, (csv, methods) in HISTORIES.items():
        order = list(dict.fromkeys(pd.read_csv(RESULTS / f"{methods}.csv").method))
        figure = drawing.draw_histories(pd.read_csv(RESULTS / f"{csv}.csv"), "features", order)
        (ROOT / "docs" / f"{picture}.png").write_bytes(figures.rendered(figure, "png"))


def _columns(one: pd.DataFrame) -> list[tuple[str, str]]:
    return [(name.partition("[")[0], name) for name in one.columns if name.startswith(("l1", "fid", "kid", "macs"))]


def main() -> int:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--plots", action="store_true", help="draw the plots too")
    given, other = parser.parse_args(), 0
    check = given.check
    if given.plots:
        draw()
    for page in PAGES:
        old = page.read_text(encoding="utf8")
        if (new := written(old)) != old:
            other += 1
            print(f"{page.relative_to(ROOT)}: {'differs from its CSVs' if check else 'written'}")
            if not check:
                page.write_text(new, encoding="utf8")
    return int(check and other > 0)


if __name__ == "__main__":
    sys.exit(main())
