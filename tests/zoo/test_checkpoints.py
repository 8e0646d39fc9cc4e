"""Checkpoints in the original formats give a teacher with identical output."""

import argparse

import pytest
import torch

import gantailor
from gantailor.supernet.errors import CheckpointError


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


def test_spade_of_nvlabs(tmp_path):
    teacher = gantailor.build("spade", ngf=4, label_channels=5, size=(64, 128)).eval()
    convolutions = [n for n, m in teacher.named_modules() if n.rpartition(".")[2] in ("conv_0", "conv_1", "conv_s")]
    state = {}
    for name, tensor in teacher.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        if layer in convolutions and leaf == "weight":
            matrix = tensor.flatten(1)
            u = torch.nn.functional.normalize(torch.randn(len(matrix)), dim=0)
            v = torch.nn.functional.normalize(matrix.T @ u, dim=0)
            state |= {f"{name}_orig": 3 * tensor, f"{name}_u": u, f"{name}_v": v}
            tensor.div_(u @ matrix @ v)
        else:
            state[name] = tensor
    torch.save(state, tmp_path / "latest_net_G.pth")
    read = gantailor.load_teacher(
        tmp_path / "latest_net_G.pth", generator="spade", ngf=4, label_channels=5, size=(64, 128)
    )
    labels = torch.randn(1, 5, 64, 128)
    with torch.no_grad():
        torch.testing.assert_close(read(labels), teacher(labels))


def test_munit_of_nvlabs(tmp_path):
    sides = {side: gantailor.build("munit", ngf=4, mlp_dim=8).eval() for side in "ab"}
    torch.save({side: model.state_dict() for side, model in sides.items()}, tmp_path / "gen_01000000.pt")
    x, style = torch.randn(1, 3, 32, 32), torch.randn(1, 8)
    for side, model in sides.items():
        read = gantailor.load_teacher(tmp_path / "gen_01000000.pt", generator="munit", side=side, ngf=4, mlp_dim=8)
        assert torch.equal(read(x, style), model(x, style))


def test_stylegan2_of_rosinality_finds_its_own_widths(tmp_path):
    options = {"size": 16, "style_dim": 8, "n_mlp": 2, "channels": {4: 6, 8: 5, 16: 4}}
    model = gantailor.build("stylegan2", **options).eval()
    model.latent_avg.normal_()
    weights = {k: v for k, v in model.state_dict().items() if k != "latent_avg"}
    saved = {"g_ema": weights, "d": {}, "latent_avg": model.latent_avg, "args": argparse.Namespace(lr=0.1)}
    torch.save(saved, tmp_path / "550000.pt")
    read = gantailor.load_teacher(tmp_path / "550000.pt", generator="stylegan2")
    z = torch.randn(2, 8)
    with torch.no_grad():
        assert torch.equal(read(z, truncation=0.5), model(z, truncation=0.5))


def test_another_format_is_named(tmp_path):
    torch.save({"g": {"x": torch.zeros(1)}, "epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="'g' is a dict"):
        gantailor.load_teacher(tmp_path / "net.pth", generator="resnet_9blocks")
    with pytest.raises(CheckpointError, match="not a rosinality StyleGAN2"):
        gantailor.load_teacher(tmp_path / "net.pth", generator="stylegan2")
    with pytest.raises(CheckpointError, match="side 'a' is not in the checkpoint"):
        gantailor.load_teacher(tmp_path / "net.pth", generator="munit")
