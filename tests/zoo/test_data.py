"""Pictures as people have them become the right arrays: pairs, shapes, label maps; caches know what they hold."""

import re

import numpy as np
import onnxruntime
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from gantailor.cli.main import main
from gantailor.supernet.errors import DataError, EvaluationError
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.fit import FITS, Reading, halves
from gantailor.zoo.data.kinds.folder import folder_pairs
from gantailor.zoo.data.kinds.labels import label_pairs
from gantailor.zoo.data.read import read_domains, read_split


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GANTAILOR_CACHE", str(cache))
    return cache


def save(folder, arrays, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{number}.{suffix}")
    return folder


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(512, 1024, 256), (64, 128, 256), (64, 129, 32), (64, 129, 256), (33, 131, 64), (64, 128, 64), (40, 3, 16)],
)
@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
@pytest.mark.parametrize("fit", FITS)
def test_nothing_of_a_pair_crosses_the_seam(tmp_path, height, width, size, direction, fit):
    """A black, B white, and whatever lies in the middle column of an odd width."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2] = 128
    pixels[:, width - width // 2 :] = 255
    if not width % 2:
        pixels[:, width // 2] = 255
    background = "black" if direction == "AtoB" else "white"
    pairs = folder_pairs(save(tmp_path, [pixels]), size=size, direction=direction, fit=fit, background=background)
    inputs, targets = np.asarray(pairs.inputs), np.asarray(pairs.targets)
    first, second = (inputs, targets) if direction == "AtoB" else (targets, inputs)
    padded = fit == "pad"
    assert first.shape == second.shape == (1, size, size, 3)
    assert first.max() == 0 or (padded and direction == "BtoA")
    assert second.min() == 255 or (padded and direction == "AtoB")
    half = width // 2
    if padded and direction == "AtoB":
        assert set(np.unique(second)) <= {0, 255} and (second == 255).any(), (height, half)


@given(height=st.integers(1, 9), width=st.integers(2, 9))
def test_halves(height, width):
    pixels = np.arange(height * width).reshape(height, width, 1)
    left, right = halves(pixels)
    assert left.shape == right.shape
    columns = [*range(width // 2)], [*range(width - width // 2, width)]
    for half, wanted in zip((left, right), columns, strict=True):
        assert half[0, :, 0].tolist() == wanted


def cubic(x):
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def slow_resize(line, count):
    """One axis of a bicubic resampling (a = -0.5) whose filter widens when it makes smaller."""
    scale = len(line) / count
    wide = max(scale, 1.0)
    rows = []
    for position in range(count):
        centre = (position + 0.5) * scale
        taken = range(max(0, int(centre - 2 * wide + 0.5)), min(len(line), int(centre + 2 * wide + 0.5)))
        weights = [cubic((k + 0.5 - centre) / wide) for k in taken]
        rows.append(sum(w * line[k] for w, k in zip(weights, taken, strict=True)) / sum(weights))
    return np.array(rows)


def slow_fit(pixels, wanted, fit, background, axes):
    """The settings word for word."""
    height, width = pixels.shape[:2]
    ratios = wanted[0] / height, wanted[1] / width
    if fit == "stretch":
        new = wanted
    else:
        factor = {"pad": min(ratios), "scale-and-crop": max(ratios), "crop": max(1.0, *ratios)}[fit]
        new = max(1, round(height * factor)), max(1, round(width * factor))
        new = tuple((min if fit == "pad" else max)(n, w) for n, w in zip(new, wanted, strict=True))
    values = pixels.astype(float)
    for axis in axes:  # with bytes between
        values = np.clip(np.floor(slow_resize(values.swapaxes(0, axis), new[axis]) + 0.5), 0, 255).swapaxes(0, axis)
    result = np.empty((*wanted, 3))
    for row in range(wanted[0]):
        for column in range(wanted[1]):
            if fit == "pad":
                y, x = row - (wanted[0] - new[0]) // 2, column - (wanted[1] - new[1]) // 2
                inside = 0 <= y < new[0] and 0 <= x < new[1]
                result[row, column] = values[y, x] if inside else background
            else:
                result[row, column] = values[row + (new[0] - wanted[0]) // 2, column + (new[1] - wanted[1]) // 2]
    return result


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    wanted=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    fit=st.sampled_from(FITS),
    seed=st.integers(0, 99),
)
def test_every_fit(sides, wanted, fit, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*sides, 3), dtype=np.uint8)
    found = Reading(size=wanted, fit=fit, background="#0a141e").fitted(pixels, lambda lost: None)
    assert found.shape == (*wanted, 3) and found.dtype == np.uint8
    orders = ((0, 1), (1, 0))  # Pillow takes the cheaper one
    assert min(np.abs(found - slow_fit(pixels, wanted, fit, (10, 20, 30), axes)).max() for axes in orders) <= 1


@settings(deadline=None, max_examples=40)
@given(
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    wanted=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    fit=st.sampled_from(FITS),
)
def test_ids_are_never_mixed(sides, wanted, fit):
    ids = np.arange(sides[0] * sides[1], dtype=np.int32).reshape(sides) * 50000
    found = Reading(size=wanted, fit=fit).fitted_ids(ids)
    assert found.shape == wanted and set(found.ravel()) <= {*ids.ravel(), *((-1,) if fit == "pad" else ())}


@pytest.mark.parametrize("fit", FITS)
def test_shapes_and_fits_of_a_folder(tmp_path, fit, caplog):
    """A picture of 20 x 40 whose left half is red, for [16, 24]."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20, 0], pixels[:, 20:, 2] = 255, 255
    save(tmp_path / "train", [pixels])
    config = DataConfig(kind="folder", path=str(tmp_path), size=[16, 24], fit=fit, direction="unpaired")
    data = read_split(config, "train")
    assert data.inputs.shape == (1, 16, 24, 3) and data.size == config.shape == (16, 24)
    assert data.batch(np.array([0]))[0].shape == (1, 3, 16, 24)
    row, column = data.inputs[0, 8], data.inputs[0, :, 3]
    assert row[3].tolist() == [255, 0, 0] and row[20].tolist() == [0, 0, 255]
    white = (column == 255).all(-1).sum()
    assert white == (4 if fit == "pad" else 0)
    assert data.source == "train@16x24" + ("" if fit == "stretch" else f" {fit}")
    assert ("stretched to another shape" in caplog.text) == (fit == "stretch")


def test_small_pictures_are_enlarged_for_a_crop_and_counted(tmp_path, caplog):
    save(tmp_path, [np.full((20, 40, 3), 9, np.uint8), np.full((50, 50, 3), 9, np.uint8)])
    pairs = folder_pairs(tmp_path, size=32, direction="unpaired", fit="crop")
    assert (np.asarray(pairs.inputs) == 9).all()
    assert "of 2 pictures 1 smaller than data.size, enlarged to it before the crop" in caplog.text


@pytest.mark.parametrize(("channels", "wanted"), [(1, (1, 1)), (4, (4, 4)), ((1, 3), (1, 3)), ((4, 1), (4, 1))])
def test_channels_of_inputs_and_targets(tmp_path, channels, wanted):
    pixels = np.zeros((32, 64, 4), np.uint8)
    pixels[..., 0], pixels[:, :32, 3] = 255, 255  # A red, B transparent
    for split in ("train", "test"):
        save(tmp_path / split, [pixels])
    save(tmp_path / "trainA", [pixels]), save(tmp_path / "trainB", [pixels])
    config = DataConfig(kind="folder", path=str(tmp_path), size=32, channels=channels)
    pairs = read_split(config, "train")
    assert (pairs.inputs.shape[-1], pairs.targets.shape[-1]) == wanted
    red = {1: [76], 3: [255, 0, 0], 4: [255, 0, 0, 255]}
    bare = {1: [255], 3: [255, 255, 255], 4: [255, 0, 0, 0]}
    assert pairs.inputs[0, 5, 5].tolist() == red[wanted[0]] and pairs.targets[0, 5, 5].tolist() == bare[wanted[1]]
    back = read_split(config.model_copy(update={"direction": "BtoA"}), "train")
    assert back.inputs[0, 5, 5].tolist() == bare[wanted[0]] and back.targets[0, 5, 5].tolist() == red[wanted[1]]
    domains = read_domains(config.model_copy(update={"kind": "domains"}))
    assert (domains.a.shape[-1], domains.b.shape[-1]) == wanted


def test_pictures_of_every_kind_are_trained_on(tmp_path, caplog):
    """.tif as well; 16 bits are no saturation; what is no file is left out; corrupt ones where they may."""
    ramp = np.tile(np.linspace(0, 65535, 16).astype(np.uint16), (16, 1))
    save(tmp_path, [ramp], "tif")
    (tmp_path / "._0.tif").write_bytes(b"Mac OS X")
    (tmp_path / "folder.png").mkdir()
    pairs = folder_pairs(tmp_path, size=16, direction="unpaired")
    assert pairs.inputs[0, 0, :, 1].tolist() == [17 * k for k in range(16)]
    assert "1 16 bits, read as 8" in caplog.text
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"1\.png' cannot be read .* set data\.skip_corrupt: true"):
        folder_pairs(tmp_path, size=16, direction="unpaired")
    for _ in range(2):  # from the cache too
        some = folder_pairs(tmp_path, size=16, direction="unpaired", skip_corrupt=True)
        assert some.names == ("0.tif",) and len(some) == 1
    assert "1 cannot be read and are left out (1.png)" in caplog.text
    (tmp_path / "0.tif").unlink()
    with pytest.raises(DataError, match="none of its 1 pictures can be read"):
        folder_pairs(tmp_path, size=16, direction="unpaired", skip_corrupt=True)


def test_too_narrow_for_a_pair(tmp_path):
    with pytest.raises(DataError, match=r"0\.png' cannot be read \(one column wide; a pair lies side by side\)"):
        folder_pairs(save(tmp_path, [np.zeros((4, 1, 3), np.uint8)]), size=16)


def test_caches_know_everything_that_changes_pixels(tmp_path, own_cache):
    rgba = np.random.default_rng(0).integers(0, 256, (40, 64, 4), dtype=np.uint8)
    folder = save(tmp_path / "data", [rgba])
    changes = [
        {},
        {"fit": "crop"},
        {"fit": "pad"},
        {"fit": "pad", "background": "black"},
        {"background": "black"},
        {"size": (16, 32)},
        {"channels": 1},
        {"channels": (3, 4)},
        {"direction": "BtoA"},
        {"direction": "unpaired"},
    ]
    made = [folder_pairs(folder, **{"size": 32, **change}) for change in changes]
    assert len({(pairs.inputs.shape, pairs.digest()) for pairs in made}) == len(changes)
    kept = {file: file.stat().st_mtime_ns for file in own_cache.rglob("*.npy")}
    again = [folder_pairs(folder, **{"size": 32, **change}) for change in changes]
    assert [pairs.digest() for pairs in made] == [pairs.digest() for pairs in again]
    assert {file: file.stat().st_mtime_ns for file in own_cache.rglob("*.npy")} == kept
    assert not [*own_cache.glob(".folder-*")], "nothing half done"


def triples(root, label, instance=None, *, split="train"):
    save(root / f"{split}_label", [label])
    save(root / f"{split}_img", [np.zeros((*label.shape[:2], 3), np.uint8)])
    if instance is not None:
        save(root / f"{split}_inst", [instance])
    return root


def test_deep_ids_do_not_wrap(tmp_path, caplog):
    label = np.zeros((8, 8), np.uint16)
    label[:, 4:] = 300
    hot, _ = label_pairs(triples(tmp_path / "a", label), "train", size=8, classes=301).batch(np.array([0]))
    assert hot.shape == (1, 302, 8, 8) and hot[0].argmax(0).tolist() == label.tolist()
    with pytest.raises(DataError, match=r"set data\.classes 301"):
        label_pairs(triples(tmp_path / "b", np.full((8, 8), 300, np.uint16)), "train", size=8, classes=35)
    label[:, 4:6] = 0
    hot, _ = label_pairs(triples(tmp_path / "c", label), "train", size=8, classes=45).batch(np.array([0]))
    assert hot[0, 44].sum() == 0 and hot[0, 45, :, 6:].all(), "unknown, not 44"
    assert "1 with ids beyond data.classes 45" in caplog.text


def test_marked_pixels_are_no_mistake(tmp_path, caplog):
    label = np.full((8, 8), 255, np.uint8)
    hot, _ = label_pairs(triples(tmp_path, label), "train", size=8, classes=3).batch(np.array([0]))
    assert hot[0, 3].all() and not caplog.records


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_edges_of_cityscapes_instances(tmp_path, kind):
    """32000 beside 0 along 16 pixels: 32 edge pixels, 16 on either side."""
    instance = np.zeros((16, 16), kind)
    instance[:, 8:] = 32000
    for root, suffix in ((tmp_path, "png" if kind == np.uint16 else "tif"),):
        triples(root, np.zeros((16, 16), np.uint8))
        save(root / "train_inst", [instance], suffix)
    hot, _ = label_pairs(tmp_path, "train", size=16, classes=2).batch(np.array([0]))
    edges = hot[0, 3]
    assert edges.sum() == 32 and edges[:, 7:9].all()


def test_colour_maps(tmp_path):
    """Their first channel alone would make one class of two."""
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[:, :4], colours[:, 4:] = (128, 64, 128), (128, 0, 128)
    root = triples(tmp_path, colours)
    with pytest.raises(DataError, match=r"train_label/0\.png' has colours, and no ids: name a table of them"):
        label_pairs(root, "train", size=8, classes=3)
    table = tmp_path / "mine.csv"
    table.write_text("id,name,red,green,blue\n0,road,128,64,128\n1,path,128,0,128\n")
    hot, _ = label_pairs(root, "train", size=8, classes=2, labels=str(table)).batch(np.array([0]))
    assert hot[0].argmax(0).tolist() == [[0] * 4 + [1] * 4] * 8
    config = DataConfig(kind="labels", path=str(root), size=16, classes=2, labels=str(table))
    assert read_split(config, "train").batch(np.array([0]))[0].shape == (1, 3, 16, 16)
    table.write_text("id,name,red,green,blue\n0,road,1,1,1\n")
    with pytest.raises(DataError, match=r"100 % of the pixels .* have colours that data\.labels .*mine\.csv does not"):
        label_pairs(root, "train", size=8, classes=2, labels=str(table))
    with pytest.raises(EvaluationError, match="cannot be read"):
        label_pairs(root, "train", size=8, classes=2, labels="nowhere.csv")
    table.write_text("id,name,red,green,blue\n,none,128,64,128\n0,path,128,0,128\n")
    hot, _ = label_pairs(root, "train", size=8, classes=1, labels=str(table)).batch(np.array([0]))
    assert hot[0].argmax(0).tolist() == [[1] * 4 + [0] * 4] * 8


def test_shipped_table(tmp_path):
    colours = np.full((8, 8, 3), (128, 64, 128), np.uint8)
    colours[4:] = (70, 70, 70)
    hot, _ = label_pairs(triples(tmp_path, colours), "train", size=8, classes=19, labels="cityscapes").batch(
        np.array([0])
    )
    assert hot[0].argmax(0)[:, 0].tolist() == [0] * 4 + [2] * 4


def test_label_maps_pads_crops_and_corrupt_ones(tmp_path, caplog):
    label = np.repeat(np.arange(8, dtype=np.uint8)[None], 4, 0)
    root = triples(tmp_path, label)
    hot, targets = label_pairs(root, "train", size=8, classes=8, fit="pad").batch(np.array([0]))
    assert hot[0].argmax(0).tolist() == [[8] * 8] * 2 + label.tolist() + [[8] * 8] * 2
    assert targets[0, 0, :, 0].tolist() == [1, 1, -1, -1, -1, -1, 1, 1]
    hot, _ = label_pairs(root, "train", size=4, classes=8, fit="crop").batch(np.array([0]))
    assert hot[0].argmax(0).tolist() == [[2, 3, 4, 5]] * 4
    for folder in ("train_label", "train_img"):
        (root / folder / "1.png").write_bytes((root / folder / "0.png").read_bytes()[:50])
    with pytest.raises(DataError, match=r"train_label/1\.png' cannot be read"):
        label_pairs(root, "train", size=8, classes=8)
    some = label_pairs(root, "train", size=8, classes=8, skip_corrupt=True)
    assert some.names == ("0",) and some.take(np.array([0])).classes == 8
    assert "of 2 pictures 1 cannot be read and are left out (1.png)" in caplog.text


def test_two_label_maps_of_one_name(tmp_path):
    root = triples(tmp_path, np.zeros((8, 8), np.uint8))
    save(root / "train_label", [np.zeros((8, 8), np.uint8)], "tif")
    with pytest.raises(DataError, match=r"'0\.png' and '0\.tif' in .*train_label' have one name"):
        label_pairs(root, "train", size=8, classes=8)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 8}, "give 16 to 2048, or [height, width] of such"),
        ({"size": [64, 8]}, "give 16 to 2048"),
        ({"size": [64, 64, 64]}, "give 16 to 2048"),
        ({"size": "large"}, "give 16 to 2048"),
        ({"channels": 2}, "give 1, 3 or 4, or [input, target] of such"),
        ({"background": "whitee"}, "give a colour: white, black, #808080"),
        ({"fit": "squash"}, "'stretch', 'crop', 'scale-and-crop' or 'pad'"),
    ],
)
def test_mistakes_in_settings(setting, message):
    with pytest.raises(ValidationError, match=re.escape(message)) as error:
        DataConfig(**setting)
    assert error.value.error_count() == 1


def test_settings_as_files_hold_them():
    config = DataConfig(size=[64, 128], channels=[1, 3], background="#808080")
    assert DataConfig.model_validate(config.model_dump(mode="json")) == config and config.shape == (64, 128)
    assert DataConfig(size=[64, 64]) == DataConfig(size=64)


@pytest.mark.slow
def test_a_wide_run(tmp_path):
    """From pictures of 40 x 160 to report and ONNX, at [32, 64]."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        save(tmp_path / "data" / split, random.integers(0, 256, (6, 40, 160, 3), dtype=np.uint8))
    recipe = {"kimg": 0.004, "batch": 2, "ndf": 4}
    config = {
        "generator": "resnet_6blocks",
        "options": {"ngf": 8},
        "teacher": "none",
        "data": {"kind": "folder", "path": str(tmp_path / "data"), "size": [32, 64], "fit": "crop"},
        "budget": "0.5x",
        "train": recipe,
        "finetune": recipe,
        "search": {"trials": 3},
        "evaluation": {"search": "l1", "final": ["l1"], "search_images": 4},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["compress", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").stat().st_size
    (exported,) = (tmp_path / "run" / "export").rglob("*.onnx")
    (shape,) = [given.shape for given in onnxruntime.InferenceSession(exported).get_inputs()]
    assert shape[1:] == [3, 32, 64]
