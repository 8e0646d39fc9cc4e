"""The SPADE (GauGAN) generator, label map to image, and its mobile form.

Module names are those of NVlabs/SPADE once spectral norm is folded (``read_spade`` folds it) and, for the
mobile form, of mit-han-lab/gan-compression.

Papers: Park et al. 2019 (arXiv 1903.07291), Li et al. 2020 (arXiv 2003.08936).
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.supernet.errors import ConfigError, nearest
from gantailor.zoo.generators.spade.layers import SpadeBlock, SpadeNorm, parameter_free_norm

HALVINGS = {"normal": 5, "more": 6, "most": 7}  # of the picture, down to the latent label map


class SpadeGenerator(nn.Module):
    """Label map to image, ``[N, label_channels, H, W]`` to ``[N, 3, H, W]`` in [-1, 1].

    The input holds one-hot labels and, as last channel, the instance edges, all in {0, 1}. H and W must be
    multiples of ``size_multiple``: 32, 64 or 128 for ``normal``, ``more`` and ``most``.

    Args:
        label_channels: classes, plus one for "don't care" and one for instance edges where there are such.
        ngf: channels of block ``up_3``; the first blocks have ``16 * ngf``.
        size: native height and width in pixels. The original gives no pictures of another size; here an input
            of any size is answered in its own.
        upsampling: ``more`` doubles the picture between the middle blocks too; ``most`` also adds ``up_4``.
        norm: the norm under SPADE, ``batch`` (as published) or ``instance``.
        hidden: channels inside each SPADE norm. Default: 128 at any ``ngf``, and ``2 * ngf`` in the mobile
            form, as the two originals have it.
        separable: depthwise-separable gamma and beta convolutions, and no others (the ``mobile_`` form).

    Raises:
        ConfigError: unknown ``upsampling`` or ``norm``, or ``size`` not a multiple of ``size_multiple``.
    """

    takes = "labels"
    feature_layers = ("head_0", "G_middle_1", "up_1")

    def __init__(
        self,
        *,
        label_channels: int = 36,
        ngf: int = 64,
        size: tuple[int, int] = (256, 512),
        upsampling: str = "more",
        norm: str = "batch",
        hidden: int | None = None,
        separable: bool = False,
    ) -> None:
        super().__init__()
        if upsampling not in HALVINGS:
            raise ConfigError(f"upsampling {upsampling!r} is unknown: {nearest(upsampling, HALVINGS)}")
        self.upsampling = upsampling
        self.size_multiple = 2 ** HALVINGS[upsampling]
        if any(side < 1 or side % self.size_multiple for side in size):
            raise ConfigError(
                f"size {size} does not fit upsampling {upsampling!r}: height and width must be multiples of"
                f" {self.size_multiple}; choose another size, or another of {', '.join(HALVINGS)}"
            )
        self.input_shape = (label_channels, *size)
        self.size = size
        make_norm = partial(
            SpadeNorm,
            label_channels=label_channels,
            hidden=hidden or (2 * ngf if separable else 128),
            norm=parameter_free_norm(norm),
            separable=separable,
        )
        block = partial(SpadeBlock, make_norm=make_norm)
        self.fc = nn.Conv2d(label_channels, 16 * ngf, 3, padding=1)
        self.head_0 = block(16 * ngf, 16 * ngf)
        self.G_middle_0 = block(16 * ngf, 16 * ngf)
        self.G_middle_1 = block(16 * ngf, 16 * ngf)
        self.up_0 = block(16 * ngf, 8 * ngf)
        self.up_1 = block(8 * ngf, 4 * ngf)
        self.up_2 = block(4 * ngf, 2 * ngf)
        self.up_3 = block(2 * ngf, ngf)
        if upsampling == "most":
            self.up_4 = block(ngf, ngf // 2)
        self.conv_img = nn.Conv2d(ngf // 2 if upsampling == "most" else ngf, 3, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, labels: Tensor) -> Tensor:
        x = self.fc(F.interpolate(labels, scale_factor=1 / self.size_multiple))
        x = self.head_0(x, labels)
        x = self.G_middle_0(self.up(x), labels)
        x = self.G_middle_1(x if self.upsampling == "normal" else self.up(x), labels)
        x = self.up_0(self.up(x), labels)
        x = self.up_1(self.up(x), labels)
        x = self.up_2(self.up(x), labels)
        x = self.up_3(self.up(x), labels)
        if self.upsampling == "most":
            x = self.up_4(self.up(x), labels)
        return torch.tanh(self.conv_img(F.leaky_relu(x, 0.2)))
