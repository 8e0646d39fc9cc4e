"""The supernet under Hugging Face's Accelerate, which decides where it computes and in which precision.

Run it: ``python examples/with_accelerate.py`` (1.1 minutes on a busy core), or by ``accelerate launch`` in several
processes. It leaves ``runs/with_accelerate/onnxruntime-cpu/model.onnx``.
"""

import numpy as np
import torch
from accelerate import Accelerator
from own_loop import generator, pictures
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import gantailor


def main(steps=400, trials=40, devices=("onnxruntime-cpu",), out="runs/with_accelerate", **options):
    """As ``own_loop.py``: train all widths at once, search, lead down to the found ones, export."""
    torch.manual_seed(0)
    accelerator, (x, y), (test_x, test_y) = Accelerator(**options), pictures(256), pictures(64, seed=1)
    supernet = gantailor.Supernet(generator(), example_inputs=(x[:1],)).train()
    space, dataset = gantailor.space("default", supernet), TensorDataset(x, y)
    drawn = RandomSampler(dataset, replacement=True, num_samples=2 * steps * 16 * accelerator.num_processes)
    model, optimizer, loader = accelerator.prepare(
        supernet, torch.optim.Adam(supernet.parameters(), 2e-3), DataLoader(dataset, 16, sampler=drawn)
    )
    batches = iter(loader)

    def train(step, config):
        inputs, targets = next(batches)
        loss = (model(inputs, config=config) - targets).abs().mean()
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()

    for step in range(steps):  # the widths are a function of the step: every process draws the same
        train(step, space.sample(np.random.default_rng((0, step)), step=step))

    where = accelerator.device

    def score(narrow):
        gantailor.recalibrate(narrow, x[:128].to(where).split(32))
        return (narrow(test_x.to(where)) - test_y.to(where)).abs().mean()

    # Every process finds the same, as all have the same weights.
    best = gantailor.search(supernet, budget="0.1x", score=score, trials=trials).best
    narrow = gantailor.narrow(supernet, best.config, train=lambda net, step: train(step, net.config), steps=steps).cpu()
    if accelerator.is_main_process:
        gantailor.export(narrow, out, devices=devices, example_inputs=(test_x[:2],))
    with torch.no_grad():
        tuned = float((narrow(test_x) - test_y).abs().mean())
    accelerator.print(f"{best.macs:,} MACs, L1 {best.score:.4f} as found, {tuned:.4f} when narrowed")
    return narrow, best


if __name__ == "__main__":
    main()
