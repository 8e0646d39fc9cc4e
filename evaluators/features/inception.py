"""The Inception-v3 of the Frechet Inception Distance (the TensorFlow graph of 2015-12-05, as pytorch-fid ports it).

It differs from torchvision's: average pooling leaves the padding out, and the last block pools by maximum. Batch norms
are folded into the convolutions on load. Papers: Szegedy et al. 2015 (arXiv 1512.00567), Heusel et al. 2017.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.evaluators.pictures.rgb import as_rgb
from gantailor.evaluators.weights import read_weights
from gantailor.supernet.device import placed
from gantailor.supernet.errors import EvaluationError

BLOCKS = {64: "Conv2d_2b_3x3", 192: "Conv2d_4a_3x3", 768: "Mixed_6e", 2048: "Mixed_7c"}  # features: the last layer
_EPSILON = 1e-3
_WANTED = (
    "give pytorch-fid's pt_inception-2015-12-05-6726825d.pth or "
    "torch-fidelity's weights-inception-2015-12-05-6726825d.pth"
)


class Conv(nn.Module):
    """Convolution and ReLU, the batch norm folded into the convolution."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, padding: object = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Mixed(nn.Module):
    """Parallel branches, concatenated; ``layout`` names their layers in order, as the original's keys do."""

    def __init__(self, inputs: int, layout: str, *, pool: str) -> None:
        super().__init__()
        self.branches: list[list[str]] = []
        self.pool = pool
        for text in layout.split(";"):
            names: list[str] = []
            width = inputs
            for layer in text.split(">"):
                name, outputs, kernel, *rest = layer.split()
                height, _, breadth = kernel.partition("x")
                size = (int(height), int(breadth or height))
                strided = "s2" in rest
                padding = (0, 0) if strided else (size[0] // 2, size[1] // 2)
                width = self._fan(names, width)
                self.add_module(name, Conv(width, int(outputs), size, 2 if strided else 1, padding))
                width = int(outputs)
                names.append(name)
            self.branches.append(names)

    def _fan(self, names: list[str], width: int) -> int:
        """Layers ``..a`` and ``..b`` of one branch both read what comes before them."""
        if not names or not names[-1].endswith("a"):
            return width
        before = self.get_submodule(names[-2])
        assert isinstance(before, Conv)
        return before.conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for names in self.branches:
            y = self._pooled(x) if names[0] == "branch_pool" else x
            parts: list[Tensor] = []
            for name in names:
                layer = self.get_submodule(name)
                if name.endswith(("a", "b")) and name[-2].isdigit():
                    parts.append(layer(y))
                else:
                    y = layer(y)
            outputs.append(torch.cat(parts, 1) if parts else y)
        if self.pool == "reduce":
            outputs.append(F.max_pool2d(x, 3, 2))
        return torch.cat(outputs, 1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "max":
            return F.max_pool2d(x, 3, 1, 1)
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _a(pool: int) -> str:
    branch3 = "branch3x3dbl_1 64 1>branch3x3dbl_2 96 3>branch3x3dbl_3 96 3"
    return f"branch1x1 64 1;branch5x5_1 48 1>branch5x5_2 64 5;{branch3};branch_pool {pool} 1"


def _c(n: int) -> str:
    twice = f"branch7x7dbl_1 {n} 1>branch7x7dbl_2 {n} 7x1>branch7x7dbl_3 {n} 1x7>branch7x7dbl_4 {n} 7x1"
    once = f"branch7x7_1 {n} 1>branch7x7_2 {n} 1x7>branch7x7_3 192 7x1"
    return f"branch1x1 192 1;{once};{twice}>branch7x7dbl_5 192 1x7;branch_pool 192 1"


_E = (
    "branch1x1 320 1;branch3x3_1 384 1>branch3x3_2a 384 1x3>branch3x3_2b 384 3x1;"
    "branch3x3dbl_1 448 1>branch3x3dbl_2 384 3>branch3x3dbl_3a 384 1x3>branch3x3dbl_3b 384 3x1;branch_pool 192 1"
)
_B = "branch3x3 384 3 s2;branch3x3dbl_1 64 1>branch3x3dbl_2 96 3>branch3x3dbl_3 96 3 s2"
_D = (
    "branch3x3_1 192 1>branch3x3_2 320 3 s2;"
    "branch7x7x3_1 192 1>branch7x7x3_2 192 1x7>branch7x7x3_3 192 7x1>branch7x7x3_4 192 3 s2"
)


def _layers() -> dict[str, nn.Module]:
    """All layers in order, without weights worth having."""
    return {
        "Conv2d_1a_3x3": Conv(3, 32, 3, 2),
        "Conv2d_2a_3x3": Conv(32, 32, 3),
        "Conv2d_2b_3x3": Conv(32, 64, 3, 1, 1),
        "pool1": nn.MaxPool2d(3, 2),
        "Conv2d_3b_1x1": Conv(64, 80, 1),
        "Conv2d_4a_3x3": Conv(80, 192, 3),
        "pool2": nn.MaxPool2d(3, 2),
        "Mixed_5b": Mixed(192, _a(32), pool="average"),
        "Mixed_5c": Mixed(256, _a(64), pool="average"),
        "Mixed_5d": Mixed(288, _a(64), pool="average"),
        "Mixed_6a": Mixed(288, _B, pool="reduce"),
        "Mixed_6b": Mixed(768, _c(128), pool="average"),
        "Mixed_6c": Mixed(768, _c(160), pool="average"),
        "Mixed_6d": Mixed(768, _c(160), pool="average"),
        "Mixed_6e": Mixed(768, _c(192), pool="average"),
        "Mixed_7a": Mixed(768, _D, pool="reduce"),
        "Mixed_7b": Mixed(1280, _E, pool="average"),
        "Mixed_7c": Mixed(2048, _E, pool="max"),
    }


class FidInception:
    """Features ``[N, dims]`` of pictures in [-1, 1], RGB or made so by ``as_rgb``, resized to 299 pixels (bilinear).

    Args:
        weights: pytorch-fid's ``pt_inception-2015-12-05-6726825d.pth`` or torch-fidelity's
            ``weights-inception-2015-12-05-6726825d.pth``; a hash in the name is checked.
        dims: 2048 for FID; 768, 192 or 64 for its official variants on earlier layers.
        resize: ``bilinear`` (pytorch-fid's) or ``tensorflow`` (torch-fidelity's and the original's, which takes pixel
            corners for centres); the two give figures that do not compare.

    Raises:
        EvaluationError: unknown ``dims`` or ``resize``, a missing file, another hash, or weights of another network.
    """

    def __init__(self, weights: str | Path, *, dims: int = 2048, resize: str = "bilinear") -> None:
        if dims not in BLOCKS:
            raise EvaluationError(f"inception has no features of {dims} dimensions; allowed are {sorted(BLOCKS)}")
        if resize not in RESIZES:
            raise EvaluationError(f"resize {resize!r} is unknown; allowed are {', '.join(RESIZES)}")
        self._resize, self.resize = RESIZES[resize], f"{resize} 299, no antialiasing"
        self.name, self.dims, self.variant = "inception-2015-12-05", dims, "" if dims == 2048 else str(dims)
        self.weights_hash, state = _read(Path(weights))
        layers: dict[str, nn.Module] = {}
        for name, layer in _layers().items():
            layers[name] = layer
            if name == BLOCKS[dims]:
                break
        layers |= {"pool1": nn.MaxPool2d(3, 2)} if dims == 64 else {}
        layers |= {"pool2": nn.MaxPool2d(3, 2)} if dims == 192 else {}
        self.network = nn.Sequential()
        for name, layer in layers.items():
            self.network.add_module(name, layer)
        folded = _folded(state, self.network.state_dict(), str(weights))
        self.network.load_state_dict(folded)
        self.network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        maps: Tensor = placed(self.network, images.device)(self._resize(as_rgb(images)))
        return maps.mean((2, 3))


def _bilinear(images: Tensor) -> Tensor:
    return F.interpolate(images, size=(299, 299), mode="bilinear", align_corners=False)


def _tensorflow(images: Tensor) -> Tensor:
    """TensorFlow 1's ``resize_bilinear``: output pixel i lies at i * in / out, not between pixel centres."""
    for axis in (2, 3):
        size = images.shape[axis]
        position = torch.arange(299, dtype=torch.float64) * size / 299
        low = position.floor().long()
        share = (position - low).to(images).reshape((-1, 1) if axis == 2 else (-1,))
        low = low.to(images.device)
        images = torch.lerp(
            images.index_select(axis, low), images.index_select(axis, (low + 1).clamp(max=size - 1)), share
        )
    return images


RESIZES = {"bilinear": _bilinear, "tensorflow": _tensorflow}


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Hash and tensors; the hash in the file's name, if there is one, must be its own."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    named = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if digest and named and not digest.startswith(named.group(1)):
        raise EvaluationError(
            f"{str(path)!r} has hash {digest[:8]}, not {named.group(1)} as it is named: copy it again"
        )
    return digest, read_weights(path, wanted=_WANTED)


def _folded(state: dict[str, Tensor], wanted: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Convolutions with their batch norms folded in, ``w * g / sqrt(v + eps)`` and ``b - m * g / sqrt(v + eps)``."""
    missing = [name for name in wanted if name.endswith("conv.weight") and name not in state]
    if missing:
        raise EvaluationError(
            f"{source!r} is not the FID Inception, or does not reach far enough: it has no {', '.join(missing[:3])}; "
            "name another file, or fewer dimensions (inception-2015-12-05@768)"
        )
    folded = {}
    for name in wanted:
        layer, _, leaf = name.rpartition(".")
        if leaf == "bias":
            continue
        weight, norm = state[name].double(), f"{layer.removesuffix('conv')}bn"
        mean, variance = state[f"{norm}.running_mean"].double(), state[f"{norm}.running_var"].double()
        gain = state[f"{norm}.weight"].double() / torch.sqrt(variance + _EPSILON)
        folded[name] = (weight * gain[:, None, None, None]).float()
        folded[f"{layer}.bias"] = (state[f"{norm}.bias"].double() - mean * gain).float()
    return folded
