"""Training on several devices: each process works on its part of every batch, and gradients are averaged.

Started by ``torchrun``; one process alone needs none of this. Sampled subnets, data order and augmentation are
functions of seed and step, so every process draws the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from gantailor.supernet.device import collectives, set_device

# How long a process waits for the others: the first may search for days while they do. That one died, torchrun notices.
PATIENCE = timedelta(days=30)


def join() -> None:
    """Join the process group that ``torchrun`` describes in the environment; nothing where there is none."""
    if "RANK" in os.environ and not dist.is_initialized():
        store, rank, world = next(rendezvous("env://"))
        if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
            # One torchrun keeps one store over its restarts: without a part of our own a restarted process may read
            # the address that a killed one left there, and wait for it for ever. Several nodes count apart.
            store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(collectives(), store=store, rank=rank, world_size=world, timeout=PATIENCE)
        set_device(int(os.environ.get("LOCAL_RANK", "0")))


def rank() -> int:
    """This process's number; 0 alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Mean over processes of every gradient, in one message; one that some process lacks counts as zero there."""
    if world() == 1:
        return
    parameters = [p for p in parameters if p.requires_grad]
    if not parameters:
        return
    known = torch.tensor([p.grad is not None for p in parameters], device=parameters[0].device)
    gradients = [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters]
    flat = torch.cat([*gradients, known.to(gradients[0])])
    dist.all_reduce(flat)
    flat /= world()
    *parts, known = torch.split(flat, [*(p.numel() for p in parameters), len(parameters)])
    for parameter, part, somewhere in zip(parameters, parts, known.tolist(), strict=True):
        # laid out as the parameter is: fused optimisers go through memory
        parameter.grad = torch.empty_like(parameter).copy_(part.view(parameter.shape)) if somewhere else None


def extremes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest over processes of two numbers."""
    if world() > 1:
        both = torch.stack([-low, high])
        dist.all_reduce(both, dist.ReduceOp.MAX)
        low, high = -both[0], both[1]
    return low, high


def average(values: Tensor) -> Tensor:
    """Mean over processes of a vector."""
    if world() > 1:
        values = values.clone()
        dist.all_reduce(values)
        values /= world()
    return values


def from_first(value: float) -> float:
    """The first process's number."""
    mine = torch.tensor([value if rank() == 0 else 0.0], dtype=torch.float64)
    if world() > 1:
        dist.all_reduce(mine)
    return float(mine)


def agree(*wishes: bool) -> tuple[bool, ...]:
    """For each wish, whether any process has it: clocks and signals differ, and all have to do the same."""
    if world() == 1:
        return wishes
    flags = torch.tensor(wishes, dtype=torch.uint8)  # on the CPU, where reading them stops no device
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in flags.tolist())


def gathered(mine: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """What each process holds, in the first one, on the CPU; elsewhere nothing. All of them call it."""
    own = {name: tensor.detach().cpu() for name, tensor in mine.items()}
    if world() == 1:
        return [own]
    found: list[dict[str, Tensor] | None] | None = [None] * world() if rank() == 0 else None
    dist.gather_object(own, found)
    return [one for one in found or [] if one is not None]


def wait() -> None:
    """Until every process is here."""
    if world() > 1:
        dist.barrier()
