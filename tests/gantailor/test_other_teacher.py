"""A teacher of another architecture, as the papers have: the student learns from it, and its own costs are told."""

import json

import numpy as np
import pytest
import torch

import gantailor
from gantailor.cli.main import main
from gantailor.evaluators.metrics.cost import measured_macs
from gantailor.pipeline.context import RunContext
from gantailor.run.config import Config
from gantailor.run.loading import load_config
from gantailor.run.run import Run, open_run
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.data.pairs import Pairs


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
    assert f'title="{whole:,}"' in (separable / "report.html").read_text()


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


def mobile(folder, size, ngf, *more):
    """The published student: separable blocks beside the ordinary ResNet of the checkpoint that people have."""
    torch.manual_seed(0)
    file = folder / "latest_net_G.pth"
    torch.save(gantailor.build("resnet_9blocks", ngf=ngf).state_dict(), file)
    (folder / "config.yaml").write_text(
        f"generator: mobile_resnet_9blocks\noptions: {{ngf: {ngf}}}\n"
        f"teacher: {{generator: resnet_9blocks, options: {{ngf: {ngf}}}, weights: {file}}}\n"
        f"data: {{size: {size}}}\nconvention: published\nsearch: {{trials: 2}}\n"
        "evaluation: {search_images: 4, final: [l1]}\n"
        "train: {preset: cyclegan, kimg: 0.02, batch: 4, ndf: 4, watch_kimg: 0, conditional: false}\n"
        "finetune: {preset: cyclegan, kimg: 0.02, batch: 4, ndf: 4, watch_kimg: 0, conditional: false}\n"
    )
    return [str(folder / "config.yaml"), *more]


@pytest.mark.slow  # 256 px
def test_the_published_student_at_its_size(tmp_path, capsys):
    """GAN Compression's released fast CycleGAN, 2.64 G, is in the space; its budget is in reach."""
    flags = ["--space", "resnet/channels-64-cycleGAN", "--budget", "2.64G"]
    arguments = mobile(tmp_path, 256, 64, *flags, "--dry-run")
    assert main(["compress", *arguments, "--out", str(tmp_path / "run")]) == 0
    assert "are those of teacher 'resnet_9blocks'" in capsys.readouterr().err
    setup = Run(tmp_path / "run", load_config(arguments[0], {"space": flags[1], "budget": flags[3]})).setup
    released = setup.space.config("16_16_24_16_32_64_16_24")
    assert round(setup.traced.macs(released, convention="published") / 1e9, 3) == 2.641
    whole = setup.traced_teacher
    assert whole.macs(whole.full_config(), convention="published") == 56_831_770_624
    assert setup.budget.macs == 2_640_000_000


@pytest.mark.slow
def test_the_published_student_trains(tmp_path):
    arguments = mobile(tmp_path, 32, 8, "--budget", "0.5x")
    assert main(["compress", *arguments, "--out", str(tmp_path / "run")]) == 0
    (*_, last) = (tmp_path / "run/supernet.ckpt.jsonl").read_text().splitlines()
    assert json.loads(last)["feature"] > 0 and json.loads(last)["output"] > 0
    assert (tmp_path / "run/export/manifest.json").exists()


def test_weights_that_fit_are_taken_over(tmp_path):
    arguments = mobile(tmp_path, 32, 8)
    setup = Run(tmp_path / "run", load_config(arguments[0], {})).setup
    own, theirs = setup.generator.state_dict(), setup.teacher.state_dict()
    for name in setup.taken.names:
        assert torch.equal(own[name], theirs[name])
    assert {name for name in own if name in theirs and own[name].shape == theirs[name].shape} == set(setup.taken.names)
    assert sorted((*setup.taken.names, *setup.taken.anew)) == sorted(own) and setup.taken.anew


def test_layers_are_compared_in_pairs():
    """Maps go from the student's channels to those of the teacher's layer of another name."""
    pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    pairs = Pairs(pictures, pictures, tuple("abcd"), "noise")
    student, teacher = gantailor.build("mobile_resnet_6blocks", ngf=4), gantailor.build("resnet_9blocks", ngf=8)
    recipe = Recipe(feature_weight=2, output_weight=1, batch=4, gan="none", precision="float32", shift=0, mirror=False)
    layers = {"model.11": "model.14", "model.13": "model.18"}
    task = ImageToImage(student, pairs, recipe, teacher=teacher, feature_layers=layers)
    batch = task.batches(0)
    losses = task.backward(0, batch, 1.0)
    expected = 0.0
    for (mine, theirs), weight in zip(layers.items(), task.maps.maps, strict=True):
        kept = {}
        for net, name in ((student, mine), (teacher, theirs)):
            hook = net.get_submodule(name).register_forward_hook(
                lambda m, i, o, net=net, kept=kept: kept.update({net: o})
            )
            net(batch.inputs)
            hook.remove()
        mapped = torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], kept[student])
        expected = expected + (mapped - kept[teacher]).square().mean()
    assert float(losses["feature"]) == pytest.approx(2 * float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("{model.9: nowhere}", "teacher 'resnet_9blocks' has no 'nowhere'"),
        ("{nowhere: model.9}", "generator 'mobile_resnet_9blocks' has no 'nowhere'"),
        ("{model.9: model.1}", "other places"),
    ],
)
def test_layers_that_do_not_fit(tmp_path, capsys, layers, said):
    arguments = mobile(tmp_path, 32, 8, "--budget", "0.5x", "--dry-run", "--teacher.layers", layers)
    assert main(["compress", *arguments, "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in message and "teacher.layers {the generator's: the teacher's}" in message
