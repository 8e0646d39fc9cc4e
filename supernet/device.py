"""Where and how is computed: the one place that names devices and precisions.

A device is looked for once, by name; everything else follows what it is given: a generator's pictures are computed
where the generator is, networks that judge pictures where the pictures are.
"""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gantailor.supernet.calling import Inputs, each, forward
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.subnets.copying import copied

M = TypeVar("M", bound=nn.Module)

Device = str | torch.device
HOST = torch.device("cpu")  # what is read from files, and is exported
HALF: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_copies: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def find_device(name: str) -> torch.device:
    """The device that a name means: ``auto`` is the accelerator (cuda, mps, ...) where there is one, else the CPU.

    Floats of 32 bits are computed as such there; ``tf32`` has to be asked for.

    Raises:
        ConfigError: this machine, or this PyTorch, has none of that name.
    """
    here = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        found = here or HOST
    else:
        kind, _, number = name.partition(":")
        counts = {HOST.type: 1} | ({here.type: torch.accelerator.device_count()} if here is not None else {})
        if kind not in counts or int(number or 0) >= counts[kind]:
            seen = ", ".join(f"{count} {known}" for known, count in counts.items())
            raise ConfigError(
                f"device {name!r} is not here; PyTorch {torch.__version__} sees {seen}: choose among these, or auto"
            )
        found = torch.device(name)
    if found != HOST and found.index is None:  # with its number, as tensors name it
        found = torch.device(found.type, torch.accelerator.current_device_index())
    if found.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return found


def find_precision(name: str, device: torch.device) -> str:
    """What ``auto`` means on a device: bfloat16 where it has units for it, float16 where it has those, else float32.

    Raises:
        ConfigError: the device cannot compute in the precision that is asked for.
    """
    if name == "auto":
        return next(precision for precision in ("bfloat16", "float16", "float32") if precision in _fast(device))
    if name == "tf32" and "tf32" not in _fast(device):
        raise ConfigError(f"precision 'tf32' is of newer NVIDIA cards, device {device} has it not; choose float32")
    if name == "float16" and device == HOST and "float16" not in _fast(device):
        raise ConfigError("precision 'float16': this processor cannot train in it; choose auto, float32 or bfloat16")
    return name


@cache
def _fast(device: torch.device) -> tuple[str, ...]:
    """Precisions that a device has units for. On a CPU others are emulated, at a twentieth of the speed."""
    if device.type == "cpu":
        bf16, fp16 = torch.ops.mkldnn._is_mkldnn_bf16_supported(), torch.ops.mkldnn._is_mkldnn_fp16_supported()
        return ("float32", *(["bfloat16"] if bf16 else []), *(["float16"] if fp16 else []))
    if device.type == "cuda":
        newer = torch.cuda.get_device_capability(device) >= (8, 0)
        return ("float32", "float16", *(["bfloat16", "tf32"] if newer else []))
    return ("float32",)


def is_emulated(precision: str, device: torch.device) -> bool:
    """Whether a device computes in a precision that it has no units for, which takes many times as long."""
    return precision in HALF and precision not in _fast(device) and device.type in ("cpu", "cuda")


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Inside, networks compute in a precision that ``find_precision`` takes; weights stay float32."""
    name = find_precision(precision, device)
    if name == "tf32":
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
            yield
    else:
        with torch.autocast(device.type, HALF.get(name, torch.bfloat16), enabled=name in HALF):
            yield


class LossScaling:
    """Keeps the gradients of float16 from becoming zero (Micikevicius et al. 2018, arXiv 1710.03740).

    Attributes:
        scaler: PyTorch's, which follows what the gradients hold; None where none is needed.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self.device = device
        needed = find_precision(precision, device) == "float16"
        self.scaler = torch.amp.GradScaler(device.type) if needed else None

    @property
    def scale(self) -> float:
        """By what gradients are to be multiplied."""
        return 1.0 if self.scaler is None else float(self.scaler.scale(torch.ones((), device=self.device)))

    def step(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Every optimiser's step with the true gradients; none where these became infinite.

        All are true before the first step, for what is measured then may be another optimiser's.
        """
        optimizers = list(optimizers)
        if self.scaler is None:
            for optimizer in optimizers:
                optimizer.step()
            return
        optimizers = [one for one in optimizers if any(p.grad is not None for p in trained_by(one))]
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)
        for optimizer in optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()

    def state(self) -> dict[str, Any]:
        """To be stored with the step."""
        return {} if self.scaler is None else {"loss_scale": self.scaler.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on with what was stored."""
        if self.scaler is not None and "loss_scale" in state:
            self.scaler.load_state_dict(state["loss_scale"])


def trained_by(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of an optimiser."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def device_of(model: nn.Module) -> torch.device:
    """Where a module computes; one without tensors on the CPU."""
    return next((held.device for held in _held(model)), HOST)


def _held(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())


def placed(model: M, device: torch.device) -> M:
    """A shared module on a device: itself where it is there, else one copy of it, made once."""
    if next((held.device for held in _held(model)), device) == device:  # what holds no tensors is everywhere
        return model
    known: Any = _copies.get(model)
    if known is None or device_of(known) != device:
        known = _copies[model] = copied(model).to(device)
    return known  # type: ignore[no-any-return]


@torch.no_grad()
def computed(model: nn.Module, inputs: Inputs) -> Tensor:
    """A model's output for inputs that are brought to it, back on the CPU."""
    where = device_of(model)
    return forward(model, each(inputs, lambda one: one.to(where))).to(HOST)


def exact(values: Tensor) -> Tensor:
    """In float64, which some devices do not have: then on the CPU."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def set_device(number: int) -> None:
    """This process computes on the accelerator of a number, where there is one."""
    if torch.accelerator.current_accelerator(check_available=True) is not None:
        torch.accelerator.set_device_index(number)


def collectives() -> str:
    """What processes talk through: of tensors on CPUs, and on NVIDIA's cards where there are any."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def peak_memory(device: torch.device) -> int:
    """The most memory so far, in bytes: of an NVIDIA card, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device != HOST:
        torch.accelerator.synchronize(device)


def processor() -> str:
    """The name of this machine's processor."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def described(device: torch.device) -> str:
    """A device in words: ``cuda:0 (NVIDIA H200)``."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
