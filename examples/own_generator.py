"""A generator that nobody here wrote, made elastic.

Run it: ``python examples/own_generator.py``.
"""

import torch
from torch import nn

import gantailor


class Gated(nn.Module):
    """Skips, a concatenation in unusual order, channel attention, pixel shuffle, a module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.body = nn.Conv2d(32, 32, 3, padding=1)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 8, 1), nn.ReLU(), nn.Conv2d(8, 32, 1))
        self.up = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(16))
        self.head = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        y = x + self.body(torch.relu(self.body(x)))
        y = y * torch.sigmoid(self.squeeze(y))
        return torch.tanh(self.head(self.up(torch.cat([y, x], 1))))


if __name__ == "__main__":
    supernet = gantailor.Supernet(Gated(), (torch.randn(1, 3, 64, 64),))
    print(supernet.graph)
    print(gantailor.verify(supernet))
    half = {width.name: width.size // 2 for width in supernet.graph.widths}
    narrow = supernet.extract(half)
    print(f"{supernet.macs(supernet.full_config()):,} -> {supernet.macs(half):,} MACs (true)")
    print(narrow)
