"""The U-Net generator of pix2pix, named as in junyanz/pytorch-CycleGAN-and-pix2pix.

Paper: Isola et al. 2017 (arXiv 1611.07004).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gantailor.zoo.generators.norms import Norm, has_conv_bias, norm_layer


class UnetBlock(nn.Module):
    """One level: down, the deeper level, up, and the skip beside it.

    The original activates the skip *in place* before it is concatenated, so the skip that reaches the decoder
    is ``leaky_relu(x)``, not ``x``; written out here, since an exporter would not see it otherwise.
    """

    def __init__(
        self,
        outer: int,
        inner: int,
        *,
        inputs: int | None = None,
        deeper: UnetBlock | None = None,
        outermost: bool = False,
        norm: Norm,
        bias: bool,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        down = nn.Conv2d(inputs or outer, inner, 4, stride=2, padding=1, bias=bias)
        up_inputs = inner if deeper is None else inner * 2
        up = nn.ConvTranspose2d(up_inputs, outer, 4, stride=2, padding=1, bias=bias or outermost)
        layers: list[nn.Module]
        if outermost:
            assert deeper is not None
            layers = [down, deeper, nn.ReLU(), up, nn.Tanh()]
        elif deeper is None:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, norm(outer)]
        else:
            layers = [nn.LeakyReLU(0.2), down, norm(inner), deeper, nn.ReLU(), up, norm(outer)]
            if dropout:
                layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.outermost:
            out: Tensor = self.model(x)
            return out
        skip = self.model[0](x)
        y = skip
        for layer in list(self.model)[1:]:
            y = layer(y)
        return torch.cat([skip, y], 1)


class UnetGenerator(nn.Module):
    """Image to image, ``[N, input_nc, H, W]`` to ``[N, output_nc, H, W]`` in [-1, 1].

    H and W must be multiples of ``2**levels`` (128 for ``unet_128``, 256 for ``unet_256``).

    Args:
        levels: number of halvings, 7 or 8 as published.
        ngf: channels of the outermost level; the deepest levels have ``8 * ngf``.
        norm: ``batch`` (pix2pix's default), ``instance``, ``instance_affine`` or ``none``.
        dropout: dropout in the middle levels, as pix2pix trains with (it does not change names that hold weights).
        bias: biases of the convolutions before norms. None: as the original, before instance norms only.
    """

    def __init__(
        self,
        *,
        levels: int = 8,
        input_nc: int = 3,
        output_nc: int = 3,
        ngf: int = 64,
        norm: str = "batch",
        dropout: bool = False,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        make_norm, bias = norm_layer(norm), has_conv_bias(norm) if bias is None else bias
        block = UnetBlock(ngf * 8, ngf * 8, norm=make_norm, bias=bias)
        for _ in range(levels - 5):
            block = UnetBlock(ngf * 8, ngf * 8, deeper=block, norm=make_norm, bias=bias, dropout=dropout)
        for scale in (4, 2, 1):
            block = UnetBlock(ngf * scale, ngf * scale * 2, deeper=block, norm=make_norm, bias=bias)
        self.model = UnetBlock(output_nc, ngf, inputs=input_nc, deeper=block, outermost=True, norm=make_norm, bias=bias)
        self.size_multiple = 2**levels
        self.input_shape = (input_nc, 2**levels, 2**levels)
        self.feature_layers = self._levels()[2:5]

    def _levels(self) -> tuple[str, ...]:
        """Names of the nested levels, outermost first."""
        return tuple(name for name, module in self.named_modules() if isinstance(module, UnetBlock))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out
