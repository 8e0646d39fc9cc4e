"""Super-resolution data: both degradations beside literal ones, functions of the seed, tiles and whole pictures."""

from __future__ import annotations

import io
import itertools
import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

import gantailor
from gantailor.evaluators.metrics.fidelity import Fidelity
from gantailor.evaluators.scores import Subset, render
from gantailor.supernet.errors import ConfigError, DataError
from gantailor.supernet.training.batches import Move, PairBatches
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.teaching.teacher_cache import check_cache
from gantailor.supernet.training.trainer import Trainer
from gantailor.supernet.traits import traits_of, with_signed_pictures
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.read import read_split
from gantailor.zoo.data.super_resolution.chain import Blur, Jpeg, Noise, Resize, apply, draw, draw_kernel
from gantailor.zoo.data.super_resolution.kernels import bell, covariance, sinc
from gantailor.zoo.data.super_resolution.pictures import starts
from gantailor.zoo.data.super_resolution.settings import SECOND, Chain, Round, degradation_of
from gantailor.zoo.data.super_resolution.shrinking import Shrinking


def photo(height=48, width=64, channels=3, seed=0):
    """Smooth shapes, an edge and some noise, uint8."""
    y, x = np.mgrid[0:height, 0:width] / 16
    waves = np.stack([np.sin(2 * x + k) * np.cos(1.5 * y - k) for k in range(channels)], -1)
    pixels = 128 + 90 * waves + 30 * (x + y > 4)[..., None]
    noise = np.random.default_rng(seed).integers(-20, 20, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


# --- small by resampling ---


def cubic(distance, a):
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def smaller(picture, scale):
    """Antialiased bicubic of a = -0.5, as MATLAB's imresize: rows, then columns, in floats; edges weighted anew."""
    values = picture.astype(float)
    for axis in (0, 1):
        side = values.shape[axis]
        made = []
        for place in range(side // scale):
            middle = (place + 0.5) * scale - 0.5
            near = [k for k in range(side) if abs(k - middle) < 2 * scale]
            weights = [cubic((k - middle) / scale, -0.5) for k in near]
            made.append(sum(w * values.take(k, axis) for w, k in zip(weights, near, strict=True)) / sum(weights))
        values = np.stack(made, axis)
    return values


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_bicubic_and_area_beside_loops(scale, channels):
    large = photo(12 * scale, 8 * scale, channels)
    bicubic = Shrinking("bicubic", Chain(), scale).plain(large)
    assert bicubic.shape == (12, 8, channels)
    assert np.abs(bicubic - np.clip(smaller(large, scale), 0, 255)).max() <= 1
    area = Shrinking("area", Chain(), scale).plain(large)
    blocks = large.reshape(12, scale, 8, scale, channels).astype(float)
    assert np.abs(area - blocks.mean((1, 3))).max() <= 0.5 + 1e-6


# --- the chain of two rounds ---


def literal_resize(values, size, mode):
    """As PyTorch's interpolate: means of the cells that a pixel touches; linear; cubic of a = -0.75, edges repeated."""
    for axis, length in enumerate(size):
        side, made = values.shape[axis], []
        for place in range(length):
            if mode == "area":
                first, last = math.floor(place * side / length), math.ceil((place + 1) * side / length)
                weights = dict.fromkeys(range(first, last), 1 / (last - first))
            else:
                middle = (place + 0.5) * side / length - 0.5
                middle = max(middle, 0) if mode == "bilinear" else middle
                low, weights = math.floor(middle), Counter()
                for k in (low, low + 1) if mode == "bilinear" else range(low - 1, low + 3):
                    share = 1 - abs(middle - k) if mode == "bilinear" else cubic(middle - k, -0.75)
                    weights[min(max(k, 0), side - 1)] += share
            made.append(sum(w * values.take(k, axis) for k, w in weights.items()))
        values = np.stack(made, axis)
    return values


def eight_bits(values):
    """Means of two or four pixels are halves: they go up whatever the order of a sum."""
    return np.array([math.floor(255 * min(max(v, 0), 1) + 0.5001) for v in values.ravel()]).reshape(values.shape)


def literal_noise(values, step):
    rng = np.random.default_rng(step.seed)
    if step.kind == "gaussian":
        drawn = rng.standard_normal((*values.shape[:2], 1 if step.grey else values.shape[2]), np.float32)
        return np.clip(values + step.strength / 255 * drawn, 0, 1)
    seen = values
    if step.grey and values.shape[2] == 3:
        seen = values[..., :1] * 0.2989 + values[..., 1:2] * 0.587 + values[..., 2:] * 0.114
    seen = eight_bits(seen) / 255
    levels = 1
    while levels < len(set(seen.ravel().tolist())):
        levels *= 2
    return np.clip(values + step.strength * (rng.poisson(seen * levels) / levels - seen), 0, 1)


def literal(picture, steps):
    """The steps in float64 by scipy and loops."""
    values = picture / 255
    for step in steps:
        if isinstance(step, Blur):
            flat = [ndimage.correlate(values[..., c], step.kernel, mode="mirror") for c in range(values.shape[2])]
            values = np.stack(flat, -1)
        elif isinstance(step, Resize):
            values = literal_resize(values, step.size, step.mode)
        elif isinstance(step, Noise):
            values = literal_noise(values, step)
        else:
            file = io.BytesIO()
            pixels = eight_bits(values).astype(np.uint8)
            Image.fromarray(pixels.squeeze()).save(file, "jpeg", quality=step.quality)
            values = np.asarray(Image.open(file)).reshape(pixels.shape) / 255
    return eight_bits(values)


@pytest.mark.long
@pytest.mark.parametrize("channels", [1, 3])
def test_the_chain_beside_a_literal_one(channels):
    seen = Counter()
    for seed in range(12):
        large = photo(64, 48, channels, seed)
        steps = draw(np.random.default_rng(seed), Chain(), (64, 48), 4)
        seen.update(type(step).__name__ for step in steps)
        seen.update(step.kind for step in steps if isinstance(step, Noise))
        seen.update(step.mode for step in steps if isinstance(step, Resize))
        made = apply(large, steps)
        assert made.shape == (16, 12, channels) and np.abs(made - literal(large, steps)).max() <= 1
    assert set(seen) == {"Blur", "Resize", "Noise", "Jpeg", "gaussian", "poisson", "area", "bilinear", "bicubic"}


@pytest.mark.long
@pytest.mark.parametrize("size", [7, 21])
def test_kernels_beside_their_formulae(size):
    middle = size // 2
    across, along, angle, beta, cutoff = 2.0, 0.7, 0.5, 1.7, 2.0
    found = {shape: bell(size, covariance(across, along, angle), shape=shape, beta=beta) for shape in SHAPES}
    for shape, value in SHAPES.items():
        literal_kernel = np.zeros((size, size))
        for row, column in itertools.product(range(size), repeat=2):
            x, y = column - middle, row - middle
            turned = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
            literal_kernel[row, column] = value((turned[0] / across) ** 2 + (turned[1] / along) ** 2, beta)
        assert np.allclose(found[shape], literal_kernel / literal_kernel.sum(), atol=1e-12)
    # The low-pass is the inverse Fourier transform of a disc: (1 / 4 pi^2) of its integral over frequencies.
    radii, angles = (np.arange(1200) + 0.5) / 1200 * cutoff, np.arange(150) / 150 * 2 * np.pi
    u, v = radii[:, None] * np.cos(angles), radii[:, None] * np.sin(angles)
    place = np.arange(size) - middle
    waves = [[(np.cos(u * x + v * y) * radii[:, None]).sum() for x in place] for y in place]
    assert np.allclose(sinc(size, cutoff), np.array(waves) / np.sum(waves), atol=1e-5)


SHAPES = {
    "gaussian": lambda q, beta: math.exp(-q / 2),
    "generalized": lambda q, beta: math.exp(-(q**beta) / 2),
    "plateau": lambda q, beta: 1 / (q**beta + 1),
}


@pytest.mark.long
def test_what_is_drawn_is_what_was_published():
    """Shares within five standard deviations, and values in their ranges, of 4,000 draws."""
    count, found, values = 4000, Counter(), {}
    for seed in range(count):
        steps = draw(np.random.default_rng((5, seed)), Chain(), (256, 256), 4)
        last = [type(step).__name__ for step in steps[-3:]]
        kinds = [type(step).__name__ for step in steps]
        assert kinds[:4] == ["Blur", "Resize", "Noise", "Jpeg"] and kinds.count("Jpeg") == 2
        first, second = [step for step in steps if isinstance(step, Resize)][:2]
        found.update({"second blur": kinds[4] == "Blur", "last is JPEG": last[-1] == "Jpeg"})
        found["final sinc"] += kinds[5 + (kinds[4] == "Blur") + 1 :].count("Blur")
        for name, step, of in (("", first, 256), ("2", second, 64)):
            found.update({f"up{name}": step.size[0] > of, f"down{name}": step.size[0] < of})
            values.setdefault(f"resize{name}", []).append(step.size[0] / of)
        for name, step in zip(("", "2"), (step for step in steps if isinstance(step, Noise)), strict=True):
            found.update({f"{step.kind}{name}": 1, f"grey{name}": step.grey})
            values.setdefault(f"{step.kind}{name}", []).append(step.strength)
        values.setdefault("jpeg", []).extend(step.quality for step in steps if isinstance(step, Jpeg))
        assert next(step.size for step in reversed(steps) if isinstance(step, Resize)) == (64, 64)
    chances = {"second blur": 0.8, "last is JPEG": 0.5, "final sinc": 0.8, "grey": 0.4, "grey2": 0.4}
    chances |= {"up": 0.2, "down": 0.7, "up2": 0.3, "down2": 0.4}
    chances |= dict.fromkeys(("gaussian", "poisson", "gaussian2", "poisson2"), 0.5)
    for name, chance in chances.items():
        spread = 5 * math.sqrt(chance * (1 - chance) / count)
        lost = 0.02 if name in ("up", "down", "up2", "down2") else 0  # a factor that rounds to the same size
        assert abs(found[name] / count - chance) < spread + lost, name
    ranges = {"resize": (0.15, 1.5), "resize2": (0.3, 1.2), "gaussian": (1, 30), "gaussian2": (1, 25)}
    ranges |= {"poisson": (0.05, 3), "poisson2": (0.05, 2.5), "jpeg": (30, 95)}
    for name, (low, high) in ranges.items():
        room = 0.02 * (high - low)
        assert low - 1 / 64 <= min(values[name]) < low + room and high - room < max(values[name]) <= high, name


@pytest.mark.parametrize(("ranges", "widest"), [(Round(), 3), (SECOND, 1.5)])
def test_kernels_that_are_drawn(ranges, widest):
    drawn = [draw_kernel(np.random.default_rng((3, seed)), ranges) for seed in range(1500)]
    sizes = Counter(len(kernel) for kernel in drawn)
    assert set(sizes) == set(range(7, 22, 2)) and min(sizes.values()) > 100
    assert all(abs(kernel.sum() - 1) < 1e-9 and np.allclose(kernel, kernel[::-1, ::-1]) for kernel in drawn)
    waves = np.mean([kernel.min() < -1e-6 for kernel in drawn])  # only a sinc goes below zero
    assert abs(waves - 0.1) < 0.04
    only = Round(kernel_prob=(1, 0, 0, 0, 0, 0), sinc_prob=0, blur_sigma=(widest, widest))
    kernel = draw_kernel(np.random.default_rng(0), only)
    assert kernel.max() / kernel[len(kernel) // 2, len(kernel) // 2 + 1] == pytest.approx(math.exp(0.5 / widest**2))


@pytest.mark.parametrize("part", ["blur", "resize", "noise", "jpeg", "sinc", "second"])
def test_parts_can_be_left_out(part):
    chain = degradation_of({"degradation": "realesrgan", "without": [part]})[1]
    missing = {"blur": Blur, "noise": Noise, "jpeg": Jpeg}
    for seed in range(20):
        steps = draw(np.random.default_rng(seed), chain, (64, 64), 2)
        if part == "blur":
            assert sum(isinstance(step, Blur) for step in steps) <= 1, "the last sinc is a part of its own"
        elif part in missing:
            assert not any(isinstance(step, missing[part]) for step in steps)
        elif part == "sinc":
            assert all((step.kernel > 0).all() or len(step.kernel) > 9 for step in steps if isinstance(step, Blur))
        else:
            assert sum(isinstance(step, Resize) for step in steps) == {"resize": 1, "second": 2}[part]
        assert apply(photo(64, 64), steps).shape == (32, 32, 3)


def test_a_picture_is_a_function_of_the_seed():
    shrink, large = Shrinking("realesrgan", Chain(), 4), photo()
    assert np.array_equal(shrink(large, (1, 2)), shrink(large, (1, 2)))
    assert not np.array_equal(shrink(large, (1, 2)), shrink(large, (1, 3)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"degradation": "bicubc"}, "data.options.degradation 'bicubc' is unknown; did you mean 'bicubic'"),
        ({"noise_range": [1, 2]}, "data.options noise_range are those of degradation realesrgan, and it is bicubic"),
        ({"degradation": "realesrgan", "noise_rnge": [1, 2]}, "has no 'noise_rnge'; did you mean 'noise_range'"),
        ({"degradation": "realesrgan", "noise_range2": [3, 2]}, "noise_range2 cannot be [3, 2]; give a range of two"),
        ({"degradation": "realesrgan", "jpeg_range": [3, 200]}, "jpeg_range cannot be [3, 200]; give two qualities"),
        ({"degradation": "realesrgan", "sinc_prob": 2}, "sinc_prob cannot be 2; give a chance from 0 to 1"),
        ({"degradation": "realesrgan", "resize_prob": [1, 2]}, "resize_prob cannot be [1, 2]; give 3 chances, as [0.2"),
        ({"degradation": "realesrgan", "without": ["jpg"]}, "without 'jpg' is no part; did you mean 'jpeg'"),
    ],
)  # fmt: skip
def test_mistakes_in_options(options, said):
    with pytest.raises(ConfigError) as error:
        degradation_of(options)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_ranges_by_their_published_names():
    _, chain = degradation_of(
        {"degradation": "realesrgan", "blur_sigma2": [0.3, 0.4], "jpeg_range": [50, 60], "second_blur_prob": 0.1}
    )
    assert chain.second.blur_sigma == (0.3, 0.4) and chain.first.blur_sigma == (0.2, 3)
    assert chain.first.jpeg_range == (50, 60) and chain.second.blur_prob == 0.1


# --- pictures in folders ---


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path / "cache"))
    sizes = {"train": [(70, 90), (64, 64), (130, 65)], "test": [(67, 81), (80, 64), (65, 65)]}
    for split, every in sizes.items():
        (tmp_path / "data" / split).mkdir(parents=True)
        for number, (height, width) in enumerate(every):
            Image.fromarray(photo(height, width, seed=number)).save(tmp_path / "data" / split / f"{number}.png")
    return tmp_path / "data"


def config_of(folder, **more):
    return DataConfig(**{"kind": "super_resolution", "path": str(folder), "size": 16, "scale": 4, **more})


def test_tiles_cover_every_picture(folder):
    assert starts(1000, 400, 4) == [0, 300, 600] and starts(400, 400, 4) == [0] and starts(399, 400, 4) == []
    train = read_split(config_of(folder), "train")
    assert [name.partition("[")[0] for name in train.names] == ["0.png"] * 4 + ["1.png"] + ["2.png"] * 3
    small, large = train.batch(np.arange(len(train)))
    assert small.shape == (8, 3, 16, 16) and large.shape == (8, 3, 64, 64)
    whole = np.asarray(Image.open(folder / "train" / "0.png"))[:68, :88]
    place = [int(part) for part in train.names[3].partition("[")[2].rstrip("]").split(",")]
    assert place == [4, 24] and np.array_equal(train.targets[3], whole[4:68, 24:88])
    expected = Shrinking("bicubic", Chain(), 4).plain(np.ascontiguousarray(whole))
    assert np.array_equal(train.inputs[3], expected[1:17, 6:22]), "made small before it is cut"


def test_crops_are_aligned_at_the_scale(folder):
    train = read_split(config_of(folder, size=16, crop=16, load=16), "train")
    parts = read_split(config_of(folder, size=16, load=[16, 16], crop=[16, 16]), "train")
    assert train.digest() == parts.digest()
    wide = read_split(config_of(folder, size=16, load=[16, 20], crop=16, options={"degradation": "area"}), "train")
    small, large = wide.batch(np.array([0, 1]), moves=[Move(True, 0, 0, 0, 3), Move(False, 0, 0, 0, 4)])
    assert small.shape == (2, 3, 16, 16) and large.shape == (2, 3, 64, 64)
    means = (large.reshape(2, 3, 16, 4, 16, 4) + 1).mul(127.5).mean((3, 5))
    assert float(((small + 1) * 127.5 - means).abs().max()) <= 0.51


@pytest.mark.long
def test_whole_pictures_are_scored(folder):
    net = with_signed_pictures(gantailor.build("rrdbnet", num_feat=4, num_block=1, num_grow_ch=2, scale=2)).eval()
    test = read_split(config_of(folder, scale=2), "test", traits_of(net))
    shapes = [tuple(targets.shape[2:]) for _, _, targets in render(net, test)]
    assert shapes == [(64, 80), (80, 64), (64, 64)], "sides are cut to multiples of scale and generator"
    sampled = [tuple(inputs.shape[2:]) for inputs, _, _ in render(net, Subset(test, 2))]
    assert len(sampled) == 2 and sampled == [(h // 2, w // 2) for h, w in (shapes[row] for row in Subset(test, 2).rows)]
    assert test.batch(np.arange(3))[0].shape == (3, 3, 16, 16), "middles of one size are shown"
    found = Fidelity(metrics=("psnr_rgb",))(nn.Upsample(scale_factor=2), test)["psnr_rgb"]
    expected = []
    for number in range(3):
        large = np.asarray(Image.open(folder / "test" / f"{number}.png"))
        large = large[: shapes[number][0], : shapes[number][1]]
        small = Shrinking("bicubic", Chain(), 2).plain(np.ascontiguousarray(large))
        error = (small.repeat(2, 0).repeat(2, 1).astype(float) - large)[2:-2, 2:-2]
        expected.append(10 * np.log10(255**2 / np.square(error).mean()))
    assert found.value == pytest.approx(np.mean(expected), abs=1e-5) and found.provenance["images"] == 3


def test_one_flat_folder_is_shared_out_by_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "flat").mkdir()
    for number in range(12):
        Image.fromarray(photo(70, 130, seed=number)).save(tmp_path / "flat" / f"{number}.png")
    found = {split: read_split(config_of(tmp_path / "flat"), split) for split in ("train", "search", "test")}
    files = {split: {name.partition("[")[0] for name in data.names} for split, data in found.items()}
    assert {split: len(names) for split, names in files.items()} == {"train": 8, "search": 2, "test": 2}
    assert not files["train"] & files["test"] and not files["train"] & files["search"]
    assert len(found["train"]) == 8 * 6 and len(found["test"]) == 2


def test_pictures_that_are_too_small(folder, caplog):
    with pytest.raises(DataError, match=r"no picture of 'train' is as large as 256 x 256, 4 times the inputs' 64 x 64"):
        read_split(config_of(folder, size=64), "train")
    assert len(read_split(config_of(folder, size=[17, 16]), "train")) == 4
    assert "1 of 3 pictures are smaller than a tile, and left out" in caplog.text


REAL = {"degradation": "realesrgan"}


@pytest.mark.long
def test_batches_are_functions_of_seed_and_step(folder):
    data = read_split(config_of(folder, load=[16, 20], options=REAL, size=16), "train")
    recipe = Recipe(batch=4, gan="none", shift=2)
    batches = PairBatches(data, recipe)
    whole, again = batches(5), PairBatches(pickle.loads(pickle.dumps(data)), recipe)(5)
    assert torch.equal(whole.inputs, again.inputs) and torch.equal(whole.targets, again.targets)
    parts = [batches(5, part, 2) for part in range(2)]
    assert torch.equal(whole.inputs, torch.cat([part.inputs for part in parts]))
    other = PairBatches(data, recipe.model_copy(update={"seed": 1}))
    assert not torch.equal(whole.inputs, other(5).inputs)
    assert whole.inputs.shape == (4, 3, 16, 16) and whole.targets.shape == (4, 3, 64, 64)
    same = data.batch(np.arange(3)), data.batch(np.array([2, 1, 0]))
    assert torch.equal(same[0][0], same[1][0].flip(0)), "without a step each picture has its own seed"
    plain = read_split(config_of(folder, load=[16, 20], size=16), "train")
    lesser = read_split(config_of(folder, load=[16, 20], size=16, options={**REAL, "without": "noise"}), "train")
    assert len({data.digest(), plain.digest(), lesser.digest()}) == 3
    with pytest.raises(ConfigError, match="teacher_cache cannot be 'memory' because inputs are degraded anew"):
        check_cache(recipe.model_copy(update={"teacher_cache": "memory"}), data)


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, REAL])
def test_resumed_bit_for_bit(folder, tmp_path, options):
    recipe = Recipe(kimg=0.02, batch=2, gan="none", precision="float32", target_weight=1, output_weight=1)

    def trainer():
        torch.manual_seed(0)
        nets = [with_signed_pictures(gantailor.build("srvgg", num_feat=4, num_conv=1)) for _ in range(2)]
        data = read_split(config_of(folder, options=options), "train")
        return Trainer(ImageToImage(nets[0], data, recipe, teacher=nets[1].eval()), recipe)

    whole = trainer().run().state_dict()
    trainer().run(tmp_path / "state.safetensors", stop_after=4)
    resumed = trainer().run(tmp_path / "state.safetensors").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"path": None}, "data.path is missing; name a folder of large pictures"),
        ({"channels": [1, 3]}, "data.channels differ"),
        ({"channels": 4, "options": REAL}, "realesrgan has no alpha"),
    ],
)
def test_settings_that_cannot_be(folder, more, said):
    with pytest.raises((ConfigError, DataError), match=said):
        read_split(config_of(folder, **more), "train")
