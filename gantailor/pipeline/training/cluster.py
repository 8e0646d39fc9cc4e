"""The job in several processes of a Ray cluster.

The run folder has to lie where every node sees it: checkpoints, results and the lock are there, and what a lost node
worked on is gone on with from its last checkpoint.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

from gantailor.pipeline.check import find_mistakes
from gantailor.pipeline.compress import compress
from gantailor.pipeline.search.ray import RESTARTS, connect
from gantailor.run.config import Config
from gantailor.run.run import Run
from gantailor.supernet.device import collectives
from gantailor.supernet.errors import GantailorError, RunError
from gantailor.supernet.training import distributed

MISTAKE = "mistake.txt"


def train_on_cluster(run: Run, processes: int) -> None:
    """The job up to the trained supernet, in several processes of the cluster at ``search.ray_address`` (``auto``).

    Ray Train's TorchTrainer starts them; each takes ``search.ray_cpus`` and ``search.ray_gpus``. They share the
    training as those of ``torchrun`` do, step for step. Where one is lost, all go on from the last checkpoint,
    ``RESTARTS`` times.

    Raises:
        ConfigError: there is no such cluster, or the settings are wrong.
        GantailorError: a stage cannot go on.
    """
    settings = run.config.search
    connect(settings.ray_address or "auto", settings.ray_gpus, told=True)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    find_mistakes(run)
    folder = run.folder.path.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".ray-", dir=folder.parent) as shared:
        training = partial(_train, config=run.config, out=str(folder), place=Path.cwd(), shared=shared)
        trainer = TorchTrainer(
            training,
            torch_config=TorchConfig(collectives(), timeout_s=int(distributed.PATIENCE.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=processes,
                use_gpu=bool(settings.ray_gpus),
                resources_per_worker={"CPU": settings.ray_cpus, "GPU": settings.ray_gpus},
            ),
            run_config=RunConfig(storage_path=shared, failure_config=FailureConfig(max_failures=RESTARTS)),
        )
        try:
            trainer.fit()
        except Exception as error:
            mistake = Path(shared) / MISTAKE
            said = mistake.read_text(encoding="utf8") if mistake.exists() else f"Ray's processes ended: {error}"
            raise RunError(said) from None


def _train(config: Config, out: str, place: Path, shared: str) -> None:
    """What each process does. A mistake is not tried again: the restarts are for lost processes."""
    os.chdir(place)
    mistake = Path(shared) / MISTAKE
    if mistake.exists():
        raise RunError(mistake.read_text(encoding="utf8"))
    distributed.join()
    try:
        compress(Run(out, config), until="train")
    except GantailorError as error:
        mistake.write_text(str(error), encoding="utf8")
        raise
