"""Every command with its flags. Functions are named, not imported: help and mistakes need none of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import NoReturn

import gantailor
from gantailor.cli.flags import add_budget, add_settings
from gantailor.evaluators.metrics import METRICS
from gantailor.supernet.errors import ConfigError, nearest
from gantailor.supernet.importance import CRITERIA

Add = Callable[[str, str, str], argparse.ArgumentParser]

GENERATOR = ("generator", "options", "data")  # sections of the configuration
TRAINED = (*GENERATOR, "teacher")
OUT = "runs/run"  # the run folder, where none is named


class _Parser(argparse.ArgumentParser):
    """Its mistakes are one line, as all others are; the usage is a ``--help`` away."""

    def error(self, message: str) -> NoReturn:
        found = re.fullmatch(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message, re.DOTALL)
        if found:
            commands = re.findall(r"[\w-]+", found[2])
            message = f"{found[1]!r} is no command; {nearest(found[1], commands)}"
        raise ConfigError(f"{message}; {self.prog} --help shows what there is")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    whole = _Parser(
        prog="gantailor",
        description="Cut a trained GAN generator to a MAC budget.",
        epilog="Every command takes --json (its result as one JSON document, and nothing else on stdout), --quiet (no "
        "progress), --log-level debug, info, warning, error or critical, and --debug (tracebacks). Exit status: 0 "
        "done, 2 a mistake, 130 interrupted, 141 output closed.",
    )
    whole.add_argument("--version", action="version", version=gantailor.__version__)
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, function: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(function=f"gantailor.cli.{function}", command=command)
        return command

    _add_jobs(add)
    _add_application(add)
    _add_training_of_teachers(add)
    _add_comparison(add)
    _add_scores(add)
    _add_fronts(add)
    _add_measurements(add)
    _add_inspection(add)
    _add_folders(add)
    return whole


def _add_run(command: argparse.ArgumentParser, *, out: str | None = OUT, what: str = "run folder") -> None:
    command.add_argument("--out", default=out, help=what)
    command.add_argument("--dry-run", action="store_true", help="check everything, print the plan, train nothing")


def _add_trust(command: argparse.ArgumentParser) -> None:
    text = "import the code, and open the study, that the settings of somebody else's run folder name"
    command.add_argument("--trust-code", action="store_true", help=text)


def _add_jobs(add: Add) -> None:
    """Commands that run the job or a part of it."""
    demo = add("demo", "the whole job on the embedded OpenMoji pictures", "jobs:demo")
    demo.add_argument("--from-scratch", action="store_true", help="do not continue from the shipped supernet")
    whole = add("compress", "the whole job from a YAML file, or as a paper has it", "jobs:compress")
    whole.add_argument("config", help="YAML file, or a paper's run by its name (gantailor papers)")
    both = [demo, whole]
    for name in ("train", "search", "finetune"):
        stage = add(name, f"the job up to {name}; what is done already is kept", f"jobs:{name}")
        stage.add_argument("config", nargs="?", help="YAML file")
        both.append(stage)
        if name == "train":
            text = "processes of a Ray cluster that train, search.ray_cpus each"
            stage.add_argument("--ray-processes", metavar="N", type=_count, help=text)
        if name != "search":
            text = "where a step's time goes, into the run's profile/"
            stage.add_argument("--profile", action="store_true", help=text)
    files = add(
        "export", "the job up to the exported files, or the files of a finished run for other devices", "jobs:export"
    )
    files.add_argument("config", nargs="?", help="YAML file, or a run folder")
    files.add_argument(
        "--device", metavar="NAMES", help="device profiles, comma between them; FILE.yaml:NAME for your own"
    )
    _add_run(files, out=None, what="run folder; of a run: where the files go")
    for command in both:
        _add_run(command)
    for command in [*both, files]:
        command.add_argument(
            "--verbose", action="store_true", help="with --dry-run: every setting, not only those that were changed"
        )
        _add_trust(command)
        add_budget(command)
        add_settings(command, without=("device",) if command is files else ())


def _add_application(add: Add) -> None:
    applied = add("run", "an exported model applied to pictures or video frames, into a folder", "run:run")
    applied.add_argument("export", help="run folder, its export/DEVICE, or export/model.safetensors")
    applied.add_argument("inputs", nargs="+", help="pictures, folders of them, numbered frames as frames/%%05d.png")
    applied.add_argument("--out", required=True, help="folder of the made pictures, PNG of the inputs' names")
    applied.add_argument("--device", metavar="NAME", help="of a run's exports this one; torch: the weights by PyTorch")
    applied.add_argument("--tile", type=_side, help="side of tiles in pixels; 0: whole; 512 for large pictures")
    applied.add_argument("--overlap", type=_side, help="pixels a tile sees beyond what is kept of it; 32")
    applied.add_argument("--threads", type=_count, help="of the runtime; as exported if missing")
    applied.add_argument("--skip-corrupt", action="store_true", help="leave out files that cannot be read")
    _add_trust(applied)
    page = add("try", "a local page to try an exported model on pictures", "run:page")
    page.add_argument("export", help="run folder, its export/DEVICE, or export/model.safetensors")
    page.add_argument("--device", metavar="NAME", help="of a run's exports this one; torch: the weights by PyTorch")
    page.add_argument("--port", type=_count, default=7860, help="of the page, which this machine alone reaches")
    _add_trust(page)
    packed = add("pack", "one file to hand over: models, manifest, samples, the lines that run them", "run:pack")
    packed.add_argument("run", help="run folder, or its export")
    packed.add_argument("--out", metavar="FILE.zip", help="the file; RUN.zip beside the run if missing")
    _add_trust(packed)


def _add_training_of_teachers(add: Add) -> None:
    teacher = add("teacher", "train a teacher from pictures alone", "jobs:teacher")
    _add_run(teacher)
    sections = (*GENERATOR, "train", "evaluation", "tensorboard", "device", "seed")
    add_settings(teacher, sections, shown=("generator", "options", "data.path", "data.size", "train.preset", "device"))


def _add_comparison(add: Add) -> None:
    several = add(
        "compare",
        "several methods on one teacher, with as many images or minutes: table, plot, pictures",
        "compare:compare",
    )
    several.add_argument("config", help="YAML file: methods, budgets, seeds, kimg or pace, share, rates, common")
    several.add_argument("--out", default="runs/compare", help="folder of all runs; what is done there stays")
    several.add_argument("--dry-run", action="store_true", help="check everything, list the runs, train nothing")
    several.add_argument("--ray-address", help="compute the runs on a Ray cluster: auto, or its address")
    several.add_argument("--ray-cpus", type=_count, default=1, help="CPUs, and threads, of a run there")
    several.add_argument("--ray-gpus", type=_share, default=0.0, help="share of a GPU for each; 0: on CPUs")


def _add_scores(add: Add) -> None:
    """The command that scores."""
    text = "scores of a run, a checkpoint, an export, or one folder of pictures against another"
    scores = add("evaluate", text, "evaluate:evaluate")
    scores.add_argument("run", nargs="?", help="run folder, which gets the scores that it has not")
    scores.add_argument("--weights", help="checkpoint (the demo's if missing) or export; of --images the extractor")
    scores.add_argument("--images", metavar="A", help="folder of pictures to score; needs --reference, no generator")
    scores.add_argument("--reference", metavar="B", help="folder of pictures to compare with")
    scores.add_argument("--metrics", help="comma between them: " + ", ".join(METRICS) + ", or module:NAME")
    scores.add_argument(
        "--extractor", help="efficientnet-lite0, inception-2015-12-05, and its variants @768, @192, @64"
    )
    scores.add_argument("--skip-corrupt", action="store_true", help="leave out files that cannot be read")
    scores.add_argument("--against", help="earlier --json output: print the change, warn if the protocols differ")
    scores.add_argument("--split", default="test", help="train, search or test")
    _add_trust(scores)
    shown = ("generator", "options", "data.kind", "data.path", "data.size")
    add_settings(scores, (*TRAINED, "evaluation"), shown=shown)


def _add_fronts(add: Add) -> None:
    front = add("pareto", "the accuracy-compute front of a run", "pareto:pareto")
    front.add_argument("run", nargs="+", help="run folders; several share one plot")
    front.add_argument("--budget", help="choose the best subnet for this budget: 1.8G, 0.05x, macs<=2G,params<=1M")
    front.add_argument("--out", help="where front.png, front.svg and front.html go; the first run if missing")
    front.add_argument("--convention", choices=("true", "published"), help="how MACs are counted on the axis")
    front.add_argument("--linear", action="store_true", help="linear MACs in the PNG and SVG (the page has both)")
    front.add_argument("--published", metavar="TASK", help="show the papers' points: horse2zebra, ffhq-256, ...")
    front.add_argument("--pictures", type=int, default=60, help="subnets of each run with sample pictures in the page")
    front.add_argument("--table", metavar="FILE", help="write every evaluated subnet as .csv or .parquet")
    _add_trust(front)


def _add_measurements(add: Add) -> None:
    """Commands that rank and measure."""
    order = add("rank", "score every channel by a criterion, for --ranking", "rank:rank")
    order.add_argument("config", nargs="?", help="YAML file")
    order.add_argument("--criterion", default="diversity", help=", ".join(CRITERIA) + ", or module:NAME")
    order.add_argument("--inputs", type=_count, help="latents or pictures that it looks at; the criterion's own number")
    _add_run(order, out="runs/ranking", what="folder of the scores, CRITERION.json")
    add_settings(order, (*TRAINED, "device", "seed"))
    timing = add("profile", "measure subnets on this machine, for budgets in milliseconds", "profile:profile")
    timing.add_argument("file", help="where the profile (JSON) goes; the measured table lies beside it")
    timing.add_argument("--runtime", default="onnxruntime-cpu", help="torch-cpu or onnxruntime-cpu; with --table any")
    timing.add_argument("--subnets", type=_count, default=40, help="how many subnets are measured")
    timing.add_argument("--threads", type=_count, default=1, help="of each forward")
    timing.add_argument("--table", metavar="CSV", help="measured elsewhere: a column for each width, and latency_ms")
    add_settings(timing, (*TRAINED, "space", "devices", "round_to_device", "seed"))


def _add_inspection(add: Add) -> None:
    """Commands that only look."""
    for name, more in (("inspect", ""), ("verify", ", proved")):
        look = add(name, f"width table, costs and space of a generator{more}", f"inspect:{name}")
        look.add_argument("name", help="zoo generator or module:function")
        look.add_argument("--input", action="append", help="input shape, 1,3,256,256; once for each input")
        look.add_argument("--options", default="", help="generator options, '{ngf: 32}'")
        look.add_argument("--space", default="default", help="search space")
    reference = add("settings", "every setting of a YAML file, with its default", "settings:show_settings")
    reference.add_argument("section", nargs="?", help="data, train, search, evaluation, space, ...")
    reference.add_argument("--markdown", action="store_true", help="as docs/settings.md")
    published = add("papers", "the papers' runs that gantailor compress NAME starts", "settings:show_papers")
    published.add_argument("name", nargs="?", help="print its settings and what they depart in")


def _add_folders(add: Add) -> None:
    """Commands that look at folders."""
    several = add("runs", "the runs below a folder: what they make, state, scores, when and where", "folders.runs:runs")
    several.add_argument("folder", nargs="?", default="runs", help="folder of run folders; runs if missing")
    text = "only those of this setting: generator=spade, train.kimg=6; or state, host, date, commit"
    several.add_argument("--where", action="append", metavar="KEY=VALUE", help=text + "; several: all of them")
    live = add("watch", "a page that shows a run while it goes on, on this machine alone", "folders.watch:watch")
    live.add_argument("run", help="run folder; it is only read")
    live.add_argument("--port", type=int, default=8008, help="of http://127.0.0.1; 0: any that is free")
    live.add_argument("--once", metavar="FILE", help="write the page as it is now, and end")
    first = add("init", "a commented YAML file for the pictures of a folder and a checkpoint", "folders.init:init")
    first.add_argument("folder", nargs="?", default=".", help="folder of pictures, a list or an archive; . if missing")
    first.add_argument("--teacher", metavar="FILE", help="checkpoint of the trained generator, FILE or FILE:netG")
    first.add_argument("--out", default="gantailor.yaml", help="the file, which must not be there yet")


def _side(text: str) -> int:
    """A flag's number of pixels."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of pixels")
    return int(text)


def _count(text: str) -> int:
    """A flag's number of things, one at least."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _share(text: str) -> float:
    """A flag's number of things of which a part will do."""
    with suppress(ValueError):
        if 0 <= (found := float(text)) < inf:
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
