"""What a training keeps: averages of all that is saved, sound checkpoints, logs that run forwards."""

import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

import gantailor
from gantailor.supernet.calibration import recalibrate
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import cut_rows, load_tensors, read_rows
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer, TrainingError
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.patch import PatchDiscriminator
from gantailor.zoo.tasks.cyclegan import CycleGan
from gantailor.zoo.tasks.munit import Munit

RECIPE = Recipe(kimg=0.048, batch=4, gan="none", precision="float32", shift=0, watch_kimg=0, ema_kimg=0.02, lr=5e-3)


def pictures(count, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def pairs(count=10):
    return Pairs(pictures(count), 255 - pictures(count), tuple(map(str, range(count))), "noise")


class Means(nn.Module):
    """A norm of one's own: takes the running mean away, which follows by a momentum."""

    def __init__(self, channels):
        super().__init__()
        self.momentum = 0.1
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.running_mean.lerp_(x.mean((0, 2, 3)), self.momentum)
                self.running_var.lerp_(x.var((0, 2, 3)), self.momentum)
        return x - self.running_mean[:, None, None]


def net(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), norm(5), nn.Tanh(), nn.Conv2d(5, 3, 1))


def tracking(channels):
    return nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)


NORMS = [nn.BatchNorm2d, tracking, Means, lambda c: nn.BatchNorm2d(c, momentum=None)]


@pytest.mark.parametrize("norm", NORMS)
def test_statistics_are_the_plain_average_of_every_norm(norm):
    model, batches = net(norm), [torch.randn(4, 3, 6, 10) for _ in range(3)]
    momentum = model[1].momentum
    with torch.no_grad():
        model[1].running_mean.fill_(9)
        seen = [model[0](batch) for batch in batches]
    recalibrate(model, batches)
    per = (2, 3) if isinstance(model[1], nn.InstanceNorm2d) else (0, 2, 3)
    variances = [x.var(per).mean(0) if len(per) == 2 else x.var(per) for x in seen]
    torch.testing.assert_close(model[1].running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack(variances).mean(0))
    assert model[1].momentum == momentum and not model.training


@pytest.mark.parametrize("norm", NORMS[:3])
def test_an_average_has_statistics_of_its_own(norm):
    """Those of its weights over the training's pictures, not those of the last step's weights."""
    task = ImageToImage(net(norm), pairs(), RECIPE)
    trainer = Trainer(task, RECIPE)
    average = trainer.run()
    mine = [task.batches(step).inputs for step in range(32)]  # 128 pictures
    with torch.no_grad():
        means = torch.stack([average[0](x).mean((0, 2, 3)) for x in mine]).mean(0)
    torch.testing.assert_close(average[1].running_mean, means, rtol=1e-5, atol=1e-6)
    assert float((task.generator[1].running_mean - means).abs().max()) > 1e-3


def munit(recipe):
    generator = gantailor.build("munit", ngf=2, mlp_dim=4, n_res=1, style_dim=2)
    return Munit(generator, Domains(pictures(6, 32), pictures(5, 32, 1)), recipe)


def cyclegan(recipe):
    generator = gantailor.build("resnet_6blocks", ngf=2, norm="batch")
    return CycleGan(generator, Domains(pictures(6, 16), pictures(5, 16, 1)), recipe)


@pytest.mark.long
@pytest.mark.parametrize(("make", "name"), [(cyclegan, "back"), (munit, "other")])
def test_every_network_that_is_saved_is_averaged(tmp_path, make, name):
    small = {"kimg": 0.006, "batch": 2, "gan": "lsgan", "conditional": False, "ndf": 2, "discriminator_layers": 1}
    recipe = RECIPE.model_copy(update={**small, "lr": 1e-2})
    task = make(recipe)
    trainer, literal = Trainer(task, recipe), {}
    while trainer.step < recipe.steps:
        before = {key: value.clone() for key, value in literal.items()} or {
            key: value.detach().clone() for key, value in getattr(task, name).named_parameters()
        }
        decay = min(0.5 ** (2 / 20), (1 + trainer.step) / (10 + trainer.step))
        trainer.train_step()
        literal = {
            key: before[key].lerp(value.detach(), 1 - decay) for key, value in getattr(task, name).named_parameters()
        }
    raw = {key: value.detach().clone() for key, value in getattr(task, name).named_parameters()}
    trainer.run(tmp_path / "c.safetensors")  # to its end, which is reached
    kept = dict(getattr(task, name).named_parameters())
    assert kept.keys() == literal.keys()
    for key, value in literal.items():
        torch.testing.assert_close(kept[key].detach(), value)
    assert any(not torch.equal(raw[key], kept[key]) for key in raw)
    again = make(recipe)
    Trainer(again, recipe).run(tmp_path / "c.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(kept.values(), getattr(again, name).parameters(), strict=True))


def broken_weight(trainer):
    next(trainer.task.generator.parameters()).data[0] = float("inf")


def broken_average(trainer):
    next(trainer.average.parameters()).data[0] = float("nan")


def broken_moment(trainer):
    state = next(iter(trainer.task.optimizers["generator"].state.values()))
    state["exp_avg_sq"].view(-1)[0] = float("nan")


def broken_statistics(trainer):
    trainer.task.generator[1].running_var[0] = float("nan")


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (broken_weight, "generator"),
        (broken_average, "average"),
        (broken_moment, "generator's optimiser"),
        (broken_statistics, "generator"),
    ],
)
def test_a_checkpoint_is_looked_at_before_it_is_written(tmp_path, harm, named):
    trainer, file = Trainer(ImageToImage(net(nn.BatchNorm2d), pairs(), RECIPE), RECIPE), tmp_path / "c.safetensors"
    trainer.train_step()
    trainer.task.generator.register_buffer("mask", torch.tensor([0.0, -torch.inf]))  # which is meant
    trainer.average.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    trainer.save(file)
    before = file.read_bytes()
    trainer.train_step()
    harm(trainer)
    with pytest.raises(TrainingError, match=rf"weights of the {named} hold NaN or infinity at step 2; .* step 1, "):
        trainer.save(file)
    assert file.read_bytes() == before


def test_logs_run_forwards_after_a_kill(tmp_path, monkeypatch):
    """Rows of steps that are done again go, as does a line that the kill cut off; nothing else."""
    file, log = tmp_path / "c.safetensors", tmp_path / "c.jsonl"
    monkeypatch.setattr(time, "monotonic", iter(np.arange(0.0, 1e6, 2)).__next__)  # a report at every step
    Trainer(ImageToImage(net(nn.BatchNorm2d), pairs(), RECIPE), RECIPE).run(file, stop_after=5)
    stored = read_rows(log)
    assert [row["step"] for row in stored] == [1, 2, 3, 4, 5]
    with log.open("a") as out:
        out.write("".join(json.dumps({**stored[-1], "step": step}) + "\n" for step in (6, 7, 9)) + '{"step": 1')
    Trainer(ImageToImage(net(nn.BatchNorm2d), pairs(), RECIPE), RECIPE).run(file)
    rows = read_rows(log)
    assert [row["step"] for row in rows] == list(range(1, 13)) and rows[:5] == stored
    file.unlink()  # killed before the first checkpoint
    Trainer(ImageToImage(net(nn.BatchNorm2d), pairs(), RECIPE), RECIPE).run(file, stop_after=2)
    assert [row["step"] for row in read_rows(log)] == [1, 2]
    assert cut_rows(tmp_path / "none.jsonl", 3) == []


@pytest.mark.long
@pytest.mark.parametrize("kind", ["alignment", "relation"])
@pytest.mark.parametrize(("subnets", "parts"), [(2, 2), (1, 4)])
def test_losses_that_compare_pictures_see_the_whole_batch(kind, subnets, parts):
    """Also of a supernet whose step has several subnets; parts of one picture, too."""
    torch.manual_seed(0)
    teacher, inputs = gantailor.build("resnet_6blocks", ngf=2), (torch.randn(1, 3, 16, 16),)
    data = Pairs(pictures(4, 16), 255 - pictures(4, 16), tuple("abcd"), "noise")

    def gradient(accumulate):
        recipe = RECIPE.model_copy(
            update={"batch": 4, "feature_weight": 1.0, "feature_loss": kind, "output_weight": 1.0, "subnets": subnets}
        )
        torch.manual_seed(1)
        whole = gantailor.build("resnet_6blocks", ngf=2)
        supernet = gantailor.Supernet(whole, inputs)

        def sample(rng, step, position):
            return {w.name: max(1, w.size - position) for w in supernet.graph.widths}

        task = ImageToImage(
            supernet if subnets > 1 else whole,
            data,
            recipe,
            teacher=teacher,
            feature_layers=teacher.feature_layers,
            sample=sample if subnets > 1 else None,
        )
        rows = [task.backward(3, task.batches(3, part, accumulate), 1 / accumulate) for part in range(accumulate)]
        loss = torch.stack([row["feature"] for row in rows]).mean()
        return torch.cat([p.grad.flatten() for p in task.trained if p.grad is not None]), loss

    (whole, loss), (added, mean) = gradient(1), gradient(parts)
    torch.testing.assert_close(added, whole, rtol=1e-3, atol=2e-5 * float(whole.abs().max()))
    assert float(mean) == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize("where", ["generator", "discriminator"])
def test_a_batch_norm_does_not_train_on_parts_unless_that_is_said(where):
    recipe = RECIPE.model_copy(update={"accumulate": 2, "gan": "lsgan"})
    judge = PatchDiscriminator(ndf=2, layers=1, norm="batch" if where == "discriminator" else "instance")
    model = net(nn.BatchNorm2d if where == "generator" else nn.InstanceNorm2d)

    def made(recipe):
        return Trainer(ImageToImage(model, pairs(), recipe, discriminator=judge), recipe)

    with pytest.raises(ConfigError, match=f"batch norm of the {where}: .* in 2 parts .* or set coupled to parts"):
        made(recipe)
    made(recipe.model_copy(update={"coupled": "parts"}))
    made(recipe.model_copy(update={"accumulate": 1}))


TWO = """
import sys
import numpy as np
import torch
from pathlib import Path
torch.set_num_threads(1)
import gantailor
from gantailor.supernet.training import distributed
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.patch import PatchDiscriminator
distributed.join()
recipe = Recipe(kimg=0.04, batch=4, gan="lsgan", pool=3, precision="float32", ema_kimg=0, watch_kimg=0, ndf=2)
def trainer():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8) for _ in range(2))
    net = torch.nn.Conv2d(3, 3, 3, padding=1)
    judge = PatchDiscriminator(ndf=2, layers=1)
    return Trainer(ImageToImage(net, Pairs(a, b, tuple("abcdefgh"), "x"), recipe, discriminator=judge), recipe)
one = trainer()
one.run()
file = Path(sys.argv[1])
trainer().run(file, stop_after=5)
rest = trainer()
rest.run(file)
same = all(torch.equal(a, b) for a, b in zip(one.task.generator.parameters(), rest.task.generator.parameters()))
own = torch.equal(one.task.pool.pictures, rest.task.pool.pictures)
print(distributed.rank(), same, own, float(one.task.pool.pictures.sum()))
"""


@pytest.mark.long
def test_each_process_goes_on_with_its_own_pool(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    file = tmp_path / "c.safetensors"
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    made = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(file)],
            env={**common, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=120)[0].split() for process in made]
    assert [line[:3] for line in said] == [["0", "True", "True"], ["1", "True", "True"]]
    assert said[0][3] != said[1][3], "their pools are others"
    assert any(name.startswith("process-1.pool") for name in load_tensors(file)[0])
