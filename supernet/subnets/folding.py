"""Weights that are computed from others (norms of weights, any parametrization, masks) made plain, in a copy.

Slicing the tensors that they are computed from would change their scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from gantailor.supernet.calling import evaluating
from gantailor.supernet.subnets.copying import copied


@dataclass(frozen=True)
class _Computed:
    """A computed weight ``name`` of a module: the value that it has in eval mode, and what it is computed from."""

    module: nn.Module
    name: str
    value: Tensor
    sources: tuple[Tensor, ...]


def folded(model: nn.Module) -> nn.Module:
    """A copy whose computed weights are plain ones, with the values that they have in eval mode.

    Weights that are computed alike from the same tensors stay one (tied). The model itself is left as it is.
    """
    made = copied(model)
    with torch.no_grad(), evaluating(made):
        # All are computed before any is replaced: they may be made from the same tensors.
        computed = [weight for module in made.modules() for weight in _computed(module)]
    for weight in computed:
        _remove(weight)
    tied: dict[tuple[int, ...], list[Tensor]] = {}
    for weight in computed:
        known = tied.setdefault(tuple(map(id, weight.sources)), [])
        plain = next((tensor for tensor in known if torch.equal(tensor, weight.value)), None)
        if plain is None:
            known.append(plain := _plain(weight))
        if isinstance(plain, nn.Parameter):
            weight.module._parameters[weight.name] = plain
        else:
            weight.module._buffers[weight.name] = plain
    return made


def _computed(module: nn.Module) -> Iterator[_Computed]:
    if parametrize.is_parametrized(module):
        for name, parts in module.parametrizations.items():  # type: ignore[operator, union-attr]
            # A tensor is ``original``; several together make the weight from ``original0``, ``original1`` ...
            names = ["original"] if parts.is_tensor else [f"original{i}" for i in range(parts.ntensors)]
            yield _Computed(module, name, getattr(module, name), tuple(getattr(parts, n) for n in names))
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            sources = tuple(getattr(module, f"{hook.name}_{end}") for end in "gv")
            yield _Computed(module, hook.name, hook.compute_weight(module), sources)
        elif isinstance(hook, SpectralNorm):
            value = hook.compute_weight(module, do_power_iteration=False)
            yield _Computed(module, hook.name, value, (getattr(module, f"{hook.name}_orig"),))
        elif isinstance(hook, BasePruningMethod):
            name = str(hook._tensor_name)
            sources = tuple(getattr(module, f"{name}_{end}") for end in ("orig", "mask"))
            yield _Computed(module, name, hook.apply_mask(module), sources)  # type: ignore[no-untyped-call]


def _remove(weight: _Computed) -> None:
    """Take out what computes a weight.

    ``parametrize.remove_parametrizations`` will not do: it deletes a property of the module's class, which a deep copy
    shares with the model that it was made from, and writes into tensors that other modules may hold.
    """
    module = weight.module
    if parametrize.is_parametrized(module):
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module._modules["parametrizations"]
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, WeightNorm | SpectralNorm) and hook.name == weight.name:
            (remove_weight_norm if isinstance(hook, WeightNorm) else remove_spectral_norm)(module, weight.name)
            del module._parameters[weight.name]
        elif isinstance(hook, BasePruningMethod) and hook._tensor_name == weight.name:
            del module._forward_pre_hooks[key]
            for name in (weight.name, f"{weight.name}_orig", f"{weight.name}_mask"):
                delattr(module, name)


def _plain(weight: _Computed) -> Tensor:
    value = weight.value.detach().clone()
    if not any(isinstance(source, nn.Parameter) for source in weight.sources):
        return value
    return nn.Parameter(value, requires_grad=any(source.requires_grad for source in weight.sources))
