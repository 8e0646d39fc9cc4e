"""A run folder: its configuration, and what the configuration makes."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from gantailor.export.devices import device
from gantailor.pipeline.ranking import scores_of
from gantailor.pipeline.scoring import FAMILIES, PICTURE_BY_PICTURE, Scoring
from gantailor.reports.progress import Reporter
from gantailor.run.config import Config, load_config
from gantailor.run.defaults import SPARSIFYING
from gantailor.search.budget import Budget
from gantailor.search.limits import parse_budget
from gantailor.search.spaces.space import Space, space
from gantailor.supernet.calibration import has_running_statistics, recalibrate
from gantailor.supernet.errors import BusyError, ConfigError, DataError, RunError
from gantailor.supernet.files import write_json
from gantailor.supernet.graph import SubnetConfig
from gantailor.supernet.importance.ranking import Scores, order_channels
from gantailor.supernet.supernet import Supernet
from gantailor.zoo.builders import STYLEGAN2_TEACHER, WEIGHTS, build
from gantailor.zoo.checkpoints import load_state, load_teacher, read_state
from gantailor.zoo.data.domains import Domains, Unpaired
from gantailor.zoo.data.labels import label_pairs
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.data.openmoji import openmoji
from gantailor.zoo.data.pairs import SPLITS, Pairs, folder_pairs

Data = Pairs | Latents | Unpaired

CALIBRATION_IMAGES = 128  # enough for means and variances of hundreds of thousands of places

CHANGEABLE = ("search", "budget", "tensorboard", "device", "devices")  # in a run that exists: a search goes on, ...


class Run:
    """A run folder with its configuration, teacher, data and supernet, each made when first asked for."""

    def __init__(self, folder: str | Path, config: Config, *, report: Reporter | None = None) -> None:
        self.folder, self.config = Path(folder), config
        self.report = report or Reporter()
        self._supernet: Supernet | None = None
        self._ranked = False
        self.scores: Scores = {}
        self._pictures: dict[str, Pairs] = {}
        self._data: dict[str, Data] = {}
        self._lock: IO[str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy that another process works with does not hold the lock."""
        return {**self.__dict__, "_lock": None}

    def path(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    def claim(self) -> None:
        """Make the folder, lock it and store the configuration; refuse a folder that holds another run.

        Raises:
            RunError: other settings, another process writing there, or no right to write.
        """
        file, mine = self.path("config.json"), self.config.model_dump(mode="json")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock_folder()
            if other := self.changed():
                raise RunError(
                    f"{str(self.folder)!r} holds a run with other settings ({', '.join(other)}); choose another --out, "
                    "or delete it"
                )
            write_json(file, mine)
        except (OSError, json.JSONDecodeError) as error:
            raise RunError(f"run folder {str(self.folder)!r} cannot be used: {error}; choose another --out") from None

    def changed(self) -> list[str]:
        """Settings in which the folder's run, if there is one, differs from this in a way that cannot be gone on with.

        Raises:
            OSError, json.JSONDecodeError: its configuration cannot be read.
        """
        file, mine = self.path("config.json"), self.config.model_dump(mode="json")
        if not file.exists():
            return []
        known = Config().model_dump(mode="json")  # of a setting that came later the run had the default
        for name, value in json.loads(file.read_text()).items():
            section = isinstance(getattr(self.config, name, None), BaseModel) and isinstance(value, dict)
            known[name] = {**known[name], **value} if section else value
        fixed = {"budget"} if self.config.method in SPARSIFYING else set()  # they trained to this one
        return [name for name in mine if name not in set(CHANGEABLE) - fixed and known[name] != mine[name]]

    def _lock_folder(self) -> None:
        """The lock goes with the process, so a killed run leaves none behind."""
        if self._lock is not None:
            return
        lock = self.path(".lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise BusyError(
                f"{str(self.folder)!r} is being written by process {lock.read().strip() or 'unknown'}; wait for it, or "
                "choose another --out"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Let other processes write here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def data(self, split: str) -> Data:
        """One split, train, search or test: what the generator takes, and real pictures.

        A generator that takes latents (``input_shape`` of one number) gets other ones in each split, beside the real
        pictures that it was trained on.
        """
        if split not in self._data:
            teacher = self.teacher()
            shape: tuple[int, ...] = getattr(teacher, "input_shape", ())
            if len(shape) == 1:
                size = self.config.data.size
                if getattr(teacher, "size", size) != size:
                    raise ConfigError(f"the generator makes {teacher.size} px, data.size is {size}; make them the same")
                real, seed = self.pictures("train"), SPLITS.index(split)
                self._data[split] = Latents.of(real, shape[0], seed=seed, name=split)
            elif self.config.data.kind == "domains" and split != "train":
                self._data[split] = self._unpaired(split)
            else:
                self._data[split] = self.pictures(split)
        return self._data[split]

    def pictures(self, split: str) -> Pairs:
        """The pictures of one split as they lie on disk."""
        if split not in self._pictures:
            self._pictures[split] = self._read(split)
        return self._pictures[split]

    def _read(self, split: str) -> Pairs:
        data = self.config.data
        if data.kind == "openmoji":
            return openmoji(size=data.size, split=split)
        if data.path is None:
            raise DataError(f"data.kind is {data.kind}, but data.path is missing; name a folder: --data.path FOLDER")
        names = {"train": ("train",), "search": ("search", "val", "train"), "test": ("test", "val")}[split]
        if data.kind == "labels":
            found = [name for name in names if (Path(data.path) / f"{name}_label").is_dir()]
            return label_pairs(data.path, (found or names)[0], size=data.size, classes=data.classes)
        if data.kind == "domains":  # a CycleGAN's teacher translates A; its outputs are the targets
            found = [name for name in names if (Path(data.path) / f"{name}A").is_dir()]
            return folder_pairs(Path(data.path) / f"{(found or names)[0]}A", size=data.size, direction="unpaired")
        found = [name for name in names if (Path(data.path) / name).is_dir()]
        if not found and list(Path(data.path).glob("*.*")):
            return folder_pairs(data.path, size=data.size, direction=data.direction)
        return folder_pairs(Path(data.path) / (found or names)[0], size=data.size, direction=data.direction)

    def _unpaired(self, split: str) -> Data:
        """Pictures of A, with real ones of B for scores of sets where the folder has them."""
        pairs, path = self.pictures(split), Path(str(self.config.data.path))
        names = {"search": ("search", "val", "train"), "test": ("test", "val")}[split]
        found = [path / f"{name}B" for name in names if (path / f"{name}B").is_dir()]
        if not found:
            return pairs
        real = folder_pairs(found[0], size=self.config.data.size, direction="unpaired")
        return Unpaired(pairs.inputs, real.inputs, f"{pairs.source} to {real.source}")

    def domains(self) -> Domains:
        """Two unpaired sets of pictures, for a CycleGAN or MUNIT teacher."""
        data = self.config.data
        if data.kind == "domains" and data.path is not None:
            second = folder_pairs(Path(data.path) / "trainB", size=data.size, direction="unpaired")
            return Domains(self.pictures("train").inputs, second.inputs)
        pairs = self.pictures("train")
        if pairs.targets is None or data.kind == "labels":
            raise DataError("this teacher needs two sets of pictures: data.kind domains, with trainA and trainB inside")
        return Domains(pairs.inputs, pairs.targets)

    def teacher(self) -> nn.Module:
        """The trained generator, frozen; with fresh weights where there is none."""
        if not self.taught:
            torch.manual_seed(self.config.seed)
            return build(self.config.generator, **self.config.options).eval().requires_grad_(False)
        name, options, demo = self.config.generator, self.config.options, Config()
        if self.config.teacher is None and name != "stylegan2" and (name, options) != (demo.generator, demo.options):
            build(name, **options)  # a wrong name or option is told first
            raise ConfigError(
                f"no teacher is shipped for {name!r} with options {options}: set teacher to a checkpoint (gantailor "
                "teacher makes one), or to none"
            )
        path = self.config.teacher or teacher_file(self.config.generator)
        model = load_teacher(path, generator=self.config.generator, **self.config.options)
        return model.requires_grad_(False)

    @property
    def taught(self) -> bool:
        """Whether there is a trained teacher; with ``teacher: none`` only its architecture counts."""
        return self.config.teacher != "none"

    def supernet(self) -> Supernet:
        """The traced supernet with the ranked weights of the teacher."""
        supernet = self.traced()
        if not self._ranked:
            self.scores = scores_of(self, supernet)
            order_channels(supernet, self.scores)
            self._ranked = True
        return supernet

    def traced(self) -> Supernet:
        """The supernet, ranked or not yet: all that costs and spaces need."""
        if self._supernet is None:
            size, teacher = self.config.data.size, self.teacher()
            multiple = getattr(teacher, "size_multiple", 1)
            if size % multiple:
                raise ConfigError(
                    f"data.size {size} does not fit {self.config.generator}: it must be a multiple of {multiple}"
                )
            shape = self.data("train").batch(np.arange(1))[0].shape
            example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            self._supernet = Supernet(teacher.requires_grad_(True), (example,))
        return self._supernet

    def space(self) -> Space:
        """The search space, its widths rounded to what the first device likes if that is asked for."""
        wanted = self.config.space
        if self.config.round_to_device and self.config.devices:
            multiple = max(wanted.rounding, device(self.config.devices[0]).channel_multiple)
            wanted = wanted.model_copy(update={"multiple": multiple})
        return space(wanted, self.traced())

    def budget(self) -> Budget:
        """The budget, checked against the space."""
        return self.budget_of(self.config.budget)

    def budget_of(self, text: str) -> Budget:
        """Any budget over this run's space.

        Raises:
            BudgetError: it cannot be read or reached.
        """
        supernet, convention = self.traced(), self.config.convention
        config = supernet.full_config()
        full = {"macs": supernet.macs(config, convention=convention), "params": supernet.parameter_count(config)}
        return Budget(self.space(), parse_budget(text, full=full), convention, fill=not self.config.search.front)

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
        return Scoring(self.config.evaluation, teacher=self.teacher() if self.taught else None)

    def search_metric(self) -> str:
        """The score that the search follows."""
        return self.metrics([self.config.evaluation.search])[0]

    def metrics(self, names: Iterable[str]) -> list[str]:
        """The metrics that the data allows.

        Those that compare picture by picture are against the teacher where no real picture belongs to an input; those
        of sets are left out where there are no real pictures at all.
        """
        if self.data("test").batch(np.arange(1))[1] is None:
            names = [name for name in names if FAMILIES.get(name) != "distribution"]
        by_picture = () if self.data("test").paired else PICTURE_BY_PICTURE
        if not self.taught and by_picture:  # nothing to compare with; the search's score is then one of sets
            sets = [name for name in names if name not in by_picture]
            return ["kid"] if list(names) == ["features"] else sets
        return [f"{name}[teacher]" if name in by_picture else name for name in names]

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

    def last_subnet(self) -> nn.Module | None:
        """The generator of fine-tuning's last step, where that was not the best."""
        path = self.path("subnet.last.safetensors")
        if not path.exists():
            return None
        _, narrow = self.subnet()
        load_state(narrow, read_state(path), str(path))
        return narrow.eval()


def teacher_file(generator: str) -> Path:
    """The shipped teacher of a generator."""
    return STYLEGAN2_TEACHER if generator == "stylegan2" else WEIGHTS / "openmoji_teacher.safetensors"


def open_run(folder: str | Path) -> Run:
    """A run folder that exists, with the configuration that it was made with.

    Raises:
        ConfigError: it holds no run.
    """
    file = Path(folder) / "config.json"
    if not file.exists():
        raise ConfigError(f"{str(folder)!r} is no run folder: it has no config.json")
    return Run(folder, load_config(str(file), {}))


def load_supernet(supernet: Supernet, path: Path) -> None:
    """Put trained supernet weights in place of the teacher's."""
    load_state(supernet.generator, read_state(path), str(path))
