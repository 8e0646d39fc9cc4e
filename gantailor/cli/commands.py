"""Commands that look and measure: they run no stage of the main job."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gantailor
from gantailor.cli.flags import config_of, flag_value
from gantailor.pipeline import ranking as rankings
from gantailor.pipeline.scoring import Scoring, compare, score_folders_by_name, show, stamped
from gantailor.reports.progress import Reporter
from gantailor.run.run import Run, teacher_file
from gantailor.search.limits import format_macs
from gantailor.search.spaces.space import space
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import write_bytes
from gantailor.zoo.builders import build
from gantailor.zoo.checkpoints import load_teacher
from gantailor.zoo.data.pairs import cache_folder


def inspect(arguments: argparse.Namespace) -> None:
    """Print a generator's widths, costs and what froze."""
    model = build(arguments.name, **_options(arguments.options))
    default = [1, *getattr(model, "input_shape", (3, 256, 256))]
    shapes = [_shape(text) for text in arguments.input or ()] or [default]
    multiple = getattr(model, "size_multiple", 1)
    if len(shapes[0]) == 4 and (shapes[0][2] % multiple or shapes[0][3] % multiple):
        raise ConfigError(
            f"{arguments.name} takes heights and widths that are multiples of {multiple}, not {shapes[0][2:]}"
        )
    try:
        supernet = gantailor.Supernet(model, tuple(torch.randn(shape) for shape in shapes))
    except (RuntimeError, TypeError) as error:
        given = " and ".join("x".join(map(str, shape)) for shape in shapes)
        raise ConfigError(
            f"{arguments.name} cannot run on an input of {given}: {str(error).splitlines()[0]}; "
            "give the shape of every input with --input"
        ) from None
    proof = gantailor.verify(supernet, repair=True) if arguments.verify or ":" in arguments.name else None
    print(supernet.graph)
    spaces = space(arguments.space, supernet)
    subnets = {"full": supernet.full_config()}
    subnets |= {"largest": spaces.to_config(spaces.largest), "smallest": spaces.to_config(spaces.smallest)}
    print(f"space {spaces.name!r}: {spaces.count:,} subnets")
    print(f"{'':<10}{'MACs (true)':>20}{'MACs (published)':>20}{'parameters':>14}")
    for name, config in subnets.items():
        costs = [supernet.macs(config, convention=c) for c in ("true", "published")]
        print(f"{name:<10}{costs[0]:>20,}{costs[1]:>20,}{supernet.parameter_count(config):>14,}")
    if proof:
        print(proof)


def _shape(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--input {text!r} is no shape; write it as 1,3,256,256") from None


def _options(text: str) -> dict[str, Any]:
    value = flag_value("options", text) if text else {}
    if not isinstance(value, dict):
        raise ConfigError(f"--options {text!r} is no mapping; write it as '{{ngf: 32}}'")
    return value


def pareto(arguments: argparse.Namespace) -> None:
    """Draw the fronts of runs."""
    from gantailor.reports import figures, fronts
    from gantailor.reports.search_result import SearchResult, table_of

    runs = [SearchResult.read(folder, budget=arguments.budget) for folder in arguments.run]
    convention = arguments.convention or runs[0].run.config.convention
    points = None
    if arguments.published:
        points = fronts.published_points(arguments.published, runs[0].score, convention)
    figure = fronts.draw(runs, convention=convention, log=not arguments.linear, published=points)
    out = Path(arguments.out or arguments.run[0])
    for suffix in ("png", "svg"):
        figures.save(figure, out / f"front.{suffix}")
    fronts.write_page(out / "front.html", runs, convention=convention, published=points, pictures=arguments.pictures)
    for found in runs:
        columns = ["trial", "macs_true", "macs_published", "params", found.score]
        rows = found.frame.loc[found.front(convention), columns]
        print(f"{found.name}: {len(found.frame)} subnets evaluated, the front:")
        print(rows.to_string(index=False))
        best = found.frame.loc[found.chosen]
        print(f"best within {found.budget}: trial {best['trial']}, {found.score} {best[found.score]:.5g}, ", end="")
        print(f"{format_macs(best['macs_true'])} MACs (true), {format_macs(best['params'])} parameters")
        if arguments.budget:
            file = out / f"subnet-{best['trial']}.json"
            write_bytes(file, (found.config.to_json() + "\n").encode())
            print(f"its widths: {file}; fine-tune and export it with:")
            folder = found.run.folder
            print(f"  gantailor compress {folder}/config.json --out {folder} --budget '{arguments.budget}'")
    if arguments.table:
        _write_table(table_of(runs), Path(arguments.table))
    print(f"{out / 'front.html'}, front.png, front.svg")


def profile(arguments: argparse.Namespace) -> None:
    """Measure subnets on this device, or read a table, and fit a latency profile."""
    from gantailor.pipeline.profiling import measure_profile, profile_from_table

    run, path = Run(".", config_of(arguments)), Path(arguments.file)
    if arguments.table:
        profile = profile_from_table(run, arguments.table, device=arguments.runtime)
    else:
        profile, table = measure_profile(
            run,
            runtime=arguments.runtime,
            subnets=arguments.subnets,
            threads=arguments.threads,
            on_subnet=Reporter().pictures("subnets", "subnets"),
        )
        table.to_csv(path.with_suffix(".csv"), index=False)
    profile.save(path)
    space = run.space()
    ends = profile.predict(space, np.stack([space.smallest, space.largest]))
    print(f"{profile.device}: {ends[0]:.3g} to {ends[1]:.3g} ms over the space, ", end="")
    print(f"median error {100 * profile.error:.1f}% on the subnets left out of the fit")
    print(f"use it with: --budget 'latency_ms<={ends.mean():.3g}@{path}'")


def _write_table(frame: Any, path: Path) -> None:
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--table {str(path)!r}: the name must end with .csv or .parquet")
    try:
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path, index=False)
    except ImportError:
        raise ConfigError("Parquet needs pyarrow; run: pip install pyarrow, or choose .csv") from None


def evaluate(arguments: argparse.Namespace) -> None:
    """Score a run, a teacher or a folder of pictures."""
    metrics = tuple(metric.strip() for metric in (arguments.metrics or "").split(",") if metric.strip())
    folders = bool(arguments.images or arguments.reference)
    base = {"evaluation.extractor": arguments.extractor}
    base["evaluation.weights" if folders else "teacher"] = arguments.weights  # a generator is its own teacher here
    run = Run(".", config_of(arguments, {name: value for name, value in base.items() if value is not None}))
    evaluation = run.config.evaluation
    if folders:
        if not (arguments.images and arguments.reference):
            raise ConfigError("--images and --reference go together: two folders of pictures")
        scores = score_folders_by_name(
            Scoring(evaluation),
            arguments.images,
            arguments.reference,
            metrics or ("fid", "kid", "precision", "recall"),
            cache=cache_folder(),
            skip_corrupt=arguments.skip_corrupt,
            on_picture=Reporter().pictures("pictures"),
        )
    else:
        path = run.config.teacher or teacher_file(run.config.generator)
        model = load_teacher(path, generator=run.config.generator, **run.config.options)
        scores = run.scoring().evaluator(metrics or run.metrics(evaluation.final))(model, run.data(arguments.split))
    rows = stamped(scores)
    if arguments.against:
        compare(rows, arguments.against)
    show(rows, as_json=arguments.json)


def rank(arguments: argparse.Namespace) -> None:
    """Score every channel and save the scores for ``--ranking``."""
    from gantailor.reports import figures
    from gantailor.supernet.supernet import Supernet

    run = Run(arguments.out, config_of(arguments, {"ranking": "none"}))
    supernet: Supernet = run.supernet()
    scores = rankings.compute(run, supernet, arguments.criterion, inputs=arguments.inputs)
    file = Path(arguments.out) / f"{arguments.criterion}.json"
    rankings.save(file, scores, **rankings.provenance(run, arguments.criterion))
    figures.save(rankings.draw(scores), file.with_suffix(".png"))
    print(f"{'width':<40}{'channels':>9}  share of the score that the best 30% hold")
    for name, values in scores.items():
        best = np.sort(values)[::-1][: max(1, round(0.3 * len(values)))]
        print(f"{name:<40}{len(values):>9}  {100 * best.sum() / max(values.sum(), 1e-300):.0f}%")
    print(f"{file}, {file.with_suffix('.png').name}; use it with: --ranking {file}")
