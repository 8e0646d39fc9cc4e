"""Training teachers from pictures alone: every task runs, resumes exactly, and its losses are their formulas."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

import gantailor
from gantailor.cli.main import main
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.files import read_rows
from gantailor.supernet.training.pool import ImagePool
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.domains import Domains
from gantailor.zoo.data.kinds.labels import label_pairs
from gantailor.zoo.tasks import TASKS
from gantailor.zoo.tasks.cyclegan import CycleGan
from gantailor.zoo.tasks.munit import Munit
from gantailor.zoo.tasks.stylegan2 import StyleGan2
from gantailor.zoo.tasks.training import find_training


def pictures(count, seed=0, size=32):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def two_domains():
    return Domains(pictures(5), pictures(4, 1))


NARROW = {4: 8, 8: 8, 16: 8, 32: 4}


def recipe(preset, **changes):
    return Recipe(preset=preset, **{"kimg": 0.012, "batch": 2, "ndf": 4, "discriminator_layers": 2, **changes})


def cyclegan():
    r = recipe("teacher-cyclegan", task_options={"pool": 3})
    return CycleGan(gantailor.build("resnet_6blocks", ngf=4), Domains(pictures(5), pictures(4, 1)), r), r


def munit():
    r = recipe("teacher-munit")
    torch.manual_seed(1)
    net = gantailor.build("munit", ngf=4, mlp_dim=8, n_res=1)
    return Munit(net, Domains(pictures(5), pictures(4, 1)), r), r


def stylegan2():
    torch.manual_seed(1)
    net = gantailor.build("stylegan2", size=32, style_dim=8, n_mlp=2, channels={4: 8, 8: 8, 16: 8, 32: 4})
    r = recipe("teacher-stylegan2", task_options={"r1_every": 2, "path_every": 3})
    return StyleGan2(net, pictures(6), r), r


@pytest.mark.long
@pytest.mark.parametrize("make", [cyclegan, munit, stylegan2])
def test_resuming_is_exact(make, tmp_path):
    task, r = make()
    whole = Trainer(task, r).run().state_dict()
    path = tmp_path / "state.safetensors"
    for stop in (4, None):
        task, r = make()
        resumed = Trainer(task, r).run(path, stop_after=stop).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    fresh = make()[0].generator.state_dict()
    assert any(not torch.equal(fresh[name], whole[name]) for name in whole), "nothing was learned"


def test_cyclegan_losses():
    task, _ = cyclegan()
    batch = task.batches(0)
    terms = task.backward(0, batch, 1.0)
    with torch.no_grad():
        fake = task.generator(batch.a)
        cycle = 10 * (task.back(fake) - batch.a).abs().mean()
        identity = 5 * (task.generator(batch.b) - batch.b).abs().mean()
        gan = (task.judges["b"](fake) - 1).square().mean()
    assert float(terms["cycle_b"]) == pytest.approx(float(cycle), rel=1e-4)
    assert float(terms["identity_b"]) == pytest.approx(float(identity), rel=1e-4)
    assert float(terms["gan_b"]) == pytest.approx(float(gan), rel=1e-4)


def test_adversarial_losses_of_two_domains():
    """MUNIT sums its three scales and does not halve the discriminator's loss; CycleGAN halves it."""
    task, _ = munit()
    batch = task.batches(0)
    terms = task.backward(0, batch, 1.0)
    real, nets, total = (batch.pictures.a, batch.pictures.b), (task.generator, task.other), 0.0
    with torch.no_grad():
        for k, name in enumerate("ab"):
            fake = nets[k].decode(nets[1 - k].encode(real[1 - k])[0], batch.styles[k])
            seen, true = task.judges[k](fake), task.judges[k](real[k])
            assert len(seen) == 3
            gan = sum((x - 1).square().mean() for x in seen)
            assert float(terms[f"gan_{name}"]) == pytest.approx(float(gan), rel=1e-4)
            total += sum((x - 1).square().mean() for x in true) + sum(x.square().mean() for x in seen)
    assert float(terms["discriminator"]) == pytest.approx(float(total), rel=1e-4)
    task, _ = cyclegan()
    batch, total = task.batches(0), 0.0
    terms = task.backward(0, batch, 1.0)  # the pools are empty: each picture is a new one
    with torch.no_grad():
        for name, fake, true in (("b", task.generator(batch.a), batch.b), ("a", task.back(batch.b), batch.a)):
            judge = task.judges[name]
            total += 0.5 * ((judge(true) - 1).square().mean() + judge(fake).square().mean())
    assert float(terms["discriminator"]) == pytest.approx(float(total), rel=1e-4)


def test_image_pool():
    pool, rng = ImagePool(2, (1,)), np.random.default_rng(0)
    assert pool.swap(torch.tensor([[1.0], [2.0]]), rng).tolist() == [[1.0], [2.0]]
    shown = [float(pool.swap(torch.tensor([[float(n)]]), rng)) for n in range(3, 60)]
    old = [s != n for n, s in zip(range(3, 60), shown, strict=True)]
    assert 15 < sum(old) < 42
    assert pool.state_dict()["filled"] == 2


def test_stylegan2_penalties():
    task, _ = stylegan2()
    real = task.batches(0).images.clone().requires_grad_(True)
    terms = task.backward(0, task.batches(0), 1.0)
    (slope,) = torch.autograd.grad(task.discriminator(real).sum(), real)
    assert float(terms["r1"]) == pytest.approx(10 / 2 * 2 * float(slope.square().sum((1, 2, 3)).mean()), rel=1e-3)
    assert "path" in terms and "path" not in task.backward(1, task.batches(1), 1.0)
    assert float(task.state.mean_path) > 0
    rates = [o.param_groups[0]["lr"] for o in task.optimizers.values()]
    assert rates == pytest.approx([2e-3 * 3 / 4, 2e-3 * 2 / 3])


def test_unknown_task_option():
    with pytest.raises(ConfigError, match=r"task 'cyclegan' has no option 'cycel'; did you mean 'cycle'"):
        CycleGan(
            gantailor.build("resnet_6blocks", ngf=4),
            Domains(pictures(2), pictures(2)),
            recipe("teacher-cyclegan", task_options={"cycel": 1}),
        )


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("teacher-cyclegan", {"pool": 0}, "task_options.pool cannot be 0; it must be at least 1"),
        ("teacher-cyclegan", {"cycle": -1}, "task_options.cycle cannot be -1; it must be at least 0"),
        ("teacher-cyclegan", {"identity": -0.5}, "task_options.identity cannot be -0.5"),
        ("teacher-cyclegan", {"pool": 2.5}, "option pool cannot be 2.5; give a whole number"),
        ("teacher-munit", {"style": -1}, "task_options.style cannot be -1; it must be at least 0"),
        ("teacher-stylegan2", {"r1_every": 0}, "task_options.r1_every cannot be 0; it must be at least 1"),
        ("teacher-stylegan2", {"path_every": 0}, "task_options.path_every cannot be 0; it must be at least 1"),
        ("teacher-stylegan2", {"path_shrink": 0}, "task_options.path_shrink cannot be 0; it must be at least 1"),
        ("teacher-stylegan2", {"r1": -10}, "task_options.r1 cannot be -10; it must be at least 0"),
        (
            "teacher-stylegan2",
            {"mixing": 1.5},
            "task_options.mixing cannot be 1.5; it must be at least 0 and at",
        ),
        ("teacher-stylegan2", {"augment": 2}, "task_options.augment cannot be 2; it must be at least 0 and at most 1"),
    ],
)
def test_task_options_out_of_range(preset, options, message):
    r = recipe(preset, task_options=options)
    makers = {
        "teacher-cyclegan": lambda: CycleGan(gantailor.build("resnet_6blocks", ngf=4), two_domains(), r),
        "teacher-munit": lambda: Munit(gantailor.build("munit", ngf=4, mlp_dim=8, n_res=1), two_domains(), r),
        "teacher-stylegan2": lambda: StyleGan2(gantailor.build("stylegan2", size=32, channels=NARROW), pictures(2), r),
    }
    with pytest.raises(ConfigError) as error:
        makers[preset]()
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_task_options_are_finite(value):
    with pytest.raises(ValidationError, match="finite number"):
        recipe("teacher-cyclegan", task_options={"pool": value})


def test_unpaired_needs_an_adversarial_loss():
    with pytest.raises(ConfigError, match=r"two unpaired sets of pictures need an adversarial loss: set train\.gan"):
        CycleGan(gantailor.build("resnet_6blocks", ngf=4), two_domains(), recipe("teacher-cyclegan", gan="none"))


@pytest.mark.parametrize(
    ("task", "generator", "message"),
    [
        ("munit", "resnet_6blocks", "task 'munit' trains munit and mobile_munit, not a ResnetGenerator"),
        ("stylegan2", "resnet_6blocks", "task 'stylegan2' trains stylegan2, not a ResnetGenerator"),
    ],
)
def test_a_task_for_another_generator(task, generator, message):
    with pytest.raises(ConfigError, match=message):
        find_training(task).teacher_task()(gantailor.build(generator, ngf=4), DataConfig(), recipe(f"teacher-{task}"))


def test_tasks_for_teachers_only_train_no_students():
    with pytest.raises(ConfigError, match="task 'cyclegan' trains teachers only"):
        find_training("cyclegan").student_task()
    assert all(find_training(name).teacher is not None for name in TASKS)


def munit_in(accumulate, batch=4):
    r = recipe("teacher-munit", batch=batch, accumulate=accumulate)
    torch.manual_seed(1)
    net = gantailor.build("munit", ngf=4, mlp_dim=8, n_res=1)
    return Munit(net, two_domains(), r), r


def test_munit_draws_a_style_for_each_picture_of_the_whole_batch():
    """A function of seed, step and place in the batch, however the batch is cut."""
    task, _ = munit_in(1)
    whole = task.batches(3)
    styles = torch.stack(whole.styles)
    assert styles.shape == (2, 4, 8, 1, 1) and len(styles.flatten(0, 1).flatten(1).unique(dim=0)) == 8
    assert all(torch.equal(a, b) for a, b in zip(whole.styles, task.batches(3).styles, strict=True))
    assert not torch.equal(whole.styles[0], task.batches(4).styles[0])
    parts = [task.batches(3, number, 4) for number in range(4)]
    for k in range(2):
        assert torch.equal(torch.cat([part.styles[k] for part in parts]), whole.styles[k])
    assert torch.equal(torch.cat([part.pictures.a for part in parts]), whole.pictures.a)


def generator_gradients(task):
    return {name: p.grad for name, p in [*task.generator.named_parameters(), *task.other.named_parameters("other")]}


def test_munit_in_parts_is_munit_at_once():
    gradients = []
    for accumulate in (1, 4):
        task, r = munit_in(accumulate)
        Trainer(task, r).train_step()
        gradients.append(generator_gradients(task))
    for name, whole in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max() + 1))


MUNIT_WORKER = """
import sys, torch
from gantailor.supernet.training import distributed as workers
from gantailor.supernet.training.trainer import Trainer
from tests.zoo.test_teacher_tasks import generator_gradients, munit_in
workers.join()
task, recipe = munit_in(1)
Trainer(task, recipe).train_step()
if workers.rank() == 0:
    torch.save(generator_gradients(task), sys.argv[1])
"""


@pytest.mark.long
def test_munit_in_two_processes_is_munit_in_one(tmp_path):
    """A process takes its part of the batch, as one process does part after part: the same gradients."""
    (tmp_path / "worker.py").write_text(MUNIT_WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command += [str(tmp_path / "worker.py"), str(tmp_path / "two.pt")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    task, r = munit_in(2)
    Trainer(task, r).train_step()
    one, two = generator_gradients(task), torch.load(tmp_path / "two.pt", weights_only=True)
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max() + 1))


def save(folder, arrays):
    folder.mkdir(parents=True)
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{number}.png")


def test_labels(tmp_path):
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 255, 1], [2, 2, 1, 1]], np.uint8)
    save(tmp_path / "train_label", [labels])
    save(tmp_path / "train_inst", [labels])
    save(tmp_path / "train_img", [np.zeros((4, 4, 3), np.uint8)])
    pairs = label_pairs(tmp_path, "train", size=4, classes=3)
    hot, targets = pairs.batch(np.array([0]))
    assert hot.shape == (1, 5, 4, 4) and set(hot.unique().tolist()) == {0.0, 1.0}
    assert hot[0, :4].argmax(0).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 1], [2, 2, 1, 1]]
    assert hot[0, 4].tolist() == [[0, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 0]]
    mirrored, _ = pairs.batch(np.array([0]), moves=[(True, 0, 0)])
    assert torch.equal(mirrored, hot.flip(3))
    assert float(targets.max()) == -1


COMMON = ["--train.kimg", "0.008", "--train.batch", "2", "--train.ndf", "4"]


@pytest.mark.long
def test_a_teacher_in_two_processes(tmp_path):
    """One of them takes the folder, for both."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command += ["-m", "gantailor.cli", "teacher", "--options", "{ngf: 4}", "--data.size", "32", "--out", "run"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [*command, *COMMON], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert gantailor.load_teacher(tmp_path / "run/teacher.safetensors", generator="resnet_6blocks", ngf=4)


@pytest.mark.parametrize(
    ("preset", "kind", "generator", "options"),
    [
        ("teacher-pix2pix", "openmoji", "resnet_6blocks", "{ngf: 4}"),
        ("teacher-cyclegan", "domains", "resnet_6blocks", "{ngf: 4}"),
        ("teacher-munit", "domains", "munit", "{ngf: 4, mlp_dim: 8, n_res: 1}"),
        (
            "teacher-stylegan2",
            "folder",
            "stylegan2",
            "{size: 64, style_dim: 8, n_mlp: 1, channels: {4: 4, 8: 4, 16: 4, 32: 4, 64: 4}}",
        ),
        ("teacher-spade", "labels", "spade", "{ngf: 2, hidden: 4, label_channels: 4, size: [64, 64]}"),
    ],
)
def test_command_line(tmp_path, monkeypatch, preset, kind, generator, options):
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    for folder in ("trainA", "trainB", "train", "train_img"):
        save(data / folder, pictures(4, size=64))
    save(data / "train_label", [p[..., 0] % 4 for p in pictures(4, size=64)])
    if kind == "openmoji":
        kind, flags = "folder", ["--data.direction", "AtoB"]
        save(tmp_path / "pairs" / "train", pictures(4, size=64).repeat(2, axis=2))
        data = tmp_path / "pairs"
    else:
        flags = ["--data.direction", "unpaired"] if kind == "folder" else []
    flags += ["--data.kind", kind, "--data.path", str(data), "--data.classes", "3", "--train.preset", preset]
    flags += ["--generator", generator, "--options", options, "--out", str(tmp_path / "run"), *COMMON]
    assert main(["teacher", *flags, "--data.size", "64", "--train.watch_kimg", "0.004"]) == 0
    looks = read_rows(tmp_path / "run" / "teacher.watch.jsonl")
    assert [row["step"] for row in looks] == [2, 4] and all(np.isfinite(list(row.values())).all() for row in looks)
    kinds = [name.partition("[")[0] for name in looks[0]][1:]
    assert kinds == {"pix2pix": ["l1", "fid", "kid"], "spade": ["l1", "fid", "kid"], "stylegan2": ["fid"]}.get(
        preset.removeprefix("teacher-"), ["fid", "kid"]
    )
    columns = {"pix2pix": 3, "cyclegan": 2, "munit": 2, "spade": 3, "stylegan2": 8}[preset.removeprefix("teacher-")]
    assert Image.open(tmp_path / "run" / "samples" / "teacher-0000004.png").width // 64 == columns
    made = gantailor.load_teacher(
        tmp_path / "run" / "teacher.safetensors", generator=generator, **__import__("yaml").safe_load(options)
    )
    assert all(torch.isfinite(t).all() for t in made.state_dict().values())
    assert (tmp_path / "run" / "teacher_BtoA.safetensors").exists() == (preset == "teacher-cyclegan")
    judge = tmp_path / "run" / "teacher_discriminator.safetensors"
    assert judge.exists() == (preset in ("teacher-pix2pix", "teacher-spade", "teacher-stylegan2"))
    if preset == "teacher-pix2pix":  # a student goes on with it
        flags = [*flags[:-8], "--out", str(tmp_path / "student"), *COMMON, "--data.size", "64", "--dry-run"]
        flags += ["--teacher", str(tmp_path / "run" / "teacher.safetensors"), "--discriminator", str(judge)]
        flags += [flag.replace("train.", "finetune.") for flag in (*COMMON, "--train.preset", preset)]
        (tmp_path / "config.yaml").write_text("budget: 0.5x\nspace: path\n")
        save(tmp_path / "pairs" / "test", pictures(4, 1, size=64).repeat(2, axis=2))
        assert main(["compress", str(tmp_path / "config.yaml"), *flags]) == 0
