"""Folders matched by name, lists, class folders, archives, named tensors, torch Datasets: what is read, and refused."""

import io
import json
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import Dataset, IterableDataset

from gantailor.evaluators.pictures import reader
from gantailor.supernet.errors import ConfigError, DataError, GantailorError
from gantailor.supernet.traits import Traits
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.kinds import dataset as datasets
from gantailor.zoo.data.kinds import sides
from gantailor.zoo.data.kinds.classes import class_files
from gantailor.zoo.data.kinds.list import read_table
from gantailor.zoo.data.kinds.zip import Archive
from gantailor.zoo.data.read import read_domains, read_split

CLASSES = Traits(input_shapes=((3, 16, 16), (3,)))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(reader, "_said", set())


def shade(file, value, size=(16, 16)):
    """A picture of one value."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(file)
    return file


def shades(data):
    """The value of each input, and of each target."""
    inputs, targets = data.inputs[:], None if data.targets is None else data.targets[:]
    return inputs[:, 0, 0, 0].tolist(), None if targets is None else targets[:, 0, 0, 0].tolist()


def read(kind, path, split="train", *, traits=None, **settings):
    settings = {"split": "all"} | settings  # what is shared out has its own tests
    return read_split(DataConfig(kind=kind, path=str(path), size=16, **settings), split, traits)


def refused(call, *, kind=GantailorError):
    """The one line of a refusal."""
    with pytest.raises(kind) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and len(text) < 700, text
    return text


# Two folders


@pytest.mark.parametrize(
    ("layout", "settings"),
    [
        ("{split}{side}", {}),
        ("{split}_{side}", {}),
        ("{split}/{side}", {}),
        ("{side}/{split}", {}),
        ("{split}_{side}", {"sides": ["label", "img"]}),
        ("{split}/{side}", {"sides": ["photo", "drawing"]}),
    ],
)
@pytest.mark.parametrize("kind", ["folders", "domains"])
def test_layouts_of_two_folders(tmp_path, kind, layout, settings):
    names = settings.get("sides", ["A", "B"])
    for number, split in enumerate(("train", "val", "test")):
        for side, name in enumerate(names):
            for picture in range(3):
                shade(
                    tmp_path / layout.format(split=split, side=name) / f"{picture}.png",
                    100 * side + 10 * number + picture,
                )
    for number, split in ((0, "train"), (1, "search"), (2, "test")):
        tens = 10 * number
        wanted = [[tens, tens + 1, tens + 2], [100 + tens, 101 + tens, 102 + tens]]
        for direction, order in (("AtoB", (0, 1)), ("BtoA", (1, 0))):
            data = read(kind, tmp_path, split, direction=direction, **settings)
            if kind == "folders":
                assert list(shades(data)) == [wanted[side] for side in order]
                assert data.paired and data.names == ("0.png", "1.png", "2.png")
            elif split != "train":
                assert [data.inputs[:][:, 0, 0, 0].tolist(), data.others[:][:, 0, 0, 0].tolist()] == [
                    wanted[s] for s in order
                ]
            domains = read_domains(DataConfig(kind=kind, path=str(tmp_path), size=16, direction=direction, **settings))
            found = [images[:][:, 0, 0, 0].tolist() for images in (domains.a, domains.b)]
            assert found == [[100 * side, 100 * side + 1, 100 * side + 2] for side in order]


def test_two_folders_without_splits_are_every_split(tmp_path):
    for side in "AB":
        shade(tmp_path / side / "x.png", 7)
    for split in ("train", "search", "test"):
        assert shades(read("folders", tmp_path, split)) == ([7], [7])


def test_names_that_differ_in_suffix_and_zeros_match(tmp_path, caplog):
    for number in range(8):
        shade(tmp_path / "trainA" / f"img_{number}.png", number)
        shade(tmp_path / "trainB" / f"img_{number:04d}.bmp", 100 + number)
    shade(tmp_path / "trainA" / "alone.png", 50)
    shade(tmp_path / "trainB" / "x1.png", 50)
    shade(tmp_path / "trainB" / "x2.png", 50)
    data = read("folders", tmp_path)
    assert shades(data) == (list(range(8)), list(range(100, 108)))
    assert "8 pairs by name; no partner have 1 of" in caplog.text
    assert "(alone.png) and 2 of" in caplog.text and "(x1.png, x2.png)" in caplog.text


def test_names_that_end_in_their_side_match(tmp_path):
    for number in range(3):
        shade(tmp_path / "train" / "A" / f"{number}_A.png", number)
        shade(tmp_path / "train" / "B" / f"{number}_B.png", 100 + number)
    data = read("folders", tmp_path)
    assert shades(data) == ([0, 1, 2], [100, 101, 102]) and data.names == ("0", "1", "2")


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, 30), min_size=1), st.sets(st.integers(0, 30), min_size=1))
def test_matched_as_a_slow_reference(tmp_path_factory, first, second):
    root = tmp_path_factory.mktemp("matched")
    for side, numbers in (("A", first), ("B", second)):
        for number in numbers:
            (root / side).mkdir(exist_ok=True)
            (root / side / f"{number}.png").touch()
    common = sorted(first & second, key=str)
    if 2 * len(common) < min(len(first), len(second)):
        with pytest.raises(
            DataError, match=rf"^{len(common)} of {min(len(first), len(second))} pictures match by name"
        ):
            sides.matched([root / "A", root / "B"], ("A", "B"))
    else:
        found = sides.matched([root / "A", root / "B"], ("A", "B"))
        assert [(a.name, b.name) for a, b in found.files] == [(f"{n}.png", f"{n}.png") for n in common]


@pytest.mark.parametrize(
    ("files", "settings", "message"),
    [
        (["trainA/1.png", "trainA/2.png", "trainB/3.png", "trainB/4.png"], {}, "0 of 2 pictures match by name"),
        (
            ["trainA/1.png", "trainA/2.png", "trainA/3.png", "trainB/3.png", "trainB/4.png", "trainB/5.png"],
            {},
            "1 of 3",
        ),
        (["trainA/1.png"], {}, "none of trainB, train_B, train/B, B/train for train; there are trainA"),
        (
            ["photos/1.png"],
            {},
            "none of trainA, train_A, train/A, A/train for train; there are photos. data.sides names",
        ),
        ([], {}, "does not exist; give a folder that holds both sides"),
        (["trainA/1.png", "trainA/1.bmp", "trainB/1.png", "trainB/2.png"], {}, "have one name up to the suffix"),
        (["trainA/1.png", "trainB/1.png"], {"direction": "unpaired"}, "data.kind domains reads two that are not"),
        (["trainA/1.png", "trainB/1.png"], {"options": {"a": 1}}, "data.options cannot be"),
    ],
)
def test_mistakes_in_two_folders(tmp_path, files, settings, message):
    for file in files:
        shade(tmp_path / "data" / file, 1)
    assert message in refused(lambda: read("folders", tmp_path / "data", **settings))


@pytest.mark.parametrize("value", [["A", "A"], ["A"], ["A", "x/y"], ["A", ".."], ["A", ""]])
def test_mistakes_in_names_of_sides(value):
    with pytest.raises(ValueError, match="sides"):
        DataConfig(sides=value)


def test_a_broken_picture_of_a_pair(tmp_path):
    for number in range(3):
        shade(tmp_path / "trainA" / f"{number}.png", number), shade(tmp_path / "trainB" / f"{number}.png", number)
    (tmp_path / "trainB" / "1.png").write_bytes(b"\x89PNG")
    assert "trainB/1.png' cannot be read" in refused(lambda: read("folders", tmp_path))
    assert shades(read("folders", tmp_path, skip_corrupt=True)) == ([0, 2], [0, 2])


def test_label_maps_in_folders_of_a_split(tmp_path):
    for split in ("train", "test"):
        for what, value in (("label", 1), ("inst", 5)):
            (tmp_path / split / what).mkdir(parents=True)
            Image.fromarray(np.full((16, 16), value, np.uint8)).save(tmp_path / split / what / "a.png")
        shade(tmp_path / split / "img" / "a.jpg", 200)
    data = read("labels", tmp_path, "test", classes=2)
    hot, targets = data.batch(np.array([0]))
    assert hot.shape == (1, 4, 16, 16) and hot[0].argmax(0).unique().tolist() == [1] and hot[0, 3].sum() == 0
    assert targets.shape == (1, 3, 16, 16)
    (tmp_path / "train" / "inst" / "a.png").unlink()
    (tmp_path / "train" / "inst" / "b.png").write_bytes((tmp_path / "test" / "inst" / "a.png").read_bytes())
    assert "train/inst has no 'a'" in refused(lambda: read("labels", tmp_path, classes=2))


# Lists


def written(file, text, encoding="utf-8"):
    file.write_bytes(text.encode(encoding))
    return file


def pictures(folder, *names):
    for number, name in enumerate(names):
        shade(folder / name, 10 * number)
    return folder


CSV = 'input,target,class\n"a, b.png",b.png,cat\r\n\n sub dir/c.png , b.png,dog\n'


@pytest.mark.parametrize(
    "change", ["plain", "bom", "crlf", "absolute", "semicolon", "tab", "windows", "jsonl", "upper"]
)
def test_forms_of_a_list(tmp_path, change):
    root = pictures(tmp_path / "pic tures", "a, b.png", "b.png", "sub dir/c.png")
    text, name = CSV, "list.csv"
    if change == "bom":
        text = "\ufeff" + text
    if change == "crlf":
        text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    if change == "absolute":
        text = text.replace("a, b.png", str(root / "a, b.png"))
    if change in ("semicolon", "tab"):
        mark = {"semicolon": ";", "tab": "\t"}[change]
        text = f"input{mark}target{mark}class\na, b.png{mark}b.png{mark}cat\nsub dir/c.png{mark}b.png{mark}dog\n"
    if change == "windows":
        text = text.replace("sub dir/c.png", "sub dir\\c.png")
    if change == "upper":
        text = text.replace("input,target,class", " Input,TARGET , Class")
    if change == "jsonl":
        name = "list.jsonl"
        rows = [("a, b.png", "cat"), ("sub dir/c.png", "dog")]
        text = (
            "\n".join(json.dumps({"input": n, "target": "b.png", "class": c, "split": None}) for n, c in rows) + "\n\n"
        )
    data = read("list", written(root / name, text))
    assert shades(data) == ([0, 20], [10, 10])
    assert data.class_labels.names == ("cat", "dog") and data.class_labels.values.tolist() == [0, 1]
    assert shades(read("list", root / name, direction="BtoA")) == ([10, 10], [0, 20])
    assert shades(read("list", root / name, direction="unpaired")) == ([0, 20], None)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_whole_numbers_with_a_point_are_classes(tmp_path, suffix):
    """What pandas writes where a column was once incomplete; as names 10.0 would come before 2.0."""
    root, rows = pictures(tmp_path, "a.png", "b.png"), [("a.png", 10.0), ("b.png", 2.0)]
    lines = [json.dumps({"input": n, "class": c}) if suffix == "jsonl" else f"{n},{c}" for n, c in rows]
    head = [] if suffix == "jsonl" else ["input,class"]
    found = read("list", written(root / f"l.{suffix}", "\n".join([*head, *lines]))).class_labels
    assert found.values.tolist() == [10, 2] and found.names == () and found.largest == 10


def test_losses_are_counted_by_item(tmp_path, caplog):
    """Not by file: three pairs of which both pictures are squashed are three of three."""
    for number in range(3):
        for side in "AB":
            shade(tmp_path / f"train{side}" / f"{number}.png", number, size=(40, 20))
    read("folders", tmp_path)
    assert "of 3 pictures 3 stretched to another shape" in caplog.text


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.text(
            st.characters(codec="utf-8", exclude_characters="/\x00\\", exclude_categories=["Cc", "Cs"]),
            min_size=1,
            max_size=20,
        ).filter(lambda name: name.strip() == name and len(name.encode()) < 200),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_any_file_name_in_a_list(tmp_path_factory, names):
    import csv

    root = tmp_path_factory.mktemp("list")
    files = [f"{name}.png" for name in names]
    for file in files:
        (root / file).touch()
    with (root / "l.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerows([["input"], *([file] for file in files)])
    (root / "l.jsonl").write_text("\n".join(json.dumps({"input": file}) for file in files))
    for name in ("l.csv", "l.jsonl"):
        assert [row.input.name for row in read_table(root / name)] == files


def test_splits_of_a_list(tmp_path, caplog):
    root = pictures(tmp_path, "a.png", "b.png", "c.png", "d.png")
    rows = "a.png,train,x\nb.png,Train,y\nc.png,val,x\nd.png,test,z\n"
    file = written(root / "all.csv", f"input,split,class,note\n{rows.replace(chr(10), ',n' + chr(10))}")
    assert [shades(read("list", file, split))[0] for split in ("train", "search", "test")] == [[0, 10], [20], [30]]
    assert "columns note are not read" in caplog.text
    test = read("list", file, "test", traits=CLASSES)
    assert test.batch(np.array([0]))[0][1].tolist() == [[0, 0, 1]], "classes are those of all splits"
    written(root / "train.csv", "input,class\na.png,7\n")
    written(root / "test.jsonl", '{"input": "b.png", "class": 2}\n')
    (root / "all.csv").unlink()
    for split, value in (("train", 0), ("search", 0), ("test", 10)):
        assert shades(read("list", root, split)) == ([value], None)
    traits = Traits(input_shapes=((3, 16, 16), (8,)))
    assert read("list", root, "test", traits=traits).batch(np.array([0]))[0][1].argmax() == 2


def test_a_list_without_splits_is_every_split(tmp_path):
    file = written(pictures(tmp_path, "a.png") / "l.csv", "input\na.png\na.png\n")
    for split in ("train", "search", "test"):
        data = read("list", file, split)
        assert len(data) == 2 and data.names == ("a.png", "a.png (2)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,b.png\n", "has no column 'input': its first line is 'a.png,b.png'"),
        ("input,target\na.png\n", "line 2: 1 cells beneath 2 columns"),
        ("input\nnowhere.png\n", "line 2: picture 'nowhere.png' does not exist"),
        ("input\na.png\n\nfolder.png\n", "line 4: 'folder.png' is no file"),
        ("input\nfifo.png\n", "line 2: 'fifo.png' is no file"),
        (
            "input\nhttps://example.org/a.png\n",
            "line 2: 'https://example.org/a.png' is an address, and nothing is fetched",
        ),
        ("input\nfile:///etc/passwd\n", "is an address"),
        ('input\n"a.png\n', "unexpected end of data; mend the quotes of this line"),
        ("input,input\na.png,a.png\n", "names a column twice"),
        ("input\n", "names no pictures"),
        ("", "names no pictures"),
        ("input,target\na.png,b.png\na.png,\n", "line 3: no target, which other lines have"),
        ("input,class\na.png,1\na.png,\n", "line 3: no class, which other lines have"),
        ("input,class\na.png,-1\na.png,0\n", None),
        ("input,split\na.png,tset\n", "line 2: split cannot be 'tset'; did you mean 'test'"),
        ("input,split\na.png,test\n", "the list has no pictures of train, which train needs; it has test"),
        ("input\n,b.png\n", "line 2: 2 cells beneath 1 columns"),
        ("input,target\n,a.png\n", "line 2: no input"),
        ("input\n" + "x" * 5000 + ".png\n", "does not exist"),
    ],
)
def test_mistakes_in_a_list(tmp_path, text, message):
    root = pictures(tmp_path, "a.png", "b.png")
    (root / "folder.png").mkdir()
    os.mkfifo(root / "fifo.png")
    file = written(root / "l.csv", text)
    if message is None:
        assert read("list", file).class_labels.names == ("-1", "0"), "no number from 0: a name"
    else:
        assert message in refused(lambda: read("list", file), kind=DataError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]\n", "line 1: no JSON object"),
        ('{"input": "a.png"}\n{"input": \n', "line 2: no JSON object"),
        ("[" * 100_000, "line 1: no JSON object"),
        ('{"input": 3}', "line 1: input cannot be 3; give text"),
        ('{"input": "a.png", "class": 1.5}', "line 1: class cannot be 1.5"),
        ('{"input": "a.png", "class": true}', "line 1: class cannot be True"),
        ('{"input": "a.png", "class": -1}', "line 1: class cannot be -1"),
        ('{"input": "a\\u0000.png"}', "does not exist"),
        ('{"path": "a.png"}', "line 1: no input"),
    ],
)
def test_mistakes_in_json_lines(tmp_path, text, message):
    file = written(pictures(tmp_path, "a.png") / "l.jsonl", text)
    assert message in refused(lambda: read("list", file), kind=DataError)


def test_what_is_no_list(tmp_path):
    root = pictures(tmp_path, "a.png")
    assert "has no list; call it train.csv" in refused(lambda: read("list", root))
    assert "is no list: give a file ending in .csv" in refused(lambda: read("list", root / "a.png"))
    assert "does not exist" in refused(lambda: read("list", root / "b.csv"))
    assert "cannot be read (not UTF-8)" in refused(
        lambda: read("list", written(root / "c.csv", "input\nä.png", "latin-1"))
    )
    assert "cannot be read (not UTF-8)" in refused(
        lambda: read("list", written(root / "c.csv", "input\na.png", "utf-16"))
    )
    written(root / "train.csv", "input\na.png"), written(root / "train.jsonl", '{"input": "a.png"}')
    assert "'train.csv' and 'train.jsonl'" in refused(lambda: read("list", root))
    file = written(root / "d.csv", "input\na.png\n")
    assert "no target, which data.direction BtoA makes the input" in refused(
        lambda: read("list", file, direction="BtoA")
    )
    assert "two sets of pictures" in refused(
        lambda: read_domains(DataConfig(kind="list", path=str(file), size=16, split="all"))
    )


# Classes


def test_class_folders_in_the_order_of_torchvision(tmp_path):
    """`sorted` folders, then `sorted(os.walk)`, then sorted names, as `torchvision.datasets.ImageFolder` does."""
    files = ["2/b.png", "10/x.png", "10/deep/a.png", "10/deep-er/a.png", "cat/A.png", "cat/a.png"]
    pictures(tmp_path / "train", *files)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    wanted = []
    for number, name in enumerate(sorted({file.partition("/")[0] for file in files})):
        for place, _, found in sorted(os.walk(tmp_path / "train" / name)):
            wanted += [
                (os.path.relpath(os.path.join(place, file), tmp_path / "train"), number) for file in sorted(found)
            ]
    data = read("classes", tmp_path)
    assert list(zip(data.names, data.class_labels.values.tolist(), strict=True)) == wanted
    assert data.class_labels.names == ("10", "2", "cat") and data.targets is None
    vectors = read("classes", tmp_path, traits=CLASSES).batch(np.arange(len(data)))[0][1]
    assert vectors.argmax(1).tolist() == [number for _, number in wanted] and vectors.sum(1).eq(1).all()
    assert isinstance(
        read("classes", tmp_path, traits=Traits(input_shapes=((3, 16, 16),))).batch(np.array([0]))[0], torch.Tensor
    )


def test_classes_of_another_split_have_the_numbers_of_training(tmp_path):
    pictures(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/1.png")
    assert read("classes", tmp_path, "test").class_labels.values.tolist() == [2]
    pictures(tmp_path, "test/d/1.png")
    assert "class 'd' of" in refused(lambda: read("classes", tmp_path, "test"))


def test_links_in_a_circle(tmp_path):
    pictures(tmp_path, "train/a/1.png")
    (tmp_path / "train" / "a" / "again").symlink_to(tmp_path / "train" / "a")
    assert len(class_files(tmp_path, "train").files) == 1


def test_classes_without_splits_are_every_split(tmp_path):
    pictures(tmp_path, "a/1.png", "b/1.png")
    for split in ("train", "search", "test"):
        assert read("classes", tmp_path, split).names == ("a/1.png", "b/1.png")


def test_mistakes_in_classes(tmp_path):
    assert "does not exist" in refused(lambda: read("classes", tmp_path / "no"))
    pictures(tmp_path, "train/1.png")
    assert "has no folders inside" in refused(lambda: read("classes", tmp_path))
    pictures(tmp_path, "train/a/1.png", "train/b/1.png")
    (tmp_path / "train" / "c").mkdir()
    assert "train/c' holds no pictures" in refused(lambda: read("classes", tmp_path))
    (tmp_path / "train" / "c").rmdir()
    said = refused(lambda: read("classes", tmp_path, traits=CLASSES))
    assert "the generator takes 3 classes, the data has 2 classes (a, b)" in said


def test_a_class_and_a_latent(tmp_path):
    """The class goes where its number is; what is left is a latent."""
    pictures(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png")
    traits = Traits(input_shapes=((3, 16, 16), (5,), (3,)))
    picture, latent, label = read("classes", tmp_path, traits=traits).batch(np.arange(3))[0]
    assert picture.shape == (3, 3, 16, 16) and latent.shape == (3, 5) and label.argmax(1).tolist() == [0, 1, 2]
    traits = Traits(input_shapes=((8,), (3,)), takes="latents", size=16)
    latent, label = read("classes", tmp_path, traits=traits).batch(np.arange(3))[0]
    assert latent.shape == (3, 8) and label.argmax(1).tolist() == [0, 1, 2]


# Archives


def png(value, size=16):
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def archive(file, entries, *, compression=zipfile.ZIP_STORED):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        with zipfile.ZipFile(file, "w", compression) as out:
            for name, content in entries:
                out.writestr(name, content)
    return file


STYLEGAN = [(f"0000{n // 2}/img0000000{n}.png", png(10 * n)) for n in range(4)]


def labels(values):
    return ("dataset.json", json.dumps({"labels": values}))


def test_archive_of_stylegan(tmp_path):
    names = [name for name, _ in STYLEGAN]
    order = [3, 0, 2, 1]
    entries = [STYLEGAN[n] for n in order] + [("readme.txt", "x"), ("__MACOSX/._img.png", "x"), ("00000/._a.png", "x")]
    file = archive(tmp_path / "dataset.zip", [*entries, labels([[names[n], n % 3] for n in order])])
    for split in ("train", "search", "test"):
        data = read("zip", file, split, traits=CLASSES)
        assert shades(data.data) == ([0, 10, 20, 30], None) and data.data.names == tuple(names)
        assert data.batch(np.arange(4))[0][1].argmax(1).tolist() == [0, 1, 2, 0]
    for nothing in (labels(None), ("other.json", "{}")):
        data = read("zip", archive(tmp_path / "plain.zip", [*STYLEGAN, nothing]))
        assert data.class_labels is None and len(data) == 4
    vectors = [[name, [0.5, n, -1.0]] for n, name in enumerate(names)]
    data = read("zip", archive(tmp_path / "vectors.zip", [*STYLEGAN, labels(vectors)]), traits=CLASSES)
    assert data.batch(np.arange(4))[0][1].tolist() == [v for _, v in vectors]
    assert not [*tmp_path.glob("0*")] and len([*tmp_path.iterdir()]) == 3, "nothing is unpacked"


def test_an_archive_of_a_folder(tmp_path):
    """Zipped from outside: names begin with the folder's, those in its ``dataset.json`` do not."""
    inside = [(f"faces/{name}", content) for name, content in STYLEGAN]
    name, text = labels([[name, n % 3] for n, (name, _) in enumerate(STYLEGAN)])
    data = read("zip", archive(tmp_path / "a.zip", [*inside, (f"faces/{name}", text)]), traits=CLASSES)
    assert data.batch(np.arange(4))[0][1].argmax(1).tolist() == [0, 1, 2, 0]
    split = [("faces/train/a.png", png(5)), ("faces/test/a.png", png(7))]
    file = archive(tmp_path / "b.zip", split)
    assert [shades(read("zip", file, split))[0] for split in ("train", "search", "test")] == [[5], [5], [7]]


def test_archives_of_splits(tmp_path):
    file = archive(
        tmp_path / "all.zip", [(f"{split}/{n}.png", png(v)) for split, n, v in (("train", 1, 5), ("test", 1, 7))]
    )
    assert [shades(read("zip", file, split))[0] for split in ("train", "search", "test")] == [[5], [5], [7]]
    (tmp_path / "split").mkdir()
    for split, value in (("train", 50), ("val", 60)):
        archive(tmp_path / "split" / f"{split}.zip", [("a.png", png(value))])
    assert [shades(read("zip", tmp_path / "split", s))[0] for s in ("train", "search", "test")] == [[50], [60], [60]]


def bomb(file):
    return archive(file, [("a.png", bytes(100_000_000))], compression=zipfile.ZIP_DEFLATED)


def encrypted(file):
    content = bytearray(archive(file, STYLEGAN).read_bytes())
    for place in (m.start() for m in re.finditer(b"PK\x01\x02", bytes(content))):
        content[place + 8] |= 1
    for place in (m.start() for m in re.finditer(b"PK\x03\x04", bytes(content))):
        content[place + 6] |= 1
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: archive(f, [("/etc/a.png", png(1))]), "'/etc/a.png' leads out of the archive"),
        (lambda f: archive(f, [("a/../../b.png", png(1))]), "leads out of the archive"),
        (lambda f: archive(f, [("..\\b.png", png(1))]), "leads out of the archive"),
        (lambda f: archive(f, [("C:/b.png", png(1))]), "leads out of the archive"),
        (lambda f: archive(f, [("b.png", png(1)), ("b.png", png(2))]), "'b.png' is there twice"),
        (bomb, "would be 100 MB unpacked"),
        (encrypted, "is encrypted"),
        (lambda f: archive(f, [("a.txt", "x")]), "has no pictures of train"),
        (lambda f: f.write_bytes(b"PK\x03\x04 no archive") and f, "cannot be read"),
        (lambda f: f.write_bytes(archive(f, STYLEGAN).read_bytes()[:-30]) and f, "cannot be read"),
        (lambda f: f, "does not exist; give a .zip file"),
        (lambda f: archive(f, [*STYLEGAN, ("dataset.json", "{")]), "dataset.json of archive"),
        (lambda f: archive(f, [*STYLEGAN, ("dataset.json", "[" * 200_000)]), "cannot be read; it holds"),
        (lambda f: archive(f, [*STYLEGAN, ("dataset.json", '{"labels": 3}')]), "cannot be read; it holds"),
        (lambda f: archive(f, [*STYLEGAN, labels([["x", 0]])]), "has no label of '00000/img00000000.png' (4 of 4)"),
        (lambda f: archive(f, [*STYLEGAN, labels([[n, -1] for n, _ in STYLEGAN])]), "-1 is among the classes"),
        (lambda f: archive(f, [*STYLEGAN, labels([[n, "cat"] for n, _ in STYLEGAN])]), "is cat; give whole numbers"),
        (
            lambda f: archive(f, [*STYLEGAN, labels([[n, [k] * (k + 1)] for k, (n, _) in enumerate(STYLEGAN)])]),
            "is [1, 1]",
        ),
        (lambda f: archive(f, [*STYLEGAN, labels([[n, [float("nan")]] for n, _ in STYLEGAN])]), "is [nan]"),
        (lambda f: archive(f, [*STYLEGAN, labels([[n, True] for n, _ in STYLEGAN])]), "is True"),
    ],
)
def test_mistakes_in_an_archive(tmp_path, make, message):
    file = make(tmp_path / "x.zip")
    assert message in refused(lambda: read("zip", file), kind=DataError)


def test_a_damaged_picture_of_an_archive(tmp_path):
    file = archive(tmp_path / "x.zip", [*STYLEGAN, ("b.png", b"no picture"), ("e.png", b"")])
    said = refused(lambda: read("zip", file))
    assert "x.zip:b.png' cannot be read (no picture, or a broken one)" in said
    assert len(read("zip", file, skip_corrupt=True)) == 4
    content = bytearray(archive(file, STYLEGAN).read_bytes())
    content[content.index(b"IDAT") + 8] ^= 255
    file.write_bytes(content)
    assert "Bad CRC-32" in refused(lambda: read("zip", file))
    data = read("zip", file, skip_corrupt=True)
    assert shades(data) == ([10, 20, 30], None)


def test_skipped_pictures_take_their_classes_along(tmp_path):
    names = [*(name for name, _ in STYLEGAN), "b.png"]
    entries = [(name, b"broken" if n == 1 else content) for n, (name, content) in enumerate(STYLEGAN)]
    file = archive(tmp_path / "x.zip", [*entries, ("b.png", png(90)), labels([[n, k] for k, n in enumerate(names)])])
    data = read("zip", file, skip_corrupt=True)
    assert shades(data)[0] == [0, 20, 30, 90] and data.class_labels.values.tolist() == [0, 2, 3, 4]


def test_each_process_opens_an_archive_for_itself(tmp_path):
    found = Archive(archive(tmp_path / "x.zip", STYLEGAN))
    assert found.read(STYLEGAN[0][0]) == STYLEGAN[0][1]
    copy = pickle.loads(pickle.dumps(found))
    assert copy.read(STYLEGAN[1][0]) == STYLEGAN[1][1]
    reader, writer = os.pipe()
    mine = found._opened()
    if not os.fork():
        os.write(writer, str(found.read(STYLEGAN[2][0]) == STYLEGAN[2][1] and found._opened() is not mine).encode())
        os._exit(0)
    assert os.read(reader, 10) == b"True" and found._opened() is mine


# Named tensors


def floats(count=3, channels=3, seed=0, size=16):
    return np.random.default_rng(seed).uniform(-1, 1, (count, channels, size, size)).astype(np.float32)


def test_tensors_are_what_the_file_holds(tmp_path):
    image, target, mask = floats(), floats(seed=1), floats(channels=1, seed=2)
    style, label = np.random.default_rng(3).normal(size=(3, 5)), np.array([2, 0, 1])
    np.savez(tmp_path / "train.npz", mask=mask, target=target, image=image, style=style, label=label)
    options = {"inputs": ["image", "mask", "style", "label"], "target": "target"}
    traits = Traits(input_shapes=((3, 16, 16), (1, 16, 16), (5,), (4,)))
    data = read("tensors", tmp_path, options=options, traits=traits)
    inputs, goals = data.batch(np.array([2, 0]))
    for found, wanted in zip((*inputs[:3], goals), (image, mask, style.astype(np.float32), target), strict=True):
        assert torch.equal(found, torch.from_numpy(wanted[[2, 0]]))
    assert inputs[3].tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    plain = read("tensors", tmp_path, options={"inputs": "image"})
    assert torch.equal(plain.batch(np.arange(3))[0], torch.from_numpy(image)) and plain.paired
    default = read("tensors", tmp_path, options={})
    assert torch.equal(default.batch(np.arange(3))[0][0], torch.from_numpy(mask)), "in the order of the file"
    for direction, wanted in (("BtoA", target), ("unpaired", image)):
        found = read("tensors", tmp_path, options={"inputs": "image"}, direction=direction)
        assert torch.equal(found.batch(np.arange(3))[0], torch.from_numpy(wanted))
    domains = read_domains(DataConfig(kind="tensors", path=str(tmp_path), size=16, options={"inputs": "image"}))
    assert np.array_equal(np.moveaxis(domains.a, 3, 1), image)


def test_safetensors_and_bytes(tmp_path):
    image, target = torch.from_numpy(floats()), torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    save_file({"image": image.bfloat16(), "target": target}, tmp_path / "train.safetensors")
    inputs, goals = read("tensors", tmp_path).batch(np.arange(3))
    assert torch.equal(inputs, image.bfloat16().float()) and torch.equal(goals, target / 127.5 - 1)
    save_file({"b": image, "a": image.clone()}, tmp_path / "train.safetensors")
    assert "keeps no order of its arrays; name them" in refused(lambda: read("tensors", tmp_path))


def with_nan():
    image = floats()
    image[1, 2, 3, 4] = np.nan
    return image


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil",))


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"image": with_nan()}, {}, "array 'image' of '{file}' holds NaN or infinity in row 1"),
        (
            {"image": floats(), "style": np.array([[1.0], [np.inf], [2.0]])},
            {},
            "array 'style' of '{file}' holds NaN or",
        ),
        ({"image": floats() * 3}, {}, "has values from -"),
        ({"image": floats() / 2 + 0.5}, {}, "no value below 0 in its first 3, so it seems to lie in [0, 1]"),
        ({"image": floats().transpose(0, 2, 3, 1)}, {}, "channels come first, [C, H, W]: permute it"),
        ({"image": floats(), "target": floats(count=2)}, {}, "need equal lengths of at least 1; they are image [3, "),
        ({"image": floats(count=0)}, {}, "need equal lengths of at least 1"),
        ({"image": floats(size=20)}, {}, "inputs are 20x20, data.size wants 16x16; set data.size [20, 20]"),
        (
            {"image": floats(), "target": floats(size=32)},
            {},
            "targets are 32x32, data.size wants 16x16; set data.scale",
        ),
        ({"image": floats().astype(np.int64)}, {}, "is int64 [3, 3, 16, 16]; allowed are pictures"),
        ({"image": floats()[:, 0].astype(complex)}, {}, "is complex128"),
        ({"style": np.ones((3, 5))}, {}, "the first input and the target are pictures"),
        ({"label": np.arange(3)}, {}, "is a class; the first input is a picture"),
        ({"label": np.arange(3), "image": floats()}, {}, "as the last input classes"),
        ({"image": floats(), "label": np.array([0, -1, 2])}, {}, "holds classes, whole numbers from 0"),
        ({"image": floats()}, {"inputs": ["imgae"]}, "has no array 'imgae'; did you mean 'image'"),
        ({"image": floats()}, {"target": "nothing"}, "has no array 'nothing'"),
        ({"target": floats()}, {}, "has no inputs"),
        ({"image": np.array([Evil()] * 3)}, {}, "it holds Python objects, which are not opened"),
        ({"image": floats()}, {"inptus": ["image"]}, "data.options.inptus is no setting of data.kind tensors"),
        ({"image": floats()}, {"inputs": 3}, "data.options cannot be"),
        ({"image": floats()}, {"inputs": []}, "data.options cannot be"),
    ],
)
def test_mistakes_in_tensors(tmp_path, monkeypatch, arrays, options, message):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "train.npz", **arrays)
    said = refused(lambda: read("tensors", tmp_path, options=options))
    assert message.replace("{file}", str(tmp_path / "train.npz")) in said
    assert not Path("evil").exists()


@pytest.mark.parametrize("name", ["train.npz", "train.safetensors"])
def test_damaged_tensors(tmp_path, name):
    if name.endswith("npz"):
        np.savez(tmp_path / name, image=floats())
    else:
        save_file({"image": torch.from_numpy(floats())}, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for content in (b"", whole[:100], whole[:-100], whole[:400] + b"xyz" + whole[403:]):
        (tmp_path / name).write_bytes(content)
        if name.endswith("npz") or len(content) != len(whole):  # safetensors have no checksum
            assert "cannot be read" in refused(lambda: read("tensors", tmp_path), kind=DataError)
    (tmp_path / name).unlink()
    assert "has no tensors of train; call them train.npz" in refused(lambda: read("tensors", tmp_path))


def test_tensors_larger_than_memory(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "train.npz", image=np.zeros((100, 3, 16, 16), np.float32))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 300}.get)
    assert (tmp_path / "train.npz").stat().st_size < 3000
    assert "take 0.0 GB in memory" in refused(lambda: read("tensors", tmp_path))


# Datasets


class Items(Dataset):
    """What a function makes of a number, so often."""

    def __init__(self, make, count=4):
        self.make, self.count = make, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.make(int(index))


def of_dataset(data, split="train", *, traits=None, **settings):
    config = datasets.give(data, DataConfig(**{"size": 16, "split": "all"} | settings))
    return read_split(config, split, traits)


def grey(value, size=(16, 16)):
    return np.full((*size, 3), value, np.uint8)


def tensor(index, channels=3, size=16):
    return torch.rand(channels, size, size, generator=torch.Generator().manual_seed(index)) * 2 - 1


def half(index):
    """The left half below 0."""
    return torch.cat([torch.full((3, 16, 8), -0.5), torch.full((3, 16, 8), index / 10)], 2)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (grey, lambda n: n / 127.5 - 1),
        (lambda n: Image.fromarray(grey(n, (40, 30))), lambda n: n / 127.5 - 1),
        (lambda n: Image.fromarray(grey(n)).convert("L"), lambda n: n / 127.5 - 1),
        (lambda n: grey(n)[..., 0], lambda n: n / 127.5 - 1),
        (lambda n: torch.from_numpy(grey(n)).permute(2, 0, 1), lambda n: n / 127.5 - 1),
        (lambda n: torch.full((3, 16, 16), n / 10 - 0.9), lambda n: n / 10 - 0.9),
        (lambda n: torch.full((3, 16, 16), n / 10 - 0.9).half(), lambda n: float(np.float16(n / 10 - 0.9))),
        (lambda n: torch.full((3, 16, 16), n / 10 - 0.9, dtype=torch.float64), lambda n: n / 10 - 0.9),
    ],
)
def test_values_of_a_dataset(make, wanted):
    data = of_dataset(Items(make))
    rows = np.array([3, 1])
    inputs, targets = data.batch(rows)
    assert targets is None and inputs.shape == (2, 3, 16, 16)
    for found, n in zip(inputs, rows.tolist(), strict=True):
        torch.testing.assert_close(found, torch.full((3, 16, 16), wanted(n)), atol=1e-6, rtol=0)


def test_forms_of_an_item():
    one = of_dataset(Items(lambda n: (tensor(n),)))
    assert torch.equal(one.batch(np.array([2]))[0][0], tensor(2)) and one.class_labels is None
    pair = of_dataset(Items(lambda n: (tensor(n), -tensor(n))))
    assert torch.equal(pair.batch(np.array([1]))[1][0], -tensor(1))
    for label in (lambda n: n % 3, lambda n: np.int64(n % 3), lambda n: torch.tensor(n % 3)):
        labelled = of_dataset(Items(lambda n, label=label: (tensor(n), label(n))), traits=CLASSES)
        assert not labelled.paired and labelled.batch(np.arange(4))[0][1].argmax(1).tolist() == [0, 1, 2, 0]
        three = of_dataset(Items(lambda n, label=label: [tensor(n), -tensor(n), label(n)]), traits=CLASSES)
        assert three.paired and three.batch(np.arange(4))[0][1].argmax(1).tolist() == [0, 1, 2, 0]
    several = of_dataset(
        Items(lambda n: {"inputs": (tensor(n), tensor(n, 1), torch.full((5,), 3.0 * n)), "target": tensor(-n)})
    )
    (picture, mask, style), target = several.batch(np.array([2]))
    assert (
        torch.equal(picture[0], tensor(2)) and torch.equal(mask[0], tensor(2, 1)) and torch.equal(target[0], tensor(-2))
    )
    assert style.tolist() == [[6.0] * 5]
    named = of_dataset(Items(lambda n: {"inputs": {"b": tensor(n), "a": grey(255 * (n % 2))[..., :1]}}))
    assert named.batch(np.array([1]))[0][1].eq(1).all() and named.batch(np.array([2]))[0][1].eq(-1).all()
    for direction, sign in (("AtoB", 1), ("BtoA", -1)):
        data = of_dataset(Items(lambda n: (half(n), -half(n))), direction=direction)
        assert torch.equal(data.batch(np.array([3]))[0][0], sign * half(3))
    assert of_dataset(Items(lambda n: (half(n), -half(n))), direction="unpaired").targets is None
    assert of_dataset([tensor(0), tensor(1)]).batch(np.arange(2))[0].shape == (2, 3, 16, 16), "any sequence"


def test_pictures_are_fitted_and_have_the_channels_asked_for():
    data = of_dataset(
        Items(lambda n: (grey(n, (10, 40)), Image.fromarray(grey(100, (8, 8))))), channels=[1, 4], scale=2
    )
    inputs, targets = data.batch(np.array([0]))
    assert inputs.shape == (1, 1, 16, 16) and targets.shape == (1, 4, 32, 32)


def test_the_splits_of_a_dictionary():
    data = {"train": Items(half), "test": Items(lambda n: half(9 - n), 2)}
    sizes = {split: len(of_dataset(data, split)) for split in ("train", "search", "test")}
    assert sizes == {"train": 4, "search": 4, "test": 2}
    assert "has no test: it has train; add it" in refused(lambda: of_dataset({"train": data["train"]}, "test"))
    assert "data= is empty; give Datasets by split" in refused(lambda: of_dataset({}))
    assert "did you mean 'train'" in refused(lambda: of_dataset({"trian": data["train"]}))


def test_a_digest_of_some_hundred_items():
    """Up to 256 items all count; of more, as many, evenly spaced, with the first and the last."""
    read = []

    def make(n, changed):
        read.append(n)
        return grey(n % 256 if n != changed else 77)

    digests = {of_dataset(Items(lambda n, c=changed: make(n, c), 200)).digest() for changed in (None, 0, 50, 150, 199)}
    assert len(digests) == 5
    read.clear()
    of_dataset(Items(lambda n: make(n, None), 100_000))
    assert len(set(read)) == 256 and {0, 99_999} <= set(read)


class Stream(IterableDataset):
    def __iter__(self):
        yield grey(0)


def failing(n):
    return {}["missing"]


random = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Stream(), "is an IterableDataset, of which the 5th item cannot be asked for"),
        (Items(grey, 0), "is empty; give items"),
        (Dataset(), "its length cannot be told"),
        (3, "is an int; give a torch Dataset"),
        ("text", "is a str; give a torch Dataset"),
        (Items(failing), "failed at item 0 with KeyError('missing')"),
        (Items(lambda n: None), "is a NoneType; give a PIL picture, a numpy array or a tensor"),
        (Items(lambda n: "a.png"), "is a str; give a PIL picture"),
        (Items(lambda n: ()), "has 0 values; give input, (input, target)"),
        (Items(lambda n: (grey(n),) * 3), "has 3 values; give input"),
        (Items(lambda n: (grey(n),) * 4), "has 4 values; give input"),
        (Items(lambda n: {"image": grey(n)}), "is a dictionary of image; of input or inputs, target and class"),
        (Items(lambda n: {"input": grey(n), "inputs": grey(n)}), "is a dictionary of input, inputs"),
        (Items(lambda n: {"input": grey(n), "class": 1.5}), "has the class 1.5; give a whole number from 0"),
        (Items(lambda n: (grey(n), -1)), "has the class -1"),
        (Items(lambda n: grey(n).astype(np.float32)), "is float32 [16, 16, 3]; give a PIL picture"),
        (
            Items(lambda n: grey(n).transpose(2, 0, 1)),
            "is uint8 [3, 16, 16]; give a PIL picture, numpy uint8 [H, W, C]",
        ),
        (Items(lambda n: torch.from_numpy(grey(n))), "channels come first, [C, H, W]: permute it"),
        (Items(lambda n: tensor(n) * 255), "has values from -25"),
        (Items(lambda n: tensor(n).abs()), "no value below 0 in its first 4, so it seems to lie in [0, 1]"),
        (Items(lambda n: (tensor(n), tensor(n).abs())), "target has no value below 0"),
        (Items(lambda n: tensor(n) * float("nan")), "holds NaN or infinity"),
        (Items(lambda n: tensor(n, size=20)), "inputs are 20x20, data.size wants 16x16; set data.size [20, 20]"),
        (
            Items(lambda n: tensor(n, 3 + (n == 2))),
            "item 2's values are float32 [16, 16, 4], those before float32 [16, 16, 3]",
        ),
        (Items(lambda n: tensor(n)[0]), "is float32 [16, 16, 1]; give a PIL picture"),
        (Items(lambda n: torch.zeros(5)), "is float32 [5]; give a PIL picture"),
        (Items(lambda n: torch.zeros(3, 16, 16, dtype=torch.int64)), "is int64"),
        (
            Items(lambda n: {"inputs": (tensor(n), grey(n, (8, 8)))}),
            "is 8x8, data.size wants 16x16; further inputs are not",
        ),
        (
            Items(lambda n: random.integers(0, 256, (16, 16, 3), dtype=np.uint8)),
            "gives another item 0 each time; leave random",
        ),
    ],
)
def test_mistakes_in_a_dataset(data, message):
    assert message in refused(lambda: of_dataset(data))


def test_a_class_beyond_the_generators():
    data = of_dataset(Items(lambda n: (tensor(n), n)), traits=CLASSES)
    assert "class 3 is in the data, the generator takes 0 to 2" in refused(lambda: data.batch(np.array([3])))


def test_settings_beside_data_from_python():
    data = Items(grey)
    for beside in ({"path": "x"}, {"options": {"a": 1}}):
        with pytest.raises(ConfigError, match=r"data= was given, and data\.path or data\.options as well"):
            of_dataset(data, **beside)
    kind = datasets.give(data, DataConfig(size=16)).kind
    assert (
        kind
        == datasets.give(Items(grey), DataConfig(size=16)).kind
        != datasets.give(Items(grey, 3), DataConfig(size=16)).kind
    )
    with pytest.raises(DataError, match=r"this process does not have it; pass it again: gantailor\.open_run"):
        read_split(DataConfig(kind="python:000000000000"), "train")


OWN = """
import numpy as np
from torch.utils.data import Dataset, IterableDataset

class Two(Dataset):
    def __init__(self, split, value=7):
        self.value = {"train": value, "test": 99}[split]
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return np.full((16, 16, 3), self.value + index, np.uint8)

def make(split, value=7):
    return None if split in ("search", "val") else Two(split, value)

def empty(split):
    return None

INSTANCE, SPLITS, NUMBER = Two("train"), {"train": Two("train"), "test": Two("test")}, 3

class Stream(IterableDataset):
    def __iter__(self):
        return iter([])

STREAM = Stream()
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_sets.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "own_sets", raising=False)


@pytest.mark.usefixtures("own_module")
def test_a_dataset_by_its_name(caplog):
    def shade_of(name, split, **options):
        config = DataConfig(kind=f"own_sets:{name}", size=16, options=options)
        return shades(read_split(config, split))[0]

    assert shade_of("Two", "train") == [7, 8] and shade_of("Two", "test", value=3) == [99, 100]
    assert shade_of("make", "train", value=3) == shade_of("make", "search", value=3) == [3, 4], "None: train for search"
    assert shade_of("SPLITS", "train") == shade_of("SPLITS", "search") == [7, 8]
    assert shade_of("SPLITS", "test") == [99, 100]
    assert "test has no pictures of its own" not in caplog.text
    config = DataConfig(kind="own_sets:INSTANCE", size=16, split="all")
    assert shades(read_split(config, "test"))[0] == [7, 8]
    assert "test has no pictures of its own in" in caplog.text and "those of train and search" in caplog.text


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Two", {"vaule": 3}, "a class or function of (split, **data.options) that makes one: with data.options"),
        ("Two", {"value": "a"}, "(train) failed at item 0 with TypeError("),
        ("INSTANCE", {"value": 3}, "data.options cannot be {'value': 3}"),
        ("NUMBER", {}, "is an int; give a DataKind record"),
        ("STREAM", {}, "is an IterableDataset"),
        ("empty", {}, "makes nothing of train, which train needs"),
    ],
)
@pytest.mark.usefixtures("own_module")
def test_mistakes_in_a_named_dataset(name, options, message):
    config = DataConfig(kind=f"own_sets:{name}", size=16, options=options)
    assert message in refused(lambda: read_split(config, "train"))


@pytest.mark.usefixtures("own_module")
def test_a_split_that_a_class_does_not_know():
    said = refused(lambda: read_split(DataConfig(kind="own_sets:Two", size=16), "search"))
    assert "failed at search with KeyError('search')" in said and "own_sets.py, line" in said
