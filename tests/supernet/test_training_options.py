"""Every option of a training against a slow literal reference, or against the plain way of doing the same."""

import copy
import errno
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training import losses
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.presets import PRESETS
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.sampling import draw_choices
from gantailor.supernet.training.teaching.distillation import alignment_loss, relation_loss
from gantailor.supernet.training.teaching.teacher_cache import Teacher
from gantailor.supernet.training.trainer import Trainer, TrainingError
from gantailor.zoo.discriminators.build import make_discriminator
from gantailor.zoo.discriminators.multiscale import MultiscaleDiscriminator
from tests.supernet.test_trainer import RECIPE, pairs, trainer


def gradients(**changes):
    run = trainer(Recipe.model_validate({**RECIPE.model_dump(), **changes}))
    parts = run.recipe.accumulate
    for number in range(parts):
        run.task.backward(0, run.task.batches(0, number, parts), 1 / parts)
    return {n: p.grad for part in run.task.parts().values() for n, p in part.named_parameters() if p.grad is not None}


def largest(tensors):
    return max(float(t.abs().max()) for t in tensors)


def same(a, b, *, of):
    """To 1e-5 of the largest gradient there is."""
    return float((a - b).abs().max()) < 1e-5 * of


@pytest.mark.long
def test_accumulated_parts_give_the_whole_batch():
    whole, parts = gradients(), gradients(accumulate=4)
    assert whole.keys() == parts.keys()
    for name in whole:
        assert same(parts[name], whole[name], of=largest(whole.values()))


def test_both_gradients_are_at_the_same_weights():
    """One judgement of each output serves both: equal to judging it once for each loss."""
    run = trainer(RECIPE.model_copy(update={"ema_kimg": 0}))
    task, batch = run.task, run.task.batches(0)
    task.backward(0, batch, 1.0)
    config = task.sample(np.random.default_rng((RECIPE.seed, 2, 0)), 0, 0)
    fake = task.generator(batch.inputs, config=config)
    judge, grads = task.discriminator, {}
    both = torch.cat([batch.inputs, fake.detach()], 1)
    loss = 0.5 * losses.real_loss("hinge", judge(torch.cat([batch.inputs, batch.targets], 1)))
    loss = loss + 0.5 * losses.fake_loss("hinge", judge(both))
    grads = torch.autograd.grad(loss, list(judge.parameters()))
    for parameter, expected in zip(judge.parameters(), grads, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_teacher_cache(tmp_path, cache):
    task = trainer(Recipe.model_validate({**RECIPE.model_dump(), "shift": 0, "precision": "bfloat16"})).task
    model, layers, batch = task.teacher.model, task.feature_layers, task.batches(0)
    calls = []
    plain = Teacher(model, layers, context=task._autocast)(batch.inputs, batch.keys)
    model.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):  # the second time from a new object, which finds the files
        kept = Teacher(model, layers, cache=cache, folder=tmp_path, content="pictures", context=task._autocast)
        for _ in range(2):
            output, features = kept(batch.inputs, batch.keys)
            torch.testing.assert_close(output, plain[0], rtol=0, atol=0.02)  # bf16, summed one picture at a time
            assert [f.dtype for f in features.values()] == [f.dtype for f in plain[1].values()]
            for name in layers:
                torch.testing.assert_close(features[name], plain[1][name], rtol=0.05, atol=0.05)
    assert len(calls) == len(batch.keys) * (1 if cache == "disk" else 2)
    with torch.no_grad():
        next(model.parameters()).add_(1)  # another teacher: other files
    Teacher(model, layers, cache=cache, folder=tmp_path, content="pictures", context=task._autocast)(
        batch.inputs, batch.keys
    )
    assert len(calls) == len(batch.keys) * (2 if cache == "disk" else 3)


def test_options_that_do_not_fit_are_explained():
    for settings, message in (
        ({"teacher_cache": "memory"}, "needs shift 0"),
        ({"in_place_weight": 1.0}, "needs subnets of 2"),
        ({"batch": 6, "accumulate": 4}, "cannot be worked through in 4 equal parts"),
        ({"preset": "pix2pixx"}, "'pix2pix'"),
    ):
        with pytest.raises(ValueError, match=message):
            Recipe(**settings)
    with pytest.raises(ConfigError, match=r"evaluation\.lpips_features"):
        trainer(RECIPE.model_copy(update={"perceptual_weight": 1.0}))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_recipes(name):
    recipe = Recipe(preset=name, kimg=1)
    assert recipe.kimg == 1
    if recipe.gan != "none" and recipe.discriminator != "stylegan2":
        judge = make_discriminator(recipe.model_copy(update={"ndf": 4}), input_nc=3, output_nc=3)
        judged = judge(torch.randn(2, 6 if recipe.conditional else 3, 64, 64))
        assert losses.real_loss(recipe.gan, judged).item() >= 0


def test_published_settings():
    """methods.md's table: GAN Compression's losses and optimisers."""
    pix2pix, cyclegan, spade, munit = (Recipe(preset=n) for n in ("pix2pix", "cyclegan", "spade", "munit"))
    assert (pix2pix.gan, pix2pix.target_weight, pix2pix.feature_weight, pix2pix.ndf) == ("hinge", 100, 1, 128)
    assert (cyclegan.gan, cyclegan.output_weight, cyclegan.feature_weight, cyclegan.conditional) == (
        "lsgan",
        10,
        0.01,
        False,
    )
    assert (spade.lr, spade.lr_discriminator, spade.beta1, spade.beta2, spade.matching_weight) == (
        1e-4,
        4e-4,
        0,
        0.9,
        10,
    )
    assert (munit.weight_decay, munit.halve_kimg, munit.decay_at(200_000), munit.decay_at(199_999)) == (
        1e-4,
        200,
        0.5,
        1,
    )


def test_two_time_scales():
    recipe = RECIPE.model_copy(update={"lr": 1e-4, "lr_discriminator": 4e-4, "decay_from": 0.5, "kimg": 0.04})
    run = trainer(recipe)
    run.step = 7  # of 10 steps: the fall is 2/5 done
    run.train_step()
    rates = {name: o.param_groups[0]["lr"] for name, o in run.task.optimizers.items()}
    assert rates == pytest.approx({"generator": 0.6e-4, "discriminator": 2.4e-4})


def test_losses_are_their_formulas():
    x = torch.tensor([[-2.0, 0.5, 3.0]])
    assert float(losses.real_loss("hinge", x)) == pytest.approx((3 + 0.5 + 0) / 3)
    assert float(losses.fake_loss("hinge", x)) == pytest.approx((0 + 1.5 + 4) / 3)
    assert float(losses.generator_loss("lsgan", x)) == pytest.approx((9 + 0.25 + 4) / 3)
    softplus = np.log1p(np.exp(-x.numpy())).mean()
    assert float(losses.generator_loss("nonsaturating", x)) == pytest.approx(float(softplus))
    assert float(losses.real_loss("hinge", [x, [x, x + 10]])) == pytest.approx((3.5 / 3 + 0) / 2)
    fake, real = [[torch.zeros(2), torch.ones(3), x]], [[torch.ones(2), torch.ones(3), x]]
    assert float(losses.matching_loss(fake, real)) == 1


def test_multiscale_with_matching():
    recipe = Recipe(preset="spade", kimg=0.008, batch=2, ndf=4, discriminator_layers=2, seed=0)
    judge = make_discriminator(recipe, input_nc=3, output_nc=3)
    assert isinstance(judge, MultiscaleDiscriminator)
    task = ImageToImage(trainer().task.teacher.model.requires_grad_(True), pairs(), recipe, discriminator=judge)
    terms = Trainer(task, recipe).train_step()
    assert set(terms) == {"discriminator", "gan", "matching"}


@pytest.mark.parametrize("to", ["real", "teacher"])
@pytest.mark.parametrize(("kind", "scales"), [("patch", 1), ("munit", 3)])
def test_matching_is_its_formula(kind, scales, to):
    """L1 behind every activation of the discriminator as it was, to the real pictures' or the teacher's outputs'."""
    recipe = Recipe(
        kimg=0.008, batch=2, ndf=4, discriminator_layers=2, discriminator=kind, matching_weight=3.0, matching_to=to,
        target_weight=0.0, shift=0, mirror=False, precision="float32", gan="lsgan",
    )  # fmt: skip
    judge = make_discriminator(recipe, input_nc=3, output_nc=3)
    teacher = trainer().task.teacher.model
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.normal_(0, 0.3)
    student = copy.deepcopy(teacher).requires_grad_(True)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    before, mine = copy.deepcopy(judge), copy.deepcopy(student)
    task = ImageToImage(student, pairs(), recipe, discriminator=judge, teacher=teacher)
    batch = task.batches(0, 0, 1)
    terms = Trainer(task, recipe).train_step()
    seen = []
    for part in before.modules():
        if isinstance(part, nn.LeakyReLU):
            part.register_forward_hook(lambda _part, _inputs, output: seen.append(output.detach()))
    with torch.no_grad():
        for pictures in (mine(batch.inputs), batch.targets if to == "real" else teacher(batch.inputs)):
            before(torch.cat([batch.inputs, pictures], 1))
    half = len(seen) // 2
    expected = 3.0 * sum(float((a - b).abs().mean()) for a, b in zip(seen[:half], seen[half:])) / scales
    assert half and float(terms["matching"]) == pytest.approx(expected, rel=1e-4) and expected > 0


def test_matching_to_no_teacher_is_refused():
    recipe = Recipe(kimg=0.008, batch=2, ndf=4, matching_weight=1.0, matching_to="teacher")
    judge = make_discriminator(recipe, input_nc=3, output_nc=3)
    with pytest.raises(ConfigError, match="there is none; give one, or set matching_to to real"):
        ImageToImage(trainer().task.teacher.model, pairs(), recipe, discriminator=judge)


def test_alignment_is_its_definition():
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 5, 4, 4, dtype=torch.float64)
    rows = [f.permute(0, 2, 3, 1).reshape(32, -1) for f in (x, y)]
    kernels = [r @ r.T for r in rows]
    expected = (kernels[0] * kernels[1]).sum() / (kernels[0].norm() * kernels[1].norm())
    assert float(alignment_loss({"a": x}, {"a": y})) == pytest.approx(1 - float(expected), rel=1e-5)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    turned = 3 * torch.einsum("nchw,cd->ndhw", y, rotation)
    assert float(alignment_loss({"a": turned}, {"a": y})) == pytest.approx(0, abs=1e-5)


def test_relation_is_its_definition():
    torch.manual_seed(0)
    x, y = torch.randn(3, 2, 4, 4), torch.randn(3, 6, 2, 2)
    soft = []
    for f in (x, y):
        cosine = [[F.cosine_similarity(a.flatten(), b.flatten(), 0) for b in f] for a in f]
        soft.append(torch.tensor(cosine).softmax(1))
    expected = (soft[1] * (soft[1] / soft[0]).log()).sum(1).mean()
    assert float(relation_loss({"a": x}, {"a": y})) == pytest.approx(float(expected), rel=1e-4)
    with pytest.raises(ConfigError, match="raise batch"):
        relation_loss({"a": x[:1]}, {"a": y[:1]})


def test_sampling_rules():
    counts = [4, 3, 5] * 4
    top = np.array(counts) - 1

    def draws(recipe, steps):
        return [draw_choices(recipe, counts, np.random.default_rng((0, s)), s, 0) for s in steps]

    sandwich = draws(Recipe(sampling="sandwich"), range(3))
    assert (sandwich[0] == top).all() and (sandwich[1] == 0).all()
    progressive = Recipe(sampling="progressive")
    assert (draws(progressive, [0])[0] == top).all()
    assert any((d == 0).any() for d in draws(progressive, range(progressive.steps // 2, progressive.steps // 2 + 5)))
    spreads = {
        name: np.std([(d / top).mean() for d in draws(Recipe(sampling=name), range(400))])
        for name in ("uniform", "spread")
    }
    assert spreads["spread"] > 2 * spreads["uniform"]
    taught = Recipe(sampling="uniform", subnets=2, in_place_weight=1.0)
    assert (draw_choices(taught, counts, np.random.default_rng(0), 0, 0) == top).all()


def test_in_place_distillation_and_several_subnets():
    run = trainer(RECIPE.model_copy(update={"subnets": 3, "in_place_weight": 5.0}))
    seen = []
    run.task.sample = lambda rng, step, position: seen.append(position) or run.task.generator.full_config()
    terms = run.train_step()
    assert seen == [0, 1, 2]
    assert float(terms["in_place"]) == 0  # all three were the whole generator
    assert np.isfinite([float(v) for v in terms.values()]).all()


def test_last_good_checkpoint_is_named(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    trainer().run(path, stop_after=3)
    before = path.read_bytes()
    run = trainer()
    backward = run.task.backward

    def exploding(step, batch, share):
        terms = backward(step, batch, share)
        return {**terms, "gan": terms["gan"] * (1e9 if step == 5 else 1)}

    run.task.backward = exploding
    with pytest.raises(TrainingError, match=r"gan loss is .* at step 5; the last good checkpoint is step 3.*Lower lr"):
        run.run(path)
    assert path.read_bytes() == before

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gantailor.supernet.training.trainer.save_tensors", full)
    with pytest.raises(TrainingError, match="the disk is full; the last good checkpoint is step 3"):
        trainer().run(path, stop_after=4)
    assert path.read_bytes() == before


def test_out_of_memory_is_explained():
    run = trainer()

    def greedy(*_):
        raise torch.OutOfMemoryError("tried to allocate 99 GiB")

    run.task.backward = greedy
    with pytest.raises(TrainingError, match="Raise accumulate"):
        run.train_step()


WORKER = """
import sys, torch
from gantailor.supernet.training import distributed as workers
from gantailor.supernet.training.trainer import Trainer
from tests.supernet.test_trainer import RECIPE, trainer
workers.join()
group = torch.distributed.group.WORLD._get_backend(torch.device("cpu"))
assert group.options._timeout == workers.PATIENCE, group.options._timeout
run = trainer(RECIPE.model_copy(update={"ema_kimg": 0, "channels_last": True}))
run.train_step()
for p in run.task.discriminator.parameters():  # a fused optimiser goes through memory
    assert p.grad.stride() == p.stride()
if workers.rank() == 0:
    torch.save({n: p.grad for n, p in run.task.generator.named_parameters()}, sys.argv[1])
"""


def start(command, tmp_path, **environment):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **environment}
    return subprocess.Popen(
        command, env=env, cwd=os.getcwd(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.long
def test_two_processes_give_the_gradients_of_one(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        start(
            [sys.executable, str(tmp_path / "worker.py"), str(tmp_path / "two.pt")],
            tmp_path,
            RANK=str(rank),
            WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank in range(2)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    run = trainer(RECIPE.model_copy(update={"ema_kimg": 0, "channels_last": True}))
    run.train_step()
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    one = {name: p.grad for name, p in run.task.generator.named_parameters()}
    assert two.keys() == one.keys()
    assert all(same(two[name], one[name], of=largest(one.values())) for name in one)


METHOD = """
import sys
import torch
from gantailor.supernet.training import distributed as workers
from gantailor.supernet.training.trainer import Trainer
from tests.search.test_agents import agents
from tests.search.test_slimming import supernet, training
workers.join()
if sys.argv[2] == "agents":
    task, recipe = agents(steps=8, warmup=2, batch=4)
else:
    task, _, recipe = training(supernet(), bits=8, steps=8)
Trainer(task, recipe).run()
torch.save({name: part.state_dict() for name, part in task.parts().items()}, f"{sys.argv[1]}.{workers.rank()}")
"""


@pytest.mark.long
@pytest.mark.parametrize("method", ["agents", "slimming"])
def test_methods_decide_the_same_in_every_process(tmp_path, method):
    (tmp_path / "worker.py").write_text(METHOD)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    process = start([*command, str(tmp_path / "worker.py"), str(tmp_path / "state"), method], tmp_path)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    zero, one = (torch.load(tmp_path / f"state.{rank}", weights_only=True) for rank in range(2))
    for name, part in zero.items():
        assert all(torch.equal(value, one[name][key]) for key, value in part.items()), name


SKEWED = """
import os, signal, sys
from pathlib import Path
from gantailor.supernet.training import distributed as workers
from tests.supernet.test_trainer import trainer
workers.join()
run, folder = trainer(), Path(sys.argv[1])
step = run.train_step
def interrupted():
    if run.step == 9 and workers.rank() == 1:
        os.kill(os.getpid(), signal.SIGINT)
    return step()
run.train_step = interrupted
try:
    run.run(folder / "state.safetensors", save_every_s=0 if workers.rank() == 0 else 1e9)
except KeyboardInterrupt:
    (folder / f"stopped.{workers.rank()}").write_text(str(run.step))
"""


@pytest.mark.long
def test_processes_with_other_clocks_and_signals_save_and_stop_together(tmp_path):
    """One is due to save after every step, the other never; one alone is interrupted. Neither waits for ever."""
    (tmp_path / "worker.py").write_text(SKEWED)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    process = start([*command, str(tmp_path / "worker.py"), str(tmp_path)], tmp_path)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert [(tmp_path / f"stopped.{rank}").read_text() for rank in range(2)] == ["10", "10"]


KILLED = """
import os, sys
from pathlib import Path
from gantailor.supernet.training import distributed as workers
from tests.supernet.test_trainer import RECIPE, trainer
workers.join()
run, folder = trainer(), Path(sys.argv[1])
step = run.train_step
def dying():
    if run.step == 9 and workers.rank() == 1 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), 9)
    return step()
run.train_step = dying
run.run(folder / "state.safetensors", save_every_s=0)
"""


@pytest.mark.long
def test_a_killed_process_is_survived(tmp_path):
    (tmp_path / "worker.py").write_text(KILLED)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--max-restarts=1",
        "--standalone",
    ]
    process = start([*command, str(tmp_path / "worker.py"), str(tmp_path)], tmp_path)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert (tmp_path / "died").exists()
    run = trainer()
    run.load(tmp_path / "state.safetensors")
    assert run.step == RECIPE.steps
