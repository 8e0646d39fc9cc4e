"""A teacher of another architecture, as the papers have: the student learns from it, and its own costs are told."""

import json

import pytest
import torch

import gantailor
from gantailor.cli.main import main
from gantailor.evaluators.metrics.cost import measured_macs
from gantailor.pipeline.context import RunContext
from gantailor.run.config import Config
from gantailor.run.run import Run, open_run
from gantailor.supernet.training.recipe import Recipe


@pytest.fixture(scope="module")
def separable(tmp_path_factory, tiny_teacher):
    """A run of a generator of separable convolutions, beside a teacher of plain ones."""
    folder = tmp_path_factory.mktemp("separable")
    short = "{kimg: 0.02, batch: 4, ndf: 4, watch_kimg: 0}"
    (folder / "config.yaml").write_text(
        "generator: mobile_resnet_6blocks\noptions: {ngf: 8}\n"
        f"teacher: {{weights: {tiny_teacher}, generator: resnet_6blocks, options: {{ngf: 8}}}}\n"
        "data: {size: 32}\nbudget: 0.5x\nsearch: {trials: 1}\nevaluation: {search_images: 4, final: [l1]}\n"
        f"train: {short}\nfinetune: {short}\n"
    )
    assert main(["compress", str(folder / "config.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_it_teaches(separable):
    for name in ("supernet", "subnet"):
        (*_, last) = (separable / f"{name}.ckpt.jsonl").read_text().splitlines()
        assert json.loads(last)["feature"] > 0 and json.loads(last)["output"] > 0


def test_costs_are_its_own(separable, tiny_teacher):
    manifest = json.loads((separable / "export/manifest.json").read_text())
    teacher = gantailor.load_teacher(tiny_teacher, generator="resnet_6blocks", ngf=8)
    whole = measured_macs(teacher, torch.zeros(1, 3, 32, 32))
    assert manifest["teacher_macs"]["true"] == whole
    setup = open_run(separable).setup
    assert whole > setup.traced.macs(setup.traced.full_config())
    assert f"<td>{whole:,}</td>" in (separable / "report.html").read_text()


def test_a_training_has_networks_of_its_own(tiny_teacher, tmp_path):
    """It moves them to its device; others score with the shared ones, on the CPU."""
    files = {"lpips_features": "unread", "lpips_heads": "unread"}
    config = Config(options={"ngf": 8}, teacher=str(tiny_teacher), data={"size": 32}, evaluation=files)
    run, shared = Run(tmp_path, config), torch.nn.PairwiseDistance()
    run.setup.scoring._lpips = shared
    recipe = Recipe(perceptual_weight=1, output_weight=1, batch=4, ndf=4)
    context = RunContext(run)
    task = context.training(context.supernet(), recipe)
    assert task.perceptual is not shared
    assert task.teacher.model is not run.setup.teacher
