"""Reads SPADE generators: NVlabs/SPADE's ``latest_net_G.pth``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gantailor.supernet.errors import CheckpointError


def read_spade(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an NVlabs/SPADE ``latest_net_G.pth`` in the names of ``SpadeGenerator``.

    Spectral norm (Miyato et al. 2018, arXiv 1802.05957) is folded as it acts in evaluation, with the stored
    vectors: ``weight_orig / (u . W v)``, W being ``weight_orig`` as a matrix, a row for each output channel.
    Tensors without spectral norm, such as those of an already folded file, are passed on as they are.

    Raises:
        CheckpointError: the file is of a generator with a VAE, or one of the vectors is missing.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    first = state.get("fc.weight")
    if first is not None and first.ndim == 2:
        raise CheckpointError(
            "'fc.weight' is a linear layer: this SPADE generator was trained with --use_vae and starts from a"
            " random vector. Allowed: generators that start from the label map, trained without --use_vae"
        )
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".weight_orig"):
            folded = name.removesuffix("_orig")
            plain[folded] = _without_spectral_norm(state, folded)
        elif not name.endswith((".weight_u", ".weight_v")) and f"{name}_orig" not in state:
            plain[name] = tensor
    return plain


def _without_spectral_norm(state: Mapping[str, Tensor], name: str) -> Tensor:
    missing = [name + part for part in ("_u", "_v") if name + part not in state]
    if missing:
        raise CheckpointError(
            f"{', '.join(missing)} not found beside '{name}_orig': spectral norm needs both of its vectors;"
            " save the checkpoint with PyTorch 1.0 or later"
        )
    weight = state[f"{name}_orig"]
    sigma = torch.dot(state[f"{name}_u"], torch.mv(weight.flatten(1), state[f"{name}_v"]))
    return weight / sigma


def spade_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Channels, norm and form; ``upsampling`` only where it is ``most``, since the others have the same tensors."""
    first, shared = state.get("fc.weight"), state.get("head_0.norm_0.mlp_shared.0.weight")
    if first is None or shared is None or first.ndim != 4:
        return {}
    ngf, hidden = first.shape[0] // 16, shared.shape[0]
    separable = "head_0.norm_0.mlp_gamma.conv.0.weight" in state
    statistics = "head_0.norm_0.param_free_norm.running_mean" in state
    found: dict[str, Any] = {"label_channels": first.shape[1], "ngf": ngf, "separable": separable}
    found |= {"norm": "batch" if statistics else "instance"}
    found |= {"hidden": hidden} if hidden != (2 * ngf if separable else 128) else {}
    return found | ({"upsampling": "most"} if any(name.startswith("up_4.") for name in state) else {})
