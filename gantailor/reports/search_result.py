"""What a run's search found so far."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gantailor.evaluators.metric import metric_of
from gantailor.evaluators.scores import against_teacher
from gantailor.reports.evaluated import Evaluated
from gantailor.reports.figures import data_url
from gantailor.reports.tables import words_of
from gantailor.run.run import Run, open_run
from gantailor.run.study import storage_of, study_of
from gantailor.search.budget import Budget
from gantailor.search.results import best_trial, table
from gantailor.search.storage import load_study, reaching
from gantailor.supernet.calling import first
from gantailor.supernet.device import computed
from gantailor.supernet.errors import ConfigError, GantailorError
from gantailor.supernet.graph import SubnetConfig
from gantailor.zoo.data.pictures import is_picture, to_rgb

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SearchResult(Evaluated):
    """What one run's search found so far, under the weights and the score that its last search had.

    Attributes:
        chosen: row of the best subnet within the budget, ``config`` its widths.
    """

    run: Run
    budget: Budget
    chosen: int
    config: SubnetConfig

    @classmethod
    def read(cls, folder: str | Path, *, budget: str | None = None, trust_code: bool = False) -> SearchResult:
        """From a run folder, finished or still searching.

        Args:
            trust_code: see ``open_run``.

        Raises:
            ConfigError: nothing was searched there.
            SearchError: no evaluated subnet meets the budget.
        """
        run = open_run(folder, trust_code=trust_code)
        try:
            _ = run.setup.budget
        except GantailorError:  # the data, the teacher or a latency profile are elsewhere
            if not run.replay():
                raise
        return cls.of(run, budget=budget)

    @classmethod
    def of(cls, run: Run, *, budget: str | None = None) -> SearchResult:
        """From a run; as ``read``."""
        folder = run.folder.path
        name, provenance = study_of(run)
        storage = storage_of(run)
        with reaching(storage):
            study = load_study(storage, name=name)
            frame = table(study, run.setup.space, provenance=provenance)
            if frame.empty:
                raise ConfigError(f"{str(folder)!r} has no evaluated subnet yet; run a search there first")
            if provenance is None:  # of an earlier version: what was searched last
                frame = frame[frame["provenance"] == frame["provenance"].iloc[-1]].reset_index(drop=True)
            limits = run.setup.budget if budget is None else run.setup.budget_of(budget)
            number, indices = best_trial(study, limits, provenance=frame["provenance"].iloc[-1])
        chosen = int(frame.index[frame["trial"] == number][0])
        score = study.user_attrs["objectives"][0]
        return cls(
            name=Path(folder).resolve().name,
            score=score,
            frame=frame,
            lower_is_better=metric_of(score).lower_is_better,
            run=run,
            budget=limits,
            chosen=chosen,
            config=limits.space.to_config(indices),
        )

    def told(self) -> dict[str, Any]:
        """What the figures depend on, from the run folder alone: those of other runs compare where all of it is equal.

        Digests of data, of the teacher where the score is against one, settings of the score, and the widths.
        """
        config, trace = self.run.config, self.run.folder.stored_trace()
        settings = config.evaluation.model_dump(exclude={"search", "final", "threads", "labels"})
        graph = self.run.setup.traced.graph
        teacher = config.model_dump(mode="json")["teacher"] if against_teacher(self.score) else None
        widths = hashlib.sha256(str([(width.name, width.size) for width in graph.widths]).encode()).hexdigest()[:12]
        return {"data": trace.get("data", {}).get("search"), "teacher": teacher, **settings, "widths": widths}

    def along_path(self) -> pd.DataFrame | None:
        """Costs and inherited scores of nets along the run's path; None without one, or of other weights or scores."""
        import pandas as pd

        file = self.run.folder.path_scores
        found = pd.read_csv(file) if file.exists() else None
        told = (
            found is not None and self.score in found and set(words_of(found, "provenance")) == {study_of(self.run)[1]}
        )
        return found if told else None

    def pictures(self, rows: Sequence[int], *, count: int = 3) -> dict[int, str]:
        """For each row a strip of outputs on search pictures, as a JPEG data URL; row -1 is their inputs.

        None, and a note, where the run's pictures or weights are not at hand.
        """
        try:
            return self._strips(rows, count) if rows else {}
        except GantailorError as error:
            self.run.report.note(f"{self.name}: no sample pictures, for {error}")
            return {}

    def _strips(self, rows: Sequence[int], count: int) -> dict[int, str]:
        supernet, pairs = self.run.trained(), self.run.setup.data("search")
        inputs, _ = pairs.batch(np.linspace(0, len(pairs) - 1, count).astype(int))
        background = self.run.config.data.background
        strips = {-1: _strip(first(inputs), background)} if is_picture(first(inputs)) else {}
        space = self.budget.space
        for row in rows:
            values = self.frame.loc[row]
            config = space.to_config([v.choices.index(int(values[v.name])) for v in space.variables])
            made = computed(self.run.setup.calibrated(supernet.extract(config)), inputs)
            strips[int(row)] = _strip(made, background)
        return strips


def _strip(images: torch.Tensor, background: str) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(to_rgb(images, background)), axis=1)).save(buffer, "JPEG", quality=88)
    return data_url(buffer.getvalue(), "jpeg")


def table_of(runs: Sequence[SearchResult]) -> pd.DataFrame:
    """Every evaluated subnet of every run: ``run`` says whose row it is, the folder's path where names are the same."""
    import pandas as pd

    names = [found.name for found in runs]
    keys = [n if names.count(n) == 1 else str(found.run.folder) for n, found in zip(names, runs, strict=True)]
    frames = [found.frame.assign(run=key) for key, found in zip(keys, runs, strict=True)]
    every = pd.concat(frames, ignore_index=True)
    return every[["run", *(column for column in every if column != "run")]]
