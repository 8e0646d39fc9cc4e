"""The whole job, runs and exported generators, from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gantailor.export.weights import read_weights
from gantailor.pipeline.compress import compress as run_stages
from gantailor.run.config import Config
from gantailor.run.loading import load_config
from gantailor.run.run import Run, open_run
from gantailor.supernet.decisions import Decisions
from gantailor.supernet.errors import CheckpointError
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.supernet import Supernet
from gantailor.zoo.checkpoints import load_state
from gantailor.zoo.generators.record import build

__all__ = ["compress", "load", "open_run"]


def compress(
    config: Config | Mapping[str, Any] | str | Path, *, out: str | Path = "runs/run", until: str = "report"
) -> Run:
    """The whole job, as ``gantailor compress``: what is done in the folder already is not done again.

    Args:
        config: settings as in a YAML file, nested or with dotted names; or the file itself.
        out: run folder.
        until: the last stage: check, train, search, finetune, evaluate, export or report.

    Raises:
        GantailorError: a mistake in the settings, or a stage that cannot go on.
    """
    if not isinstance(config, Config):
        nested = str(config) if isinstance(config, str | Path) else {k: v for k, v in config.items() if "." not in k}
        dotted = {} if isinstance(config, str | Path) else {k: v for k, v in config.items() if "." in k}
        config = load_config(nested, dotted)
    run = Run(out, config)
    run_stages(run, until=until)
    return run


def load(file: str | Path) -> nn.Module:
    """An exported generator, from its ``model.safetensors`` alone: a plain narrow module in eval mode.

    The file says how to build it: generator, options, widths, the size of its input, and what tracing decided. A
    generator of one's own (``module:name``) must be importable. Nothing in the file is code.

    Raises:
        CheckpointError: the file is missing or damaged, or does not say how to build it.
        ConfigError: its generator cannot be imported.
    """
    if Path(file).suffix != ".safetensors":
        raise CheckpointError(
            f"{str(file)!r} is no exported generator; give an export/model.safetensors. A teacher's checkpoint is read "
            "by gantailor.load_teacher"
        )
    state, origin = read_weights(Path(file))
    whole = build(origin["generator"], **origin["options"])
    inputs = tuple(torch.zeros(shape) for shape in origin["input_shapes"])
    supernet = Supernet(whole, inputs, decisions=Decisions.from_json(origin["decisions"]))
    narrow = supernet.extract(SubnetConfig(origin["config"]))
    load_state(narrow, state, str(file))
    return narrow.eval()
