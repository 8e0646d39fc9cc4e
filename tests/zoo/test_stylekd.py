"""Retraining a narrow StyleGAN2 beside the whole one: every term is its formula, every option does what it says."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gantailor
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.teaching.distillation import relation_loss
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.generators.stylegan2.generator import style_directions
from gantailor.zoo.tasks.augment import augment
from gantailor.zoo.tasks.stylegan2 import StyleGan2, StyleGan2Options, _directions


def pictures(count=6, size=32):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def teacher():
    torch.manual_seed(1)
    return gantailor.build("stylegan2", size=32, style_dim=8, n_mlp=2, channels={4: 8, 8: 8, 16: 8, 32: 4}).eval()


def supernet():
    return gantailor.Supernet(teacher(), (torch.randn(1, 8),))


def narrow():
    net = supernet()
    return net.extract({name: max(1, size // 2) for name, size in net.full_config().items()})


def recipe(**changes):
    given = {"perceptual_weight": 0.0, "kimg": 0.012, "batch": 2, "precision": "float32", "ema_kimg": 0.01}
    options = {"r1_every": 2, "path_every": 3, **changes.pop("task_options", {})}
    return Recipe(preset="stylekd", **{**given, **changes}, task_options=options)


def task(model=None, *, whole=None, **changes):
    extra = {name: changes.pop(name) for name in ("sample", "region", "perceptual") if name in changes}
    r = recipe(**changes)
    return StyleGan2(model or narrow(), pictures(), r, teacher=whole or teacher(), **extra), r


def test_relations_between_two_views():
    torch.manual_seed(0)
    x, y = torch.randn(6, 2, 4, 4), torch.randn(6, 5, 2, 2)
    soft = []
    for f in (x, y):
        cosine = [[F.cosine_similarity(a.flatten(), b.flatten(), 0) for b in f[3:]] for a in f[:3]]
        soft.append(torch.tensor(cosine).softmax(1))
    expected = (soft[1] * (soft[1] / soft[0]).log()).sum(1).mean()
    assert float(relation_loss({"a": x}, {"a": y}, views=2)) == pytest.approx(float(expected), rel=1e-4)


def test_style_directions_change_styles_most():
    net = teacher()
    found = style_directions(net, top=2)
    assert found.shape == (4 * 2, 8)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(8))
    rows = F.normalize(torch.cat([net.convs[i].conv.modulation.weight for i in (0, 1)]), dim=1)
    strength = (rows @ found[2]).square().sum()
    others = torch.randn(100, 8)
    assert (strength >= (rows @ F.normalize(others, dim=1).T).square().sum(0)).all()


def test_published_directions_are_those_of_8_to_128_px():
    """25 at 256 px: of the seven resolutions' 35 the five of 4 px and of 256 px are left out."""
    torch.manual_seed(0)
    net = gantailor.build("stylegan2", size=256, style_dim=8, n_mlp=1, channels={2**k: 2 for k in range(2, 9)})
    whole = style_directions(net)
    assert len(whole) == 35
    assert torch.equal(_directions(net, StyleGan2Options()), whole[5:30])
    assert torch.equal(_directions(net, StyleGan2Options(every_block=1)), whole)
    assert len(_directions(teacher(), StyleGan2Options())) == 3 * 5  # 8 to 32 px, all that there are


def test_large_pictures_are_shrunk_for_the_perceptual_loss():
    seen = []

    def perceptual(a, b):
        seen.append((a.shape, b.shape))
        return (a - b).abs().mean((1, 2, 3))

    for size in (16, 0):
        run, _ = task(perceptual=perceptual, perceptual_weight=3.0, perceptual_size=size)
        run.backward(1, run.batches(1), 1.0)
    assert seen == [(torch.Size([2, 3, side, side]),) * 2 for side in (16, 32)]
    assert Recipe(preset="stylekd").perceptual_size == 256


def test_terms_are_their_formulas():
    """A student that is the teacher has no distance; another's distances are those of its pictures."""
    run, _ = task(teacher())
    terms = run.backward(1, run.batches(1), 1.0)
    assert float(terms["output"]) == 0 and float(terms["feature"]) == pytest.approx(0, abs=1e-5)
    run, r = task()
    terms = run.backward(1, run.batches(1), 1.0)
    random = torch.Generator().manual_seed(r.seed * 1_000_003 + 1)
    z, cut = run._latents(2, random)
    noise = run._noise(2, random)
    with torch.no_grad():
        made = [net.synthesis(run._styles(net, z, cut), noise=noise) for net in (run.plain, run.teacher)]
    assert float(terms["output"]) == pytest.approx(3 * float((made[0] - made[1]).abs().mean()), rel=1e-4)
    assert set(terms) == {"discriminator", "gan", "feature", "output"}
    assert {"r1", "path"} <= set(run.backward(0, run.batches(0), 1.0))


def test_region_is_all_that_distillation_sees():
    def left(images):
        assert images.shape == (2, 3, 32, 32)
        return (torch.arange(32) < 16).float().expand(2, 1, 32, 32)

    halves = [
        float(task(region=r)[0].backward(1, task()[0].batches(1), 1.0)["output"]) for r in (left, lambda x: 1 - left(x))
    ]
    whole = float(task()[0].backward(1, task()[0].batches(1), 1.0)["output"])
    assert sum(halves) == pytest.approx(whole, rel=1e-4) and min(halves) > 0
    nothing = task(
        region=lambda x: x[:, :1] * 0, perceptual=lambda a, b: (a - b).abs().mean((1, 2, 3)), perceptual_weight=2
    )
    assert float(nothing[0].backward(1, nothing[0].batches(1), 1.0)["perceptual"]) == 0


def test_the_teacher_stays_as_it_is():
    whole = teacher()
    before = copy.deepcopy(whole.state_dict())
    run, r = task(whole=whole)
    Trainer(run, r).run(stop_after=2)
    assert all(torch.equal(before[name], value) for name, value in whole.state_dict().items())


@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resuming_is_exact(tmp_path, precision):
    def made():
        net = supernet()

        def sample(rng, step, position):
            return {name: int(rng.integers(1, size + 1)) for name, size in net.full_config().items()}

        return task(net, sample=sample, subnets=2, precision=precision, task_options={"augment": 1})

    run, r = made()
    whole = Trainer(run, r).run().state_dict()
    path = tmp_path / "state.safetensors"
    for stop in (3, None):
        run, r = made()
        resumed = Trainer(run, r).run(path, stop_after=stop).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    fresh = supernet().state_dict()
    assert any(not torch.equal(fresh[name], whole[name]) for name in whole)


def test_mapping_only():
    run, _ = task(task_options={"mapping_only": 1})
    kept, pruned = run.generator.state_dict(), narrow().state_dict()
    assert all(
        torch.equal(kept[n], pruned[n]) == n.startswith("style.")
        for n in kept
        if n.endswith("weight") and "noise" not in n
    )
    with torch.no_grad():
        assert 0.1 < float(run.generator(torch.randn(64, 8)).std()) < 10


def test_perceptual_needs_weights():
    with pytest.raises(ConfigError, match="perceptual_weight needs LPIPS"):
        task(perceptual_weight=1.0)


def test_augmentation():
    images = torch.rand(8, 3, 32, 32).requires_grad_(True)
    made = augment(images, torch.Generator().manual_seed(0))
    assert made.shape == images.shape and not torch.equal(made, images)
    assert torch.equal(made, augment(images, torch.Generator().manual_seed(0)))
    grey = (made == 0).all(1).float().mean((1, 2))
    assert ((grey > 0.05) & (grey < 0.3)).all(), "a square of up to half the side"
    made.sum().backward()
    assert images.grad is not None and torch.isfinite(images.grad).all()


def test_latents_are_a_data_set():
    pairs = Pairs(pictures(), pictures()[::-1], ("a",) * 6, "some")
    train, test = (Latents.of(pairs, 8, seed=s, name=n) for s, n in ((0, "train"), (2, "test")))
    z, real = train.batch(np.array([1, 4]))
    assert z.shape == (2, 8) and real.shape == (2, 3, 32, 32) and not train.paired
    assert torch.equal(real[0], pairs.batch(np.array([1]))[1][0])
    assert not torch.equal(z, test.batch(np.array([1, 4]))[0]) and train.digest() != test.digest()
    assert len(train) == 6 and "train latents" in train.source
