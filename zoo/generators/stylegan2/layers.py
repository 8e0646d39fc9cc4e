"""Layers of StyleGAN2's generator and discriminator, named as in rosinality/stylegan2-pytorch.

Every forward reads its channel counts from tensors. The ``scale`` of the equalised learning rate, on the
contrary, is a constant of the *original* fan-in, so that slicing a channel away equals zeroing it at its
consumers. Where the convolution is demodulated the constant does not matter (demodulation absorbs it, up to
its epsilon); in toRGB, which is not, a scale of the narrowed fan-in would change the gain. A net built anew
at narrowed widths therefore needs the original's ``scale`` attributes beside the weights.

Paper: Karras et al. 2019, "Analyzing and Improving the Image Quality of StyleGAN" (arXiv 1912.04958).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.tracing.rules import leaf
from gantailor.supernet.tracing.tracer import Tracer

FORMS = ("shared", "grouped")


def binomial_kernel(gain: float = 1.0) -> Tensor:
    """The 4x4 low-pass filter, outer product of [1, 3, 3, 1], summing to ``gain``."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) * (gain / 64.0)


def filter2d(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """Convolve every channel of ``[N, C, H, W]`` with the flipped ``kernel`` of ``[k, k]``, zeros around."""
    channels = x.shape[1]
    return F.conv2d(x, kernel.flip(0, 1).expand(channels, 1, -1, -1), padding=padding, groups=channels)


def upsample2d(x: Tensor, kernel: Tensor) -> Tensor:
    """Insert zeros and filter, ``[N, C, H, W]`` to ``[N, C, 2H, 2W]``; ``kernel`` has an even side."""
    channels = x.shape[1]
    padding = kernel.shape[0] // 2 - 1
    weight = kernel.expand(channels, 1, -1, -1)
    return F.conv_transpose2d(x, weight, stride=2, padding=padding, groups=channels)


class Blur(nn.Module):
    """Low-pass filter, ``[N, C, H, W]`` to ``[N, C, H + 2 * padding - 3, W + 2 * padding - 3]``."""

    kernel: Tensor

    def __init__(self, *, padding: int, gain: float = 1.0) -> None:
        super().__init__()
        self.padding = padding
        self.register_buffer("kernel", binomial_kernel(gain))

    def forward(self, x: Tensor) -> Tensor:
        return filter2d(x, self.kernel, self.padding)


class Upsample(nn.Module):
    """Twice the size through the low-pass filter."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", binomial_kernel(4.0))

    def forward(self, x: Tensor) -> Tensor:
        return upsample2d(x, self.kernel)


class PixelNorm(nn.Module):
    """``[N, C]`` divided by its root mean square over C."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """Linear layer with an equalised learning rate, optionally activated: ``[N, in]`` to ``[N, out]``."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: float = 0.0, lr: float = 1.0, activate: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias)))
        self.scale, self.lr, self.activate = lr / math.sqrt(inputs), lr, activate

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight * self.scale, self.bias * self.lr)
        return F.leaky_relu(y, 0.2) * math.sqrt(2) if self.activate else y


class BiasedLeakyReLU(nn.Module):
    """Per-channel bias, leaky ReLU of slope 0.2 and gain sqrt(2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias.reshape(1, -1, 1, 1), 0.2) * math.sqrt(2)


class ModulatedConv2d(nn.Module):
    """Convolution of ``[N, in, H, W]`` to ``[N, out, H', W']``, its inputs scaled by w of ``[N, style_dim]``.

    ``form`` chooses between two ways to the same function: ``shared`` scales the input, convolves the batch
    with one weight and scales the output by the demodulation; ``grouped`` gives every sample its own weight.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        style_dim: int,
        demodulate: bool = True,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.form = FORMS[0]
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.demodulate = demodulate
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.blur = Blur(padding=1, gain=4.0) if up else None
        self.modulation = EqualLinear(style_dim, inputs, bias=1.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.modulation(w)
        y = self._grouped(x, style) if self.form == "grouped" else self._shared(x, style)
        return y if self.blur is None else self.blur(y)

    def _shared(self, x: Tensor, style: Tensor) -> Tensor:
        weight = self.weight.squeeze(0) * self.scale
        x = x * style.reshape(x.shape[0], x.shape[1], 1, 1)
        if self.blur is not None:
            y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        else:
            y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        if not self.demodulate:
            return y
        power = F.linear(style.square(), weight.square().sum((2, 3)))
        return y * torch.rsqrt(power + 1e-8).reshape(y.shape[0], y.shape[1], 1, 1)

    def _grouped(self, x: Tensor, style: Tensor) -> Tensor:
        samples, channels, height, width = x.shape
        weight = self.weight * self.scale * style.reshape(samples, 1, channels, 1, 1)
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        x = x.reshape(1, samples * channels, height, width)
        if self.blur is not None:
            y = F.conv_transpose2d(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=samples)
        else:
            y = F.conv2d(x, weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=samples)
        return y.reshape(samples, -1, y.shape[2], y.shape[3])


@leaf(ModulatedConv2d)
def modulated_convolution(
    t: Tracer, module: ModulatedConv2d, inputs: tuple[Tensor, Tensor], options: dict[str, Any], out: Tensor
) -> None:
    """One rule for both forms: the style affine's outputs, the weight's inputs and x are the same channels.

    The published count has the convolution, an upsampling one at its input's resolution, and the affine; the true one
    also the filter and, in the ``shared`` form, the demodulation (a matrix product).
    """
    x, w = inputs
    affine, batch, kernel = module.modulation, x.shape[0], module.weight.shape[-1]
    _, rows, columns, *spatial = t.labels(module.weight)
    made, latent = t.labels(affine.weight)
    t.join(t.labels(w)[1], latent)
    t.join(made, t.labels(affine.bias)[0])
    t.join(t.join(t.labels(x)[1], made), columns)
    for axis in (*spatial, *t.labels(x)[2:]):
        t.freeze(axis, "is a spatial axis of a convolution")
    t.sum_over(latent)
    t.sum_over(columns)
    t.produce(made)
    t.produce(rows)
    t.set(out, (None, rows, None, None))

    def cost(true: float, published: float, first: Any, second: Any) -> None:
        t.cost({"true": true, "published": published, "published_convs": published}, first, second)

    one = 1 if rows is not None else module.weight.shape[1]
    pixels = x.shape[2] * x.shape[3]
    dense = float(batch * kernel**2 * pixels * one)
    cost(dense, dense, rows, columns)
    cost(float(batch), float(batch), made, latent)
    if module.blur is not None:
        taps = module.blur.kernel.numel()
        cost(float(batch * taps * out.shape[2] * out.shape[3] * one), 0.0, rows, None)
    if module.demodulate and module.form == "shared":
        cost(float(batch * one), 0.0, rows, columns)


class NoiseInjection(nn.Module):
    """Adds ``weight`` times a map of ``[1 or N, 1, H, W]``; nothing when there is no map."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        return x if noise is None else x + self.weight * noise


class ConstantInput(nn.Module):
    """The learned ``[1, C, 4, 4]`` that every image starts from, repeated for each of the N styles."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, w: Tensor) -> Tensor:
        return self.input.expand(w.shape[0], -1, -1, -1)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias and activation."""

    def __init__(self, inputs: int, outputs: int, *, style_dim: int, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, style_dim=style_dim, up=up)
        self.noise = NoiseInjection()
        self.activate = BiasedLeakyReLU(outputs)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        out: Tensor = self.activate(self.noise(self.conv(x, w), noise))
        return out


class ToRgb(nn.Module):
    """Features to a picture of ``outputs`` channels, added to the upsampled image of the level below."""

    def __init__(self, inputs: int, outputs: int = 3, *, style_dim: int, up: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        self.upsample = Upsample() if up else None
        self.conv = ModulatedConv2d(inputs, outputs, 1, style_dim=style_dim, demodulate=False)

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None = None) -> Tensor:
        rgb = self.conv(x, w) + self.bias
        out: Tensor = rgb if image is None or self.upsample is None else rgb + self.upsample(image)
        return out


def mapping_network(style_dim: int, layers: int, lr: float = 0.01) -> nn.Sequential:
    """z to w, ``[N, style_dim]`` both: pixel norm and ``layers`` activated linear layers."""
    linear = (EqualLinear(style_dim, style_dim, lr=lr, activate=True) for _ in range(layers))
    return nn.Sequential(PixelNorm(), *linear)


@torch.no_grad()
def mean_latent(mapping: nn.Module, style_dim: int, *, samples: int = 4096, seed: int = 0) -> Tensor:
    """The mean w of ``[style_dim]`` over seeded latents, to truncate towards."""
    z = torch.randn(samples, style_dim, generator=torch.Generator().manual_seed(seed))
    out: Tensor = mapping(z.to(next(mapping.parameters()))).mean(0)
    return out


def check_channels(size: int, channel_multiplier: int, channels: Mapping[int, int] | None) -> dict[int, int]:
    """Channels at each resolution from 4 to ``size``: the published ones, or ``channels`` once checked."""
    if size < 8 or size & (size - 1):
        raise ConfigError(f"size {size} is not possible. Allowed: powers of two from 8; give the nearest")
    sizes = [2**level for level in range(2, size.bit_length())]
    if channels is None:
        return {side: 512 if side < 64 else 16384 // side * channel_multiplier for side in sizes}
    channels = {int(side): width for side, width in channels.items()}  # JSON knows only texts as keys
    missing = [side for side in sizes if channels.get(side, 0) < 1]
    if missing:
        raise ConfigError(
            f"channels has no width for resolution {', '.join(map(str, missing))}. "
            f"Allowed: a positive width for each of {', '.join(map(str, sizes))}; add the missing ones"
        )
    return {side: channels[side] for side in sizes}
