"""The command line: what runs the stages, and the parser of every command. A user's mistake ends with status 2."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

import gantailor
from gantailor.cli import commands as looking
from gantailor.cli.flags import add_settings, config_of
from gantailor.evaluators.errors import EvaluationError
from gantailor.export.devices import device
from gantailor.export.export import export_run
from gantailor.export.targets import check_installed
from gantailor.pipeline import comparison as comparing
from gantailor.pipeline import compress as pipeline
from gantailor.pipeline.scoring import FAMILIES
from gantailor.pipeline.teachers import train_teacher
from gantailor.run.config import Config
from gantailor.run.run import Run, open_run
from gantailor.search.limits import format_macs
from gantailor.supernet.errors import ConfigError, GantailorError
from gantailor.supernet.importance.ranking import RANKINGS
from gantailor.supernet.training import distributed as workers
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.builders import WEIGHTS

TEACHER_RECIPE = Recipe(kimg=160, ema_kimg=5, decay_from=0.4)
Add = Callable[[str, str, Any], argparse.ArgumentParser]
DEMO_SUPERNET = WEIGHTS / "openmoji_supernet.safetensors"


def _run(arguments: argparse.Namespace, config: Config, until: str) -> None:
    run = Run(arguments.out, config)
    if arguments.dry_run:
        pipeline.look(run)
        budget, supernet = run.budget(), run.traced()
        print(supernet.graph)
        print(f"generator {format_macs(supernet.macs(supernet.full_config(), convention=budget.convention))} MACs")
        print(f"budget {format_macs(budget.macs)} MACs ({budget.convention}), space of {budget.space.count:,} subnets")
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
    _run(arguments, config_of(arguments, base), "report")


def _stage(until: str) -> Any:
    return lambda arguments: _run(arguments, config_of(arguments), until)


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
        run = Run(arguments.out, config_of(arguments, {"devices": names} if names else None))
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
    base = {} if preset else {f"train.{k}": v for k, v in TEACHER_RECIPE.model_dump(exclude={"seed"}).items()}
    run = Run(arguments.out, config_of(arguments, base))
    if arguments.dry_run:
        print(yaml.safe_dump(run.config.train.model_dump(mode="json"), sort_keys=False))
        return
    print(train_teacher(run))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gantailor", description="Cut a trained GAN generator to a MAC budget.")
    parser.add_argument("--version", action="version", version=gantailor.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, function: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(function=function, command=command)
        return command

    _add_jobs(add)
    _add_scores(add)
    _add_looks(add)
    return parser


def _add_jobs(add: Add) -> None:
    """Commands that train."""
    demo = add("demo", "the whole job on the embedded OpenMoji pictures", _demo)
    demo.add_argument("--from-scratch", action="store_true", help="do not continue from the shipped supernet")
    add_settings(demo)
    whole = add("compress", "the whole job from a YAML file", _stage("report"))
    whole.add_argument("config", help="YAML file")
    add_settings(whole)
    teacher = add("teacher", "train a teacher", _teacher)
    add_settings(teacher)
    for name in ("train", "search", "finetune"):
        stage = add(name, f"the job up to {name}; what is done already is kept", _stage(name))
        stage.add_argument("config", nargs="?", help="YAML file")
        add_settings(stage)
    files = add("export", "the job up to the exported files, or the files of a finished run for other devices", _export)
    files.add_argument("config", nargs="?", help="YAML file, or a run folder")
    files.add_argument(
        "--device", metavar="NAMES", help="device profiles, comma between them; FILE.yaml:NAME for your own"
    )
    add_settings(files, without=("device",))
    several = add(
        "compare", "several methods on one teacher and image budget: table, plot, pictures", comparing.compare
    )
    several.add_argument("config", help="YAML file: methods, budgets, seeds, kimg, share, common")
    several.add_argument("--out", default="runs/compare", help="folder of all runs; what is done there stays")
    several.add_argument("--dry-run", action="store_true", help="check everything, list the runs, train nothing")


def _add_scores(add: Add) -> None:
    """The command that scores."""
    scores = add(
        "evaluate", "scores of a checkpoint on a data split, or of one folder against another", looking.evaluate
    )
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
    add_settings(scores)


def _add_looks(add: Add) -> None:
    """Commands that look, rank and measure."""
    front = add("pareto", "the accuracy-compute front of a run", looking.pareto)
    front.add_argument("run", nargs="+", help="run folders; several share one plot")
    front.add_argument("--budget", help="choose the best subnet for this budget: 1.8G, 0.05x, macs<=2G,params<=1M")
    front.add_argument("--out", help="where front.png, front.svg and front.html go; the first run if missing")
    front.add_argument("--convention", choices=("true", "published"), help="how MACs are counted on the axis")
    front.add_argument("--linear", action="store_true", help="linear MACs in the PNG and SVG (the page has both)")
    front.add_argument("--published", metavar="TASK", help="show the papers' points: horse2zebra, edges2shoes, ...")
    front.add_argument("--pictures", type=int, default=60, help="subnets of each run with sample pictures in the page")
    front.add_argument("--table", metavar="FILE", help="write every evaluated subnet as .csv or .parquet")
    order = add("rank", "score every channel by a criterion, for --ranking", looking.rank)
    order.add_argument("config", nargs="?", help="YAML file")
    order.add_argument("--criterion", default="diversity", choices=list(RANKINGS), help="how channels are scored")
    order.add_argument("--inputs", type=_count, help="latents or pictures that it looks at; the criterion's own number")
    add_settings(order, without=("ranking",))
    timing = add("profile", "measure subnets on this machine, for budgets in milliseconds", looking.profile)
    timing.add_argument("file", help="where the profile (JSON) goes; the measured table lies beside it")
    timing.add_argument("--runtime", default="onnxruntime-cpu", help="torch-cpu or onnxruntime-cpu; with --table any")
    timing.add_argument("--subnets", type=_count, default=40, help="how many subnets are measured")
    timing.add_argument("--threads", type=_count, default=1)
    timing.add_argument("--table", metavar="CSV", help="measured elsewhere: a column for each width, and latency_ms")
    add_settings(timing)
    for name, proof in (("inspect", False), ("verify", True)):
        look = add(
            name,
            "width table, costs and space of a generator" + (", proved in float64" if proof else ""),
            looking.inspect,
        )
        look.add_argument("name", help="zoo generator or module:function")
        look.add_argument("--input", action="append", help="input shape, 1,3,256,256; once for each input")
        look.add_argument("--options", default="", help="generator options, '{ngf: 32}'")
        look.add_argument("--space", default="default", help="search space")
        look.set_defaults(verify=proof)


def _count(text: str) -> int:
    """A flag's number of things, one at least."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _unknown(given: str, command: argparse.ArgumentParser) -> str:
    """What to say of an argument that a command does not take: the flags whose names are most like it."""
    flag, flags = given.partition("=")[0], [name for action in command._actions for name in action.option_strings]
    ends = [name for name in flags if name.rpartition(".")[2] == flag.lstrip("-")]
    close = ends or difflib.get_close_matches(flag, flags, n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(close)}?" if close else "."
    return f"{command.prog} does not take {given!r}{hint} All it takes: {command.prog} --help"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 2 for a user's mistake, 130 for Ctrl-C, 141 for a closed pipe."""
    arguments, unknown = _parser().parse_known_args(argv)
    if unknown:
        print(f"error: {_unknown(unknown[0], arguments.command)}", file=sys.stderr)
        return 2
    workers.join()  # where torchrun started this
    try:
        arguments.function(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read this (head, less) has seen enough; nothing may be said at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (GantailorError, EvaluationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
