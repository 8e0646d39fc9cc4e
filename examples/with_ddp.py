"""The supernet under PyTorch's own ``DistributedDataParallel``: several processes share every batch.

Run it: ``torchrun --nproc-per-node 2 examples/with_ddp.py`` (1.4 minutes on two busy cores). It leaves
``runs/with_ddp/onnxruntime-cpu/model.onnx``.
"""

import numpy as np
import torch
import torch.distributed as dist
from own_loop import generator, pictures
from torch.nn.parallel import DistributedDataParallel

import gantailor


def stepping(supernet, x, y, batch=16):
    """A training step at given widths: this process's share of the batch, gradients averaged; alone a plain step."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    # Weights outside of a narrow net have a gradient of zero, not none, so DDP has none to look for.
    model = DistributedDataParallel(supernet) if world > 1 else supernet
    optimizer = torch.optim.Adam(supernet.parameters(), 2e-3)

    def train(step, config):
        # The whole batch is a function of the step, as the widths are: every process draws the same.
        rows = np.random.default_rng((1, step)).integers(0, len(x), batch)[rank::world]
        loss = (model(x[rows], config=config) - y[rows]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return train


def main(steps=400, trials=40, devices=("onnxruntime-cpu",), out="runs/with_ddp"):
    """As ``own_loop.py``: train all widths at once, search, lead down to the found ones, export."""
    torch.manual_seed(0)
    (x, y), (test_x, test_y) = pictures(256), pictures(64, seed=1)
    supernet = gantailor.Supernet(generator(), example_inputs=(x[:1],)).train()
    space, train = gantailor.space("default", supernet), stepping(supernet, x, y)
    for step in range(steps):
        train(step, space.sample(np.random.default_rng((0, step)), step=step))

    def score(narrow):
        gantailor.recalibrate(narrow, x[:128].split(32))
        return (narrow(test_x) - test_y).abs().mean()

    found = [None]
    if dist.get_rank() == 0:  # the others wait for what it finds
        found = [gantailor.search(supernet, budget="0.1x", score=score, trials=trials).best]
    dist.broadcast_object_list(found)
    narrow = gantailor.narrow(
        supernet, found[0].config, train=lambda model, step: train(step, model.config), steps=steps
    )
    if dist.get_rank() == 0:
        gantailor.export(narrow, out, devices=devices, example_inputs=(test_x[:2],))
        with torch.no_grad():
            tuned = float((narrow(test_x) - test_y).abs().mean())
        print(f"{found[0].macs:,} MACs, L1 {found[0].score:.4f} as found, {tuned:.4f} when narrowed")
    return narrow, found[0]


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main()
    dist.destroy_process_group()
