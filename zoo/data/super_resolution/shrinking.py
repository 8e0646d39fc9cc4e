"""Large pictures made small: by bicubic or area resampling, or by Real-ESRGAN's chain with a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from gantailor.zoo.data.super_resolution.chain import apply, draw
from gantailor.zoo.data.super_resolution.settings import Chain


@dataclass(frozen=True)
class Shrinking:
    """What makes the inputs.

    Args:
        degradation: ``bicubic`` (antialiased, as Pillow and MATLAB have it), ``area`` or ``realesrgan``.
        chain: of ``realesrgan``.
        scale: sides of the large picture over those of the small one.
    """

    degradation: str
    chain: Chain
    scale: int

    @property
    def random(self) -> bool:
        """Whether it is another one with another seed."""
        return self.degradation == "realesrgan"

    @property
    def key(self) -> str:
        """Everything that changes the small pictures."""
        return f"{self.degradation}|{self.scale}|{self.chain if self.random else ''}"

    @property
    def plain_key(self) -> str:
        """Everything that changes what ``plain`` makes."""
        return f"{'area' if self.degradation == 'area' else 'bicubic'}|{self.scale}"

    def plain(self, large: np.ndarray) -> np.ndarray:
        """The small picture uint8 ``[h, w, C]`` of ``[H, W, C]`` without chance, for ``realesrgan`` the bicubic one."""
        if self.scale == 1:
            return large
        height, width = (side // self.scale for side in large.shape[:2])
        if self.degradation == "area":
            blocks = large.reshape(height, self.scale, width, self.scale, -1).astype(np.float32)
            means: np.ndarray = np.floor(blocks.mean((1, 3)) + 0.5).astype(np.uint8)
            return means
        flat = large[..., 0] if large.shape[2] == 1 else large
        small = Image.fromarray(flat).resize((width, height), Image.Resampling.BICUBIC)
        return np.array(small).reshape(height, width, large.shape[2])

    def __call__(self, large: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
        """The small picture, a function of the large one and the seed."""
        if not self.random:
            return self.plain(large)
        rng = np.random.default_rng(seed)
        return apply(large, draw(rng, self.chain, large.shape[:2], self.scale))
