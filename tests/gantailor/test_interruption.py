"""A run killed with -9 in the middle goes on with the same command, and ends with the same weights."""

import signal
import subprocess
import sys
import time

import torch

import gantailor
from supernet.files import load_tensors


def command(folder, out):
    flags = ["--generator", "resnet_6blocks", "--options", "{ngf: 4}", "--teacher", str(folder / "G.pth")]
    flags += [
        "--budget",
        "0.6x",
        "--data.size",
        "16",
        "--train.kimg",
        "0.6",
        "--train.batch",
        "4",
        "--train.gan",
        "none",
    ]
    return [sys.executable, "-m", "gantailor.cli", "train", *flags, "--out", str(out)]


def test_kill_and_continue(tmp_path):
    torch.manual_seed(0)
    torch.save(gantailor.build("resnet_6blocks", ngf=4).state_dict(), tmp_path / "G.pth")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(command(tmp_path, killed), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (killed / "supernet.ckpt.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "supernet.safetensors").exists(), "the run ended before it could be killed"
    for out in (killed, whole):
        subprocess.run(command(tmp_path, out), check=True, capture_output=True)
    first, second = (load_tensors(out / "supernet.safetensors")[0] for out in (killed, whole))
    assert all(torch.equal(first[name], second[name]) for name in second)
