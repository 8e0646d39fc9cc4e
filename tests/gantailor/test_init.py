"""A first configuration: what is seen of pictures and checkpoints, and that the file it makes passes the check."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import gantailor
from gantailor.cli.main import main
from gantailor.run.loading import load_config
from gantailor.starting.checkpoint import recognised, sides_for
from gantailor.starting.configuration import propose
from gantailor.starting.pictures import look_at
from gantailor.supernet.errors import CheckpointError, DataError


def pictures(folder, count=8, size=(32, 32), names="{}.png", pixels=None):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        noise = random.integers(0, 256, (size[0] // 4, size[1] // 4, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize(size[::-1]) if pixels is None else Image.fromarray(pixels(number))
        image.save(folder / names.format(number))
    return folder


def saved(file, generator, **options):
    torch.manual_seed(0)
    torch.save(gantailor.build(generator, **options).state_dict(), file)
    return str(file)


SMALL, WIDE = (32, 32), (32, 64)
TWO = {"trainA": (8, SMALL), "trainB": (8, SMALL), "testA": (3, SMALL), "testB": (3, SMALL)}
LAYOUTS = {  # folders, and how many pictures of which size; what is made of them
    "side by side": ({"train": (8, WIDE), "test": (4, WIDE)}, {"kind": "folder"}),
    "alone": ({"train": (8, SMALL)}, {"kind": "folder", "direction": "unpaired"}),
    "flat": ({".": (20, (48, 40))}, {"kind": "folder", "direction": "unpaired"}),
    "two folders": (TWO, {"kind": "folders"}),
    "split/side": ({"train/A": (8, SMALL), "train/B": (8, SMALL)}, {"kind": "folders"}),
    "names": ({"train/ink": (8, SMALL), "train/oil": (8, SMALL)}, {"kind": "folders", "sides": ["ink", "oil"]}),
    "classes": ({"train/cat": (3, SMALL), "train/dog": (4, SMALL), "train/owl": (1, SMALL)}, {"kind": "classes"}),
    "labels": ({f"{a}_{b}": (8, SMALL) for a in ("train", "test") for b in ("label", "img")}, {"kind": "labels"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    folders, settings = LAYOUTS[layout]
    for name, (count, size) in folders.items():
        pictures(tmp_path / "data" / name, count, size)
    found = look_at(tmp_path / "data")
    assert found.settings == {**settings, "path": str(tmp_path / "data")}
    (height, width) = next(iter(folders.values()))[1]
    assert found.shape == ((height, width // 2) if layout == "side by side" else (height, width))
    assert found.count == (20 if layout == "flat" else 8) and found.said


def test_files_of_other_names_are_two_domains(tmp_path):
    pictures(tmp_path / "trainA"), pictures(tmp_path / "trainB", names="photo {} of b.png", count=9)
    found = look_at(tmp_path)
    assert found.settings == {"kind": "domains", "path": str(tmp_path)} and "unpaired" in found.assumed[0]
    taught = propose(tmp_path, saved(tmp_path / "G.pth", "resnet_6blocks", ngf=4))
    assert "takes pictures of A" in taught.assumed[1] and "direction" not in taught.settings["data"]
    assert "method" not in taught.settings and load_config(taught.settings)
    proposed = propose(tmp_path)
    assert proposed.settings["train"]["preset"] == "teacher-cyclegan" and load_config(proposed.settings)


def test_lists_and_archives(tmp_path):
    (tmp_path / "faces.zip").write_bytes(b"any")
    assert look_at(tmp_path / "faces.zip").kind == "zip"
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/train.csv").write_text("input,target\n")
    assert look_at(tmp_path / "sets").settings == {"kind": "list", "path": str(tmp_path / "sets")}


@pytest.mark.parametrize(
    ("generator", "options"),
    [
        ("resnet_9blocks", {"ngf": 8}),
        ("mobile_resnet_6blocks", {"ngf": 8}),
        ("unet_128", {"ngf": 4}),
        ("srvgg", {"num_feat": 8, "num_conv": 2, "upscale": 2}),
        ("spade", {"ngf": 4, "label_channels": 6}),
    ],
)
def test_checkpoints_are_recognised(tmp_path, generator, options):
    found = recognised(saved(tmp_path / "any.pth", generator, **options))
    assert found.generator == generator and options.items() <= dict(found.options).items()


def test_a_generator_from_latents(tmp_path):
    options = {"size": 16, "style_dim": 8, "n_mlp": 2, "channels": {4: 8, 8: 8, 16: 8}}
    weights = saved(tmp_path / "ema.pt", "stylegan2", **options)
    proposed = propose(pictures(tmp_path / "faces/train").parent, weights)
    data = {"kind": "folder", "path": str(tmp_path / "faces"), "direction": "unpaired", "size": 16}
    assert (proposed.settings["data"], proposed.settings["method"]) == (data, "diversity")
    assert "train" not in proposed.settings and not any("held out" in text for text in proposed.found)
    written = yaml.safe_load(proposed.yaml("gantailor.yaml"))
    assert written == proposed.settings and load_config(written).options == options


@pytest.mark.long
def test_what_is_none_of_the_zoos(tmp_path):
    torch.save({"layer.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"none of the zoo's .*resnet_6blocks.*module:name"):
        recognised(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        recognised(tmp_path / "missing.pth")
    nets = {name: gantailor.build("resnet_6blocks", ngf=4).state_dict() for name in ("netG_A", "netG_B")}
    torch.save(nets, tmp_path / "both.pth")
    with pytest.raises(CheckpointError, match=r"both\.pth:netG_A"):
        recognised(tmp_path / "both.pth")
    assert recognised(f"{tmp_path}/both.pth:netG_B").options == {"ngf": 4}


def test_the_teacher_tells_which_half_is_its_input(tmp_path, monkeypatch):
    """One that makes white of everything: the white half is its target."""
    weights = saved(tmp_path / "G.pth", "resnet_6blocks", ngf=8)
    halves = np.concatenate([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)], 1)
    pictures(tmp_path / "pairs/train", pixels=lambda number: halves)
    whitening = torch.nn.Module()
    whitening.forward = torch.ones_like
    monkeypatch.setattr("gantailor.starting.checkpoint.load_teacher", lambda *_, **__: whitening)
    proposed = propose(tmp_path / "pairs", weights)
    assert proposed.settings["data"]["direction"] == "AtoB" and "with BtoA" in proposed.assumed[1]
    whitening.forward = lambda x: -torch.ones_like(x)
    assert propose(tmp_path / "pairs", weights).settings["data"]["direction"] == "BtoA"


@pytest.mark.parametrize(
    ("shape", "multiple", "size"),
    [((256, 256), 4, 256), ((600, 400), 4, 256), ((100, 66), 4, (100, 64)), ((64, 64), 128, 128), (None, 4, 256)],
)
def test_sizes(shape, multiple, size):
    assert sides_for(shape, multiple) == size


def test_what_tells_nothing_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/notes.txt").write_text("x")
    weights = saved(tmp_path / "G.pth", "resnet_6blocks", ngf=8)
    pictures(tmp_path / "alone/train")
    for name in ("train_label", "train_img", "val_label", "val_img"):
        pictures(tmp_path / "labels" / name)
    for name in ("train_label", "train_img"):
        pictures(tmp_path / "training" / name)
    for given, said in {
        ("data",): "there are notes.txt",
        ("nowhere",): "does not exist",
        ("G.pth",): "is no .zip",
        ("alone",): "--teacher FILE",
        ("labels", "--teacher", weights): "takes pictures",
        ("training", "--teacher", weights): "test_label",
        ("alone", "--teacher", "missing.pth"): "does not exist",
    }.items():
        assert main(["init", *given]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert not (tmp_path / "gantailor.yaml").exists()
    for number in range(8):
        (tmp_path / f"alone/train/{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of 8 pictures"):
        look_at(tmp_path / "alone")


def test_nothing_is_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "pairs/train", size=(32, 64))
    (tmp_path / "gantailor.yaml").write_text("mine")
    assert main(["init", "pairs"]) == 2 and "stays as it is" in capsys.readouterr().err
    assert main(["init", "pairs", "--out", "none/of.yaml"]) == 2 and "choose another --out" in capsys.readouterr().err
    assert (tmp_path / "gantailor.yaml").read_text() == "mine"


def test_names_of_any_kind_stay_in_their_line(tmp_path):
    folder = tmp_path / "a: 'b' # \n{c}\x1b[31m"
    pictures(folder / "train", size=(32, 64))
    text = propose(folder).yaml("gantailor.yaml")
    assert yaml.safe_load(text)["data"]["path"] == str(folder) and "\x1b" not in text


CASES = {
    "pairs": ("side by side", "resnet_6blocks", {"ngf": 4}),
    "pictures alone": ("flat", "unet_128", {"ngf": 4}),
    "two folders": ("two folders", None, {}),
    "enlarging": ("flat", "srvgg", {"num_feat": 8, "num_conv": 2, "upscale": 2}),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.long if c in ("pairs", "enlarging") else pytest.mark.slow) for c in CASES],
)
def test_what_is_written_passes_the_check(tmp_path, capsys, monkeypatch, case):
    layout, generator, options = CASES[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANTAILOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("gantailor.cli.jobs.note_estimates", lambda run: None)  # steps that are timed
    for name, (count, size) in LAYOUTS[layout][0].items():
        pictures(tmp_path / "data" / name, count, (160, 160) if case == "enlarging" else size)
    teacher = [] if generator is None else ["--teacher", saved(tmp_path / "G.pth", generator, **options)]
    assert main(["init", "data", *teacher]) == 0, capsys.readouterr().err
    assert "gantailor.yaml is written" in capsys.readouterr().out
    assert main(["compress", "gantailor.yaml", "--dry-run"]) == 0, capsys.readouterr().err
    assert "budget" in capsys.readouterr().out
