"""The embedded task's teacher pruned by other tools, then tuned by this project's recipe; scores on the test split.

    python -m venv .venv-others
    .venv-others/bin/pip install -c constraints.txt -e '.[demo]' torch-pruning nvidia-modelopt requests huggingface-hub
    .venv-others/bin/pip install --no-deps torchprofile==0.0.4
    .venv-others/bin/python benchmarks/others.py torch-pruning fastnas fastnas-fine --budgets 0.2 0.1 0.05

An environment of its own, because Model Optimizer pins its dependencies; the last three it imports and does not name.
``torch-pruning`` is its group L1 importance with one share of every width, the largest that meets the budget
(bisection). ``fastnas`` is Model Optimizer's pruning mode with its defaults (widths are multiples of 32), and
``fastnas-fine`` over multiples of 4, by the search's own score on the search split; the score is maximised there, so an
error is negated. A row for each tool, budget and seed is appended to ``results.csv``; none is made again.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rows import append, is_done
from torch import nn

from gantailor.evaluators.metric import metric_of
from gantailor.evaluators.scores import Subset
from gantailor.pipeline.context import RunContext
from gantailor.pipeline.training.fit import fit
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.supernet.supernet import Supernet

STEPS = 12  # of the bisection: a share to 1/4096
RATIOS = tuple(0.05 * part for part in range(1, 21))  # FastNAS's own shares of each width


def macs_of(model: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates of one image."""
    traced = Supernet(model, (example,), unknown="freeze")
    return traced.macs(traced.full_config())


def by_torch_pruning(run: Run, most: int) -> tuple[nn.Module, int]:
    """Torch-Pruning's group L1, the same share of every width; the number of score calls."""
    import torch_pruning as tp

    example = run.setup.example
    assert isinstance(example, torch.Tensor)

    def pruned(ratio: float) -> nn.Module:
        model = copy.deepcopy(run.setup.teacher).requires_grad_(True)
        last = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
        importance = tp.importance.GroupMagnitudeImportance(p=1)
        tp.pruner.MagnitudePruner(
            model, example, importance=importance, pruning_ratio=ratio, ignored_layers=[last]
        ).step()
        return model

    low, high = 0.0, 1.0 - 1 / 4096
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if macs_of(pruned(middle), example) <= most else (middle, high)
    return pruned(high), 0


def by_fastnas(run: Run, most: int, divisor: int) -> tuple[nn.Module, int]:
    """Model Optimizer's FastNAS over widths that are multiples of ``divisor``; the number of score calls.

    It counts a transposed convolution at its output's size, so its bound is bisected until the net's own MACs fit;
    what it measured of each width, which no seed and no budget changes, is kept in its checkpoint, and measured once.
    """
    import modelopt.torch.prune as mtp

    metric, pairs = run.setup.search_metric, Subset(run.setup.data("search"), run.config.evaluation.search_images)
    evaluator = run.setup.scoring.evaluator([metric])
    sign = -1 if metric_of(metric).lower_is_better else 1
    example, calls, measured = run.setup.example, 0, run.folder.path.parent / f"fastnas-{divisor}.pth"
    assert isinstance(example, torch.Tensor)

    def score(model: nn.Module) -> float:
        nonlocal calls
        calls += 1
        return sign * float(next(iter(evaluator(model, pairs).values())).value)

    widths = {"nn.Conv2d": "channel", "nn.ConvTranspose2d": "channel", "nn.BatchNorm2d": "feature"}
    widths |= {"nn.InstanceNorm2d": "feature"}
    rules = {name: {"*": {f"{what}s_ratio": RATIOS, f"{what}_divisor": divisor}} for name, what in widths.items()}

    def pruned(bound: float) -> nn.Module:
        found: Any = mtp.prune(
            model=copy.deepcopy(run.setup.teacher).requires_grad_(True),
            mode=[("fastnas", rules)],
            constraints={"flops": bound},
            dummy_input=example,
            config={"score_func": score, "checkpoint": str(measured), "data_loader": [example]},
        )
        net: nn.Module = found[0]
        return net

    low, high, best = float(most), 4.0 * most, None
    for _ in range(STEPS):
        middle = (low + high) / 2
        try:
            net = pruned(middle)
        except ValueError:  # no net of its space is so small
            low = middle
            continue
        if macs_of(net, example) <= most:
            low, best = middle, net
        else:
            high = middle
    if best is None:
        raise SystemExit(f"FastNAS has no net of {most:,} MACs among widths of {divisor} channels each")
    return best, calls


TOOLS: dict[str, Callable[[Run, int], tuple[nn.Module, int]]] = {
    "torch-pruning": by_torch_pruning,
    "fastnas": partial(by_fastnas, divisor=32),
    "fastnas-fine": partial(by_fastnas, divisor=4),
}


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", nargs="+", choices=TOOLS)
    parser.add_argument("--out", default="runs/others")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.1], help="shares of the teacher's MACs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kimg", type=float, default=4, help="thousand images of tuning")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--gan", default="hinge", help="none: tuned without a discriminator")
    parser.add_argument("--precision", default="bfloat16", help="as benchmarks/five_seeds.yaml; float32 elsewhere")
    arguments = parser.parse_args()
    folder = Path(arguments.out)
    for seed in arguments.seeds:
        for share in arguments.budgets:
            for tool in arguments.tools:
                place = {"tool": tool, "budget": share, "seed": seed}
                if not is_done(folder / "results.csv", **place):
                    append(folder / "results.csv", [place | one(tool, share, seed, folder, arguments)])


def one(tool: str, share: float, seed: int, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Prune and tune once: MACs, seconds, score calls, and the scores before and after tuning."""
    tuning = {"kimg": arguments.kimg, "lr": arguments.lr, "seed": seed, "watch_kimg": 0}
    tuning |= {"gan": arguments.gan, "precision": arguments.precision, "channels_last": True}
    run = Run(folder / f"{tool}-{share}-{seed}", load_config(None, {"seed": seed, "finetune": tuning}))
    run.claim()
    example, evaluator = run.setup.example, run.setup.scoring.evaluator(run.config.evaluation.final)
    assert isinstance(example, torch.Tensor)
    most, started = int(share * run.setup.traced.macs(run.setup.traced.full_config())), time.monotonic()
    torch.manual_seed(seed)
    narrow, calls = TOOLS[tool](run, most)
    row = {"macs": macs_of(narrow, example), "calls": calls, "kimg": arguments.kimg}
    row["seconds_of_pruning"] = time.monotonic() - started
    row |= {f"{name}, cut": score.value for name, score in evaluator(narrow.eval(), run.setup.data("test")).items()}
    recipe = run.config.finetune
    task = RunContext(run).training(narrow, recipe)
    tuned = fit(run, task, recipe, checkpoint=run.folder.file("tuned.ckpt.safetensors"), title=f"{tool} {share}")
    return row | {name: score.value for name, score in evaluator(tuned.eval(), run.setup.data("test")).items()}


if __name__ == "__main__":
    main()
