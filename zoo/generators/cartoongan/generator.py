"""The generator of CartoonGAN, named as in the public PyTorch port of its weights.

Paper: Chen et al. 2018, "CartoonGAN: Generative Adversarial Networks for Photo Cartoonization" (CVPR).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ScaledInstanceNorm(nn.Module):
    """Instance norm of ``[N, C, H, W]`` by the biased variance, then ``scale`` and ``shift`` of ``[C]``."""

    def __init__(self, channels: int, *, eps: float = 1e-9) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.rand(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.scale, bias=self.shift, eps=self.eps)


class CartoonGenerator(nn.Module):
    """Photo to cartoon, ``[N, input_nc, H, W]`` to ``[N, output_nc, H, W]`` in [-1, 1].

    The published weights are for BGR; ``read_cartoongan`` turns them round, so that pictures are RGB as elsewhere.
    The buffer ``rgb`` says so in every file that is made of this generator.

    H and W should be multiples of 4; others come out rounded up to the next one, as in the original.

    Args:
        ngf: channels of the stem; the residual trunk has ``4 * ngf``.
        blocks: number of residual blocks. Their layers are numbered (``conv04_1`` to ``conv11_2`` for the
            published eight), and the norms that follow are numbered on from there.
    """

    size_multiple = 4
    feature_layers: tuple[str, ...]

    def __init__(self, *, input_nc: int = 3, output_nc: int = 3, ngf: int = 64, blocks: int = 8) -> None:
        super().__init__()
        self.register_buffer("rgb", torch.ones(()))
        self.input_shape = (input_nc, 256, 256)
        self.refpad01_1 = nn.ReflectionPad2d(3)
        self.conv01_1 = nn.Conv2d(input_nc, ngf, 7)
        self.in01_1 = ScaledInstanceNorm(ngf)
        self.conv02_1 = nn.Conv2d(ngf, ngf * 2, 3, stride=2, padding=1)
        self.conv02_2 = nn.Conv2d(ngf * 2, ngf * 2, 3, padding=1)
        self.in02_1 = ScaledInstanceNorm(ngf * 2)
        self.conv03_1 = nn.Conv2d(ngf * 2, ngf * 4, 3, stride=2, padding=1)
        self.conv03_2 = nn.Conv2d(ngf * 4, ngf * 4, 3, padding=1)
        self.in03_1 = ScaledInstanceNorm(ngf * 4)
        self.out03 = nn.ReLU()
        self._blocks = tuple(f"{number:02d}" for number in range(4, 4 + blocks))
        for number in self._blocks:
            for half in "12":
                self.add_module(f"refpad{number}_{half}", nn.ReflectionPad2d(1))
                self.add_module(f"conv{number}_{half}", nn.Conv2d(ngf * 4, ngf * 4, 3))
                self.add_module(f"in{number}_{half}", ScaledInstanceNorm(ngf * 4))
            self.add_module(f"out{number}", nn.Identity())  # names the sum, which is no layer of the original
        self._last = (f"in{4 + blocks:02d}_1", f"in{5 + blocks:02d}_1", f"refpad{4 + blocks:02d}_1")
        self.deconv01_1 = nn.ConvTranspose2d(ngf * 4, ngf * 2, 3, stride=2, padding=1, output_padding=1)
        self.deconv01_2 = nn.Conv2d(ngf * 2, ngf * 2, 3, padding=1)
        self.add_module(self._last[0], ScaledInstanceNorm(ngf * 2))
        self.deconv02_1 = nn.ConvTranspose2d(ngf * 2, ngf, 3, stride=2, padding=1, output_padding=1)
        self.deconv02_2 = nn.Conv2d(ngf, ngf, 3, padding=1)
        self.add_module(self._last[1], ScaledInstanceNorm(ngf))
        self.add_module(self._last[2], nn.ReflectionPad2d(3))
        self.deconv03_1 = nn.Conv2d(ngf, output_nc, 7)
        # After the encoder and after each third of the blocks: out03, 05, 08, 11 for eight blocks.
        self.feature_layers = tuple(f"out{3 + blocks * third // 3:02d}" for third in range(4))

    def _conv(self, x: Tensor, name: str) -> Tensor:
        """Reflection padding, 3x3 convolution and norm of that number."""
        for layer in ("refpad", "conv", "in"):
            x = self.get_submodule(layer + name)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.in01_1(self.conv01_1(self.refpad01_1(x))))
        x = F.relu(self.in02_1(self.conv02_2(self.conv02_1(x))))
        x = self.out03(self.in03_1(self.conv03_2(self.conv03_1(x))))
        for number in self._blocks:
            y = F.relu(self._conv(x, f"{number}_1"))
            x = self.get_submodule(f"out{number}")(self._conv(y, f"{number}_2") + x)
        norm1, norm2, pad = (self.get_submodule(name) for name in self._last)
        x = F.relu(norm1(self.deconv01_2(self.deconv01_1(x))))
        x = F.relu(norm2(self.deconv02_2(self.deconv02_1(x))))
        return torch.tanh(self.deconv03_1(pad(x)))
