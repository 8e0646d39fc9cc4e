"""The SPADE (GauGAN) generator, label map to image, and its mobile form.

Module names are those of NVlabs/SPADE once spectral norm is folded (``read_spade`` folds it) and, for the
mobile form, of mit-han-lab/gan-compression.

Papers: Park et al. 2019 (arXiv 1903.07291), Li et al. 2020 (arXiv 2003.08936).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.supernet.errors import CheckpointError, ConfigError, nearest
from gantailor.zoo.generators.resnet.generator import Norm, norm_layer
from gantailor.zoo.generators.separable import SeparableConv2d

HALVINGS = {"normal": 5, "more": 6, "most": 7}  # of the picture, down to the latent label map


def parameter_free_norm(name: str) -> Norm:
    """A constructor of the named norm, without scale and shift: ``batch`` or ``instance``."""
    norms: dict[str, Norm] = {
        "batch": partial(nn.BatchNorm2d, affine=False),
        "instance": norm_layer("instance"),
    }
    if name not in norms:
        raise ConfigError(f"norm {name!r} is unknown: {nearest(name, norms)}")
    return norms[name]


class SpadeNorm(nn.Module):
    """Spatially-adaptive normalisation: ``norm(x) * (1 + gamma(labels)) + beta(labels)``.

    ``x`` is ``[N, channels, h, w]``, ``labels`` ``[N, label_channels, h, w]`` (already resized).
    """

    def __init__(self, channels: int, *, label_channels: int, hidden: int, norm: Norm, separable: bool) -> None:
        super().__init__()

        def mlp() -> nn.Module:
            if separable:
                return SeparableConv2d(hidden, channels, padding=1, norm=norm_layer("instance"))
            return nn.Conv2d(hidden, channels, 3, padding=1)

        self.param_free_norm = norm(channels)
        self.mlp_shared = nn.Sequential(nn.Conv2d(label_channels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = mlp()
        self.mlp_beta = mlp()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        shared = self.mlp_shared(labels)
        return self.param_free_norm(x) * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class SpadeBlock(nn.Module):
    """Residual block of two SPADE-normalised 3x3 convolutions, and a 1x1 one where the width changes.

    ``x`` is ``[N, inputs, h, w]``, the output ``[N, outputs, h, w]``; ``labels`` are resized to it (nearest).
    """

    def __init__(self, inputs: int, outputs: int, *, make_norm: Callable[[int], SpadeNorm]) -> None:
        super().__init__()
        self.learned_shortcut = inputs != outputs
        middle = min(inputs, outputs)
        self.conv_0 = nn.Conv2d(inputs, middle, 3, padding=1)
        self.conv_1 = nn.Conv2d(middle, outputs, 3, padding=1)
        if self.learned_shortcut:
            self.conv_s = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm_0 = make_norm(inputs)
        self.norm_1 = make_norm(middle)
        if self.learned_shortcut:
            self.norm_s = make_norm(inputs)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        labels = F.interpolate(labels, size=x.shape[2:])
        y = self.conv_0(F.leaky_relu(self.norm_0(x, labels), 0.2))
        y = self.conv_1(F.leaky_relu(self.norm_1(y, labels), 0.2))
        shortcut = self.conv_s(self.norm_s(x, labels)) if self.learned_shortcut else x
        return shortcut + y


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
