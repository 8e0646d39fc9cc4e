"""Reads StyleGAN2 generators: rosinality's ``.pt``, the state dict of an NVlabs ``G_ema``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gantailor.supernet.errors import CheckpointError
from gantailor.zoo.generators.stylegan2.layers import mapping_network, mean_latent


def stylegan2_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments for weights in rosinality's names: size, style_dim, n_mlp, channels; output_nc if not 3."""
    channels = {4: state["conv1.conv.weight"].shape[1]}
    while (name := f"convs.{2 * len(channels) - 1}.conv.weight") in state:
        channels[4 * 2 ** len(channels)] = state[name].shape[1]
    style = [name for name in state if name.startswith("style.") and name.endswith(".weight")]
    width = state["style.1.weight"].shape[1]
    found = {"size": max(channels), "style_dim": width, "n_mlp": len(style), "channels": channels}
    colours = state["to_rgb1.conv.weight"].shape[1]
    return found if colours == 3 else {**found, "output_nc": colours}


def _require(state: Mapping[str, Any], names: Sequence[str], what: str, way_out: str) -> None:
    missing = [name for name in names if name not in state]
    if missing:
        raise CheckpointError(
            f"this is not {what}: it has no {', '.join(missing)}, only "
            f"{', '.join(list(state)[:4]) or 'nothing'}, ... Allowed: the original's names. {way_out}"
        )


def read_rosinality(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights of the averaged generator of a rosinality ``.pt`` and its ``latent_avg``.

    Checkpoints of its training script hold no ``latent_avg``: it is then the mean over 4,096 seeded latents.
    They also hold an ``argparse.Namespace``, which ``torch.load(..., weights_only=True)`` reads within
    ``torch.serialization.safe_globals([argparse.Namespace])``. The discriminator's weights are
    ``checkpoint["d"]`` as it is.

    Args:
        checkpoint: what ``torch.load`` gives, or its ``g_ema`` (or ``g``) alone.
    """
    weights: dict[str, Tensor] = dict(checkpoint.get("g_ema", checkpoint))
    required = ("style.1.weight", "input.input", "conv1.conv.weight")
    _require(weights, required, "a rosinality StyleGAN2", "Give the whole .pt or its 'g_ema'.")
    if "latent_avg" in checkpoint:
        weights["latent_avg"] = checkpoint["latent_avg"].reshape(-1)
    else:
        layers = {name[6:]: value for name, value in weights.items() if name.startswith("style.")}
        width = weights["style.1.weight"].shape[1]
        mapping = mapping_network(width, len(layers) // 2)
        mapping.load_state_dict(layers)
        weights["latent_avg"] = mean_latent(mapping, width)
    return weights


def _ada_layer(state: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    """One modulated layer. No weight is flipped: the original upsamples with a transposed convolution too."""
    layer = {
        f"{new}.conv.weight": state[f"{old}.weight"].unsqueeze(0),
        f"{new}.conv.modulation.weight": state[f"{old}.affine.weight"],
        f"{new}.conv.modulation.bias": state[f"{old}.affine.bias"],
    }
    bias = state[f"{old}.bias"]
    if old.endswith("torgb"):
        return layer | {f"{new}.bias": bias.reshape(1, -1, 1, 1)}
    strength = state.get(f"{old}.noise_strength", bias.new_zeros(()))
    return layer | {f"{new}.activate.bias": bias, f"{new}.noise.weight": strength.reshape(1)}


def read_stylegan2_ada(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of NVlabs' StyleGAN2 (stylegan2-ada-pytorch, or stylegan3's ``networks_stylegan2``).

    The two code bases agree in all conventions (equalised scales, style biases around 1, unflipped transposed
    convolutions) but the names and the filters, which here carry the gain of 4. ``conv_clamp``, a guard for
    half precision, is left out.

    Args:
        state: the ``state_dict()`` of ``G_ema``: unconditional, the default ``skip`` architecture.
    """
    required = ["mapping.fc0.weight", "mapping.w_avg", "synthesis.b4.const", "synthesis.b4.torgb.weight"]
    way_out = "Export the unconditional skip generator: torch.save(G_ema.state_dict(), path)."
    _require(state, required, "an NVlabs StyleGAN2", way_out)
    strange = [name for name in state if name.startswith("mapping.embed") or ".skip." in name]
    if strange:
        raise CheckpointError(
            f"{strange[0]} belongs to a conditional or a 'resnet' generator. Allowed: unconditional ones of "
            f"the 'skip' architecture. {way_out}"
        )
    weights = {"latent_avg": state["mapping.w_avg"], "input.input": state["synthesis.b4.const"].unsqueeze(0)}
    index = 0
    while f"mapping.fc{index}.weight" in state:
        for kind in ("weight", "bias"):
            weights[f"style.{index + 1}.{kind}"] = state[f"mapping.fc{index}.{kind}"]
        index += 1
    sides = sorted({int(name.split(".")[1][1:]) for name in state if name.startswith("synthesis.b")})
    for level, side in enumerate(sides):
        block = f"synthesis.b{side}"
        convs, rgb = {"conv1": "conv1"}, "to_rgb1"
        if side > 4:
            convs = {"conv0": f"convs.{2 * level - 2}", "conv1": f"convs.{2 * level - 1}"}
            rgb = f"to_rgbs.{level - 1}"
        required = [f"{block}.{name}.weight" for name in (*convs, "torgb")]
        _require(state, required, "an NVlabs StyleGAN2", way_out)
        for position, (old, new) in enumerate(convs.items()):
            weights |= _ada_layer(state, f"{block}.{old}", new)
            noise = state.get(f"{block}.{old}.noise_const", torch.zeros(side, side))
            weights[f"noises.noise_{max(2 * level - 1, 0) + position}"] = noise.reshape(1, 1, side, side)
        weights |= _ada_layer(state, f"{block}.torgb", rgb)
        if side > 4:
            kernel = 4 * state[f"{block}.resample_filter"]
            weights |= {f"{rgb}.upsample.kernel": kernel, f"convs.{2 * level - 2}.conv.blur.kernel": kernel}
    return weights


def read_stylegan2(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights from rosinality's or NVlabs' layout, whichever the file has."""
    return read_stylegan2_ada(checkpoint) if "mapping.fc0.weight" in checkpoint else read_rosinality(checkpoint)


def with_constants(generator: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the filters and noise maps that some files leave out: the generator's own stand in."""
    own = {name: value for name, value in generator.state_dict().items() if "kernel" in name or "noises." in name}
    return {**own, **state}
