"""The generator of StyleGAN2, named as in rosinality/stylegan2-pytorch.

Paper: Karras et al. 2019, "Analyzing and Improving the Image Quality of StyleGAN" (arXiv 1912.04958).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.supernet.errors import ConfigError, nearest
from gantailor.zoo.generators.stylegan2.layers import (
    FORMS,
    ConstantInput,
    ModulatedConv2d,
    StyledConv,
    ToRgb,
    check_channels,
    mapping_network,
)

NOISES = ("fixed", "random")
Noise = str | Sequence[Tensor] | None


class StyleGan2Generator(nn.Module):
    """Latent to image, ``[N, style_dim]`` to ``[N, output_nc, size, size]``, about [-1, 1] (not clamped).

    Args:
        size: side of the image, a power of two from 8.
        style_dim: width of z and of w.
        n_mlp: layers of the mapping network.
        channel_multiplier: 2 for configuration F of the paper, 1 for E.
        lr_mlp: learning rate factor of the mapping network, a part of its function.
        channels: width at each resolution from 4 to ``size`` instead of the published ones.
        modulation: form of the modulated convolutions, ``shared`` or ``grouped``; also an attribute, to be
            set at any time.
        output_nc: channels of the picture, 3 for RGB.
    """

    latent_avg: Tensor
    feature_layers: tuple[str, ...]
    interface_layers: tuple[str, ...]

    def __init__(
        self,
        *,
        size: int = 256,
        style_dim: int = 512,
        n_mlp: int = 8,
        channel_multiplier: int = 2,
        lr_mlp: float = 0.01,
        channels: Mapping[int, int] | None = None,
        modulation: str = "shared",
        output_nc: int = 3,
    ) -> None:
        super().__init__()
        widths = check_channels(size, channel_multiplier, channels)
        self.size = size
        self.n_latent = 2 * len(widths)
        self.style = mapping_network(style_dim, n_mlp, lr_mlp)
        # The mapping network stays whole: w is edited, truncated and mixed outside, and costs next to nothing.
        self.interface_layers = tuple(f"style.{layer}" for layer in range(1, n_mlp + 1))
        self.input_shape = (style_dim,)
        self.input = ConstantInput(widths[4])
        self.conv1 = StyledConv(widths[4], widths[4], style_dim=style_dim)
        self.to_rgb1 = ToRgb(widths[4], output_nc, style_dim=style_dim, up=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        self.noises = nn.Module()
        sides = list(widths)
        for index, side in enumerate(sorted(sides + sides[1:])):
            self.noises.register_buffer(f"noise_{index}", torch.randn(1, 1, side, side))
        for side in sides[1:]:
            inputs, outputs = widths[side // 2], widths[side]
            self.convs.append(StyledConv(inputs, outputs, style_dim=style_dim, up=True))
            self.convs.append(StyledConv(outputs, outputs, style_dim=style_dim))
            self.to_rgbs.append(ToRgb(outputs, output_nc, style_dim=style_dim))
        self.register_buffer("latent_avg", torch.zeros(style_dim))
        self.modulation = modulation
        # Resolutions 16 to 128, the levels of StyleKD's relation loss; all of them in the smallest networks.
        levels = tuple(f"convs.{index}" for index in range(1, len(self.convs), 2))
        self.feature_layers = levels[1:5] if len(levels) > 3 else levels

    @property
    def modulation(self) -> str:
        """Form of all modulated convolutions."""
        return self.conv1.conv.form

    @modulation.setter
    def modulation(self, form: str) -> None:
        if form not in FORMS:
            raise ConfigError(f"modulation {form!r} is unknown: {nearest(form, FORMS)}")
        for module in self.modules():
            if isinstance(module, ModulatedConv2d):
                module.form = form

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """The original keeps ``latent_avg`` beside its weights: a state dict may lack it."""
        state_dict.setdefault(f"{prefix}latent_avg", self.latent_avg)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _noise_maps(self, noise: Noise, w: Tensor) -> list[Tensor | None]:
        fixed = list(self.noises.buffers())
        if noise is None:
            return [None] * len(fixed)
        if noise == "fixed":
            return list(fixed)
        if noise == "random":
            return [torch.randn(w.shape[0], *b.shape[1:], device=w.device, dtype=w.dtype) for b in fixed]
        if isinstance(noise, str):
            raise ConfigError(f"noise {noise!r} is unknown: {nearest(noise, NOISES)}, None, a list of maps")
        if len(noise) != len(fixed):
            raise ConfigError(f"noise has {len(noise)} maps. Allowed: {len(fixed)}, one for each convolution")
        return list(noise)

    def mapping(self, z: Tensor) -> Tensor:
        """z to w, both ``[N, style_dim]``."""
        out: Tensor = self.style(z)
        return out

    def synthesis(self, w: Tensor, *, noise: Noise = "fixed") -> Tensor:
        """Image of w: ``[N, style_dim]``, or one for each layer, ``[N, n_latent, style_dim]``.

        Args:
            noise: ``fixed`` (the buffers), ``random`` (fresh for every sample), None, or a map of
                ``[1 or N, 1, H, W]`` for each convolution.
        """
        width = self.conv1.conv.modulation.weight.shape[1]
        if w.shape[1:] not in ((width,), (self.n_latent, width)):
            raise ConfigError(
                f"w has shape {list(w.shape)}. Allowed: [N, {width}], or one for each layer, "
                f"[N, {self.n_latent}, {width}]; repeat or cut it to that"
            )
        styles = [w] * self.n_latent if w.ndim == 2 else list(w.unbind(1))
        maps = self._noise_maps(noise, w)
        x = self.conv1(self.input(w), styles[0], maps[0])
        image: Tensor = self.to_rgb1(x, styles[1])
        for level, to_rgb in enumerate(self.to_rgbs):
            first = 2 * level
            x = self.convs[first](x, styles[first + 1], maps[first + 1])
            x = self.convs[first + 1](x, styles[first + 2], maps[first + 2])
            image = to_rgb(x, styles[first + 3], image)
        return image

    def forward(
        self,
        z: Tensor,
        *,
        noise: Noise = "fixed",
        truncation: float = 1.0,
        truncation_latent: Tensor | None = None,
        input_is_latent: bool = False,
    ) -> Tensor:
        """Image of z.

        Args:
            z: ``[N, style_dim]``; with ``input_is_latent`` it is w already, as :meth:`synthesis` takes it.
            noise: as for :meth:`synthesis`.
            truncation: psi of the truncation trick, 1 for none.
            truncation_latent: w to truncate towards; None for the buffer ``latent_avg``, which the readers
                fill and which is zero in a new network.
        """
        width = next(self.style.parameters()).shape[1]
        if not input_is_latent and z.shape[1:] != (width,):
            raise ConfigError(f"z has shape {list(z.shape)}. Allowed: [N, {width}]; draw it with torch.randn")
        w = z if input_is_latent else self.mapping(z)
        if truncation != 1.0:
            centre = self.latent_avg if truncation_latent is None else truncation_latent
            w = centre + truncation * (w - centre)
        return self.synthesis(w, noise=noise)


def generator_widths(generator: Any) -> dict[int, int]:
    """Input channels of each resolution's first convolution, which make a discriminator of the same size."""
    widths = {4: generator.conv1.conv.weight.shape[-4]}
    for level in range(len(generator.to_rgbs)):
        widths[2 ** (level + 3)] = generator.convs[2 * level].conv.weight.shape[-4]
    return widths


@torch.no_grad()
def reset_synthesis(generator: StyleGan2Generator) -> None:
    """New random weights, in place, for everything but the mapping network; widths stay as they are."""
    generator.input.input.normal_()
    for module in generator.modules():
        if isinstance(module, ModulatedConv2d):
            fan_in = module.weight[0, 0].numel()
            module.weight.normal_(0, 1 / (module.scale * math.sqrt(fan_in)))
            module.modulation.weight.normal_(0, 1)
            module.modulation.bias.fill_(1)
        elif isinstance(module, StyledConv):
            module.activate.bias.zero_()
            module.noise.weight.zero_()
        elif isinstance(module, ToRgb):
            module.bias.zero_()


@torch.no_grad()
def style_directions(generator: StyleGan2Generator, top: int = 5, *, least: int = 4, most: int | None = None) -> Tensor:
    """Unit directions in w that change each resolution's styles most, ``[resolutions * top, style_dim]``.

    The resolutions are those from ``least`` to ``most`` px; StyleKD takes 8 to 128, so 25 directions.

    For each resolution the eigenvectors of A^T A with the largest eigenvalues, A being the rows (made unit) of its
    convolutions' style affines (Shen & Zhou 2021, arXiv 2007.06600; used by StyleKD, arXiv 2208.14840).
    """
    convs = [generator.conv1, *generator.convs]
    blocks = {4: convs[:1]} | {2 ** (i // 2 + 3): convs[i : i + 2] for i in range(1, len(convs), 2)}
    found = []
    for side, block in blocks.items():
        if side < least or (most is not None and side > most):
            continue
        rows = F.normalize(torch.cat([layer.conv.modulation.weight for layer in block]), dim=1)
        found.append(torch.linalg.eigh(rows.T @ rows)[1].T.flip(0)[:top])
    return torch.cat(found)
