"""A run: its folder, its configuration, what that makes, and what was found so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gantailor.evaluators.scores import Subset
from gantailor.records.modules import find_modules
from gantailor.records.places import as_written, located, missing, moved_to, note_anew, same_place, value_of, with_value
from gantailor.records.starts import note_start
from gantailor.run.config import PLACES, Config
from gantailor.run.folder import RunFolder, check_place, damaged, read_config
from gantailor.run.loading import names_of_others, stored_config
from gantailor.run.progress import Reporter
from gantailor.run.setup import Setup
from gantailor.search.latency import LatencyProfile
from gantailor.search.methods.method import Method, method
from gantailor.supernet.decisions import Decisions
from gantailor.supernet.device import HOST
from gantailor.supernet.errors import ConfigError, GantailorError, RunError
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.received.documents import parse_yaml
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.traits import with_signed_pictures
from gantailor.zoo.checkpoints import load_state, read_state
from gantailor.zoo.generators.record import build

# In a run that exists: a search goes on, ...
CHANGEABLE = ("search", "budget", "tensorboard", "device", "devices", "licence")
NARROWING = 0.5  # share of fine-tuning behind a net that was ranked and not trained
READING = ("workers", "cache")  # of data: how it is read, which no result depends on


class Run:
    """A run in a folder.

    Attributes:
        folder: its files.
        config: its settings, with what lies outside the folder where it lies now, see ``gantailor/records/places.py``.
        setup: what these make: data, teacher, supernet, space, budget.
        report: where progress is told.
        until: the last stage that is wanted, see ``gantailor.pipeline.compress``.
        expected: seconds that stages are expected to take, by their names; what is no training is the evaluation's.
        known_scores: what may hold of its ``scores.json``, as others of the same comparison found it.
        profiled: tell where the time of a training step goes, ``gantailor train --profile``.
    """

    until, replayed, profiled = "report", False, False

    def __init__(self, folder: str | Path, config: Config, *, report: Reporter | None = None) -> None:
        self.folder = RunFolder(folder)
        find_modules(self.folder)
        self.config = config = located(config, self.folder)
        self.report = report or Reporter()
        self.setup = Setup(config, self.folder, self.report)
        self.expected: dict[str, float] = {}
        self.known_scores: dict[str, Any] = {}
        self._trained: tuple[object, Supernet] | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {self.config.generator}, {self.config.method}, budget {self.config.budget})"

    @cached_property
    def method(self) -> Method:
        """The compression system."""
        return method(self.config.method)

    def check_folder(self) -> None:
        """That the folder holds no other run.

        Raises:
            RunError: it holds one with other settings.
        """
        check_place(self.folder.path)
        if other := self.changed():
            raise RunError(
                f"{str(self.folder)!r} holds a run with other settings ({'; '.join(other)}); give the same settings "
                f"again ({str(self.folder.config)!r} in place of the YAML has them all), or choose another --out"
            )

    def claim(self) -> None:
        """Make the folder, lock it and store the configuration; refuse a folder that holds another run.

        Raises:
            RunError: other settings, another process writing there, or no right to write.
            ConfigError: another version made the run that lies there.
        """
        check_place(self.folder.path)
        self.folder.lock()
        try:
            self.check_folder()
            stored = self.folder.stored_config()
            earlier = stored_config(stored) if stored else self.config
            config = as_written(self.config, earlier, self.folder)
            settings = config.model_dump(mode="json")
            self.folder.store_config(settings, private=settings != config.shown())
            note_anew(config, earlier, self.folder)
            note_start(self.folder, vars(self).get("until"))  # the class's own is nobody's word
            self.report.keep(self.folder.log)
        except GantailorError:
            self.folder.release()
            raise

    def release(self) -> None:
        """Let other processes write here."""
        self.report.end()
        self.folder.release()

    def changed(self) -> list[str]:
        """What in the folder's run, if there is one, differs from this and cannot be gone on with: ``budget 1G -> 2G``.

        Raises:
            RunError: its configuration cannot be read.
            ConfigError: another version made it.
        """
        stored = self.folder.stored_config()
        if not stored:
            return []
        earlier, config = stored_config(stored), self.config
        for name in PLACES:
            if same_place(earlier, config, self.folder, name):
                earlier = with_value(earlier, name, value_of(config, name) or "")
        known, mine = (c.model_dump(mode="json") for c in (earlier, config))
        for settings in (known, mine):
            settings["data"] = {name: value for name, value in settings["data"].items() if name not in READING}
            del settings["evaluation"]["final"]  # those that are missing are computed
        fixed = set() if self.method.searches else {"budget"}  # the others trained to this one
        kept = [name for name in mine if name not in set(CHANGEABLE) - fixed]
        return list(differences({name: known[name] for name in kept}, {name: mine[name] for name in kept}))

    @cached_property
    def sample(self) -> Subset:
        """The pictures of the search split that search and watcher score."""
        return Subset(self.setup.data("search"), self.config.evaluation.search_images)

    @property
    def narrowing(self) -> float:
        """Share of fine-tuning's steps over which the whole net is led down to its widths."""
        config = self.config
        if config.narrowing is not None:
            return config.narrowing
        ranked = self.method.narrows or (self.method.searches and not config.train.kimg and not config.supernet)
        pictures = self.setup.traits.takes != "latents"
        return NARROWING if ranked and pictures and self.setup.taught and not config.finetune.bits else 0.0

    def replay(self) -> bool:
        """Take the graph as the run's first process wrote it down, so that neither data nor teacher is needed for it.

        Returns:
            Whether it could; what an earlier version wrote down does not say enough.
        """
        stored = self.folder.stored_trace()
        if "input_shapes" not in stored:
            return False
        with damaged(self.folder.trace):
            options = parse_yaml(stored["options"], f"{self.folder.trace}: options")
            self.setup.traced = rebuilt({**stored, "generator": self.config.generator, "options": options})
            self.setup.profiles = {name: LatencyProfile.of(raw) for name, raw in stored["profiles"].items()}
            self.setup.stand_in, self.setup.options = self.setup.traced.generator, options
        self.replayed = True
        return True

    @property
    def is_trained(self) -> bool:
        """Whether the method's training is done."""
        return self.folder.supernet.exists() and (self.method.searches or self.folder.selected.exists())

    def trained(self) -> Supernet:
        """The whole generator after the method's training, shared.

        Raises:
            RunError: it was not trained yet.
        """
        file = self.folder.supernet
        if not file.exists():
            raise RunError(f"{str(self.folder)!r} has no trained supernet yet; run: gantailor compress there first")
        state = file.stat()
        key = (state.st_mtime_ns, state.st_size)
        if self._trained is None or self._trained[0] != key:
            whole = self.setup.traced if self.replayed else self.setup.supernet
            self._trained = (key, with_file(whole, file))
        return self._trained[1]

    def subnet_config(self) -> SubnetConfig:
        """The chosen widths.

        Raises:
            RunError: none were chosen yet.
        """
        file = self.folder.subnet_config
        if not file.exists():
            raise RunError(f"{str(self.folder)!r} has no searched subnet yet; run: gantailor compress there first")
        return read_config(file)

    def subnet(self) -> tuple[SubnetConfig, nn.Module]:
        """The chosen widths and the narrow generator, fine-tuned if that was done: one's own, on the CPU, in eval mode.

        Raises:
            RunError: no subnet was chosen yet.
        """
        config = self.subnet_config()
        narrow = self.trained().extract(config)
        file = self.folder.subnet
        if not file.exists():
            return config, self.setup.calibrated(narrow).to(HOST)
        load_state(narrow, read_state(file), str(file))
        return config, narrow.eval()

    def last_subnet(self) -> nn.Module | None:
        """The generator of fine-tuning's last step, where that was not the best."""
        file = self.folder.subnet_last
        if not file.exists():
            return None
        narrow = self.trained().extract(self.subnet_config())
        load_state(narrow, read_state(file), str(file))
        return narrow.eval()


def with_file(supernet: Supernet, file: str | Path) -> Supernet:
    """A supernet of the same graph with the weights of a file.

    Raises:
        CheckpointError: missing or damaged file, or another architecture.
    """
    found = supernet.with_weights(supernet.generator.state_dict())
    load_state(found.generator, read_state(Path(file)), str(file))
    return found


def rebuilt(origin: Mapping[str, Any]) -> Supernet:
    """A supernet with any weights, from ``generator``, ``options``, ``input_shapes`` and ``decisions``.

    Raises:
        ConfigError: its generator cannot be imported.
    """
    whole = with_signed_pictures(build(origin["generator"], **origin["options"]))
    inputs = tuple(torch.zeros(shape) for shape in origin["input_shapes"])
    return Supernet(whole, inputs, decisions=Decisions.from_json(origin["decisions"]))


def differences(known: Mapping[str, Any], mine: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Settings that are not the same in two nested configurations, with both values: ``train.kimg 0.2 -> 0.3``."""
    for name in mine:
        before, now = known.get(name), mine[name]
        if isinstance(before, Mapping) and isinstance(now, Mapping) and set(before) == set(now):
            yield from differences(before, now, f"{section}{name}.")
        elif before != now:
            yield f"{section}{name} {before} -> {now}"


def open_run(
    folder: str | Path,
    *,
    report: Reporter | None = None,
    trust_code: bool = False,
    where: Mapping[str, Any] | None = None,
) -> Run:
    """A run folder that exists, with the configuration that it was made with; nothing is written.

    Where its data or its teacher are gone, the graph is what ``trace.json`` says; what needs them asks for them.

    Args:
        trust_code: import the code that its settings name, and open the study that they name, whoever made it.
        where: settings that name files and folders, and where these lie now: ``{"data.path": ...}``.

    Raises:
        ConfigError: it holds no run, or one of another version; or such a setting names none.
        RunError: somebody else made it, and its settings name code.
    """
    files = RunFolder(folder)
    stored = files.stored_config()
    if not stored:
        raise ConfigError(f"{str(folder)!r} is no run folder: it has no config.json")
    if not trust_code:
        check_own(files, stored)
    run = Run(folder, moved_to(stored_config(stored), where or {}), report=report)
    if missing(run.config):
        run.replay()
    return run


def check_own(folder: RunFolder, stored: Mapping[str, Any]) -> None:
    """That nothing is imported, and no place outside opened, because of settings that somebody else wrote.

    Raises:
        RunError: they name such.
    """
    names = names_of_others(stored, folder.path)
    if names and not folder.is_own(dict(stored)):
        raise RunError(
            f"{str(folder)!r} was not made by you on this machine, and names what would be imported or opened: "
            f"{', '.join(names)}; where you trust who made it, allow that with --trust-code (trust_code=True in Python)"
        )
