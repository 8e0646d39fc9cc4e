"""A run killed with -9 in the middle goes on with the same command, and ends with the same weights."""

import signal
import subprocess
import sys
import time

import pytest
import torch

import gantailor
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.supernet.errors import RunError
from gantailor.supernet.files import load_tensors

pytestmark = pytest.mark.long


def command(folder, out, workers=0):
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
        "--finetune.gan",  # its discriminator would not take 16 pixels, and is not asked for here
        "none",
        "--data.workers",
        str(workers),
    ]
    return [sys.executable, "-m", "gantailor.cli", "train", *flags, "--out", str(out)]


def started(command, log):
    """The process, once it has trained for a moment."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


@pytest.mark.slow
def test_ctrl_c_saves_the_whole_step(tmp_path):
    """Also where two processes read the pictures; the run goes on without them."""
    torch.manual_seed(0)
    torch.save(gantailor.build("resnet_6blocks", ngf=4).state_dict(), tmp_path / "G.pth")
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    process = started(command(tmp_path, stopped, workers=2), stopped / "supernet.ckpt.jsonl")
    with pytest.raises(RunError, match=f"is being written by process {process.pid}; wait for it"):
        Run(stopped, load_config(None, {})).claim()
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues" in printed and "Traceback" not in printed
    step = load_tensors(stopped / "supernet.ckpt.safetensors")[1]["step"]
    assert 0 < step < 150, "the checkpoint is of the step at which it was interrupted"
    for out in (stopped, whole):
        subprocess.run(command(tmp_path, out), check=True, capture_output=True)
    first, second = (load_tensors(out / "supernet.safetensors")[0] for out in (stopped, whole))
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_kill_and_continue(tmp_path):
    torch.manual_seed(0)
    torch.save(gantailor.build("resnet_6blocks", ngf=4).state_dict(), tmp_path / "G.pth")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = started(command(tmp_path, killed), killed / "supernet.ckpt.jsonl")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "supernet.safetensors").exists(), "the run ended before it could be killed"
    for out in (killed, whole):
        subprocess.run(command(tmp_path, out), check=True, capture_output=True)
    first, second = (load_tensors(out / "supernet.safetensors")[0] for out in (killed, whole))
    assert all(torch.equal(first[name], second[name]) for name in second)
