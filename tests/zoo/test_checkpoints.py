"""Checkpoints of junyanz/pytorch-CycleGAN-and-pix2pix give a teacher with identical output."""

import torch

import gantailor


def saved(tmp_path, model, rename=lambda k: k, extra=None):
    path = tmp_path / "latest_net_G.pth"
    torch.save({rename(k): v for k, v in model.state_dict().items()} | (extra or {}), path)
    return path


def same(a, b):
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        return torch.equal(a.eval()(x), b.eval()(x))


def test_plain_and_module_prefix(tmp_path):
    model = gantailor.build("resnet_9blocks", ngf=8)
    path = saved(tmp_path, model, lambda k: f"module.{k}")
    assert same(gantailor.load_teacher(path, generator="resnet_9blocks", ngf=8), model)


def test_dropout_is_found(tmp_path):
    model = gantailor.build("resnet_6blocks", ngf=8, dropout=True)
    assert "model.10.conv_block.6.weight" in model.state_dict()
    assert same(gantailor.load_teacher(saved(tmp_path, model), generator="resnet_6blocks", ngf=8), model)


def test_old_instance_norm_statistics_are_dropped(tmp_path):
    model = gantailor.build("resnet_6blocks", ngf=8)
    extra = {f"model.2.{n}": torch.zeros(8) for n in ("running_mean", "running_var")}
    path = saved(tmp_path, model, extra=extra)
    assert same(gantailor.load_teacher(path, generator="resnet_6blocks", ngf=8), model)


def test_batch_norm_statistics_are_kept(tmp_path):
    model = gantailor.build("resnet_6blocks", ngf=8, norm="batch")
    model(torch.randn(4, 3, 32, 32))
    path = saved(tmp_path, model)
    assert same(gantailor.load_teacher(path, generator="resnet_6blocks", ngf=8, norm="batch"), model)
