"""The yardstick of a search: which cheap score orders subnets of equal MACs as tuning them does?

    python benchmarks/equal_macs.py --out runs/equal_macs --budgets 0.1 0.2 --subnets 40 --kimg 2 --seeds 0 1
    python benchmarks/equal_macs.py --out runs/equal_macs --task mine --config mine.yaml --supernet SUPERNET

Subnets of one supernet that was trained along a path (by default the shipped one), all within 0.5% of the same MACs
(true): the path's net, its neighbours near and far, the widths that one threshold of L1 or of Taylor importance leaves,
the best sum of sensitivities (FastNAS-like), uniform and random ones. Each is scored with inherited weights on the
search's sample, then tuned once for each seed and scored on the sample again, early and at the end, and on the test
split. A row for each subnet and seed is appended to ``results.csv``, and none made twice. Printed in the end: Kendall's
tau of every score with the tuned result, the tau of the seeds with each other, which is the ceiling, and the regret of
each score's pick as a share of a random pick's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rows import append, is_done
from scipy.stats import kendalltau
from torch import nn

from gantailor.pipeline.context import RunContext
from gantailor.pipeline.training.train import train
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.search.budget import Budget
from gantailor.search.limits import Limit
from gantailor.search.methods.control import strongest
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.space import every_space, space, uniform_config
from gantailor.search.strategies.sensitivity import Sensitivity, in_order, sensitivities
from gantailor.supernet.gates import Gates
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.importance.ranking import l1_scores
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo import DEMO_SUPERNET

SLACK = 0.005  # of the MACs
NEAR = (0.1, 0.2, 0.4, 0.8)  # standard deviations of the logarithm of a neighbour's widths
SHARES = (0.125, 0.1875, 0.25, 0.375, 0.5, 0.75, 1.0)  # that sensitivities are measured at


def drawn(run: Run, budget: Budget, count: int, metric: str) -> Iterator[tuple[str, np.ndarray]]:
    """Families and widths ``[widths]`` of so many subnets, filled up to the budget."""
    rng, supernet, path = np.random.default_rng(0), run.trained(), run.setup.path
    assert path is not None, "the supernet was not trained along a path"
    centre = path.net(budget.usage)
    uniform = uniform_config(supernet, budget.macs)
    fixed = [("path", centre), ("uniform", np.array(supernet.graph.sizes(uniform)))]
    fixed += [(f"importance {name}", sizes) for name, sizes in important(run, budget)]
    fixed.append(("sensitivity", sensitive(run, budget, metric)))
    yield from ((family, filled(budget, sizes, rng)) for family, sizes in fixed)
    for number in range(count - len(fixed)):
        if number % 2:
            yield "random", filled(budget, budget.space.sizes(budget.sample(rng))[0], rng)
        else:
            spread = NEAR[number // 2 % len(NEAR)]
            moved = centre * np.exp(rng.normal(0, spread, len(centre)))
            yield f"neighbour {spread}", filled(budget, moved, rng)


def kept_nets(file: Path, draw: Callable[[], Iterator[tuple[str, np.ndarray]]]) -> list[tuple[str, np.ndarray]]:
    """The nets in a file, drawn once."""
    if not file.exists():
        file.write_text(json.dumps([(family, sizes.tolist()) for family, sizes in draw()]))
    return [(family, np.array(sizes)) for family, sizes in json.loads(file.read_text())]


def filled(budget: Budget, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Widths near these within the budget, as wide as fits."""
    choices = [np.array(variable.choices) for variable in budget.space.variables]
    columns = [budget.space.supernet.graph.index[variable.name] for variable in budget.space.variables]
    near = [np.abs(known - sizes[c]).argmin() for known, c in zip(choices, columns, strict=True)]
    found: np.ndarray = budget.space.sizes(budget.settle(np.array(near), rng))[0]
    return found


def important(run: Run, budget: Budget) -> Iterator[tuple[str, np.ndarray]]:
    """Widths that one threshold over all channels leaves, by L1 norms and by Taylor importance of the teacher."""
    supernet = run.setup.supernet
    taylor = Run(run.folder.path / "taylor", run.config.model_copy(update={"ranking": "taylor"})).setup.scores
    for name, scores in (("l1", l1_scores(supernet)), ("taylor", taylor)):
        relative = [scores[width.name] / max(np.mean(scores[width.name]), 1e-12) for width in supernet.graph.widths]
        gates = Gates(supernet.graph)
        yield name, gates.places.sizes(strongest(gates, np.concatenate(relative), budget.usage))


def sensitive(run: Run, budget: Budget, metric: str) -> np.ndarray:
    """Widths with the least sum of the losses of each width alone, by a metric with inherited weights."""
    supernet = run.trained()
    few = space(SpaceConfig(fractions=SHARES, multiple=1), supernet)
    evaluator = run.setup.scoring.evaluator([metric])
    probes = Sensitivity().probes(few)
    scored = [next(iter(evaluator(supernet.extract(few.to_config(row)), run.sample).values())) for row in probes]
    losses = sensitivities(few, probes, np.array([[score.value] for score in scored]))
    assert losses is not None
    cheap = Budget(few, budget.bounds)
    return few.sizes(in_order(losses, cheap, np.random.default_rng(0))[0])[0]


def scores(run: Run, net: nn.Module, split: str, metrics: Sequence[str]) -> dict[str, float]:
    """By the metrics' short names."""
    pictures = run.sample if split == "search" else run.setup.data(split)
    found = run.setup.scoring.evaluator(metrics)(net.eval(), pictures)
    return {f"{split} {name.split('[')[0]}": score.value for name, score in found.items()}


def tuned(run: Run, config: SubnetConfig, seed: int, wanted: argparse.Namespace) -> dict[str, float]:
    """Scores after tuning: early, a quarter of the way, and at the end."""
    kimg, metrics = wanted.kimg, wanted.metrics
    recipe = run.config.finetune.model_copy(update={"seed": seed, "kimg": kimg, "watch_kimg": kimg / 4})
    task = run.method.finetune(RunContext(run), run.setup.calibrated(run.trained().extract(config)), {})
    early: dict[str, float] = {}

    def look(net: nn.Module, step: int) -> None:
        if not early:
            early.update({f"early {name}": value for name, value in scores(run, net, "search", metrics).items()})

    net, started = Trainer(task, recipe).run(None, on_watch=look), time.monotonic()
    ends = [scores(run, net, split, metrics) for split in ("search", "test")]
    end = {f"tuned {name}": value for found in ends for name, value in found.items()}
    return {**early, **end, "scoring seconds": time.monotonic() - started}


def measure(run: Run, share: float, wanted: argparse.Namespace, results: Path) -> None:
    """Rows of one budget."""
    seeds, kimg = wanted.seeds, wanted.kimg
    supernet = run.trained()
    macs = share * supernet.macs(supernet.full_config())
    budget = Budget(every_space(supernet, SpaceConfig(name="every")), (Limit("macs", upper=macs),))
    nets = kept_nets(
        run.folder.path / f"nets-{share}.json", lambda: drawn(run, budget, wanted.subnets, wanted.metrics[0])
    )
    for seed, (number, (family, sizes)) in itertools.product(seeds, enumerate(nets)):
        row: dict[str, Any] = {"task": wanted.task, "share": share, "kimg": kimg, "seed": seed, "subnet": number}
        if is_done(results, **row):
            continue
        config = supernet.graph.config(sizes)
        cost = supernet.macs(config)
        if abs(cost / macs - 1) > SLACK:
            print(f"subnet {number} ({family}) is left out: {cost / macs:.4f} of the budget", flush=True)
            continue
        row |= {"family": family, "macs": cost, "sizes": " ".join(map(str, sizes))}
        inherited = scores(run, run.setup.calibrated(supernet.extract(config)), "search", wanted.metrics)
        row |= {f"inherited {name}": value for name, value in inherited.items()}
        append(results, [row | tuned(run, config, seed, wanted)])


def ordering(frame: pd.DataFrame) -> pd.DataFrame:
    """For each task, budget and tuned result: tau and regret of every score that is known before."""
    lines = []
    for place, group in frame.groupby(["task", "share", "kimg"]):
        mean = group.dropna(axis=1, how="all").select_dtypes("number").groupby(group["subnet"]).mean()
        for result in (name.removeprefix("tuned test ") for name in mean if name.startswith("tuned test ")):
            goal = mean[f"tuned test {result}"]
            by_seed = group.pivot(index="subnet", columns="seed", values=f"tuned test {result}").dropna()
            pairs = itertools.combinations(by_seed, 2)
            ceiling = np.mean([kendalltau(by_seed[a], by_seed[b]).statistic for a, b in pairs] or [np.nan])
            known = [name for name in mean if name.startswith(("inherited", "early", "tuned search"))]
            for name in known:
                tau = kendalltau(mean[name], goal).statistic
                regret = (goal[mean[name].idxmin()] - goal.min()) / max(goal.mean() - goal.min(), 1e-12)
                numbers = {"tau": tau, "ceiling": ceiling, "regret": regret, "subnets": len(goal)}
                lines.append({"task": place[0], "share": place[1], "tuned": result, "score": name, **numbers})
    return pd.DataFrame(lines)


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/equal_macs", type=Path)
    parser.add_argument("--task", default="openmoji", help="what the rows are called")
    parser.add_argument("--config", help="YAML file of another task")
    parser.add_argument("--supernet", default=str(DEMO_SUPERNET), help="trained along a path")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.1, 0.2])
    parser.add_argument("--subnets", type=int, default=40)
    parser.add_argument("--kimg", type=float, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--metrics", nargs="+", default=["l1", "features", "kid"], help="of which less is better")
    arguments = parser.parse_args()
    fixed = {"supernet": arguments.supernet, "space.name": "path", "train.kimg": 0, "search.trials": 0}
    run = Run(arguments.out / arguments.task, load_config(arguments.config, fixed))
    run.claim()
    train(run)
    results = arguments.out / "results.csv"
    for share in arguments.budgets:
        measure(run, share, arguments, results)
    print(ordering(pd.read_csv(results)).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
