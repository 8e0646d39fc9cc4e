"""The papers' runs: each is found by its name, valid for its method, and costs what was published."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import gantailor
from gantailor.cli.main import main
from gantailor.run.loading import load_config, papers
from gantailor.run.run import Run
from gantailor.supernet.errors import ConfigError
from gantailor.zoo.discriminators.build import make_discriminator

NAMES = sorted(papers())
PAGE = Path(__file__).parents[2] / "docs/papers.md"
VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)


@pytest.fixture(scope="session")
def vgg(tmp_path_factory):
    """VGG16 of one value, and LPIPS's heads for it: what counts here is that they fit."""
    folder, state, number, inputs = tmp_path_factory.mktemp("vgg"), {}, 0, 3
    for width in VGG16:
        if width == "M":
            number += 1
            continue
        state[f"features.{number}.weight"] = torch.full((width, inputs, 3, 3), 0.01)
        state[f"features.{number}.bias"] = torch.zeros(width)
        number, inputs = number + 2, width
    heads = {f"lin{k}.model.1.weight": torch.ones(1, w, 1, 1) for k, w in enumerate((64, 128, 256, 512, 512))}
    torch.save(state, folder / "vgg16.pth")
    torch.save(heads, folder / "lin_vgg.pth")
    return folder


def draw(folder, count=6, size=(32, 32), kind="RGB"):
    """Random pictures; of kind ``L`` ids below 34."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    shape = size if kind == "L" else (*size, 3)
    for number in range(count):
        pixels = random.integers(0, 34 if kind == "L" else 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def dataset(folder, data):
    """Six pictures in each folder that the paper's data set has."""
    if data.kind == "domains":
        parts = {f"{split}{side}": "RGB" for split in ("train", "test") for side in "AB"}
    elif data.kind == "labels":
        parts = {f"{split}_{what}": kind for split in ("train", "val") for what, kind in LABELS.items()}
    else:
        parts = {"train": "RGB", "val": "RGB"}
    alone = data.kind == "domains" or data.direction == "unpaired"
    for part, kind in parts.items():
        draw(folder / part, size=(32, 32) if alone else (32, 64), kind=kind)
    return folder


LABELS = {"label": "L", "inst": "L", "img": "RGB"}
TINY = {  # options of the tiny form of each student, and its teacher
    "mobile_resnet_9blocks": ({"ngf": 4}, "resnet_9blocks"),
    "resnet_9blocks": ({"ngf": 4}, "resnet_9blocks"),
    "mobile_munit": ({"ngf": 4, "mlp_dim": 8}, "munit"),
    "mobile_spade": ({"ngf": 4, "label_channels": 36}, "spade"),
    "cartoongan": ({"ngf": 4}, "cartoongan"),
    "stylegan2": ({"size": 32, "style_dim": 16, "n_mlp": 2, "channels": dict.fromkeys((4, 8, 16, 32), 8)}, "stylegan2"),
}


def tiny(name, folder, vgg):
    """The command line of a paper's run on six pictures, narrow and small."""
    config = load_config(name)
    options, taught = TINY[config.generator]
    torch.manual_seed(0)
    torch.save(gantailor.build(taught, **options).state_dict(), folder / "teacher.pth")
    size = {"labels": "[64, 128]"}.get(config.data.kind, "64" if "munit" in config.generator else "32")
    line = ["compress", name, "--out", str(folder / "run"), "--data.path", str(dataset(folder / "data", config.data))]
    line += ["--options", yaml.safe_dump(options, default_flow_style=True).strip(), "--data.size", size]
    line += ["--train.batch", "2", "--finetune.batch", "2", "--train.ndf", "4", "--finetune.ndf", "4"]
    line += ["--evaluation.search_images", "4", "--budget", "0.9x"]
    if config.teacher.weights != "none":
        line += ["--teacher", str(folder / "teacher.pth")]
    if config.teacher.options is not None:
        line += ["--teacher.options", yaml.safe_dump(options, default_flow_style=True).strip()]
    if config.data.load is not None:
        line += ["--data.load", "36"]
    if config.space.name not in ("every", "uniform"):  # tables are of 64 channels
        line += ["--space", "default"]
    if config.evaluation.lpips_network == "vgg":
        line += [
            "--evaluation.lpips_features",
            str(vgg / "vgg16.pth"),
            "--evaluation.lpips_heads",
            str(vgg / "lin_vgg.pth"),
        ]
    if config.method == "agents" and config.data.kind == "domains":
        judge = make_discriminator(config.train.model_copy(update={"ndf": 4}), input_nc=3, output_nc=3)
        torch.save(judge.state_dict(), folder / "judge.pth")
        line += ["--discriminator", str(folder / "judge.pth")]
    return line


def test_they_are_found_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compress", "gan-compresion-horse2zebra"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "did you mean 'gan-compression-horse2zebra'" in said[0]
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load_config("missing.yaml")
    assert load_config("dcp-gan-ffhq256", {"seed": 3}).seed == 3, "flags go on top"
    Path("dcp-gan-ffhq256").write_text("seed: 4\n")
    assert load_config("dcp-gan-ffhq256").seed == 4, "a file of that name comes first"


def test_they_are_listed(capsys):
    assert main(["papers"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == NAMES
    assert main(["papers", "coronet-horse2zebra"]) == 0
    assert capsys.readouterr().out == papers()["coronet-horse2zebra"].read_text()
    assert main(["papers", "coronet"]) == 2 and "did you mean 'coronet" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_its_head_tells_what_it_is(name):
    """Command, what the paper states, what its code, what is ours, what departs."""
    head = [line for line in papers()[name].read_text().splitlines() if line.startswith("#")]
    assert head[2].startswith(f"#   gantailor compress {name} ") and len(head[0]) > 40
    for part in ("The paper|Paper", "code", "Ours:|, ours:", "Departs:"):
        assert any(re.search(part, line) for line in head), part
    load_config(name)


def test_the_page_has_every_run_and_no_other():
    page = PAGE.read_text()
    rows = re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)
    assert sorted(rows) == NAMES
    for name in NAMES:
        command = next(line for line in papers()[name].read_text().splitlines() if line.startswith("#   "))
        assert command.removeprefix("#   ") in page


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid_for_its_method(name, tmp_path, vgg, capsys):
    assert main([*tiny(name, tmp_path, vgg), "--dry-run"]) == 0, capsys.readouterr().err
    config = load_config(name)
    told = capsys.readouterr()
    for section, recipe in (("train", config.train), ("finetune", config.finetune)):
        assert (f"{section}: {recipe.kimg:g} kimg" in told.err) == bool(recipe.kimg)


PUBLISHED = {  # MACs of the teacher as the tables count them, and of the row, which is the budget
    "gan-compression-horse2zebra": (56_831_770_624, 2_641_000_000),
    "gan-compression-edges2shoes": (56_831_770_624, 4_830_000_000),
    "gan-compression-cityscapes": (56_831_770_624, 5_610_000_000),
    "gan-compression-map2aerial": (56_831_770_624, 4_530_000_000),
    "gan-compression-munit-edges2shoes": (71_027_460_096, 2_120_000_000),
    "gan-compression-gaugan-cityscapes": (281_276_612_608, 31_300_000_000),
    "gan-slimming-horse2zebra": (56_799_264_768, 11_800_000_000),
    "dcp-gan-ffhq256": (45_124_673_536, 4_123_578_080),
    "dcp-gan-ffhq1024": (74_266_894_336, 6_990_183_648),
}
SHARES = {  # of the true MACs of the whole generator, where no number is known to us
    "gan-slimming-cartoongan": (54_383_345_664, 0.08),
    "coronet-edges2shoes": (49_551_507_456, 0.25),
    "coronet-horse2zebra": (49_551_507_456, 0.25),
    "local-density-pix2pix": (49_551_507_456, 0.1),
    "local-density-cyclegan": (49_551_507_456, 0.1),
}
SUBNETS = {  # of the space, released with the table: its counts of convolutions
    "gan-compression-horse2zebra": ("16_16_24_16_32_64_16_24", 2_618_425_344),
    "gan-compression-gaugan-cityscapes": ("32_32_32_48_32_24_24_32", 31_155_085_312),
}


@pytest.mark.slow  # at 256 to 1,024 px
@pytest.mark.parametrize("name", NAMES)
def test_its_published_costs_come_out(name, tmp_path, monkeypatch):
    """Of the teacher, of the budget, of what lies in the space; the trace is proved elsewhere."""
    monkeypatch.setattr("gantailor.run.setup.verify", lambda supernet, **options: "")
    config = load_config(name)
    flags = {"data.path": str(dataset(tmp_path / "data", config.data))}
    if config.teacher.weights != "none":
        flags["teacher.weights"] = str(tmp_path / "teacher.pth")
        taught, options = config.teacher.generator or config.generator, config.teacher.options or config.options
        torch.save(gantailor.build(taught, **options).state_dict(), flags["teacher.weights"])
    setup = Run(tmp_path / "run", load_config(name, flags)).setup
    whole, space, budget = setup.traced_teacher, setup.space, setup.budget
    teacher, row = PUBLISHED.get(name) or (SHARES[name][0], int(SHARES[name][0] * SHARES[name][1]))
    assert whole.macs(whole.full_config(), convention=config.convention) == teacher
    assert budget.macs == row
    if name in SUBNETS:
        released = space.config(SUBNETS[name][0])
        assert setup.traced.macs(released, convention="published_convs") == SUBNETS[name][1]
        assert setup.traced.macs(released, convention=config.convention) <= row, "in reach"
    if name.startswith("dcp-gan"):  # 70% of every width, to the MAC
        (variable,) = space.variables
        shares = np.arange(len(variable.choices))[:, None]
        assert row in space.macs(shares, convention="published").tolist()
