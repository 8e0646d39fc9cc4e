"""Latency of the model beside this file, on the device itself. Needs Python, numpy and the model's runtime, no more.

    python bench.py                      # prints CSV: device, runtime, threads, median and p95 milliseconds
    python bench.py --runs 200 --threads 4

Before timing, the output for the stored input is compared with the one that PyTorch gave.
"""

import argparse
import json
import pathlib
import platform
import time

import numpy as np

HERE = pathlib.Path(__file__).parent


def load(manifest, threads):
    """A function that runs the model once."""
    runtime, file = manifest["runtime"], str(HERE / manifest["file"])
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        wanted = [p for p in manifest["providers"] if p in onnxruntime.get_available_providers()]
        session = onnxruntime.InferenceSession(file, options, providers=wanted or ["CPUExecutionProvider"])
        return lambda x: session.run(None, {"input": x})[0]
    if runtime == "openvino":
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads}
        if manifest["precision"] == "float32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        model = openvino.Core().compile_model(file, "CPU", settings)
        return lambda x: np.asarray(model(x)[0])
    if runtime == "executorch":
        import torch
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(file).load_method("forward")
        return lambda x: method.execute([torch.from_numpy(x)])[0].numpy()
    if runtime in ("torch-export", "torchscript"):
        import torch

        torch.set_num_threads(threads)
        module = torch.jit.load(file) if runtime == "torchscript" else torch.export.load(file).module()

        def run(x):
            with torch.inference_mode():
                return module(torch.from_numpy(x)).numpy()

        return run
    if runtime == "coreml":
        import zipfile

        import coremltools

        zipfile.ZipFile(file).extractall(HERE)
        model = coremltools.models.MLModel(str(HERE / "model.mlpackage"))
        name = model.get_spec().description.input[0].name
        return lambda x: next(iter(model.predict({name: x}).values()))
    raise SystemExit("unknown runtime " + runtime)


def main():
    """Time the models beside this file and print medians in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    manifest = json.loads((HERE / "manifest.json").read_text())
    threads = arguments.threads or manifest["threads"]
    stored = np.load(HERE / "check.npz")
    run = load(manifest, threads)
    difference = float(np.abs(run(stored["input"]) - stored["output"]).max())
    for _ in range(arguments.warm_up):
        run(stored["input"])
    times = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        run(stored["input"])
        times.append(1000 * (time.perf_counter() - start))
    print("device,runtime,precision,threads,runs,median_ms,p95_ms,max_difference")
    machine = (platform.node() + " " + platform.machine()).replace(",", " ")
    row = [machine, manifest["runtime"], manifest["precision"], threads, arguments.runs]
    print(*row, f"{np.median(times):.3f},{np.quantile(times, 0.95):.3f},{difference:.2e}", sep=",")


if __name__ == "__main__":
    main()
