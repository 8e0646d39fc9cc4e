"""The supernet as a LightningModule: Lightning owns the loop, gantailor says at which widths a step runs.

Run it: ``python examples/with_lightning.py`` (1.2 minutes on a busy core). It leaves
``runs/with_lightning/onnxruntime-cpu/model.onnx``.
"""

import lightning
import numpy as np
import torch
from own_loop import generator, pictures
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import gantailor
from gantailor.supernet.training.narrowing import Narrowing


class Elastic(lightning.LightningModule):
    """Trains a supernet at ``widths(step)``."""

    def __init__(self, supernet, widths):
        super().__init__()
        self.supernet, self.widths = supernet, widths

    def training_step(self, batch, _number):
        inputs, targets = batch
        return (self.supernet(inputs, config=self.widths(self.global_step)) - targets).abs().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.supernet.parameters(), 2e-3)


def fit(supernet, widths, data, steps, **options):
    """So many steps of 16 pictures; whether this is the first of several processes."""
    drawn = RandomSampler(data, replacement=True, num_samples=16 * steps)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_steps=steps, **quiet, **options)
    trainer.fit(Elastic(supernet.train(), widths), DataLoader(data, 16, sampler=drawn))
    return trainer.is_global_zero


def main(steps=400, trials=40, devices=("onnxruntime-cpu",), out="runs/with_lightning", trainer=None):
    """As ``own_loop.py``: train all widths at once, search, lead down to the found ones, export."""
    lightning.seed_everything(0)
    (x, y), (test_x, test_y) = pictures(256), pictures(64, seed=1)
    supernet, data = gantailor.Supernet(generator(), example_inputs=(x[:1],)), TensorDataset(x, y)
    space = gantailor.space("default", supernet)
    # A function of the step: in several processes each draws the same.
    options = trainer or {}  # of lightning.Trainer
    fit(supernet, lambda step: space.sample(np.random.default_rng((0, step)), step=step), data, steps, **options)
    supernet.cpu()

    def score(narrow):
        gantailor.recalibrate(narrow, x[:128].split(32))
        return (narrow(test_x) - test_y).abs().mean()

    best = gantailor.search(supernet, budget="0.1x", score=score, trials=trials).best
    # What gantailor.narrow does with a step of one's own: down to the widths in the first half of the steps.
    way = Narrowing(supernet, best.config)
    first = fit(supernet, lambda step: way.at(2 * (step + 1) / steps), data, steps, **options)
    narrow = supernet.cpu().extract(best.config).eval()
    if first:
        gantailor.export(narrow, out, devices=devices, example_inputs=(test_x[:2],))
    with torch.no_grad():
        tuned = float((narrow(test_x) - test_y).abs().mean())
    print(f"{best.macs:,} MACs, L1 {best.score:.4f} as found, {tuned:.4f} when narrowed")
    return narrow, best


if __name__ == "__main__":
    main()
