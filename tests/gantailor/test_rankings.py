"""What a run's ranking compares the generator's outputs with."""

import numpy as np
import pytest
import torch
from PIL import Image

import gantailor
from gantailor.run import ranking
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.supernet.calling import forward
from gantailor.supernet.importance.taylor import taylor_scores

COMMON = {"options": {"ngf": 8}, "ranking": "taylor"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four pairs side by side, 32 px."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    (folder / "train").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)).save(folder / "train" / f"{number}.png")
    return folder


def scored(tmp_path, pictures, **settings):
    """The run's scores, its setup, and its training pictures in the ranking's order."""
    data = {"kind": "folder", "path": str(pictures), "size": 32}
    setup = Run(tmp_path / "run", load_config(None, {**COMMON, "data": data, **settings})).setup
    chosen = np.random.default_rng(0).permutation(4)
    return ranking.compute(setup, "taylor"), setup, setup.data("train").batch(chosen)


def same(found, expected):
    assert any(values.any() for values in expected.values())
    assert all(np.array_equal(found[name], values) for name, values in expected.items())


@pytest.mark.long
def test_taylor_is_of_the_targets(tmp_path, pictures, tiny_teacher):
    found, setup, (inputs, targets) = scored(tmp_path, pictures, teacher=str(tiny_teacher))
    same(found, taylor_scores(setup.traced, inputs, targets=targets))


@pytest.mark.long
def test_taylor_of_a_training_without_targets_is_of_the_outputs(tmp_path, pictures, tiny_teacher):
    flags = {"teacher": str(tiny_teacher), "finetune": {"target_weight": 0}}
    found, setup, (inputs, targets) = scored(tmp_path, pictures, **flags)
    assert targets is not None
    same(found, taylor_scores(setup.traced, inputs))


@pytest.mark.long
def test_taylor_of_another_student_is_of_the_teachers_outputs(tmp_path, pictures, tiny_teacher):
    teacher = {"weights": str(tiny_teacher), "generator": "resnet_6blocks", "options": {"ngf": 8}}
    flags = {"teacher": teacher, "options": {"ngf": 4}, "finetune": {"target_weight": 0}}
    found, setup, (inputs, _) = scored(tmp_path, pictures, **flags)
    with torch.no_grad():
        taught = torch.cat([forward(setup.teacher, inputs[row : row + 1]) for row in range(4)])
    same(found, taylor_scores(setup.traced, inputs, targets=taught))


def test_taylor_of_latents_is_of_the_outputs(tmp_path, pictures):
    torch.manual_seed(0)
    net = gantailor.build("stylegan2", size=32, style_dim=8, n_mlp=2, channels={4: 8, 8: 8, 16: 8, 32: 6})
    torch.save({"g_ema": net.state_dict()}, tmp_path / "g.pt")
    flags = {"generator": "stylegan2", "options": {}, "teacher": str(tmp_path / "g.pt"), "ranking": "taylor"}
    flags["data"] = {"kind": "folder", "path": str(pictures), "direction": "unpaired", "size": 32}
    assert ranking._compared(Run(tmp_path / "run", load_config(None, flags)).setup, "taylor") == ""
