"""No picture is trained on and scored unless that is said: what several splits find is shared out by a hash."""

import csv
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from gantailor.evaluators.pictures import reader
from gantailor.supernet.errors import DataError
from gantailor.supernet.traits import Traits
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.kinds import dataset as datasets
from gantailor.zoo.data.read import read_domains, read_split

SPLITS = ("train", "search", "test")
COUNT = 20


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(reader, "_said", set())


def shade(path, value, *, side=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (value, value, value)).save(path)


def flat_folder(root, count=COUNT):
    for number in range(count):
        shade(root / f"{number}.png", number)
    return {"kind": "folder", "path": str(root), "direction": "unpaired"}


def flat_pairs(root):
    for number in range(COUNT):
        for side in "AB":
            shade(root / side / f"{number}.png", number)
    return {"kind": "folders", "path": str(root)}


def flat_classes(root):
    for number in range(COUNT):
        shade(root / ("cat", "dog")[number % 2] / f"{number}.png", number)
    return {"kind": "classes", "path": str(root)}


def one_list(root):
    flat_folder(root)
    with (root / "all.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["input", "class"], *([f"{n}.png", n % 3] for n in range(COUNT))])
    return {"kind": "list", "path": str(root / "all.csv")}


def one_archive(root):
    flat_folder(root)
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        for number in range(COUNT):
            archive.write(root / f"{number}.png", f"00/{number}.png")
        archive.writestr("dataset.json", json.dumps({"labels": [[f"00/{n}.png", n % 3] for n in range(COUNT)]}))
    return {"kind": "zip", "path": str(root / "all.zip")}


def one_file(root):
    pictures = np.arange(COUNT, dtype=np.uint8)[:, None, None, None].repeat(3, 1).repeat(16, 2).repeat(16, 3)
    np.savez(root / "all.npz", image=pictures, target=pictures)
    return {"kind": "tensors", "path": str(root / "all.npz")}


def one_dataset(root):
    items = [(np.full((16, 16, 3), number, np.uint8), number % 3) for number in range(COUNT)]
    return {"kind": datasets.give(items, DataConfig(size=16)).kind}


def shades(data):
    return data.inputs[:][:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    "make",
    [flat_folder, flat_pairs, flat_classes, one_list, one_archive, one_file, one_dataset],
    ids=lambda m: m.__name__,
)
def test_what_every_split_finds_is_shared_out(tmp_path, make, caplog):
    settings = make(tmp_path)
    config = DataConfig(size=16, **settings)
    found = {split: read_split(config, split) for split in SPLITS}
    parts = {split: shades(data) for split, data in found.items()}
    assert [len(parts[split]) for split in SPLITS] == [16, 2, 2]
    assert sorted(n for part in parts.values() for n in part) == list(range(COUNT)), "each once"
    assert all(parts[split] == shades(read_split(config, split)) for split in SPLITS), "always the same"
    assert f"{len(parts['test'])} of {COUNT} by hash" in found["test"].source
    assert "test has 2 of the 20 pictures of" in caplog.text and "train and search would find too" in caplog.text
    for split, data in found.items():
        assert len({d.digest() for d in found.values()}) == 3
        if data.targets is not None:
            assert data.targets[:][:, 0, 0, 0].tolist() == parts[split]
        if data.class_labels is not None:  # still the picture's own
            every = {number: number % (2 if make is flat_classes else 3) for number in range(COUNT)}
            assert np.asarray(data.class_labels.values[:]).reshape(-1).tolist() == [every[n] for n in parts[split]]
    with pytest.raises(DataError, match="test finds the same 20 pictures as train and search; give folders for each"):
        read_split(config.model_copy(update={"split": "folders"}), "test")
    same = config.model_copy(update={"split": "all"})
    assert all(len(read_split(same, split)) == COUNT for split in SPLITS)
    assert "test has no pictures of its own in" in caplog.text and "those of train and search" in caplog.text


def test_new_pictures_move_few_of_the_others(tmp_path):
    """By names, so that a test picture does not become one of training because another came before it."""
    config = DataConfig(size=16, **flat_folder(tmp_path, 40))
    before = {split: set(shades(read_split(config, split))) for split in SPLITS}
    shade(tmp_path / "0a.png", 200)
    after = {split: set(shades(read_split(config, split))) for split in SPLITS}
    assert len(before["test"] - after["test"]) <= 1 and len(after["train"] & before["test"]) <= 1


def test_two_unpaired_folders_are_shared_out_alike_for_students_and_teachers(tmp_path):
    for number in range(20):
        shade(tmp_path / "A" / f"{number}.png", number)
    for number in range(30):
        shade(tmp_path / "B" / f"{number}.png", 100 + number)
    config = DataConfig(kind="domains", path=str(tmp_path), size=16)
    found = {split: read_split(config, split) for split in SPLITS}
    assert sorted(n for data in found.values() for n in shades(data)) == list(range(20))
    assert sorted(n for d in found.values() for n in d.others[:][:, 0, 0, 0].tolist()) == list(range(100, 130))
    domains = read_domains(config)
    assert [domains.a[:][:, 0, 0, 0].tolist(), domains.b[:][:, 0, 0, 0].tolist()] == [
        shades(found["train"]),
        found["train"].others[:][:, 0, 0, 0].tolist(),
    ]


def labelled(root, split, values):
    for value in values:
        (root / f"{split}_label").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), value % 5, np.uint8)).save(root / f"{split}_label" / f"{value}.png")
        shade(root / f"{split}_img" / f"{value}.png", value)


@pytest.mark.parametrize("kind", ["folder", "labels"])
def test_val_alone_is_halved(tmp_path, kind):
    """The layout of GAN Compression's lists: train/ and val/."""
    for split, values in (("train", range(6)), ("val", range(50, 57))):
        if kind == "labels":
            labelled(tmp_path, split, values)
        for value in values if kind == "folder" else ():
            shade(tmp_path / split / f"{value}.png", value)
    config = DataConfig(kind=kind, path=str(tmp_path), size=16, direction="unpaired" if kind == "folder" else "AtoB")
    found = [read_split(config, split) for split in SPLITS]
    train, search, test = ((shades(d) if kind == "folder" else d.targets[:][:, 0, 0, 0].tolist()) for d in found)
    assert train == list(range(6)) and sorted(search + test) == list(range(50, 57))
    assert {len(search), len(test)} == {3, 4} and "of 7 by hash" in found[1].source


def test_search_may_read_training_pictures_which_is_told(tmp_path, caplog):
    for split, first in (("train", 0), ("test", 50)):
        for value in range(first, first + 18):
            shade(tmp_path / split / f"{value}.png", value)
    config = DataConfig(kind="folder", path=str(tmp_path), size=16, direction="unpaired")
    assert shades(read_split(config, "search")) == shades(read_split(config, "train"))
    assert "search has no pictures of its own in 'train@16': it scores those of train (data.split)" in caplog.text
    apart = config.model_copy(update={"split": "hash"})
    train, search = (set(shades(read_split(apart, split))) for split in ("train", "search"))
    assert len(search) == 2 and not train & search and len(train | search) == 18
    assert len(read_split(apart, "test")) == 18, "which has its own"
    with pytest.raises(DataError, match="search finds the same 18 pictures as train"):
        read_split(config.model_copy(update={"split": "folders"}), "search")


@pytest.mark.parametrize("kind", ["folder", "classes", "folders", "domains"])
def test_a_link_to_the_training_pictures_is_no_other_split(tmp_path, kind):
    """They would be scored on what they were trained on."""
    inner = {"folder": [""], "classes": ["cat", "dog"], "folders": ["A", "B"], "domains": ["A", "B"]}[kind]
    for number in range(20):
        for name in inner:
            shade(tmp_path / "train" / name / f"{number}.png", number)
    (tmp_path / "test").symlink_to("train")
    direction = "unpaired" if kind == "folder" else "AtoB"
    config = DataConfig(kind=kind, path=str(tmp_path), size=16, direction=direction)
    found = {split: set(read_split(config, split).names) for split in SPLITS}
    assert not found["train"] & found["test"] and not found["search"] & found["test"]
    with pytest.raises(DataError, match="test finds the same"):
        read_split(config.model_copy(update={"split": "folders"}), "test")


def test_latents_stand_beside_all_pictures(tmp_path):
    traits = Traits(takes="latents", input_shapes=((5,),), size=16)
    config = DataConfig(size=16, **flat_folder(tmp_path))
    assert {len(read_split(config, split, traits)) for split in SPLITS} == {COUNT}


def test_too_few_to_share_out(tmp_path):
    config = DataConfig(size=16, **flat_folder(tmp_path, 2))
    with pytest.raises(DataError, match=r"2 pictures cannot be shared out to train, search, test; .* data\.split all"):
        read_split(config, "test")
    assert len(read_split(DataConfig(size=16, **flat_folder(tmp_path / "three", 3)), "test")) == 1
