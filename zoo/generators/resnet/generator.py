"""The ResNet generator of CycleGAN and pix2pix, and its depthwise-separable form.

Module names and their order are those of junyanz/pytorch-CycleGAN-and-pix2pix (and, for the mobile form,
of mit-han-lab/gan-compression), so that original checkpoints load key by key.

Papers: Johnson et al. 2016 (arXiv 1603.08155), Zhu et al. 2017 (arXiv 1703.10593), Li et al. 2020 (arXiv 2003.08936).
"""

from __future__ import annotations

from torch import Tensor, nn

from gantailor.zoo.generators.norms import Norm, has_conv_bias, norm_layer
from gantailor.zoo.generators.separable import SeparableConv2d


class ResnetBlock(nn.Module):
    """``x + conv_block(x)``, two 3x3 convolutions behind reflection padding."""

    def __init__(self, channels: int, *, norm: Norm, bias: bool, dropout: bool, separable: bool) -> None:
        super().__init__()

        def conv() -> nn.Module:
            if separable:
                return SeparableConv2d(channels, channels, norm=norm, bias=bias)
            return nn.Conv2d(channels, channels, 3, bias=bias)

        layers: list[nn.Module] = [nn.ReflectionPad2d(1), conv(), norm(channels), nn.ReLU()]
        if dropout:  # shifts the second convolution from conv_block.5 to conv_block.6
            layers.append(nn.Dropout(0.5))
        layers += [nn.ReflectionPad2d(1), conv(), norm(channels)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


class ResnetGenerator(nn.Module):
    """Image to image, ``[N, input_nc, H, W]`` to ``[N, output_nc, H, W]`` in [-1, 1]; H and W multiples of 4.

    Args:
        ngf: channels of the stem; the residual trunk has ``4 * ngf``.
        blocks: number of residual blocks.
        norm: ``instance`` (CycleGAN), ``batch`` (pix2pix's default), ``instance_affine`` or ``none``.
        dropout: dropout inside the blocks, as pix2pix trains with; it changes the names of the later layers.
        separable: depthwise-separable blocks (the ``mobile_`` form).
        bias: biases of the convolutions before norms. None: as the original, before instance norms only.
    """

    size_multiple = 4
    feature_layers: tuple[str, ...]

    def __init__(
        self,
        *,
        input_nc: int = 3,
        output_nc: int = 3,
        ngf: int = 64,
        blocks: int = 9,
        norm: str = "instance",
        dropout: bool = False,
        separable: bool = False,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = (input_nc, 256, 256)
        make_norm = norm_layer(norm)
        bias = has_conv_bias(norm) if bias is None else bias
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(input_nc, ngf, 7, bias=bias)]
        layers += [make_norm(ngf), nn.ReLU()]
        for scale in (1, 2):
            layers += [nn.Conv2d(ngf * scale, ngf * scale * 2, 3, stride=2, padding=1, bias=bias)]
            layers += [make_norm(ngf * scale * 2), nn.ReLU()]
        for _ in range(blocks):
            layers.append(ResnetBlock(ngf * 4, norm=make_norm, bias=bias, dropout=dropout, separable=separable))
        for scale in (4, 2):
            half = ngf * scale // 2
            layers += [nn.ConvTranspose2d(ngf * scale, half, 3, stride=2, padding=1, output_padding=1, bias=bias)]
            layers += [make_norm(half), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)
        # After down2 and after each third of the blocks: model.9, 12, 15, 18 for nine blocks, as published.
        self.feature_layers = tuple(f"model.{9 + blocks * third // 3}" for third in range(4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out
