"""Where a training step's time goes."""

import csv
import io
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gantailor.cli.main import main
from gantailor.pipeline.training.step_profile import STEPS, StepProfile


def profiled(tmp_path, steps, *, layers=2):
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(layers)], nn.InstanceNorm2d(3))
    adam = torch.optim.Adam(net.parameters(), fused=True)
    measured, told = StepProfile(tmp_path / "profile" / "x.trace.json"), []
    for step in range(steps):
        adam.zero_grad()
        net(torch.rand(2, 3, 8, 8)).square().mean().backward()
        adam.step()
        if measured():
            told.append(step)
    measured.close()
    return measured, told


@pytest.mark.parametrize("layers", [1, 3])
def test_each_operation_of_a_step_is_counted(tmp_path, layers):
    measured, told = profiled(tmp_path, STEPS + 6, layers=layers)
    assert told == [STEPS + 1]  # one is waited for, one warms; told once
    rows = {row["operation"]: row for row in measured.rows}
    assert rows["aten::convolution_backward"]["calls"] == layers
    assert rows["aten::convolution_backward"]["kind"] == "convolutions"
    assert rows["aten::_fused_adam_"]["calls"] == 1 and rows["aten::_fused_adam_"]["kind"] == "optimisers"
    assert rows["aten::native_batch_norm"]["kind"] == "norms" and rows["aten::rand"]["kind"] == "random numbers"
    assert sum(row["share"] for row in measured.rows) == pytest.approx(1, abs=0.02)
    times = [row["milliseconds"] for row in measured.rows]
    assert times == sorted(times, reverse=True) and all(time > 0 for time in times)
    assert sum(measured.by_kind().values()) == pytest.approx(sum(times))
    assert f"a step takes {sum(times):.1f} ms" in str(measured)


def test_table_and_trace_are_read_by_others(tmp_path):
    measured, _ = profiled(tmp_path, STEPS + 2)
    found = list(csv.DictReader(io.StringIO(measured.to_csv().decode())))
    assert [row["operation"] for row in found] == [row["operation"] for row in measured.rows]
    names = {event.get("name") for event in json.loads(measured.trace.read_text())["traceEvents"]}
    assert {"aten::convolution", "aten::native_batch_norm"} <= names


@pytest.mark.parametrize(("steps", "measured_steps"), [(1, 0), (2, 0), (4, 2)])
def test_a_training_that_is_shorter(tmp_path, steps, measured_steps):
    measured, told = profiled(tmp_path, steps)
    assert told == [] and measured.trace.exists() == bool(measured_steps)
    calls = {row["operation"]: row["calls"] for row in measured.rows}
    assert calls.get("aten::convolution_backward", 0) == (2 if measured_steps else 0)


@pytest.mark.long
def test_train_tells_it_and_goes_on(tiny_teacher, tmp_path, capsys):
    """The training is the one without it, bit for bit."""
    given = ["train", "--options", "{ngf: 8}", "--teacher", str(tiny_teacher), "--budget", "0.5x", "--data.size", "32"]
    given += ["--evaluation.search_images", "4"]
    given += ["--train.kimg", "0.04", "--train.batch", "4", "--train.ndf", "8", "--train.watch_kimg", "0"]
    assert main([*given, "--out", str(tmp_path / "plain")]) == 0
    assert not (tmp_path / "plain" / "profile").exists()
    assert main([*given, "--out", str(tmp_path / "measured"), "--profile"]) == 0
    assert "% " in (told := capsys.readouterr().err) and "a step takes" in told and "convolutions" in told
    assert (tmp_path / "measured" / "profile" / "supernet.csv").read_text().startswith("kind,operation,calls,")
    weights = [load_file(tmp_path / name / "supernet.safetensors") for name in ("plain", "measured")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
