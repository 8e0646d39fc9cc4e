"""Subnets that a search evaluated, as plots show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gantailor.search.results import pareto_rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Evaluated:
    """What a search evaluated so far.

    Attributes:
        name: of its run.
        score: that it follows; ``lower_is_better`` its direction.
        frame: a row for each evaluated subnet, see ``gantailor.search.results.table``; in the order of evaluation.
    """

    name: str
    score: str
    frame: pd.DataFrame
    lower_is_better: bool

    def points(self, convention: str) -> np.ndarray:
        """MACs and score of every row, ``[N, 2]``."""
        values: np.ndarray = self.frame[[f"macs_{convention}", self.score]].to_numpy(np.float64)
        return values

    def front(self, convention: str) -> np.ndarray:
        """Row numbers of the subnets that no other beats in both, cheapest first."""
        macs = f"macs_{convention}"
        kept = pareto_rows(self.frame, macs=macs, score=self.score, minimize=self.lower_is_better)
        rows: np.ndarray = self.frame[kept].sort_values(macs).index.to_numpy()
        return rows
