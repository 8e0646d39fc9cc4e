"""Old generated pictures that a discriminator is shown among the new ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """The last ``size`` generated pictures; a discriminator is shown old ones half of the time (arXiv 1612.07828).

    A module, so that its pictures are part of a checkpoint. Under ``torchrun`` each process has one of its own.
    """

    of_process = True
    pictures: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def swap(self, fakes: Tensor, rng: np.random.Generator) -> Tensor:
        """As many pictures: each new one, or with probability 1/2 an old one whose place it takes."""
        shown = []
        for fake in fakes.detach():
            count = int(self.filled)
            if count < len(self.pictures):
                self.pictures[count] = fake
                self.filled += 1
                shown.append(fake)
            elif rng.random() < 0.5:
                place = int(rng.integers(count))
                shown.append(self.pictures[place].clone())
                self.pictures[place] = fake
            else:
                shown.append(fake)
        return torch.stack(shown)
