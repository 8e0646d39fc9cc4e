"""How far an 8-bit generator's outputs can be reproduced at all: by the simulation, and by the runtime itself.

    python benchmarks/eight_bits.py RUN [RUN ...]

RUN: folders of ``gantailor compress`` with a slimmed generator, exported to ``onnxruntime-cpu-int8``. A rounding that
falls to the other side in one layer moves the inputs of the next, where more fall to the other side; so two correct
computations of a deep generator differ by about as much as each differs from the unrounded one. The table compares
them in PSNR (dB, range of outputs 2): simulated and exported, and each with itself computed by other kernels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch
from torch import Tensor

from gantailor.export.checking import psnr
from gantailor.run.run import open_run
from gantailor.supernet.quantization.activation_ranges import load_fake_quantized


def exported(file: Path, pictures: Tensor, level: onnxruntime.GraphOptimizationLevel) -> np.ndarray:
    """The runtime's outputs at one level of its graph optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(file, options)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[None].numpy()})[0] for x in pictures])


@torch.no_grad()
def agreement(folder: str, count: int) -> dict[str, float | str]:
    """A row of the table, from the first pictures of the test split."""
    run = open_run(folder)
    _, subnet = run.subnet()
    simulated = load_fake_quantized(run.folder.subnet_ranges, subnet)
    if simulated is None:
        raise SystemExit(f"{folder!r} has no ranges of a training in 8 bits; give a run of method: slimming")
    simulated.eval()
    pictures = run.setup.data("test").batch(np.arange(count))[0]
    outputs, rounded = subnet(pictures).numpy(), simulated(pictures).numpy()
    with torch.backends.mkldnn.flags(enabled=False):
        other = simulated(pictures).numpy()
    file, levels = run.folder.export / "onnxruntime-cpu-int8" / "model.onnx", onnxruntime.GraphOptimizationLevel
    fast, plain = (exported(file, pictures, x) for x in (levels.ORT_ENABLE_ALL, levels.ORT_DISABLE_ALL))
    return {
        "run": run.folder.path.name,
        "simulated, float": psnr(rounded, outputs),
        "exported, float": psnr(fast, outputs),
        "simulated, exported": psnr(rounded, fast),
        "simulated, with other kernels": psnr(rounded, other),
        "exported, without optimisation": psnr(fast, plain),
    }


def main() -> None:
    """Run it from the command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--pictures", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(pd.DataFrame([agreement(run, given.pictures) for run in given.runs]).round(1).to_markdown(index=False))


if __name__ == "__main__":
    main()
