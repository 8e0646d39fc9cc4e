"""The record of an export target: a runtime, and how a generator is written for it, read and run."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.export.targets import TARGETS
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.plugins import find

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from gantailor.supernet.calling import Inputs
    from gantailor.supernet.quantization.quantisers import Quantisers

Runner: TypeAlias = "Callable[..., np.ndarray]"  # an array [N, ...] in float32 for each input to one output in float32
Rewrite: TypeAlias = "Callable[[nn.Module], nn.Module]"  # see gantailor.export.rewrites
Write: TypeAlias = "Callable[[nn.Module, Inputs, Path, Device], str]"
Load: TypeAlias = "Callable[[Path, Device], Runner]"
Quantise: TypeAlias = "Callable[[nn.Module, Inputs, Path, Device, Quantisers | None], str]"

PRECISIONS: tuple[str, ...] = get_args(Device.model_fields["precision"].annotation)
_RUNTIME = '''"""How the model beside this file is loaded; for bench.py."""

from __future__ import annotations


'''


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime. A device profile names it: ``runtime: onnxruntime``, or ``module:name`` for one's own.

    Attributes:
        name: as it stands in messages; a built-in's key in ``TARGETS``.
        file: name of the model file; files of the same stem (``model.*``) belong to it.
        write: ``(model, example [1, ...], path, device)`` writes the rewritten model in the device's float precision;
            returns how much of it the runtime's fast part runs, in words. A model with several inputs has a tuple of
            examples, and its file takes them in this order.
        load: ``(path, device)`` to a function that runs the file. It must stand on its own (imports inside, nothing of
            its module): its source goes beside the model for ``bench.py``, where the device is the manifest's entries.
            The function may have ``ran``, what the runtime says of itself after a call: ``threads``, ``precision``,
            ``on`` (provider or processor).
        packages: import names that writing needs.
        extra: the extra of gantailor that installs them; none where they are installed by their own names.
        precisions: of float32, float16 and int8 those that the written file really holds.
        dynamic: whether the format has a dynamic batch.
        sizes: of inputs: ``fixed`` alone; ``free`` height and width; ``bounded``, free up to a largest side, for which
            memory is planned.
        rewrites: of the module before it is written, in this order; checked numerically.
        quantise: ``(model, pictures [N, ...], path, device, quantisers of a training or none)`` writes 8 bits; returns
            the same words as ``write``. There is one exactly where ``precisions`` has int8.
        runs_here: whether this machine can run the file at all; asked when it matters.
        timed_here: whether a latency on this machine's CPU says anything of the device.
        describe: puts texts by name (what an app needs, see ``gantailor/handover/interface.py``) into the written file,
            where its format has a place for such.
        weights: from the written file to how many numbers of each type it holds, ``{"float16": 2_600_000}``.
        ends: names of a single input and of the output in the file.
        bench: source text that defines ``load`` for ``bench.py``, where it cannot be the one above.
    """

    name: str
    file: str
    write: Write
    load: Load
    packages: tuple[str, ...] = ()
    extra: str | None = None
    precisions: tuple[str, ...] = ("float32",)
    dynamic: bool = False
    sizes: Literal["fixed", "free", "bounded"] = "fixed"
    rewrites: tuple[Rewrite, ...] = ()
    quantise: Quantise | None = None
    runs_here: bool | Callable[[], bool] = True
    timed_here: Callable[[Device], bool] = lambda device: True
    describe: Callable[[Path, Mapping[str, str]], None] | None = None
    weights: Callable[[Path], Mapping[str, int]] | None = None
    ends: tuple[str, str] = ("input", "output")
    bench: str | None = None

    def __post_init__(self) -> None:
        unknown = [p for p in self.precisions if p not in PRECISIONS]
        if unknown or not self.precisions:
            raise ConfigError(
                f"target {self.name!r}: precisions {unknown or 'none'} are unknown; allowed: {', '.join(PRECISIONS)}"
            )
        if ("int8" in self.precisions) != (self.quantise is not None):
            raise ConfigError(f"target {self.name!r}: int8 needs quantise, and quantise int8; give both or neither")

    @property
    def here(self) -> bool:
        """Whether this machine can run the file."""
        return self.runs_here() if callable(self.runs_here) else self.runs_here

    def loader_source(self) -> str:
        """The text of ``runtime.py``, which defines ``load`` for ``bench.py``.

        Raises:
            ConfigError: it cannot be read.
        """
        if self.bench is not None:
            return self.bench
        name = getattr(self.load, "__name__", "")
        try:
            source = inspect.getsource(self.load)
        except (OSError, TypeError):
            source = ""
        if not source.startswith(f"def {name}("):
            raise ConfigError(
                f"target {self.name!r}: the source of load cannot be read for bench.py; make it a module's function, "
                "or give bench, its text"
            )
        return _RUNTIME + source + ("" if name == "load" else f"\n\nload = {name}\n")

    @property
    def install(self) -> str:
        """The command that installs what writing needs."""
        return f"pip install '{f'gantailor[{self.extra}]' if self.extra else ' '.join(self.packages) or self.name}'"


def find_target(runtime: str) -> Target:
    """The target behind a profile's ``runtime``: a built-in's name, or ``module:name``.

    Raises:
        ConfigError: unknown name, it cannot be imported, or it is no ``Target``.
    """
    target = find(runtime, TARGETS, "runtime")
    if not isinstance(target, Target):
        raise ConfigError(
            f"runtime {runtime!r} is a {type(target).__name__}; it must be a Target (gantailor.export.target)"
        )
    return target


def check_device(device: Device) -> None:
    """That a generator can be written as the profile says, before anything long begins.

    Raises:
        ExportError: the target has not this precision, batch or size, or a package is missing (says how to install it).
        ConfigError: there is no such target, or its loader cannot be read.
    """
    target = find_target(device.runtime)
    target.loader_source()
    if device.precision not in target.precisions:
        raise ExportError(
            f"device {device.name!r}: {target.name} has no {device.precision} here; allowed: "
            f"{', '.join(target.precisions)}"
        )
    if device.batch == "dynamic" and not target.dynamic:
        raise ExportError(f"device {device.name!r}: {target.name} has no dynamic batch here; use batch: static")
    if device.size == "dynamic" and target.sizes == "fixed":
        raise ExportError(f"device {device.name!r}: {target.name} has no dynamic size here; use size: fixed")
    missing = [name for name in target.packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"device {device.name!r} needs {', '.join(missing)}; run: {target.install}, or choose other devices"
        )


def timed_here(device: Device) -> bool:
    """Whether a latency measured on this machine's CPU says anything about the device."""
    target = find_target(device.runtime)
    return target.here and target.timed_here(device)
