"""Weights that are computed from others (norms of weights, any parametrization, masks) made plain, in a copy.

Slicing the tensors that they are computed from would change their scale.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._pytree import tree_map

from gantailor.supernet.calling import evaluating
from gantailor.supernet.proof.recording import recorded
from gantailor.supernet.proof.stand_ins import Fake, Meta, Real
from gantailor.supernet.subnets.copying import copied

_ORIGINAL = "original"  # PyTorch's name for what a parametrization computes from


@dataclass(frozen=True)
class _Computed:
    """A computed weight ``name`` of a module: the value that it has in eval mode, and what it is computed from.

    The sources have the names that they keep in the module where its forward reads them too.
    """

    module: nn.Module
    name: str
    value: Tensor
    sources: Mapping[str, Tensor]


def folded(model: nn.Module, inputs: Sequence[Any] | None = None) -> nn.Module:
    """A copy whose computed weights are plain ones, with the values that they have in eval mode.

    Weights that are computed alike from the same tensors stay one (tied). What they are computed from is kept beside
    them where the forward reads that itself. The model is left as it is.

    Args:
        inputs: an example, for a forward that shows what is read; without it nothing is kept.
    """
    plain, groups = _folded(model, keep=())
    sources = set().union(*groups)
    if not sources or inputs is None:
        return plain
    beside, _ = _folded(model, keep=sources)
    others = {id(x) for name, x in _named(beside) if name not in sources and "parametrizations" not in name.split(".")}
    kept = {name for name, x in _named(beside) if name in sources and id(x) not in others}
    read = kept & _read(beside, inputs)
    # All that a weight is computed from, so that its place among a module's parameters says the same as before.
    return _folded(model, keep=set().union(*(group for group in groups if group & read)))[0] if read else plain


def _folded(model: nn.Module, *, keep: Collection[str]) -> tuple[nn.Module, list[set[str]]]:
    """A folded copy, and what each of its weights was computed from; those of ``keep`` are still there."""
    made = copied(model)
    with torch.no_grad(), evaluating(made):
        # All are computed before any is replaced: they may be made from the same tensors.
        computed = [(path, weight) for path, module in made.named_modules() for weight in _computed(module)]
    for _, weight in computed:
        _remove(weight)
    tied: dict[tuple[int, ...], list[Tensor]] = {}
    groups: list[set[str]] = []
    for path, weight in computed:
        paths = {source: f"{path}.{source}" if path else source for source in weight.sources}
        groups.append(set(paths.values()))
        _keep(weight, [source for source, name in paths.items() if name in keep])
        known = tied.setdefault(tuple(map(id, weight.sources.values())), [])
        plain = next((tensor for tensor in known if torch.equal(tensor, weight.value)), None)
        if plain is None:
            known.append(plain := _plain(weight))
        _set(weight.module, weight.name, plain)
    return made, groups


def _keep(weight: _Computed, sources: Sequence[str]) -> None:
    """Put sources back where they were: before the weight, in the order of ``parameters()``."""
    for name in sources:
        _set(weight.module, name, weight.sources[name])
        if name.startswith(f"{weight.name}_{_ORIGINAL}"):  # a parametrization's, which code finds by its own path
            holder: Any = weight.module
            for part in ("parametrizations", weight.name):
                holder = holder._modules.setdefault(part, nn.Module())
            _set(holder, name.removeprefix(f"{weight.name}_"), weight.sources[name])


def _set(module: nn.Module, name: str, tensor: Tensor) -> None:
    place: dict[str, Any] = module._parameters if isinstance(tensor, nn.Parameter) else module._buffers
    place[name] = tensor


def _named(model: nn.Module) -> list[tuple[str, Tensor]]:
    """All names of all tensors."""
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _read(model: nn.Module, inputs: Sequence[Any]) -> set[str]:
    """The tensors of a model that its forward reads; none where it fails (which tracing will tell)."""
    for kind in (Meta(), Fake(), Real()):
        made: dict[int, Tensor] = {}
        with torch.random.fork_rng(devices=[]), torch.no_grad(), kind.context(), evaluating(model):
            for _, tensor in _named(model):
                made.setdefault(id(tensor), kind.of(tensor))
            tensors = {name: made[id(tensor)] for name, tensor in _named(model)}
            try:
                with recorded(model, tensors) as recording:
                    functional_call(model, tensors, tuple(tree_map(kind.of, inputs)), tie_weights=False)
            except Exception:  # whatever a stranger's forward raises
                continue
        read = {name for step in recording.steps for name in step.weights}
        numbers = {id(tensor) for name, tensor in tensors.items() if name in read}
        return {name for name, tensor in tensors.items() if id(tensor) in numbers}
    return set()


def _computed(module: nn.Module) -> Iterator[_Computed]:
    if parametrize.is_parametrized(module):
        for name, parts in module.parametrizations.items():  # type: ignore[operator, union-attr]
            # A tensor is ``original``; several together make the weight from ``original0``, ``original1`` ...
            names = [_ORIGINAL] if parts.is_tensor else [f"{_ORIGINAL}{i}" for i in range(parts.ntensors)]
            yield _Computed(module, name, getattr(module, name), {f"{name}_{n}": getattr(parts, n) for n in names})
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            yield _Computed(module, hook.name, hook.compute_weight(module), _sources(module, hook.name, "gv"))
        elif isinstance(hook, SpectralNorm):
            value = hook.compute_weight(module, do_power_iteration=False)
            yield _Computed(module, hook.name, value, _sources(module, hook.name, ("orig",)))
        elif isinstance(hook, BasePruningMethod):
            name = str(hook._tensor_name)
            value = hook.apply_mask(module)  # type: ignore[no-untyped-call]
            yield _Computed(module, name, value, _sources(module, name, ("orig", "mask")))


def _sources(module: nn.Module, name: str, ends: Iterable[str]) -> dict[str, Tensor]:
    return {f"{name}_{end}": getattr(module, f"{name}_{end}") for end in ends}


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
    if not any(isinstance(source, nn.Parameter) for source in weight.sources.values()):
        return value
    return nn.Parameter(value, requires_grad=any(x.requires_grad for x in weight.sources.values()))
