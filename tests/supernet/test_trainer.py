"""The trainer: a resumed training equals the uninterrupted one bit for bit, and losses fall."""

import numpy as np
import pytest
import torch

import gantailor
from gantailor.supernet.errors import CheckpointError
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer, TrainingError
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.patch import PatchDiscriminator

RECIPE = Recipe(kimg=0.064, batch=4, feature_weight=1, output_weight=10, precision="float32")


def pairs():
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    return Pairs(inputs, 255 - inputs, tuple(map(str, range(10))), "random")


def trainer(recipe=RECIPE):
    torch.manual_seed(0)
    teacher = gantailor.build("resnet_6blocks", ngf=4)
    supernet = gantailor.Supernet(teacher, (torch.randn(1, 3, 16, 16),))
    discriminator = PatchDiscriminator(ndf=4, layers=2)

    def sample(rng, step, position):
        return {w.name: int(rng.integers(1, w.size + 1)) for w in supernet.graph.widths}

    task = ImageToImage(
        supernet,
        pairs(),
        recipe,
        discriminator=discriminator,
        teacher=teacher,
        feature_layers=teacher.feature_layers,
        sample=sample,
    )
    return Trainer(task, recipe)


@pytest.mark.long
def test_resuming_is_exact(tmp_path):
    whole = trainer().run().state_dict()
    path = tmp_path / "state.safetensors"
    trainer().run(path, stop_after=7)
    resumed = trainer().run(path).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.long
def test_resuming_is_exact_with_channels_last(tmp_path):
    """Moments lie in memory as their parameters do, and come back so."""
    recipe, path = RECIPE.model_copy(update={"channels_last": True}), tmp_path / "state.safetensors"
    whole = trainer(recipe).run().state_dict()
    trainer(recipe).run(path, stop_after=7)
    resumed = trainer(recipe).run(path).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_another_recipe_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    trainer().run(path, stop_after=1)
    with pytest.raises(CheckpointError, match="another recipe"):
        trainer(RECIPE.model_copy(update={"lr": 1.0})).run(path)


@pytest.mark.long
def test_it_learns():
    recipe = Recipe(kimg=0.8, batch=4, gan="none", precision="float32", mirror=False, shift=0, lr=1e-3, ema_kimg=0)
    torch.manual_seed(0)
    run = Trainer(ImageToImage(gantailor.build("resnet_6blocks", ngf=8), pairs(), recipe), recipe)
    first = run.train_step()["target"]
    run.run()
    assert run.train_step()["target"] < first / 2


def test_exploding_loss_stops_with_its_name():
    run = trainer()
    with torch.no_grad():
        run.task.generator.generator.model[1].weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="discriminator loss is nan at step 0"):
        run.train_step()
