"""Real-ESRGAN's degradation of two rounds (Wang et al. 2021, arXiv 2107.10833): what is done is drawn, then done.

The orders, ranges and chances are the public code's. Two things differ: JPEG is a real one (Pillow), where the code
has a differentiable one that does not round to 8 bits, and what is degraded is the part that is trained on, where the
code degrades 400 px and cuts 256 of it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from gantailor.zoo.data.super_resolution.kernels import LARGEST, bell, covariance, sinc
from gantailor.zoo.data.super_resolution.settings import KERNELS, Chain, Range, Round

MODES = ("area", "bilinear", "bicubic")
HALF = 1e-4  # of 1, how far below a half still counts as one
GREY = np.array([0.2989, 0.587, 0.114])  # of red, green, blue
Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Blur:
    """A kernel ``[size, size]``; the picture is mirrored at its edges."""

    kernel: np.ndarray


@dataclass(frozen=True)
class Resize:
    """To a height and width in pixels; ``area``, ``bilinear`` or ``bicubic``, of PyTorch, without antialiasing."""

    size: Size
    mode: str


@dataclass(frozen=True)
class Noise:
    """``gaussian``: a standard deviation, of 255. ``poisson``: a factor on what Poisson's differ from the picture.

    Attributes:
        grey: all channels have the same.
        seed: of a generator of its own.
    """

    kind: str
    strength: float
    grey: bool
    seed: int


@dataclass(frozen=True)
class Jpeg:
    """Compressed with a quality, and read again."""

    quality: int


Step = Blur | Resize | Noise | Jpeg


def draw_kernel(rng: np.random.Generator, ranges: Round, *, with_sinc: bool = True) -> np.ndarray:
    """A blur kernel of 7 to 21 pixels; the chance of a sinc is drawn whether there are such or not."""
    size = 2 * int(rng.integers(3, LARGEST // 2 + 1)) + 1
    if rng.random() < ranges.sinc_prob and with_sinc:
        return sinc(size, rng.uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi))
    kind = KERNELS[int(rng.choice(len(KERNELS), p=_chances(ranges.kernel_prob)))]
    across = rng.uniform(*ranges.blur_sigma)
    along, angle = across, 0.0
    if not kind.endswith("_iso") and kind != "iso":
        along, angle = rng.uniform(*ranges.blur_sigma), rng.uniform(-math.pi, math.pi)
    shape = {"g": "generalized", "p": "plateau"}.get(kind[0], "gaussian")
    beta = 1.0
    if shape != "gaussian":
        low, high = ranges.betag_range if shape == "generalized" else ranges.betap_range
        beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
    return bell(size, covariance(across, along, angle), shape=shape, beta=beta)


def draw(rng: np.random.Generator, chain: Chain, size: Size, scale: int) -> list[Step]:
    """What is done to a picture of a height and width, so that it is ``scale`` times smaller at the end."""
    small = (size[0] // scale, size[1] // scale)
    steps = _round(rng, chain, chain.first, size, size)
    if chain.has("second"):
        before = next((step.size for step in reversed(steps) if isinstance(step, Resize)), size)
        steps += _round(rng, chain, chain.second, before, small, last=True)
    back: list[Step] = [Resize(small, MODES[int(rng.integers(len(MODES)))])]
    kernel = 2 * int(rng.integers(3, LARGEST // 2 + 1)) + 1
    low_pass = Blur(sinc(kernel, rng.uniform(math.pi / 3, math.pi)))
    if rng.random() < chain.final_sinc_prob and chain.has("sinc"):
        back.append(low_pass)
    jpegs: list[Step] = [] if not chain.has("jpeg") or not chain.has("second") else [_jpeg(rng, chain.second)]
    return [*steps, *(back + jpegs if rng.random() < 0.5 else jpegs + back)]


def _round(
    rng: np.random.Generator, chain: Chain, ranges: Round, size: Size, of: Size, *, last: bool = False
) -> list[Step]:
    """Blur, resize, noise, and JPEG but in the last round, whose order is drawn at the end.

    Args:
        size: of the picture.
        of: what the factor of the resize is of.
    """
    steps: list[Step] = []
    kernel = draw_kernel(rng, ranges, with_sinc=chain.has("sinc"))
    if rng.random() < ranges.blur_prob and chain.has("blur"):
        steps.append(Blur(kernel))
    which = int(rng.choice(3, p=_chances(ranges.resize_prob)))
    low, high = ranges.resize_range
    factor = (rng.uniform(1, max(1, high)), rng.uniform(min(low, 1), 1), 1.0)[which]
    mode = MODES[int(rng.integers(len(MODES)))]
    if chain.has("resize"):
        steps.append(Resize((max(1, int(of[0] * factor)), max(1, int(of[1] * factor))), mode))
    if chain.has("noise"):
        steps.append(_noise(rng, ranges))
    if chain.has("jpeg") and not last:
        steps.append(_jpeg(rng, ranges))
    return steps


def _noise(rng: np.random.Generator, ranges: Round) -> Noise:
    gaussian = rng.random() < ranges.gaussian_noise_prob
    strength = rng.uniform(*(ranges.noise_range if gaussian else ranges.poisson_scale_range))
    grey = bool(rng.random() < ranges.gray_noise_prob)
    return Noise("gaussian" if gaussian else "poisson", strength, grey, int(rng.integers(2**62)))


def _jpeg(rng: np.random.Generator, ranges: Round) -> Jpeg:
    return Jpeg(round(rng.uniform(*ranges.jpeg_range)))


def _chances(given: Sequence[float] | Range) -> np.ndarray:
    values = np.asarray(given, float)
    shares: np.ndarray = values / values.sum()
    return shares


def apply(picture: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """The steps done to a picture uint8 ``[H, W, 1 or 3]``; uint8 again, rounded at the end."""
    values = picture.astype(np.float32) / 255
    for step in steps:
        if isinstance(step, Blur):
            values = _blurred(values, step.kernel)
        elif isinstance(step, Resize):
            values = resized(values, step.size, step.mode)
        else:
            values = _compressed(values, step.quality) if isinstance(step, Jpeg) else _noisy(values, step)
    return _in_8_bits(values)


def _in_8_bits(values: np.ndarray) -> np.ndarray:
    """0 to 255; what lies within float32's rounding of a half goes up on every machine, as means of pixels often do."""
    return np.floor(np.clip(values.astype(np.float64), 0, 1) * 255 + 0.5 + HALF).astype(np.uint8)


def _blurred(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    margin = len(kernel) // 2
    padded = np.pad(values, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    channels = torch.from_numpy(padded).permute(2, 0, 1).unsqueeze(1)
    weight = torch.from_numpy(kernel.astype(np.float32))[None, None]
    made: np.ndarray = F.conv2d(channels, weight).squeeze(1).permute(1, 2, 0).numpy()
    return made


def resized(values: np.ndarray, size: Size, mode: str) -> np.ndarray:
    """Float ``[H, W, C]`` at a height and width."""
    corners = {} if mode == "area" else {"align_corners": False}
    made = F.interpolate(torch.from_numpy(values).permute(2, 0, 1)[None], size=size, mode=mode, **corners)
    found: np.ndarray = made[0].permute(1, 2, 0).numpy()
    return found


def _noisy(values: np.ndarray, step: Noise) -> np.ndarray:
    rng, channels = np.random.default_rng(step.seed), values.shape[2]
    shape = (*values.shape[:2], 1 if step.grey else channels)
    if step.kind == "gaussian":
        noise = rng.standard_normal(shape, np.float32) * np.float32(step.strength / 255)
    else:
        shown = values.astype(np.float64)
        shown = shown if not step.grey or channels == 1 else (shown @ GREY)[..., None]
        shown = _in_8_bits(shown) / 255
        levels = 2 ** math.ceil(math.log2(len(np.unique(shown))))
        noise = ((rng.poisson(shown * levels) / levels - shown) * step.strength).astype(np.float32)
    made: np.ndarray = np.clip(values + noise, 0, 1)
    return made


def _compressed(values: np.ndarray, quality: int) -> np.ndarray:
    pixels, buffer = _in_8_bits(values), io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "JPEG", quality=quality)
    read = np.asarray(Image.open(buffer), np.float32) / 255
    return read.reshape(pixels.shape)
