"""Every generator of the zoo on every runtime of this machine: does the exported model equal PyTorch?

    PYTHONPATH=. python benchmarks/devices.py    # writes benchmarks/results/devices.csv; goes on where it was

Small versions (the widths do not matter to an exporter), float32, static and dynamic batch (tried with 1 and 3).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from gantailor.export.devices import device
from gantailor.export.errors import ExportError
from gantailor.export.export import export_model, load_runner
from gantailor.zoo.generators.record import build

RESULTS = Path(__file__).parent / "results" / "devices.csv"
LOCAL = ["onnxruntime-cpu", "openvino", "torch-export", "torchscript", "executorch-xnnpack"]


def compared(name: str, target: str, batch: str, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """A row: largest difference, or the error; how much the fast backend runs."""
    torch.manual_seed(0)
    model, example = build(name, **options).eval(), torch.randn(1, *shape)
    profile = device(target).model_copy(update={"batch": batch})
    row: dict[str, Any] = {"generator": name, "device": target, "batch": batch}
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = export_model(Path(folder), model, example, profile)
            runner = load_runner(Path(folder) / found["file"], profile)
            differences = []
            for size in (1, 3) if batch == "dynamic" else (1,):
                inputs = torch.randn(size, *shape)
                with torch.no_grad():
                    differences.append(float(np.abs(runner(inputs.numpy()) - model(inputs).numpy()).max()))
        row |= {"max_difference": max(differences), "delegated": found["delegated"], "error": ""}
    except ExportError as error:
        row |= {"max_difference": np.nan, "delegated": "", "error": str(error)[:200]}
    return {**row, "seconds": round(time.monotonic() - started, 1)}


def main() -> None:
    """Run it from the command line; see the head of this file."""
    from tests.supernet.test_conformance import CASES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=str(RESULTS))
    parser.add_argument("--devices", nargs="+", default=LOCAL)
    arguments = parser.parse_args()
    out = Path(arguments.out)
    stamp = ["generator", "device", "batch"]
    done = set(map(tuple, pd.read_csv(out)[stamp].to_numpy().tolist())) if out.exists() else set()
    for target in arguments.devices:
        for name, (options, shape) in CASES.items():
            for batch in ("static", "dynamic"):
                if (name, target, batch) not in done:
                    row = compared(name, target, batch, options, shape)
                    pd.DataFrame([row]).to_csv(out, mode="a", header=not out.exists(), index=False)
                    print(row, flush=True)


if __name__ == "__main__":
    main()
