"""Export of a model for a device: the written file is checked numerically before it is called done."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.export.checking import (
    Sample,
    allowed,
    arrays,
    as_inputs,
    checked,
    in_float64,
    psnr,
    sample_of,
    samples_of,
    steadiest,
)
from gantailor.export.devices import Device, device
from gantailor.export.errors import ExportError
from gantailor.export.helpers import in_range, quietly, with_range
from gantailor.export.quantization import quantise
from gantailor.export.rewrites import rewritten
from gantailor.export.sides import at_sides, is_free, other_sides, sides_of, with_sides
from gantailor.export.target import Runner, Target, check_device, find_target
from gantailor.handover.interface import as_metadata, for_apps_first, interface
from gantailor.supernet.calling import Inputs, as_tuple, each, forward, joined, rows_of, size_of
from gantailor.supernet.files import write_bytes, write_json
from gantailor.supernet.quantization.quantisers import LAYERS, Quantised, Quantisers
from gantailor.supernet.received.signature import mark
from gantailor.supernet.subnets.copying import copied


class Exported(nn.Module):
    """An exported model as a module, for evaluators; a static batch is fed picture by picture.

    Args:
        picture_range: of the file's pictures; the module's lie in [-1, 1], as those of every generator in a run.
        input_shapes, takes, size_multiple: what the generator declares about itself, see ``supernet/traits.py``.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        batch: int | None = 1,
        picture_range: tuple[int, int] = (-1, 1),
        input_shapes: Sequence[Sequence[int]] | None = None,
        takes: str | None = None,
        size_multiple: int = 1,
    ) -> None:
        super().__init__()
        self.runner, self.batch, self.file_range = runner, batch, picture_range
        self.input_shapes, self.takes, self.size_multiple = input_shapes, takes, size_multiple

    def forward(self, *inputs: Tensor) -> Tensor:
        size = self.batch or size_of(inputs)
        fed = inputs if self.file_range == (-1, 1) else tuple(in_range(one, self.file_range) for one in inputs)
        parts = (rows_of(fed, slice(start, start + size)) for start in range(0, size_of(fed), size))
        made = torch.from_numpy(np.concatenate([self.runner(*arrays(part)) for part in parts]))
        low, high = self.file_range
        return made if self.file_range == (-1, 1) else (made - low) * (2 / (high - low)) - 1


def export_model(
    folder: Path,
    model: nn.Module,
    example: Inputs,
    profile: Device,
    *,
    pictures: Inputs | None = None,
    trained: Quantisers | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the model for a device, with ``manifest.json``, ``check.npz``, ``bench.py`` and ``runtime.py``.

    Args:
        model: written, and compared with, in eval mode; it stays as it is.
        example: inputs ``[N, ...]``, the first of which is traced and all compared; a tuple of such where the model
            takes several, in the order of its forward.
        pictures: to calibrate 8 bits with, ``[N, ...]``, in the same form.
        trained: quantisers that the model was trained with in 8 bits; the result is compared with what they compute.
        about: for the manifest, ``licence`` and ``provenance``; and how files become inputs, ``fit`` and
            ``background``, see ``interface``.

    Returns:
        The manifest. First what an app needs, which an ONNX file holds too: ``inputs``, ``outputs`` and ``pictures``
        (see ``gantailor/handover/interface.py``), ``licence``, ``provenance``. Then the profile, and ``file``,
        ``delegated`` (how much the fast part of the runtime takes, in words), ``bytes``, ``shapes`` (of each input,
        with ``batch``, ``height`` and ``width`` where they are free), ``weights`` (how many numbers of each type the
        file holds, where that can be read), ``allowed`` (what an output may differ by from the stored one); where the
        file runs here ``max_difference`` and ``psnr_to_pytorch`` (dB), ``checked`` (on how many inputs), ``ran`` (what
        the runtime says of itself), with ``trained`` quantisers ``psnr_to_simulated``, and for a dynamic size
        ``proved``, the other heights and widths at which it equals PyTorch as nearly.

    Raises:
        ExportError: the target has not this precision, batch or size, an extra is missing, an operator is not
            supported, or the written model computes something else, at this size or others.
    """
    target, given, model, about = find_target(profile.runtime), as_inputs(example), copied(model).eval(), about or {}
    pictures = None if pictures is None else as_inputs(pictures)
    check_device(profile)
    if profile.picture_range != (-1, 1):
        model, given, pictures = _in_range(profile, model, given, pictures, trained)
    one = rows_of(given, slice(1))
    profile = with_sides(profile, model, one)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / target.file
    found = _for_apps(model, given, profile, about)
    with quietly(target):
        coverage = _write(file, model, one, profile, pictures, trained)
        if target.describe is not None:
            target.describe(file, as_metadata(found))
        held = {} if target.weights is None else {"weights": dict(target.weights(file))}
    simulated = Quantised(model, trained).eval() if trained is not None and profile.precision == "int8" else None
    reference = model if simulated is None else simulated  # what was trained in 8 bits may be far from its float form
    result: dict[str, Any] = {**found, **profile.model_dump(mode="json", exclude={"name"})}
    size = sum(path.stat().st_size for path in model_files(folder, target))
    result |= {"file": target.file, "shapes": _shapes(one, profile), "delegated": coverage, "bytes": size, **held}
    samples = samples_of(reference, given, exact=simulated is None)
    shown = steadiest(samples)
    result["allowed"] = allowed(shown, profile)
    if target.here:
        with _running(profile):
            runner = load_runner(file, profile)
        result |= _compared(runner, reference, samples, profile)
        result["ran"] = ran = dict(getattr(runner, "ran", {}))
        result["threads"] = ran.get("threads", profile.threads)
        if profile.size == "dynamic":
            result["proved"] = _proved(runner, reference, shown.inputs, profile, model_files(folder, target))
        if simulated is not None:
            result["psnr_to_simulated"] = _to_simulated(
                runner, simulated, one if pictures is None else pictures, profile
            )
    _write_bench(folder, target, shown)
    result = for_apps_first(result | _marked(profile))
    write_json(folder / "manifest.json", result)
    return result


def _marked(profile: Device) -> dict[str, str]:
    """What shows that a runtime of one's own is named by oneself: nobody else's manifest may name code."""
    return {"mark": mark(profile.runtime)} if ":" in profile.runtime else {}


def _for_apps(model: nn.Module, given: Inputs, profile: Device, about: Mapping[str, Any]) -> dict[str, Any]:
    """What an app needs, as the manifest has it."""
    one = rows_of(given, slice(1))
    with torch.no_grad():
        made = forward(model, one)
    described = interface(
        model,
        given,
        made,
        shapes=_shapes(one, profile),
        profile=profile,
        ends=find_target(profile.runtime).ends,
        **{name: about[name] for name in ("fit", "background") if name in about},
    )
    known = {name: about.get(name) for name in ("licence", "provenance")}
    return {"device": profile.name, "runtime": profile.runtime, "precision": profile.precision, **described, **known}


def _in_range(
    profile: Device, model: nn.Module, given: Inputs, pictures: Inputs | None, trained: Quantisers | None
) -> tuple[nn.Module, Inputs, Inputs | None]:
    """Model and inputs in the profile's range of pictures."""
    wanted = profile.picture_range
    if not isinstance(given, Tensor) or given.ndim != 4 or trained is not None:
        raise ExportError(
            f"device {profile.name!r}: picture_range {list(wanted)} is for generators of one picture that were trained "
            "in float; leave it out"
        )
    moved = in_range(pictures, wanted) if isinstance(pictures, Tensor) else None
    return with_range(model, wanted), in_range(given, wanted), moved


@torch.no_grad()
def _to_simulated(runner: Runner, simulated: nn.Module, pictures: Inputs, profile: Device) -> float:
    exported = Exported(runner, batch=None if profile.batch == "dynamic" else 1)
    return psnr(forward(exported, pictures).numpy(), forward(simulated, pictures).numpy())


def _shapes(example: Inputs, profile: Device) -> list[list[int | str]]:
    """Of every input; names stand for what is free."""
    shapes: list[list[int | str]] = []
    for one in as_tuple(example):
        batch = "batch" if profile.batch == "dynamic" else 1
        free = profile.size == "dynamic" and is_free(one, example)
        shapes.append([batch, *(one.shape[1:] if not free else (one.shape[1], "height", "width"))])
    return shapes


def _proved(
    runner: Runner, reference: nn.Module, example: Inputs, profile: Device, files: list[Path]
) -> list[list[int]]:
    """The other sizes at which the written model equals PyTorch; where it does not, its files are taken away."""
    found = other_sides(profile, reference, example)
    exact = not isinstance(reference, Quantised)
    try:
        for sides in found:
            _compared(runner, reference, samples_of(reference, at_sides(example, sides), exact=exact), profile)
    except ExportError as error:
        for file in files:
            file.unlink()
        native = " x ".join(map(str, sides_of(example)))
        raise ExportError(
            f"device {profile.name!r}: {profile.runtime} wrote a model that has the size {native} built in: at "
            f"{sides[0]} x {sides[1]} {error}, or use size: fixed"
        ) from error
    return [list(sides) for sides in found]


def _flipped(one: Tensor) -> Tensor:
    return one.flip(-1)


def _write(
    file: Path,
    model: nn.Module,
    example: Inputs,
    profile: Device,
    pictures: Inputs | None,
    trained: Quantisers | None,
) -> str:
    """Rewrite the model for its target and write it; how much of it the fast part of the runtime takes."""
    target = find_target(profile.runtime)
    made = rewritten(model, target, example)
    try:
        if profile.precision == "int8":
            known = trained.without_outputs(_changed(model, made)) if trained is not None else None
            return quantise(
                made, pictures if pictures is not None else rows_of(example, slice(0)), file, profile, known
            )
        return target.write(made, example, file, profile)
    except ExportError:
        raise
    except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
        free = profile.size == "dynamic"
        raise ExportError(
            f"device {profile.name!r}: {target.name} cannot take this generator{' at any size' * free}: "
            f"{_reason(error)}; choose another device{'' if profile.precision == 'float32' else ' or precision'}"
            + ", or use size: fixed"
            * free
        ) from error


def _reason(error: BaseException) -> str:
    """What an exporter says, in a line: of a size that was taken for a constant the line that names it."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    lines = [line.strip(" -") for cause in causes for line in str(cause).splitlines() if line.strip()]
    named = next((line for line in lines if "specialized" in line or "Not all values of" in line), None)
    return (named or (lines[0] if lines else type(error).__name__)).partition(". If you")[0].rstrip(".;:")


def model_files(folder: Path, target: Target) -> list[Path]:
    """The files that a written model consists of."""
    return sorted(folder.glob(f"{target.file.partition('.')[0]}.*"))


def _write_bench(folder: Path, target: Target, shown: Sample) -> None:
    """What checks and times the model on the device itself: an input with its output, the script, the loader."""
    buffer = io.BytesIO()
    feeds = arrays(shown.inputs)
    names = ["input"] if len(feeds) == 1 else [f"input_{number}" for number in range(len(feeds))]
    np.savez(buffer, output=shown.expected, **dict(zip(names, feeds, strict=True)))  # type: ignore[arg-type]
    write_bytes(folder / "check.npz", buffer.getvalue())
    shutil.copy(Path(__file__).with_name("bench.py"), folder / "bench.py")
    write_bytes(folder / "runtime.py", target.loader_source().encode())


def load_runner(file: Path, profile: Device) -> Runner:
    """A function that runs a written model on this machine.

    Raises:
        ExportError: it only runs elsewhere, or the runtime is missing.
    """
    target = find_target(profile.runtime)
    if not target.here:
        raise ExportError(
            f"{target.name} does not run on this machine; copy {str(file.parent)!r} to its device, start bench.py"
        )
    with quietly(target):
        return target.load(file, profile)


def _compared(runner: Runner, reference: nn.Module, samples: list[Sample], profile: Device) -> dict[str, Any]:
    """What the written model, loaded again, differs by from PyTorch, if that is allowed: on each input.

    The figures are those of inputs on which rounding does not show, the largest of several; of the best one where it
    shows on all.
    """
    if profile.batch == "dynamic":
        one, exact = samples[0].inputs, not isinstance(reference, Quantised)
        three = joined([one, each(one, _flipped), one])
        samples = [sample_of(reference, three, in_float64(reference) if exact else None), *samples]
    found = []
    for sample in samples:
        with _running(profile):
            output = runner(*arrays(sample.inputs))
        found.append(checked(output, sample, profile))
    steady = [figures for figures, sample in zip(found, samples, strict=True) if sample.steady]
    judged = steady or [found[samples.index(steadiest(samples))]]
    return {
        "max_difference": max(figures["max_difference"] for figures in judged),
        "psnr_to_pytorch": min(figures["psnr_to_pytorch"] for figures in judged),
        "checked": {"inputs": len(samples), "of them steady in float32": len(steady)},
    }


@contextlib.contextmanager
def _running(profile: Device) -> Iterator[None]:
    """Whatever a runtime raises, one's own too, as one message."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"device {profile.name!r}: {profile.runtime} wrote a model that it cannot run: {_reason(error)}; choose "
            "another device" + (", or batch: static" if profile.batch == "dynamic" else "")
        ) from error


def _changed(model: nn.Module, made: nn.Module) -> list[str]:
    """Layers that a batch norm was folded into: what they write is not what was measured in training."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS)}
    others = {name: layer for name, layer in made.named_modules() if isinstance(layer, LAYERS)}
    return [n for n, layer in layers.items() if n not in others or not torch.equal(layer.weight, others[n].weight)]


def local_runtime(name: str, *, threads: int = 1) -> Callable[[nn.Module, Inputs], Callable[[], object]]:
    """For timing: from a model and an example to a function that runs it once on a device of this machine."""
    profile = device(name).model_copy(update={"threads": threads})
    target = find_target(profile.runtime)

    def make(model: nn.Module, example: Inputs) -> Callable[[], object]:
        example = each(example, Tensor.contiguous)
        resolved = with_sides(profile, model, example)
        with tempfile.TemporaryDirectory() as folder, quietly(target):
            file = Path(folder) / target.file
            _write(file, model, example, resolved, example, None)  # times do not depend on the calibration
            runner = load_runner(file, resolved)
        feeds = arrays(example)
        return lambda: runner(*feeds)

    return make
