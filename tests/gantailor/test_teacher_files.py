"""A run's teacher as its owner knows it: options from its file, its names, and the statistics of its batch norms."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gantailor
from gantailor.cli.main import main
from gantailor.run.loading import load_config, stored_config
from gantailor.run.setup import Setup
from gantailor.supernet.calibration import has_running_statistics, per_picture
from gantailor.supernet.errors import ConfigError

SIZE = 32


def batch_normed(seed=0):
    """A tiny pix2pix-like ResNet whose running statistics are far from those of its pictures."""
    torch.manual_seed(seed)
    net = gantailor.build("resnet_6blocks", ngf=4, norm="batch", dropout=True)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(2, 4)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return net.eval()


def as_tested_by_the_original(net, pictures):
    """One by one with the norms in train mode, which pix2pix's test.py leaves them in; dropout off."""
    for module in net.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        made = torch.cat([net(picture[None]) for picture in pictures])
    net.load_state_dict(kept)
    net.eval()
    return made


@pytest.fixture
def pix2pix(tmp_path):
    """A batch-norm teacher, in a mapping with an epoch, and pairs whose targets are what the original's test shows."""
    net, rng = batch_normed(), np.random.default_rng(0)
    torch.save({"netG": net.state_dict(), "epoch": 200}, tmp_path / "latest.pth")
    for split in ("train", "val", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for number in range(4):
            picture = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
            target = ((as_tested_by_the_original(net, x)[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
            pair = Image.fromarray(np.concatenate([picture, target], 1))
            pair.save(tmp_path / "data" / split / f"{number}.png")
    return net, {
        "generator": "resnet_6blocks",
        "teacher": {"weights": str(tmp_path / "latest.pth")},
        "data": {"kind": "folder", "path": str(tmp_path / "data"), "size": SIZE},
        "budget": "0.5x",
    }


def test_each_picture_has_its_own_statistics():
    net, pictures = batch_normed(), torch.rand(3, 3, SIZE, SIZE) * 2 - 1
    expected = as_tested_by_the_original(net, pictures)
    single = per_picture(net)
    with torch.no_grad():
        torch.testing.assert_close(single(pictures), expected, atol=1e-5, rtol=1e-4)
        assert float((net(pictures) - expected).abs().mean()) > 0.01
    assert has_running_statistics(net) and not has_running_statistics(single) and not single.training


def test_batch_statistics_are_the_teachers_alone(pix2pix):
    net, settings = pix2pix
    settings["teacher"]["statistics"] = "batch"
    setup = Setup(load_config(settings))
    x, y = setup.data("train").batch(np.arange(4))
    with torch.no_grad():
        assert float((setup.teacher(x) - y).abs().mean()) < 0.01
        assert torch.equal(setup.generator(x), net(x))
    assert has_running_statistics(setup.generator)
    assert setup.options == {"ngf": 4, "norm": "batch", "dropout": True}


@pytest.mark.long
def test_the_check_says_which_statistics_are_nearer(pix2pix, tmp_path, capsys):
    _, settings = pix2pix
    batch = {"batch": 4}
    (tmp_path / "c.yaml").write_text(json.dumps({**settings, "train": batch, "finetune": batch}))
    flags = ["compress", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "r"), "--dry-run"]
    assert main(flags) == 0
    said = capsys.readouterr().err
    assert "L1 to 4 training targets" in said and "--teacher.statistics batch" in said
    assert "worked through" not in said  # a step was tried on a part of a batch; the training takes it whole
    with pytest.MonkeyPatch.context() as patch:  # a teacher of minutes a picture
        patch.setattr("gantailor.run.data.LONG", 0.0)
        assert main(flags) == 0
    assert "L1 to 2 training targets" in capsys.readouterr().err
    assert main([*flags, "--teacher.statistics", "batch"]) == 0
    assert "training targets" not in capsys.readouterr().err


@pytest.mark.parametrize(("statistics", "status"), [("running", 0), ("batch", 2)])
def test_maps_of_one_pixel_have_no_statistics(tmp_path, capsys, statistics, status):
    """A SPADE of 64 px begins with maps of one pixel: its own statistics are the only ones that it can have."""
    torch.save(gantailor.build("spade", ngf=4).state_dict(), tmp_path / "g.pth")
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for kind, shape, most in (("label", (64, 64), 5), ("img", (64, 64, 3), 256)):
            (tmp_path / "data" / f"{split}_{kind}").mkdir(parents=True)
            for number in range(4):
                drawn = Image.fromarray(rng.integers(0, most, shape, dtype=np.uint8))
                drawn.save(tmp_path / "data" / f"{split}_{kind}" / f"{number}.png")
    settings = {"generator": "spade", "options": {"ngf": 4}, "budget": "0.5x"}
    settings["teacher"] = {"weights": str(tmp_path / "g.pth"), "statistics": statistics}
    settings |= {"data": {"kind": "labels", "path": str(tmp_path / "data"), "size": 64}}
    settings |= {"train": {"batch": 4}, "finetune": {"batch": 4}}
    (tmp_path / "c.yaml").write_text(json.dumps(settings))
    assert main(["compress", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "r"), "--dry-run"]) == status
    (*_, last) = capsys.readouterr().err.strip().splitlines()
    if status:
        assert last.startswith("error: teacher 'spade' cannot run on") and "data.size" in last


@pytest.mark.long
def test_what_the_file_tells_reaches_the_export(pix2pix, tmp_path):
    """No option is named, and the exported file alone says how to build the generator."""
    _, settings = pix2pix
    quick = {"kimg": 0.01, "batch": 4}
    run = gantailor.compress(
        {**settings, "train": quick, "finetune": quick, "search": {"trials": 1}}, out=tmp_path / "r", until="export"
    )
    read = gantailor.load(run.folder.export / "model.safetensors")
    x = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(read(x), run.subnet()[1](x))
    options = json.loads((run.folder.export / "manifest.json").read_text())["options"]
    assert options == {"ngf": 4, "norm": "batch", "dropout": True}


def test_names_and_parts_of_the_file_in_a_configuration(tmp_path):
    torch.manual_seed(0)
    nets = [gantailor.build("resnet_6blocks", ngf=4).eval() for _ in range(2)]
    states = [{k.replace("conv_block", "block"): v for k, v in net.state_dict().items()} for net in nets]
    torch.save(dict(zip(("genA2B", "genB2A"), states)), tmp_path / "net.pth")
    for rename in ("block=conv_block", {"block": "conv_block"}):
        config = load_config({"teacher": f"{tmp_path / 'net.pth'}:genB2A"}, {"teacher.rename": rename})
        setup = Setup(config)
        assert all(torch.equal(v, setup.teacher.state_dict()[k]) for k, v in nets[1].state_dict().items())
        assert setup.generator is setup.teacher and setup.options == {"ngf": 4}
    with pytest.raises(ConfigError, match="write block=conv_block"):
        load_config({}, {"teacher.rename": "block"})


def test_whose_options_count(tmp_path):
    weights = str(tmp_path / "net.pth")
    assert load_config({}).options == {"ngf": 48}
    assert load_config({"teacher": "none"}).options == {"ngf": 48}
    assert load_config({"teacher": weights}).options == {}
    assert load_config({"teacher": weights, "options": {"ngf": 8}}).options == {"ngf": 8}
    assert load_config({"teacher": weights, "supernet": weights}).options == {"ngf": 48}  # the demo's
    assert load_config({"teacher": {"weights": weights, "generator": "resnet_9blocks"}}).options == {"ngf": 48}
    assert stored_config({"teacher": {"weights": weights}}).teacher.statistics == "running"  # of an older run
