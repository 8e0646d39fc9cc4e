"""Evaluations as Ray Tune trials, on one machine or on a cluster; the driver alone proposes and writes the study."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gantailor.run.run import Run
from gantailor.search.config import SearchConfig
from gantailor.search.errors import SearchError
from gantailor.search.scoring import score_candidate
from gantailor.search.study import Search
from gantailor.supernet.device import HOST
from gantailor.supernet.errors import ConfigError, GantailorError, first_line

SECONDS = 5.0  # candidates share a Tune trial up to about so long: a trial's own overhead is about a second
LARGEST_BATCH = 16
RESTARTS = 3  # of what a lost node or process worked on
LOOK = 5.0  # seconds between two looks at what tasks have done


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Batch:
    """Candidates of one Tune trial: their numbers in the study, and how often their worker was lost."""

    claimed: list[tuple[int, np.ndarray]]
    attempts: int = 0


def connect(address: str, gpus: float = 0.0, *, setting: str = "search.ray_gpus", told: bool = False) -> None:
    """Reach a Ray cluster.

    Args:
        address: ``auto``, ``local``, or the cluster's own.
        gpus: the share of one that a process will take; ``setting`` is where it was given.
        told: print what the cluster's processes print.

    Raises:
        ConfigError: Ray is missing, there is no cluster at the address, it wants a token, or has not the GPUs that are
            wanted.
    """
    check_reachable(address)
    import ray

    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=told)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"no Ray cluster at {address!r}: {error}; start one with ray start --head") from None
    there = ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call, unused-ignore]
    if gpus > there:
        raise ConfigError(
            f"{setting} {gpus:g}: the Ray cluster at {address!r} has {there:g} GPUs; lower it, 0 computes on CPUs"
        )


def check_reachable(address: str) -> None:
    """That something listens at a cluster's address, and lets this process in: Ray itself asks for most of a minute.

    Raises:
        ConfigError: Ray is missing, nothing listens, or it wants another token.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("Ray is not installed; run: pip install 'gantailor[ray]'") from None
    if ray.is_initialized():  # this process belongs to a cluster, which is taken
        return
    try:
        from ray._private.services import canonicalize_bootstrap_address
        from ray._raylet import GcsClient  # type: ignore[attr-defined, unused-ignore]
        from ray.exceptions import AuthenticationError
    except ImportError:  # another version of Ray, which tells by itself
        return
    try:
        place = None if address == "local" or "://" in address else canonicalize_bootstrap_address(address)
    except (ConnectionError, ValueError) as error:  # auto, and none is known on this machine; or no address
        raise ConfigError(f"no Ray cluster at {address!r}: {error}; start one with ray start --head") from None
    host, _, port = (place or "").rpartition(":")
    if not port.isdigit():  # Ray starts its own, or tells by itself
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        with _without_stderr():  # Ray's own log of it
            GcsClient(address=place)
    except AuthenticationError:
        raise ConfigError(
            f"the Ray cluster at {address!r} asks for a token, and this process has none or another one; set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's"
        ) from None
    except OSError as error:
        raise ConfigError(f"no Ray cluster at {address!r}: {error}; start one with ray start --head") from None
    except Exception as error:  # Ray tells by itself
        logger.debug("the Ray cluster at %r: %s", address, first_line(error))


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Within the block what libraries in C write there leads nowhere."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def check_ray(settings: Any, device: str, *, soon: bool = True) -> None:
    """That there is a cluster whose workers have the device that is asked for, before a training that takes hours.

    Args:
        soon: a search follows in this process; else a cluster may be started later.

    Raises:
        ConfigError: there is none, or they have not.
    """
    wanted = device.partition(":")[0]
    if wanted not in ("auto", HOST.type) and not settings.ray_gpus:
        raise ConfigError(
            f"device {device!r}: Ray gives its workers no GPU while search.ray_gpus is 0; set it to the share of one "
            "that a worker takes, 0.25 say, or device to auto"
        )
    if settings.ray_gpus:
        connect(settings.ray_address or "auto", settings.ray_gpus)
    elif settings.ray_address and soon:
        check_reachable(settings.ray_address)


def evaluate_with_ray(
    run: Run, searcher: Search, *, on_trial: Callable[[int], None], trials: int | None = None
) -> None:
    """Evaluate until the configured number of subnets have scores, or another number.

    The scorer (supernet, pictures, reference statistics) is put into the object store once. A killed node or worker
    costs its running trials only; a killed driver goes on from the study.

    Raises:
        ConfigError: Ray is missing, or there is no cluster at the address.
        SearchError: ten evaluations in a row failed.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one draws a box at any verbosity
    settings = run.config.search
    connect(settings.ray_address or "auto", settings.ray_gpus)
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # its tracebacks of lost workers; ours is one line
    queue = _Queue(searcher, trials or settings.trials, on_trial)
    threads = max(1, int(settings.ray_cpus))
    evaluation = tune.with_parameters(
        _evaluation(), score=searcher.score, budget=searcher.budget, objectives=searcher.objectives, threads=threads
    )
    with tempfile.TemporaryDirectory(prefix="gantailor-ray-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(evaluation, {"cpu": settings.ray_cpus, "gpu": settings.ray_gpus}),
            tune_config=tune.TuneConfig(
                search_alg=_proposals(queue), num_samples=-1, max_concurrent_trials=settings.workers, reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        try:
            tuner.fit()
        finally:
            queue.give_back()
    if queue.error is not None:
        raise queue.error


def run_on_cluster(
    settings: SearchConfig, work: Callable[..., None], arguments: Sequence[Any], *, results: Callable[[], object]
) -> None:
    """Run ``work(*arguments)`` in as many Ray tasks as there are workers, until all have ended.

    One on a node that is lost starts again elsewhere.

    Args:
        work: importable; the folders that its arguments name have to lie where every node sees them.
        results: called now and then.

    Raises:
        ConfigError: Ray is missing, or there is no cluster at the address.
        SearchError: no task came to its end.
    """
    connect(settings.ray_address or "auto", settings.ray_gpus)
    import ray

    task = ray.remote(num_cpus=settings.ray_cpus, num_gpus=settings.ray_gpus, max_retries=RESTARTS)(_there)
    waiting = [task.remote(str(Path.cwd()), work, tuple(arguments)) for _ in range(settings.workers)]
    failed = []
    try:
        while waiting:
            ended, waiting = ray.wait(waiting, num_returns=1, timeout=LOOK)
            for reference in ended:
                try:
                    failed += [said] if (said := ray.get(reference)) else []
                except ray.exceptions.RayError as error:
                    failed.append(f"a Ray worker was lost {RESTARTS + 1} times, or failed: {first_line(error)}")
            results()
    finally:
        for reference in waiting:  # an interruption: each gives back what it holds
            ray.cancel(reference)
    if len(failed) == settings.workers:
        raise SearchError(failed[-1])


def _there(place: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> str:
    """On a node: why it came to nothing, else nothing."""
    host = socket.gethostname()
    if not Path(place).is_dir():
        return f"{host} does not see {place!r}; tunings on a cluster need a folder that all its nodes share"
    os.chdir(place)  # names of files and modules are meant from there
    try:
        work(*arguments)
    except GantailorError as error:
        return f"{host}: {error}"
    return ""


def _evaluation() -> Any:
    """The Trainable, made late because Ray is optional. An actor is reused: the scorer is unpacked once a worker."""
    import torch
    from ray import tune

    class Evaluation(tune.Trainable):  # type: ignore[misc,unused-ignore]
        def setup(  # type: ignore[override]
            self, config: dict[str, Any], *, score: Any, budget: Any, objectives: Any, threads: int
        ) -> None:
            torch.set_num_threads(threads)
            self.parts = (score, budget, objectives)
            self.candidates = config["candidates"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.candidates = new_config["candidates"]
            return True

        def step(self) -> dict[str, Any]:
            score, budget, objectives = self.parts
            started = time.monotonic()
            found = [score_candidate(score, budget, objectives, np.array(c)) for c in self.candidates]
            return {"values": found, "seconds": time.monotonic() - started, "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None: ...

        def load_checkpoint(self, checkpoint: Any) -> None: ...

    return Evaluation


class _Queue:
    """Which candidates Ray evaluates: claimed from the study, kept until their results are written there."""

    def __init__(self, searcher: Search, trials: int, on_trial: Callable[[int], None]) -> None:
        self.searcher, self.trials, self.on_trial = searcher, trials, on_trial
        self.running: dict[str, _Batch] = {}
        self.lost: list[_Batch] = []
        self.seconds = 0.0  # that one candidate took
        self.error: Exception | None = None

    def start(self, trial_id: str) -> list[list[int]]:
        """Candidates for a Tune trial; none while there is nothing to do."""
        if self.error is not None:
            return []
        try:
            batch = self.lost.pop() if self.lost else _Batch(self._claim())
        except Exception as stop:  # as in ``end``
            self.error = stop
            return []
        if batch.claimed:
            self.running[trial_id] = batch
        return [indices.tolist() for _, indices in batch.claimed]

    @property
    def finished(self) -> bool:
        """Nothing runs that could be lost and come back."""
        return self.error is not None or not self.running

    def _claim(self) -> list[tuple[int, np.ndarray]]:
        size = 1 if not self.seconds else int(np.clip(SECONDS / self.seconds, 1, LARGEST_BATCH))
        claimed: list[tuple[int, np.ndarray]] = []
        while len(claimed) < size and (one := self.searcher.claim(self.trials)) is not None:
            claimed.append(one)
        return claimed

    def end(self, trial_id: str, result: dict[str, Any] | None) -> None:
        """A Tune trial ended, without a result when its worker was lost."""
        batch = self.running.pop(trial_id, _Batch([]))
        if not result and batch.attempts < RESTARTS:
            logger.warning("a Ray worker was lost; its %d subnets are evaluated again", len(batch.claimed))
            self.lost.append(_Batch(batch.claimed, batch.attempts + 1))
            return
        values = [f"its Ray worker died {RESTARTS + 1} times"] * len(batch.claimed)
        if result:
            values, self.seconds = result["values"], result["seconds"] / len(batch.claimed)
        for (number, _), value in zip(batch.claimed, values, strict=True):
            try:
                self.on_trial(self.searcher.record(number, value))
            except Exception as stop:  # Tune would go on without telling; the driver raises it after the last trial
                self.error = stop

    def give_back(self) -> None:
        """Others may try what was claimed and has no result."""
        for batch in [*self.running.values(), *self.lost]:
            for number, _ in batch.claimed:
                self.searcher.give_back(number)


def _proposals(queue: _Queue) -> Any:
    """The queue as Tune's searcher, made late because Ray is optional."""
    from ray.tune.search import Searcher

    class Proposals(Searcher):  # type: ignore[misc,unused-ignore]
        def suggest(self, trial_id: str) -> Any:
            candidates = queue.start(trial_id)
            return {"candidates": candidates} if candidates else Searcher.FINISHED if queue.finished else None

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            queue.end(trial_id, None if error else result)

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

    return Proposals()
