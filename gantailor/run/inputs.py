"""What a configuration reads: teacher, generator and data. Each is read once and shared, read only."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from gantailor.records.places import another, check_there, is_elsewhere
from gantailor.run.config import Config
from gantailor.run.folder import RunFolder, decided
from gantailor.run.progress import Reporter
from gantailor.run.shapes import as_generator_has
from gantailor.run.teacher import Taken, Teacher, take_over
from gantailor.supernet import calling
from gantailor.supernet.calibration import has_running_statistics, recalibrate
from gantailor.supernet.device import find_device, placed
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import state_digest
from gantailor.supernet.traits import Traits, traits_of, with_signed_pictures
from gantailor.zoo.checkpoints import Loaded
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.index import telling
from gantailor.zoo.data.read import read_domains, read_split
from gantailor.zoo.generators.record import build
from gantailor.zoo.reading.matching import Matched

CALIBRATION_IMAGES = 128  # enough for means and variances of hundreds of thousands of places


class Inputs:
    """What a configuration reads; all that is returned is shared and must not be changed (take a copy).

    Args:
        folder: a run folder, whose earlier decisions (the repaired trace, the ranking) are replayed.
    """

    def __init__(self, config: Config, folder: RunFolder | None = None, report: Reporter | None = None) -> None:
        self.config, self.folder, self.report = config, folder, report or Reporter()
        self._data: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        """Where this process computes; looked for anew, as a worker on another machine has other devices.

        Raises:
            ConfigError: it is not here.
        """
        return find_device(self.config.device)

    @cached_property
    def teacher_record(self) -> Teacher | None:
        """Which teacher there is; None where only an architecture counts (``teacher: none``)."""
        return Teacher.of(self.config)

    @property
    def taught(self) -> bool:
        """Whether there is a trained teacher."""
        return self.teacher_record is not None

    @cached_property
    def teacher(self) -> nn.Module:
        """The trained generator; the untrained one to compress where there is none. Frozen, on the CPU."""
        if self.teacher_record is None:
            return self.generator
        return self.teacher_record.as_used(self.loaded.module)

    @cached_property
    def loaded(self) -> Loaded:
        """The teacher as its file has it: with running statistics, and the options that it was built with.

        Names that an earlier process of this run matched by the user's example are replayed.
        """
        record, known = self.teacher_record, decided(self.folder)
        assert record is not None
        check_there(self.config, self.folder, "teacher.weights")
        names, content = known.get("teacher_names"), known.get("teacher")
        if content is not None:  # the example proved it before
            record = replace(record, example=())
        found = record.load(None if names is None else Matched.from_json(names))
        if content not in (None, state_digest(found.module)[:12]):
            raise another(self.config, self.folder, "teacher.weights")
        if found.matched is not None and names is None:
            self.report.note(found.matched.said)
        return found

    @property
    def same_architecture(self) -> bool:
        """Whether the generator to compress starts as the teacher."""
        return self.teacher_record is not None and self.teacher_record.same_architecture(self.config)

    @cached_property
    def generator(self) -> nn.Module:
        """The generator to compress: the teacher, or where that is of another kind, one with what fits of it. Frozen.

        Its batch norms have running statistics, whatever the teacher's.
        """
        if self.stand_in is not None:
            return self.stand_in
        if self.same_architecture:
            return self.loaded.module
        torch.manual_seed(self.config.seed)
        fresh = with_signed_pictures(build(self.config.generator, **self.config.options))
        if self.teacher_record is not None:
            self.taken = take_over(fresh, self.loaded.module)
        return fresh.eval().requires_grad_(False)

    stand_in: nn.Module | None = None  # of a run without its data or teacher: the generator with any weights

    taken: Taken | None = None  # what a generator of another kind has of the teacher

    @cached_property
    def options(self) -> dict[str, Any]:
        """Options that the generator to compress is built with, also those that the teacher's file told."""
        return dict(self.loaded.options if self.same_architecture else self.config.options)

    @cached_property
    def traits(self) -> Traits:
        """What the generator declares about itself."""
        return traits_of(self.generator)

    @cached_property
    def data_config(self) -> DataConfig:
        """The settings of the data, with channels and scale as the generator has them.

        Raises:
            ConfigError: the generator does not run at the data's size, or the settings contradict it.
        """
        name = self.config.generator
        check_size(self.config, self.traits.size_multiple, name)
        return as_generator_has(self.config.data, self.generator, self.traits, name=name)

    def data(self, split: str = "train") -> Any:
        """One split, train, search or test: what the generator takes, and real pictures.

        A generator that takes latents gets other ones in each split, beside the real pictures that it was trained on.
        """
        if split not in self._data:
            check_there(self.config, self.folder, "data.path", "data.labels")
            with telling(self.report.pictures(f"reading {split}")):
                found = read_split(self.data_config, split, self.traits)
            known = decided(self.folder).get("data") or {}
            if (
                split in known
                and is_elsewhere(self.config, self.folder, "data.path")
                and found.digest() != known[split]
            ):
                raise another(self.config, self.folder, "data.path")
            self._data[split] = found
        return self._data[split]

    def domains(self) -> Any:
        """Two unpaired sets of pictures, for a CycleGAN or MUNIT.

        Raises:
            DataError: the data has none.
        """
        if "domains" not in self._data:
            check_there(self.config, self.folder, "data.path", "data.labels")
            with telling(self.report.pictures("reading domains")):
                self._data["domains"] = read_domains(self.data_config)
        return self._data["domains"]

    @cached_property
    def example(self) -> calling.Inputs:
        """An input of the size of the data, ``[1, ...]``; several as a tuple.

        Raises:
            ConfigError: the generator does not take this size.
        """
        random = torch.Generator().manual_seed(0)
        return calling.each(
            self.data("train").batch(np.arange(1))[0], lambda one: torch.randn(one.shape, generator=random)
        )

    def calibrated(self, narrow: nn.Module) -> nn.Module:
        """An extracted subnet where the run computes, with batch norm statistics of its own, from training pictures.

        It is moved, and in eval mode.
        """
        narrow = narrow.to(self.device)
        if not has_running_statistics(narrow):
            return narrow.eval()
        pairs = self.data("train")
        chosen = np.random.default_rng(0).permutation(len(pairs))[:CALIBRATION_IMAGES]
        size = min(16, len(chosen))
        parts = [chosen[i : i + size] for i in range(0, len(chosen) - size + 1, size)]
        batches = (pairs.batch(part)[0] for part in parts)
        return recalibrate(narrow, (calling.each(batch, lambda one: one.to(self.device)) for batch in batches))


def placed_teacher(inputs: Inputs) -> nn.Module:
    """The teacher where the run computes: itself there, else a copy that is made once."""
    return placed(inputs.teacher, inputs.device)


def timed_teacher(inputs: Inputs) -> nn.Module:
    """The teacher, or what takes as long: its architecture with any weights, in a run without it or its data."""
    if inputs.stand_in is None or inputs.teacher_record is None or not inputs.same_architecture:
        return inputs.teacher
    return inputs.teacher_record.as_used(inputs.stand_in)


def check_size(config: Config, multiple: int, whose: str) -> None:
    """That a network takes pictures of the data's size.

    Raises:
        ConfigError: a side is no multiple of what it needs.
    """
    for setting in ("size", "crop"):
        value = getattr(config.data, setting)
        sides = value if isinstance(value, tuple) else (value,)
        if value is not None and any(side % multiple for side in sides):
            raise ConfigError(f"data.{setting} {value} does not fit {whose}: it must be a multiple of {multiple}")
