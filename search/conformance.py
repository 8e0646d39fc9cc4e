"""The tests that every search strategy passes, one's own too.

    class TestMine(StrategyConformance):
        strategy = "my_module:my_strategy"

``pytest`` runs them. Override ``score`` where yours needs another landscape.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import optuna
import torch

from gantailor.search.budget import Budget
from gantailor.search.results import best_config, table
from gantailor.search.scoring import Objective
from gantailor.search.spaces.config import SpaceConfig
from gantailor.search.spaces.space import Space, default_space
from gantailor.search.strategies import check_strategy
from gantailor.search.study import Search
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.supernet import Supernet
from gantailor.zoo.generators.record import build

TIES = (("model.1", "model.19"), ("model.4", "model.16"), ("model.1[0-2].*",), ("model.1[3-5].*",))


@cache
def small_space() -> Space:
    """A few thousand subnets of a small generator."""
    supernet = Supernet(build("resnet_6blocks", ngf=16), (torch.randn(1, 3, 32, 32),))
    return default_space(supernet, SpaceConfig(fractions=(0.25, 0.5, 0.75, 1), ties=TIES))


class StrategyConformance:
    """Inherit and say which strategy, by its name or as ``module:name``."""

    strategy = "predictor"
    front = (Objective("score"), Objective("macs"))

    def score(self, config: SubnetConfig) -> Mapping[str, float]:
        """Wider is better, the later widths most."""
        sizes = np.array(list(config.values()), float)
        full = np.array([width.size for width in small_space().supernet.graph.widths])
        return {"score": float((np.linspace(1, 3, len(sizes)) / (0.2 + sizes / full)).sum())}

    def search(
        self,
        *,
        share: float = 0.4,
        objectives: tuple[Objective, ...] = (Objective("score"),),
        seed: int = 0,
        study: optuna.Study | None = None,
    ) -> Search:
        """A search in memory, below a share of the largest subnet's MACs."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = small_space()
        study = study or optuna.create_study(directions=["minimize"] * len(objectives))
        budget = Budget(space, int(share * space.macs(space.largest)[0]), fill=len(objectives) == 1)
        return Search(study, budget, self.score, objectives=objectives, strategy=self.strategy, seed=seed, start=6)

    def test_name(self) -> None:
        """It may stand in a configuration."""
        assert check_strategy(self.strategy) == self.strategy

    def test_candidates_are_new_and_fit(self) -> None:
        """What it proposes meets the budget, and nothing is proposed twice."""
        search = self.search()
        search.run(20)
        trials = search.study.get_trials()
        assert len({tuple(trial.params.values()) for trial in trials}) == len(trials) == 20
        assert search.budget.fits(search.history().indices).all()
        assert (table(search.study)["macs"] <= search.budget.macs).all()

    def test_same_seed_same_trials(self) -> None:
        """Chance comes from the generator that it is given."""
        rows = []
        for _ in range(2):
            search = self.search(seed=3)
            search.run(12)
            rows.append(search.history().indices.tolist())
        assert rows[0] == rows[1]

    def test_it_goes_on(self) -> None:
        """A search that was interrupted needs no trial again."""
        study = optuna.create_study()
        self.search(study=study).run(5)
        again = self.search(study=study)
        again.run(9)
        assert len(again.history().values) == len(study.trials) == 9

    def test_a_small_space_ends(self) -> None:
        """It finds every candidate that fits, and then says that none is left."""
        search = self.search(share=0.11)
        search.run(500)
        assert search.budget.feasible is not None
        assert len(search.history().values) == len(search.budget.feasible) < 50

    def test_two_objectives(self) -> None:
        """A whole front answers every budget."""
        search = self.search(objectives=self.front, share=1.0)
        search.run(14)
        values = search.history().values
        assert values.shape == (14, 2)
        assert values[:, 1].tolist() == search.budget.cost(search.history().indices).tolist()
        for part in (0.9, 1.0):
            tighter = Budget(small_space(), int(part * max(values[:, 1])))
            within = values[values[:, 1] <= tighter.macs]
            assert self.score(best_config(search.study, tighter))["score"] == within[:, 0].min()
