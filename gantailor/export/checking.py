"""How nearly a written model must compute what PyTorch does, and on which inputs that is asked.

Behind an instance norm a plain picture is rounding noise: PyTorch in float32 may be 2.0 from its own float64 there, and
so is every right export. Each input is therefore measured in float64 first, and allows as much more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.supernet.calling import Inputs, alone, as_tuple, each, forward, not_float32, rows_of, size_of
from gantailor.supernet.device import HOST
from gantailor.supernet.proof.double import new_tensors
from gantailor.supernet.subnets.copying import copied

LARGEST = 1e-4  # difference of a float32 model from PyTorch
LEAST_PSNR = {"float16": 40.0, "int8": 20.0}  # dB; a coarser model below is broken; one pixel may be off by more
STEADY = LARGEST / 2  # PyTorch's own distance from float64, up to which an input says something of coarser precisions
AMPLIFIED = 8.0  # times that distance another order of the same sums may be off
STIRRED = 0.5  # standard deviation of what is added to an input where none is steady


@dataclass(frozen=True)
class Sample:
    """An input, what PyTorch makes of it, and how far that is from float64.

    Attributes:
        noise: the largest difference of PyTorch in float32 from its own float64; where it does not run in that, what a
            change of the inputs in their last digit makes.
    """

    inputs: Inputs
    expected: np.ndarray
    noise: float = 0.0

    @property
    def steady(self) -> bool:
        """Whether rounding alone does not show."""
        return self.noise <= STEADY


def arrays(inputs: Inputs) -> tuple[np.ndarray, ...]:
    """What a runner is given."""
    return tuple(np.ascontiguousarray(one.numpy()) for one in as_tuple(inputs))


def as_inputs(example: object) -> Inputs:
    """An example as exporters take it, on the CPU and without gradients, a list of several as a tuple.

    Raises:
        ExportError: it is no tensor ``[N, ...]``, and no tuple of such, or has not as many rows of each.
    """
    several = tuple(example) if isinstance(example, list | tuple) else (example,)
    good = [one for one in several if isinstance(one, Tensor) and one.ndim > 0]
    if not good or len(good) < len(several):
        raise ExportError(
            f"the example is a {type(example).__name__}; give a tensor [1, ...], or for several inputs a tuple of "
            "such, in the order of the generator's forward"
        )
    rows = [len(one) for one in good]
    if len(set(rows)) > 1:
        raise ExportError(f"the example has {', '.join(map(str, rows))} rows; give one or more, as many of each input")
    return alone(tuple(one.detach().to(HOST).contiguous() for one in good))


@torch.no_grad()
def first_made(model: nn.Module, example: Inputs) -> Tensor:
    """What a model in eval mode makes of the first row of an example.

    Raises:
        ExportError: it is nothing that a file can hold, or be compared with.
    """
    if not size_of(example):
        raise ExportError("the example has 0 rows; give one or more")
    if odd := not_float32([*model.parameters(), *as_tuple(example)]):
        raise ExportError(
            f"generator or example are in {', '.join(odd)}; give both in float32, with .float(): a device of float16 "
            "rounds by itself"
        )
    made, again = (forward(copied(model), rows_of(example, slice(1))) for _ in range(2))
    if not isinstance(made, Tensor):
        raise ExportError(
            f"the generator gives a {type(made).__name__}; give a module whose forward returns one tensor, the picture"
        )
    if not bool(made.isfinite().all()):
        raise ExportError("the generator makes NaN or infinity of the example; mend its weights, or give another one")
    if not torch.allclose(made, again, atol=LARGEST):
        raise ExportError(
            "the generator makes something else of the same example each time, in eval mode; make its noise a buffer, "
            "or an input of the forward"
        )
    return made


@torch.no_grad()
def sample_of(reference: nn.Module, inputs: Inputs, precise: nn.Module | None) -> Sample:
    """An input with what is expected of it.

    Args:
        precise: the reference in float64; without it no noise is known.
    """
    expected, noise = forward(reference, inputs), 0.0
    if precise is not None:
        try:
            other = in_precision_of(torch.float64, precise, inputs).float()
        except Exception:  # whatever a stranger's forward raises that insists on float32
            other = forward(reference, each(inputs, _nudged))
        noise = float((expected - other).abs().max())
    return Sample(inputs, expected.numpy(), noise)


def in_precision_of(dtype: torch.dtype, model: nn.Module, inputs: Inputs) -> Tensor:
    """The output of a model whose weights are of this type; so are its inputs then, and the tensors that it makes."""
    with new_tensors(dtype):
        return forward(model, each(inputs, lambda one: one.to(dtype) if one.is_floating_point() else one))


def _nudged(one: Tensor) -> Tensor:
    return one * (1 + torch.finfo(one.dtype).eps) if one.is_floating_point() else one


def samples_of(reference: nn.Module, inputs: Inputs, *, exact: bool) -> list[Sample]:
    """Each input with what is expected of it; where none is steady, another one too, so that something is judged.

    Args:
        exact: whether the reference computes in float32; one that rounds by itself has no float64.
    """
    precise = in_float64(reference) if exact else None
    rows = [rows_of(inputs, slice(row, row + 1)) for row in range(size_of(inputs))]
    found = [sample_of(reference, row, precise) for row in rows]
    if not any(sample.steady for sample in found):
        found.append(sample_of(reference, each(rows[0], _stirred), precise))
    return found


def in_float64(model: nn.Module) -> nn.Module:
    """A copy that computes more precisely."""
    return copied(model).eval().double()


def _stirred(one: Tensor) -> Tensor:
    """An input with noise, within the bounds that it keeps; numbers of classes as they are."""
    if not one.is_floating_point():
        return one
    noise = STIRRED * torch.randn(one.shape, generator=torch.Generator().manual_seed(0))
    return (one + noise).clamp(-1, 1) if float(one.abs().max()) <= 1 else one + noise


def steadiest(samples: Sequence[Sample]) -> Sample:
    """The first one that says something; the one that says most where none does."""
    return next((sample for sample in samples if sample.steady), min(samples, key=lambda sample: sample.noise))


def psnr(first: np.ndarray, second: np.ndarray, *, span: float = 2) -> float:
    """In dB; pictures in [-1, 1] span 2."""
    return float(10 * np.log10(span**2 / max(float(np.square(first - second).mean()), 1e-20)))


def span_of(device: Device) -> int:
    """From black to white."""
    return device.picture_range[1] - device.picture_range[0]


def allowed(sample: Sample, device: Device) -> dict[str, float]:
    """What a written model may differ by: ``max_difference``, or in coarser precisions the least ``psnr``, dB."""
    least = LEAST_PSNR.get(device.precision)
    if least is None:
        return {"max_difference": LARGEST * span_of(device) / 2 + AMPLIFIED * sample.noise}
    return {"psnr": least if sample.steady else 0.0}


def checked(output: np.ndarray, sample: Sample, device: Device) -> dict[str, float]:
    """What a written model's output differs by: ``max_difference`` and ``psnr_to_pytorch``.

    Raises:
        ExportError: it is another shape, or differs by more than is allowed in its precision.
    """
    if output.shape != sample.expected.shape:
        raise ExportError(
            f"the {device.name} model makes {list(output.shape)} where PyTorch makes {list(sample.expected.shape)}; "
            "choose another device"
        )
    difference = float(np.abs(output - sample.expected).max())
    found = psnr(output, sample.expected, span=span_of(device))
    bound = allowed(sample, device)
    good = difference <= bound["max_difference"] if "max_difference" in bound else found >= bound["psnr"]
    if not good or not np.isfinite(output).all():
        raise ExportError(
            f"the {device.name} model differs from PyTorch by {difference:.1e} ({found:.0f} dB); "
            + (f"at least {bound['psnr']:.0f} dB are expected" if "psnr" in bound else "allowed is ")
            + ("" if "psnr" in bound else f"{bound['max_difference']:.2g}")
            + "; choose another device or precision"
        )
    return {"max_difference": difference, "psnr_to_pytorch": found}
