"""A generator of one's own made narrow in a training loop of one's own: no YAML, no run folder.

Run it: ``python examples/own_loop.py`` (a minute on a busy core). It leaves
``runs/own_loop/onnxruntime-cpu/model.onnx``.
"""

import numpy as np
import torch
from torch import nn

import gantailor


def generator(width=32):
    """Any module from pictures to pictures."""
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())


def pictures(count, side=32, seed=0):
    """Discs as line art, and the same in colour: inputs and targets ``[N, 3, H, W]`` in [-1, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    drawn, coloured = np.ones((2, count, 3, side, side), np.float32)
    for number in range(count):
        (down, across), radius, colour = rng.uniform(8, side - 8, 2), rng.uniform(4, 9), rng.uniform(-1, 1, (3, 1))
        distance = np.hypot(rows - down, columns - across)
        drawn[number][:, abs(distance - radius) < 1] = -1
        coloured[number][:, distance < radius] = np.sort(colour, 0) * radius / 9
    return torch.from_numpy(drawn), torch.from_numpy(coloured)


def main(steps=400, trials=40, devices=("onnxruntime-cpu",)):
    """Train all widths at once, search, lead down to the found ones, export."""
    torch.manual_seed(0)
    (x, y), (test_x, test_y), rng = pictures(256), pictures(64, seed=1), np.random.default_rng(0)
    supernet = gantailor.Supernet(generator(), example_inputs=(x[:1],))
    print(gantailor.verify(supernet))
    space = gantailor.space("default", supernet)
    optimizer = torch.optim.Adam(supernet.parameters(), 2e-3)

    def train(model, step, **options):
        rows = torch.from_numpy(rng.integers(0, len(x), 16))
        loss = (model(x[rows], **options) - y[rows]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    supernet.train()
    for step in range(steps):
        train(supernet, step, config=space.sample(rng, step=step))

    def score(narrow):
        gantailor.recalibrate(narrow, x[:128].split(32))  # batch norms of a subnet have statistics of their own
        return (narrow(test_x) - test_y).abs().mean()

    best = gantailor.search(supernet, budget="0.1x", score=score, trials=trials).best
    narrow = gantailor.narrow(supernet, best.config, train=train, steps=steps)
    gantailor.export(narrow, "runs/own_loop", devices=devices, example_inputs=(test_x[:2],))
    with torch.no_grad():
        tuned = float((narrow(test_x) - test_y).abs().mean())
    ratio = supernet.macs(supernet.full_config()) / best.macs
    print(f"{ratio:.1f}x fewer MACs, L1 {best.score:.4f} as found, {tuned:.4f} when narrowed: {dict(best.config)}")
    return narrow, best


if __name__ == "__main__":
    main()
