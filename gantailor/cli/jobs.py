"""Commands that run the main job, or a part of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from gantailor.cli.flags import config_of, given_settings, places_of
from gantailor.cli.parser import OUT
from gantailor.export.devices import Device, device
from gantailor.export.target import check_device
from gantailor.pipeline.check import find_mistakes
from gantailor.pipeline.compress import compress as run_stages
from gantailor.pipeline.estimates import note_estimates
from gantailor.pipeline.export import export_run
from gantailor.pipeline.training.teacher import train_teacher
from gantailor.run.config import Config
from gantailor.run.run import Run, open_run
from gantailor.search.limits import format_macs
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo import DEMO_SUPERNET


def _run(arguments: argparse.Namespace, config: Config, until: str) -> dict[str, Any]:
    run = _planned(arguments.out, config) if arguments.dry_run else Run(arguments.out, config)
    run.until, run.profiled = until, getattr(arguments, "profile", False)
    if arguments.dry_run:
        return _print_plan(run, verbose=arguments.verbose)
    run_stages(run, until=until)
    if until == "report":
        print(f"report: {run.folder.report}  subnet: {run.folder.export}")
    return _made(run, until)


def _made(run: Run, until: str) -> dict[str, Any]:
    """What lies in a run folder after a stage, for ``--json``; null is what comes later."""
    folder = run.folder
    files = {"supernet": folder.supernet, "subnet": folder.subnet, "export": folder.manifest, "report": folder.report}
    stored = {"widths": folder.subnet_config, "scores": folder.scores}
    return {
        "run": folder,
        "stage": until,
        **{name: file if file.exists() else None for name, file in files.items()},
        **{name: folder.stored(file) or None for name, file in stored.items()},
        "devices": folder.stored(folder.manifest).get("devices"),
    }


def _planned(out: str, config: Config) -> Run:
    """The run that a dry run looks at: where no folder was named and another run has the usual one, in a free one."""
    run = Run(out, config)
    other = run.changed() if out == OUT else []
    if not other:
        return run
    free = next(place for n in count(2) if not (place := Path(f"{OUT}-{n}")).exists())
    said = f"{OUT!r} holds a run with other settings ({'; '.join(other)})"
    print(f"{said}; the plan is for another folder, as with --out {free}", file=sys.stderr)
    return Run(free, config)


def _print_plan(run: Run, *, verbose: bool) -> dict[str, Any]:
    """Everything checked; what would be done with which settings, what it costs, and last what it will take."""
    find_mistakes(run)
    budget, supernet = run.setup.budget, run.setup.traced
    print(supernet.graph)
    print(f"generator {format_macs(supernet.macs(supernet.full_config(), convention=budget.convention))} MACs")
    print(f"budget {format_macs(budget.macs)} MACs ({budget.convention}), space of {budget.space.count:,} subnets")
    settings = run.config.shown()
    print(yaml.safe_dump(settings if verbose else changed(settings, Config().model_dump(mode="json")), sort_keys=False))
    sys.stdout.flush()
    note_estimates(run)
    return {
        "macs": supernet.macs(supernet.full_config(), convention=budget.convention),
        "budget": {"macs": budget.macs, "convention": budget.convention, "said": str(budget)},
        "subnets": budget.space.count,
        "settings": settings,
    }


def changed(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings without those that are as usual; ``options`` are whole."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = name != "options" and isinstance(value, Mapping) and isinstance(usual[name], Mapping)
        kept = changed(value, usual[name]) if nested and usual[name] else value
        if kept != usual[name] and not (nested and not kept):
            found[name] = kept
    return found


TEACHER_RECIPE = Recipe(kimg=160, ema_kimg=5, decay_from=0.4)


def teacher(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a teacher on the run's data, from pictures alone."""
    preset = vars(arguments)["set:train.preset"]
    base = {} if preset else {f"train.{k}": v for k, v in TEACHER_RECIPE.model_dump(exclude={"seed"}).items()}
    run = Run(arguments.out, config_of(arguments, base))
    if arguments.dry_run:
        print(yaml.safe_dump(run.config.train.model_dump(mode="json"), sort_keys=False))
        return {"settings": run.config.shown()}
    file = train_teacher(run)
    print(file)
    return {"run": run.folder, "teacher": file}


def demo(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole job on the embedded pictures."""
    given = vars(arguments)
    base: dict[str, Any] = {}
    if given["set:generator"] is None and given["set:method"] in (None, "supernet", "slimming"):
        base |= {"train.gan": "none", "finetune.gan": "none"}  # line art decides its picture (docs/results/path.md)
    if arguments.from_scratch:
        base |= {"train.kimg": 12, "finetune.kimg": 8}
    elif DEMO_SUPERNET.exists() and given["set:method"] in (None, "supernet"):  # others train their own
        base |= {"supernet": str(DEMO_SUPERNET), "finetune.kimg": 8}
        if given["set:space"] in (None, "path"):
            base |= {"space.name": "path", "search.trials": 0, "train.kimg": 0}
            print("the shipped supernet has a path for every budget; --from-scratch trains one", file=sys.stderr)
        else:
            base["train.kimg"] = 4
            print("continuing from the shipped supernet; --from-scratch trains it from the teacher", file=sys.stderr)
    return _run(arguments, config_of(arguments, base), "report")


def compress(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole job."""
    return _run(arguments, config_of(arguments), "report")


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """The job up to the trained supernet."""
    if not arguments.ray_processes or arguments.dry_run:
        return _run(arguments, config_of(arguments), "train")
    from gantailor.pipeline.training.cluster import train_on_cluster

    run = Run(arguments.out, config_of(arguments))
    train_on_cluster(run, arguments.ray_processes)
    return _made(run, "train")


def search(arguments: argparse.Namespace) -> dict[str, Any]:
    """The job up to the chosen subnet."""
    return _run(arguments, config_of(arguments), "search")


def finetune(arguments: argparse.Namespace) -> dict[str, Any]:
    """The job up to the fine-tuned subnet."""
    return _run(arguments, config_of(arguments), "finetune")


def export(arguments: argparse.Namespace) -> dict[str, Any]:
    """The job up to the exported files, or those of a finished run for other devices."""
    names = [name.strip() for name in (arguments.device or "").split(",") if name.strip()]
    targets = [device(name) for name in names]
    for target in targets:
        check_device(target)
    done = bool(arguments.config) and Path(arguments.config).is_dir()
    if done:
        run, manifest = _export_of_run(arguments, targets)
        if not manifest:
            return {"run": run.folder, "devices": names or run.config.devices}
    else:
        out, config = arguments.out or OUT, config_of(arguments, {"devices": names} if names else None)
        if arguments.dry_run:
            return _print_plan(_planned(out, config), verbose=arguments.verbose)
        run = Run(out, config)
        run_stages(run, until="export")
        manifest = run.folder.stored(run.folder.manifest)
    _print_exported(Path(arguments.out) if done and arguments.out else run.folder.export, manifest)
    return _made(run, "export")


def _export_of_run(arguments: argparse.Namespace, targets: list[Device]) -> tuple[Run, dict[str, Any]]:
    """A finished run's files, into its folder or another one; nothing is written, and nothing told, of a dry run."""
    given = given_settings(arguments)
    where = places_of(given)
    if given:
        raise ConfigError(f"a run has its own {', '.join(given)}; leave it out, or give a YAML file")
    run = open_run(arguments.config, trust_code=arguments.trust_code, where=where)
    run.subnet_config()  # said before anything is written
    targets = targets or [device(name) for name in run.config.devices]
    out = Path(arguments.out) if arguments.out else None
    if out is not None and out.resolve() == run.folder.path.resolve():
        raise ConfigError(f"--out {arguments.out!r} is the run itself, whose files go into its export/; leave it out")
    if arguments.dry_run:
        print(f"would export for {', '.join(one.name for one in targets)} into {out or run.folder.export}")
        return run, {}
    if out is not None:
        return run, export_run(run, targets, out)
    run.claim()
    try:
        return run, export_run(run, targets)
    finally:
        run.release()


def _print_exported(folder: Path, manifest: dict[str, Any]) -> None:
    for name, found in manifest["devices"].items():
        print(f"{folder / name / found['file']}: {found['bytes']:,} bytes, {found['delegated']}")
        if "max_difference" in found:
            print(f"  {found['max_difference']:.1e} from PyTorch ({found['psnr_to_pytorch']:.0f} dB)")
        if "latency_ms" in found:
            ms = found["latency_ms"]
            print(f"  {ms['subnet']:.3g} ms, the teacher {ms['teacher']:.3g} ms ({found['threads']} threads)")
        else:
            print("  not timed here; on the device: python bench.py checks and times it")
    if timing := manifest.get("timing"):
        load = f"load {timing['load']} on {timing['cpus']} CPUs"
        print(f"timed in turn on {timing['processor']}, {load}, {timing['date']}")
