"""The command line. Flags and YAML fill the same typed configuration; a user's mistake ends with status 2."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import BaseModel

import gantailor
from evaluators.errors import EvaluationError
from gantailor import pipeline
from gantailor.config import Config, load_config
from gantailor.devices import device
from gantailor.export import export_run
from gantailor.progress import Reporter
from gantailor.run import Run, open_run
from gantailor.scoring import FAMILIES, Scoring, compare, score_folders_by_name, show, stamped
from gantailor.targets import check_installed
from gantailor.training import train_teacher
from search.budget import format_macs
from search.space import space
from supernet import workers
from supernet.errors import ConfigError, GantailorError
from supernet.files import write_bytes
from supernet.recipe import Recipe
from zoo.builders import WEIGHTS, build
from zoo.checkpoints import load_teacher
from zoo.data import cache_folder

TEACHER_RECIPE = Recipe(kimg=160, ema_kimg=5, decay_from=0.4)
SHORT = ("search.strategy", "search.trials", "search.workers", "search.ray_address")  # also without their section
DEMO_SUPERNET = WEIGHTS / "openmoji_supernet.safetensors"


def _leaves(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Dotted setting names with their descriptions."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner = _leaves(kind, f"{prefix}{name}.")
            if f"{prefix}{name}.name" in inner:  # ``--space NAME`` is short for ``--space.name NAME``
                found[prefix + name] = inner.pop(f"{prefix}{name}.name")
            found |= inner
        else:
            found[prefix + name] = field.description or ""
    return found


def _add_settings(parser: argparse.ArgumentParser, *, without: Sequence[str] = ()) -> None:
    parser.add_argument("--out", default="runs/run", help="run folder")
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the plan, train nothing")
    group = parser.add_argument_group("settings (the same names as in YAML)")
    for name, text in _leaves(Config).items():
        if name in without:
            continue
        short = [f"--{name.partition('.')[2].replace('_', '-')}"] if name in SHORT else []
        group.add_argument(f"--{name}", *short, dest=f"set:{name}", metavar="VALUE", help=text.replace("%", "%%"))


def _config(arguments: argparse.Namespace, base: dict[str, Any] | None = None) -> Config:
    flags = dict(base or {})
    for name, value in vars(arguments).items():
        if name.startswith("set:") and value is not None:
            setting = name[4:]
            flags[setting] = value if setting == "budget" else yaml.safe_load(value)
    return load_config(getattr(arguments, "config", None), flags)


def _run(arguments: argparse.Namespace, config: Config, until: str) -> None:
    run = Run(arguments.out, config)
    if arguments.dry_run:
        budget, supernet = run.budget(), run.supernet()
        print(supernet.graph)
        print(f"generator {format_macs(supernet.macs(supernet.full_config(), convention=budget.convention))} MACs")
        print(f"budget {format_macs(budget.macs)} MACs ({budget.convention}), space of {len(budget.space):,} subnets")
        print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        return
    pipeline.compress(run, until=until)
    if until == "report":
        print(f"report: {run.path('report.html')}  subnet: {run.path('export')}")


def _demo(arguments: argparse.Namespace) -> None:
    base: dict[str, Any] = {}
    if arguments.from_scratch:
        base["train.kimg"] = 24
    elif DEMO_SUPERNET.exists():
        base |= {"supernet": str(DEMO_SUPERNET), "train.kimg": 4}
        print("continuing from the shipped supernet; --from-scratch trains it from the teacher", file=sys.stderr)
    _run(arguments, _config(arguments, base), "report")


def _stage(until: str) -> Any:
    return lambda arguments: _run(arguments, _config(arguments), until)


def _export(arguments: argparse.Namespace) -> None:
    names = [name.strip() for name in (arguments.device or "").split(",") if name.strip()]
    targets = [device(name) for name in names]
    for target in targets:
        check_installed(target)
    if arguments.config and Path(arguments.config).is_dir():
        run = open_run(arguments.config)
        if not run.path("subnet.json").exists():
            raise ConfigError(f"{arguments.config!r} has no searched subnet yet; run: gantailor compress there first")
        run.claim()
        manifest = export_run(run, targets or [device(name) for name in run.config.devices])
        run.release()
    else:
        run = Run(arguments.out, _config(arguments, {"devices": names} if names else None))
        if arguments.dry_run:
            _run(arguments, run.config, "export")
            return
        pipeline.compress(run, until="export")
        manifest = json.loads(run.path("export/manifest.json").read_text())
    for name, found in manifest["devices"].items():
        print(f"{run.path('export') / name / found['file']}: {found['bytes']:,} bytes, {found['delegated']}")
        if "max_difference" in found:
            print(f"  {found['max_difference']:.1e} from PyTorch ({found['psnr_to_pytorch']:.0f} dB)")
        if "latency_ms" in found:
            ms = found["latency_ms"]
            print(f"  {ms['subnet']:.3g} ms, the teacher {ms['teacher']:.3g} ms ({found['threads']} threads)")
        else:
            print("  not timed here; on the device: python bench.py checks and times it")


def _teacher(arguments: argparse.Namespace) -> None:
    """Train a teacher on the run's data."""
    preset = getattr(arguments, "set:train.preset")
    base = {} if preset else {f"train.{k}": v for k, v in TEACHER_RECIPE.model_dump().items()}
    run = Run(arguments.out, _config(arguments, base))
    if arguments.dry_run:
        print(yaml.safe_dump(run.config.train.model_dump(mode="json"), sort_keys=False))
        return
    print(train_teacher(run))


def _inspect(arguments: argparse.Namespace) -> None:
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
    print(f"space {spaces.name!r}: {len(spaces):,} subnets")
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
    value = yaml.safe_load(text) if text else {}
    if not isinstance(value, dict):
        raise ConfigError(f"--options {text!r} is no mapping; write it as '{{ngf: 32}}'")
    return value


def _pareto(arguments: argparse.Namespace) -> None:
    from gantailor import fronts

    runs = [fronts.Found.read(folder, budget=arguments.budget) for folder in arguments.run]
    convention = arguments.convention or runs[0].run.config.convention
    points = None
    if arguments.published:
        points = fronts.published_points(arguments.published, runs[0].score, convention)
    figure = fronts.draw(runs, convention=convention, log=not arguments.linear, published=points)
    out = Path(arguments.out or arguments.run[0])
    for suffix in ("png", "svg"):
        fronts.save(figure, out / f"front.{suffix}")
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
            _write_table(found.frame, Path(arguments.table))
    print(f"{out / 'front.html'}, front.png, front.svg")


def _profile(arguments: argparse.Namespace) -> None:
    from gantailor.profiling import measure_profile, profile_from_table

    run, path = Run(".", _config(arguments)), Path(arguments.file)
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


def _evaluate(arguments: argparse.Namespace) -> None:
    metrics = tuple(metric.strip() for metric in (arguments.metrics or "").split(",") if metric.strip())
    folders = bool(arguments.images or arguments.reference)
    base = {"evaluation.extractor": arguments.extractor, "evaluation.weights": arguments.weights if folders else None}
    run = Run(".", _config(arguments, {name: value for name, value in base.items() if value is not None}))
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
        path = arguments.weights or WEIGHTS / "openmoji_teacher.safetensors"
        model = load_teacher(path, generator=run.config.generator, **run.config.options)
        scores = run.scoring().evaluator(metrics or evaluation.final)(model, run.data(arguments.split))
    rows = stamped(scores)
    if arguments.against:
        compare(rows, arguments.against)
    show(rows, as_json=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gantailor", description="Cut a trained GAN generator to a MAC budget.")
    parser.add_argument("--version", action="version", version=gantailor.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, function: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        return command

    demo = add("demo", "the whole job on the embedded OpenMoji pictures", _demo)
    demo.add_argument("--from-scratch", action="store_true", help="do not continue from the shipped supernet")
    _add_settings(demo)
    whole = add("compress", "the whole job from a YAML file", _stage("report"))
    whole.add_argument("config", help="YAML file")
    _add_settings(whole)
    teacher = add("teacher", "train a teacher", _teacher)
    _add_settings(teacher)
    for name in ("train", "search", "finetune"):
        stage = add(name, f"the job up to {name}; what is done already is kept", _stage(name))
        stage.add_argument("config", nargs="?", help="YAML file")
        _add_settings(stage)
    files = add("export", "the job up to the exported files, or the files of a finished run for other devices", _export)
    files.add_argument("config", nargs="?", help="YAML file, or a run folder")
    files.add_argument(
        "--device", metavar="NAMES", help="device profiles, comma between them; FILE.yaml:NAME for your own"
    )
    _add_settings(files, without=("device",))
    scores = add("evaluate", "scores of a checkpoint on a data split, or of one folder against another", _evaluate)
    scores.add_argument("--weights", help="checkpoint (the demo's teacher if missing); with --images the extractor's")
    scores.add_argument("--images", help="folder of pictures to score; needs --reference, no generator")
    scores.add_argument("--reference", help="folder of pictures to compare with")
    scores.add_argument("--metrics", help="comma between them: " + ", ".join(FAMILIES))
    scores.add_argument(
        "--extractor", help="efficientnet-lite0, inception-2015-12-05, and its variants @768, @192, @64"
    )
    scores.add_argument("--skip-corrupt", action="store_true", help="leave out files that cannot be read")
    scores.add_argument("--against", help="earlier --json output: print the change, warn if the protocols differ")
    scores.add_argument("--split", default="test", help="train, search or test")
    scores.add_argument("--json", action="store_true", help="print JSON with provenance")
    _add_settings(scores)
    front = add("pareto", "the accuracy-compute front of a run", _pareto)
    front.add_argument("run", nargs="+", help="run folders; several share one plot")
    front.add_argument("--budget", help="choose the best subnet for this budget: 1.8G, 0.05x, macs<=2G,params<=1M")
    front.add_argument("--out", help="where front.png, front.svg and front.html go; the first run if missing")
    front.add_argument("--convention", choices=("true", "published"), help="how MACs are counted on the axis")
    front.add_argument("--linear", action="store_true", help="linear MACs in the PNG and SVG (the page has both)")
    front.add_argument("--published", metavar="TASK", help="show the papers' points: horse2zebra, edges2shoes, ...")
    front.add_argument("--pictures", type=int, default=60, help="subnets of each run with sample pictures in the page")
    front.add_argument("--table", metavar="FILE", help="write every evaluated subnet as .csv or .parquet")
    timing = add("profile", "measure subnets on this machine, for budgets in milliseconds", _profile)
    timing.add_argument("file", help="where the profile (JSON) goes; the measured table lies beside it")
    timing.add_argument("--runtime", default="onnxruntime-cpu", help="torch-cpu or onnxruntime-cpu; with --table any")
    timing.add_argument("--subnets", type=int, default=40, help="how many subnets are measured")
    timing.add_argument("--threads", type=int, default=1)
    timing.add_argument("--table", metavar="CSV", help="measured elsewhere: a column for each width, and latency_ms")
    _add_settings(timing)
    for name, proof in (("inspect", False), ("verify", True)):
        look = add(
            name, "width table, costs and space of a generator" + (", proved in float64" if proof else ""), _inspect
        )
        look.add_argument("name", help="zoo generator or module:function")
        look.add_argument("--input", action="append", help="input shape, 1,3,256,256; once for each input")
        look.add_argument("--options", default="", help="generator options, '{ngf: 32}'")
        look.add_argument("--space", default="default", help="search space")
        look.set_defaults(verify=proof)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    arguments = _parser().parse_args(argv)
    workers.join()  # where torchrun started this
    try:
        arguments.function(arguments)
    except (GantailorError, EvaluationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
