"""The ranking of a run: scores of every channel, computed once and kept in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import gantailor
from gantailor.run.config import is_file
from gantailor.run.inputs import placed_teacher
from gantailor.supernet.calling import Inputs, each, rows_of, size_of
from gantailor.supernet.device import computed, placed
from gantailor.supernet.errors import ConfigError, why_of
from gantailor.supernet.files import cache_folder, state_digest, write_json
from gantailor.supernet.importance import CRITERIA
from gantailor.supernet.importance.diversity import Scores
from gantailor.supernet.importance.ranking import criterion, criterion_scores
from gantailor.supernet.received.documents import read_json
from gantailor.supernet.supernet import Supernet
from gantailor.zoo.data.latents import Latents

if TYPE_CHECKING:
    from gantailor.run.setup import Setup


def compute(setup: Setup, name: str, *, inputs: int | None = None) -> Scores:
    """Scores by a criterion, with the run's training inputs; progress goes to the run's reporter.

    Args:
        inputs: how many latents or pictures to look at instead of the criterion's own number.
    """
    wanted = criterion(name).inputs
    if not wanted:
        return criterion_scores(setup.traced, name, seed=setup.config.seed)
    data, count = setup.data("train"), inputs or wanted
    chosen: Inputs
    real: Tensor | None = None
    if isinstance(data, Latents):  # as many as are wanted, however few the real pictures
        chosen = torch.randn(count, data.width, generator=torch.Generator().manual_seed(0))
    else:
        chosen, real = data.batch(np.random.default_rng(0).permutation(len(data))[:count])[:2]
    aim = _compared(setup, name)
    targets = real if aim == "targets" else _taught(setup, chosen) if aim == "teacher" else None
    device, listener = setup.device, setup.report.pictures(f"ranking by {name}", "inputs")
    chosen = each(chosen, lambda one: one.to(device))
    targets = None if targets is None else targets.to(device)
    return criterion_scores(placed(setup.traced, device), name, chosen, targets=targets, on_batch=listener)


def _compared(setup: Setup, name: str) -> str:
    """What a criterion compares the generator's outputs with, as the run's training does.

    ``targets`` where there are any and the training looks at them; the outputs of a ``teacher`` that is another
    generator than the one to compress; else nothing (``""``): the generator's own outputs, which are the teacher's.
    """
    if not criterion(name).compares:
        return ""
    if setup.config.finetune.target_weight and setup.data("train").paired:
        return "targets"
    return "teacher" if setup.taught and not setup.same_architecture else ""


@torch.no_grad()
def _taught(setup: Setup, inputs: Inputs) -> Tensor:
    """The teacher's outputs for these inputs."""
    teacher, count = placed_teacher(setup), size_of(inputs)
    return torch.cat([computed(teacher, rows_of(inputs, slice(number, number + 1))) for number in range(count)])


def save(path: Path, scores: Scores, **provenance: Any) -> None:
    """Write a ranking file."""
    write_json(path, {**provenance, "scores": {name: values.tolist() for name, values in scores.items()}})


def load(path: str | Path, supernet: Supernet) -> Scores:
    """The scores of a ranking file.

    Raises:
        ConfigError: it cannot be read, or belongs to another generator.
    """
    try:
        stored = read_json(path)
        found, weights = stored["scores"], str(stored.get("weights", ""))
        scores = {str(name): np.array(values, np.float64) for name, values in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"ranking {str(path)!r} cannot be read ({why_of(error)}); give a criterion ({', '.join(CRITERIA)}) or a "
            "file that gantailor rank wrote"
        ) from None
    full, own = supernet.full_config(), weights_digest(supernet)
    for name, values in scores.items():
        if full.get(name) != len(values):
            raise ConfigError(
                f"ranking {str(path)!r} is of another generator: it scores {len(values)} channels of {name!r}, the "
                f"generator has {full.get(name, 'no such width')}; rank this one with: gantailor rank"
            )
    if weights not in ("", own):
        raise ConfigError(
            f"ranking {str(path)!r} is of other weights ({weights}, these are {own}); rank these with: gantailor rank"
        )
    return scores


def scores_of(setup: Setup) -> Scores:
    """What a run ranks by: its own file where there is one already, the file its config names, or computed now."""
    stored, name = None if setup.folder is None else setup.folder.ranking, setup.config.ranking
    if stored is not None and stored.exists() and name != "none":
        return load(stored, setup.traced)
    if is_file(name):
        return load(name, setup.traced)
    if not criterion(name).inputs:
        return compute(setup, name)
    what, aim = f"{name}|{setup.data('train').digest()}|{gantailor.__version__}", _compared(setup, name)
    what += f"|{aim}{state_digest(setup.teacher) if aim == 'teacher' else ''}" if aim else ""
    file = cache_folder() / f"ranking-{state_digest(setup.traced.generator, what)[:16]}.json"  # it may take minutes
    if not file.exists():
        save(file, compute(setup, name), **provenance(setup, name))
    return load(file, setup.traced)


def weights_digest(supernet: Supernet) -> str:
    """Identifies the weights that a ranking is of."""
    return state_digest(supernet.generator)[:12]


def provenance(setup: Setup, name: str) -> dict[str, Any]:
    """What a ranking file says of where it comes from."""
    return {"criterion": name, "generator": setup.config.generator, "weights": weights_digest(setup.traced)}
