"""The MUNIT generator (content and style encoders, AdaIN decoder, MLP) and its mobile form.

Module names are those of NVlabs/MUNIT (``AdaINGen``) and, for the mobile form, of
mit-han-lab/gan-compression. Unlike there, the AdaIN parameters are handed to the blocks as tensors and never
become attributes of a module.

Papers: Huang et al. 2018 (arXiv 1804.04732), Li et al. 2020 (arXiv 2003.08936).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from gantailor.supernet.errors import ConfigError, nearest
from gantailor.supernet.tracing.rules import leaf
from gantailor.supernet.tracing.tracer import Tracer
from gantailor.zoo.generators.munit.layers import ConvBlock, ResBlocks

STYLES = ("input", "own")


class StyleEncoder(nn.Module):
    """Image ``[N, input_nc, H, W]`` to style code ``[N, style_dim, 1, 1]``; H and W at least 16."""

    def __init__(self, *, input_nc: int, ngf: int, style_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBlock(input_nc, ngf, 7, padding=3)]
        width = ngf
        for factor in (2, 2, 1, 1):
            layers.append(ConvBlock(width, width * factor, 4, stride=2, padding=1))
            width *= factor
        layers += [nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, style_dim, 1)]
        self.model = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.model(image)
        return out


class ContentEncoder(nn.Module):
    """Image ``[N, input_nc, H, W]`` to content ``[N, ngf * f, H / f, W / f]``, f is ``2**n_downsample``."""

    def __init__(self, *, input_nc: int, ngf: int, n_downsample: int, n_res: int, separable: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBlock(input_nc, ngf, 7, padding=3, norm="instance")]
        width = ngf
        for _ in range(n_downsample):
            layers.append(ConvBlock(width, width * 2, 4, stride=2, padding=1, norm="instance"))
            width *= 2
        layers.append(ResBlocks(n_res, width, norm="instance", separable=separable))
        self.model = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.model(image)
        return out


class Pieces(nn.Module):
    """``[N, sum(sizes)]`` cut into ``[N, size]`` for each of ``sizes``."""

    def forward(self, x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        ends = list(itertools.accumulate(sizes))  # slices: ExecuTorch fixes the batch of a torch.split
        return [x[:, end - size : end] for size, end in zip(sizes, ends, strict=True)]


@leaf(Pieces)
def pieces(t: Tracer, module: Pieces, inputs: tuple[Tensor, Sequence[int]], _: Any, out: list[Tensor]) -> None:
    """The sizes are read from the layers that the pieces go to, so each piece follows its own layer's width."""
    axis, start = t.labels(inputs[0])[1], 0
    for piece in out:
        stop = start + piece.shape[1]
        t.set(piece, (None, None if axis is None else axis[start:stop]))
        start = stop


class Decoder(nn.Module):
    """Content code and AdaIN parameters to image.

    ``adain`` is ``[N, P]``: for each AdaIN layer in turn its C shifts, then its C scales, C being the present
    width of the convolution before it.
    """

    def __init__(self, *, output_nc: int, ngf: int, n_upsample: int, n_res: int, separable: bool) -> None:
        super().__init__()
        width = ngf * 2**n_upsample
        layers: list[nn.Module] = [ResBlocks(n_res, width, norm="adain", separable=separable)]
        for _ in range(n_upsample):
            layers += [
                nn.Upsample(scale_factor=2),
                ConvBlock(width, width // 2, 5, padding=2, norm="layer", separable=separable),
            ]
            width //= 2
        layers.append(ConvBlock(width, output_nc, 7, padding=3, activation="tanh"))
        self.model = nn.Sequential(*layers)
        self.pieces = Pieces()

    def adain_sizes(self) -> list[int]:
        """Lengths of the pieces of ``adain``: shift and scale of each AdaIN layer in turn."""
        widths = [block.width for block in self.model[0].modules() if isinstance(block, ConvBlock)]
        return [width for width in widths for _ in ("shift", "scale")]

    def forward(self, content: Tensor, adain: Tensor) -> Tensor:
        x: Tensor = self.model[0](content, self.pieces(adain, self.adain_sizes()))
        for layer in list(self.model)[1:]:
            x = layer(x)
        return x


class LinearBlock(nn.Module):
    """Linear layer and, unless ``last``, a ReLU: ``[N, in]`` to ``[N, out]``."""

    def __init__(self, in_features: int, out_features: int, *, last: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, out_features)
        self.activation = nn.Identity() if last else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.fc(x))
        return out


class Mlp(nn.Module):
    """Style code ``[N, style_dim, 1, 1]`` or ``[N, style_dim]`` to AdaIN parameters ``[N, outputs]``."""

    def __init__(self, style_dim: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            LinearBlock(style_dim, hidden),
            LinearBlock(hidden, hidden),
            LinearBlock(hidden, outputs, last=True),
        )

    def forward(self, style: Tensor) -> Tensor:
        out: Tensor = self.model(style.flatten(1))
        return out


class MunitGenerator(nn.Module):
    """Image ``[N, input_nc, H, W]`` to another in [-1, 1]; H and W must be multiples of ``2**n_downsample``.

    Args:
        ngf: channels of the first layers; the content code has ``ngf * 2**n_downsample``.
        style_dim: length of the style code.
        mlp_dim: hidden features of the MLP that makes the AdaIN parameters.
        n_downsample: halvings of the content encoder, doublings of the decoder.
        n_res: residual blocks in the content encoder, and as many in the decoder.
        separable: depthwise-separable residual blocks and decoder up-convolutions (the ``mobile_`` form).
        style: what it declares to take; weights and forward are the same. ``input``: a picture and a style code, as it
            is used: it translates, in a style that is drawn or was encoded of another picture. ``own``: a picture
            alone, whose own style is encoded: it reconstructs. The published counts are of that form.

    Raises:
        ConfigError: another ``style``.
    """

    feature_layers = ("enc_content",)
    interface_layers = ("enc_style.model.6",)  # the style code: users draw and mix their own

    def __init__(
        self,
        *,
        input_nc: int = 3,
        ngf: int = 64,
        style_dim: int = 8,
        mlp_dim: int = 256,
        n_downsample: int = 2,
        n_res: int = 4,
        separable: bool = False,
        style: str = "input",
    ) -> None:
        super().__init__()
        if style not in STYLES:
            raise ConfigError(f"style {style!r} is unknown; {nearest(style, STYLES)}")
        self.size_multiple = 2**n_downsample
        picture = (input_nc, 256, 256)
        self.input_shapes = (picture, (style_dim,)) if style == "input" else (picture,)
        self.style_dim = style_dim
        self.enc_style = StyleEncoder(input_nc=input_nc, ngf=ngf, style_dim=style_dim)
        self.enc_content = ContentEncoder(
            input_nc=input_nc, ngf=ngf, n_downsample=n_downsample, n_res=n_res, separable=separable
        )
        self.dec = Decoder(output_nc=input_nc, ngf=ngf, n_upsample=n_downsample, n_res=n_res, separable=separable)
        self.mlp = Mlp(style_dim, mlp_dim, sum(self.dec.adain_sizes()))

    def forward(self, image: Tensor, style: Tensor | None = None) -> Tensor:
        """The image in ``style``, or in its own style if that is ``None`` (then it is reconstructed)."""
        return self.decode(self.enc_content(image), self.enc_style(image) if style is None else style)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Content code ``[N, C, h, w]`` and style code ``[N, style_dim, 1, 1]``; styles are about N(0, 1)."""
        return self.enc_content(image), self.enc_style(image)

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """Image in [-1, 1] from a content code and a style code ``[N, style_dim]`` (trailing 1s allowed)."""
        out: Tensor = self.dec(content, self.mlp(style))
        return out
