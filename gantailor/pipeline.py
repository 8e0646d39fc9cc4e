"""The main job, stage by stage. Each stage is a function of the run folder and writes one file there.

A stage whose file exists is done; delete the file to do it again. Training and search continue from where they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from evaluators.errors import EvaluationError
from gantailor.config import Config
from gantailor.export import export_onnx
from gantailor.progress import Reporter
from gantailor.scoring import Scoring, Subset, stamped
from search.budget import Budget, parse_budget
from search.space import Space, space
from search.study import best_config, open_study, run_search, table
from supernet.calibration import has_running_statistics, recalibrate
from supernet.errors import ConfigError, DataError, RunError
from supernet.files import save_tensors, write_bytes, write_json
from supernet.graph import SubnetConfig
from supernet.ranking import RANKINGS, rank_channels
from supernet.recipe import Recipe
from supernet.supernet import Supernet
from supernet.trainer import Trainer
from supernet.verify import verify
from zoo.builders import WEIGHTS, build, init_weights
from zoo.checkpoints import load_state, load_teacher, read_state
from zoo.data import Pairs, folder_pairs
from zoo.discriminators import PatchDiscriminator
from zoo.openmoji import openmoji

CALIBRATION_IMAGES = 128  # enough for means and variances of hundreds of thousands of places


class Run:
    """A run folder with its configuration, teacher, data and supernet, each made when first asked for."""

    def __init__(self, folder: str | Path, config: Config, *, report: Reporter | None = None) -> None:
        self.folder, self.config = Path(folder), config
        self.report = report or Reporter()
        self._supernet: Supernet | None = None
        self._data: dict[str, Pairs] = {}

    def path(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    def claim(self) -> None:
        """Make the folder and store the configuration; refuse a folder that holds another run."""
        file, mine = self.path("config.json"), self.config.model_dump(mode="json")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if file.exists() and json.loads(file.read_text()) != mine:
                raise RunError(
                    f"{str(self.folder)!r} holds a run with other settings; choose another --out, or delete it"
                )
            write_json(file, mine)
        except (OSError, json.JSONDecodeError) as error:
            raise RunError(f"run folder {str(self.folder)!r} cannot be used: {error}; choose another --out") from None

    def data(self, split: str) -> Pairs:
        """One split: train, search or test."""
        if split not in self._data:
            self._data[split] = self._read(split)
        return self._data[split]

    def _read(self, split: str) -> Pairs:
        data = self.config.data
        if data.kind == "openmoji":
            return openmoji(size=data.size, split=split)
        if data.path is None:
            raise DataError("data.kind is folder, but data.path is missing; name a folder")
        names = {"train": ("train",), "search": ("search", "val", "train"), "test": ("test", "val")}[split]
        found = [name for name in names if (Path(data.path) / name).is_dir()]
        if not found and list(Path(data.path).glob("*.*")):
            return folder_pairs(data.path, size=data.size, direction=data.direction)
        return folder_pairs(Path(data.path) / (found or names)[0], size=data.size, direction=data.direction)

    def teacher(self) -> nn.Module:
        """The trained generator, frozen."""
        path = self.config.teacher or WEIGHTS / "openmoji_teacher.safetensors"
        model = load_teacher(path, generator=self.config.generator, **self.config.options)
        return model.requires_grad_(False)

    def supernet(self) -> Supernet:
        """The traced supernet with the ranked weights of the teacher."""
        if self._supernet is None:
            size = self.config.data.size
            multiple = getattr(build(self.config.generator, **self.config.options), "size_multiple", 1)
            if size % multiple:
                raise ConfigError(
                    f"data.size {size} does not fit {self.config.generator}: it must be a multiple of {multiple}"
                )
            example = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
            supernet = Supernet(self.teacher().requires_grad_(True), (example,))
            if self.config.ranking not in RANKINGS:
                raise ConfigError(f"ranking {self.config.ranking!r} is unknown. Allowed: {', '.join(RANKINGS)}")
            rank_channels(supernet, criterion=self.config.ranking)
            self._supernet = supernet
        return self._supernet

    def space(self) -> Space:
        """The search space."""
        return space(self.config.space, self.supernet())

    def budget(self) -> Budget:
        """The budget, checked against the space."""
        supernet = self.supernet()
        full = supernet.macs(supernet.full_config(), convention=self.config.convention)
        return Budget(self.space(), parse_budget(self.config.budget, full=full), self.config.convention)

    def feature_layers(self) -> tuple[str, ...]:
        """Where features are distilled: what the generator names."""
        return tuple(getattr(self.supernet().generator, "feature_layers", ()))

    def calibrated(self, narrow: nn.Module) -> nn.Module:
        """An extracted subnet with batch norm statistics of its own, from training pictures; in eval mode."""
        if not has_running_statistics(narrow):
            return narrow.eval()
        pairs = self.data("train")
        chosen = np.random.default_rng(0).permutation(len(pairs))[:CALIBRATION_IMAGES]
        size = min(16, len(chosen))
        parts = [chosen[i : i + size] for i in range(0, len(chosen) - size + 1, size)]
        return recalibrate(narrow, (pairs.batch(part)[0] for part in parts))

    def scoring(self) -> Scoring:
        """What makes this run's evaluators."""
        return Scoring(self.config.evaluation, teacher=self.teacher())

    def search_metric(self) -> str:
        """The score that the search follows; against the teacher where there are no real pictures."""
        metric = self.config.evaluation.search
        return f"{metric}[teacher]" if metric == "features" and self.data("search").targets is None else metric

    def subnet(self) -> tuple[SubnetConfig, nn.Module]:
        """The searched config and the extracted generator, fine-tuned if that was done."""
        config = SubnetConfig.from_json(self.path("subnet.json").read_text())
        supernet = self.supernet()
        load_supernet(supernet, self.path("supernet.safetensors"))
        narrow = self.calibrated(supernet.extract(config))
        if self.path("subnet.safetensors").exists():
            path = self.path("subnet.safetensors")
            load_state(narrow, read_state(path), str(path))
        return config, narrow.eval()


def load_supernet(supernet: Supernet, path: Path) -> None:
    """Put trained supernet weights in place of the teacher's."""
    load_state(supernet.generator, read_state(path), str(path))


def check(run: Run) -> dict[str, Any]:
    """Find every mistake before any training: data, teacher, trace, proof, budget. Writes ``trace.json``."""
    budget, supernet = run.budget(), run.supernet()
    for split in ("train", "search", "test"):
        run.data(split)
    run.scoring().evaluator([run.search_metric(), *run.config.evaluation.final])
    run.claim()
    proof = verify(supernet, repair=True)
    budget = run.budget()  # widths that had to be frozen move the reachable range
    full = supernet.full_config()
    result = {
        "graph": str(supernet.graph),
        "verified": str(proof),
        "macs_full": {c: supernet.macs(full, convention=c) for c in ("true", "published")},
        "budget_macs": budget.macs,
        "convention": budget.convention,
        "space": len(budget.space),
    }
    write_json(run.path("trace.json"), result)
    return result


def _discriminator(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return init_weights(PatchDiscriminator(input_nc=6, ndf=64))


def fit(
    run: Run,
    model: nn.Module,
    recipe: Recipe,
    *,
    file: str,
    title: str,
    sample: Callable[..., SubnetConfig] | None = None,
) -> nn.Module:
    """Train a supernet or a plain net with the run's data, teacher and progress; ``file`` is its checkpoint."""
    trainer = Trainer(
        model,
        run.data("train"),
        recipe,
        discriminator=_discriminator(recipe.seed),
        teacher=run.teacher(),
        feature_layers=run.feature_layers(),
        sample=sample,
        device=run.config.device,
    )
    with run.report.training(title) as listener:
        return trainer.run(run.path(file), on_progress=listener)


def train(run: Run) -> None:
    """Train the supernet with distillation; writes ``supernet.safetensors``."""
    if run.path("supernet.safetensors").exists():
        return
    supernet, variables = run.supernet(), run.space()
    if run.config.supernet:
        load_supernet(supernet, Path(run.config.supernet))
    uniform = [len(v.choices) for v in variables.variables]

    def sample(rng: np.random.Generator, step: int) -> SubnetConfig:
        if run.config.train.sampling == "sandwich" and step % 3 < 2:
            return variables.to_config(variables.smallest if step % 3 else variables.largest)
        return variables.to_config([int(rng.integers(n)) for n in uniform])

    trained = fit(run, supernet, run.config.train, file="supernet.ckpt.safetensors", title="supernet", sample=sample)
    assert isinstance(trained, Supernet)
    save_tensors(run.path("supernet.safetensors"), trained.generator.state_dict(), {"stage": "supernet"})


def search(run: Run) -> SubnetConfig:
    """Search the best subnet within the budget on the search split; writes ``subnet.json`` and ``front.csv``."""
    if run.path("subnet.json").exists():
        return SubnetConfig.from_json(run.path("subnet.json").read_text())
    budget, supernet = run.budget(), run.supernet()
    load_supernet(supernet, run.path("supernet.safetensors"))
    study = open_study(run.path("search.journal"), name="gantailor")
    pairs = Subset(run.data("search"), run.config.evaluation.search_images)
    evaluator = run.scoring().evaluator([run.search_metric()])

    def score(config: SubnetConfig) -> float:
        found = next(iter(evaluator(run.calibrated(supernet.extract(config)), pairs).values()))
        return found.value if found.lower_is_better else -found.value

    with run.report.counting("search", run.config.trials) as listener:
        run_search(study, budget, score, trials=run.config.trials, seed=run.config.seed, on_trial=listener)
    write_bytes(run.path("front.csv"), table(study).to_csv(index=False).encode())
    best = best_config(study, budget)
    write_bytes(run.path("subnet.json"), (best.to_json() + "\n").encode())
    return best


def finetune(run: Run) -> None:
    """Fine-tune the extracted subnet with distillation; writes ``subnet.safetensors``."""
    if run.path("subnet.safetensors").exists():
        return
    _, narrow = run.subnet()
    tuned = fit(run, narrow, run.config.finetune, file="subnet.ckpt.safetensors", title="fine-tune")
    save_tensors(run.path("subnet.safetensors"), tuned.state_dict(), {"stage": "finetune"})


def export(run: Run) -> dict[str, Any]:
    """Write ``export/``: ONNX, safetensors and a manifest, checked against the PyTorch subnet and the supernet."""
    config, narrow = run.subnet()
    return export_onnx(run.path("export"), narrow, config, run.supernet(), run.config)


def score(run: Run) -> dict[str, Any]:
    """Scores of teacher and subnet on the test split; writes ``scores.json``."""
    pairs, evaluator = run.data("test"), run.scoring().evaluator(run.config.evaluation.final)
    models = {"teacher": run.teacher(), "subnet": run.subnet()[1]}
    scores = {name: stamped(evaluator(model, pairs)) for name, model in models.items()}
    with suppress(EvaluationError):  # what no generator at all would score, where inputs are pictures like the outputs
        scores = {"input": stamped(evaluator(nn.Identity(), pairs)), **scores}
    write_json(run.path("scores.json"), scores)
    return scores


def report(run: Run) -> None:
    """Write ``front.png`` and ``report.html``."""
    from gantailor.report import draw_front, write_report

    draw_front(run)
    write_report(run)


STAGES: dict[str, Callable[[Run], Any]] = {
    "check": check,
    "train": train,
    "search": search,
    "finetune": finetune,
    "export": export,
    "evaluate": score,
    "report": report,
}


def compress(run: Run, *, until: str = "report") -> None:
    """All stages in order, up to and including one; what is already done is not done again."""
    for name, stage in STAGES.items():
        run.report.stage(name)
        stage(run)
        if name == until:
            break
