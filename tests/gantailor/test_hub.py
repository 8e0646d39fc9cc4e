"""The hub's layout: written, read by the mixin and by ``load``, without a network, a pickle or somebody's code."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

import gantailor
from gantailor.export.weights import write_weights
from gantailor.supernet.errors import CheckpointError

pytest.importorskip("huggingface_hub")


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)


def exported(folder, name="resnet_6blocks", **options):
    folder.mkdir()
    torch.manual_seed(0)
    whole = gantailor.build(name, **options)
    inputs = (torch.zeros(1, options.get("style_dim", 3), *(() if name == "stylegan2" else (32, 32))),)
    supernet = gantailor.Supernet(whole, inputs)
    config = {width.name: max(1, width.size // 2) for width in supernet.graph.widths}
    narrow = supernet.extract(gantailor.SubnetConfig(config)).eval()
    origin = {"generator": name, "options": options, "config": config}
    origin |= {"input_shapes": [list(inputs[0].shape)], "decisions": supernet.decisions.to_json()}
    write_weights(folder, narrow, origin)
    return narrow, inputs


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet_6blocks", {"ngf": 4}), ("stylegan2", {"size": 16, "style_dim": 8, "channels": {4: 8, 8: 8, 16: 4}})],
)
def test_there_and_back(tmp_path, offline, name, options):
    narrow, inputs = exported(tmp_path / "export", name, **options)
    (tmp_path / "export" / "README.md").write_text("# Mine\n")
    model = gantailor.HubGenerator.of(tmp_path / "export")
    model.save_pretrained(tmp_path / "hub")
    assert sorted(file.name for file in (tmp_path / "hub").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert (tmp_path / "hub" / "README.md").read_text() == "# Mine\n"
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["generator"] == name
    again = gantailor.HubGenerator.from_pretrained(tmp_path / "hub")
    plain = gantailor.load(tmp_path / "hub")
    torch.manual_seed(1)
    inputs = tuple(torch.randn_like(one) for one in inputs)
    fixed = {"noise": [torch.zeros_like(b) for b in narrow.noises.buffers()]} if name == "stylegan2" else {}
    with torch.no_grad():
        expected = narrow(*inputs, **fixed)
        assert torch.equal(again(*inputs, **fixed), expected) and torch.equal(plain(*inputs, **fixed), expected)
    assert not again.training


def test_the_card_is_the_mixins_where_there_is_none(tmp_path, offline):
    exported(tmp_path / "export", ngf=4)
    gantailor.HubGenerator.of(tmp_path / "export").save_pretrained(tmp_path / "hub")
    assert "library_name: gantailor" in (tmp_path / "hub" / "README.md").read_text()


def test_weights_that_were_saved_anew_have_their_config_beside_them(tmp_path, offline):
    """Tools that convert files drop what else these say; ``config.json`` still knows it."""
    narrow, inputs = exported(tmp_path / "export", ngf=4)
    gantailor.HubGenerator.of(tmp_path / "export").save_pretrained(tmp_path / "hub")
    file = tmp_path / "hub" / "model.safetensors"
    save_file(load_file(file), file, {"format": "pt"})
    with torch.no_grad():
        assert torch.equal(gantailor.load(tmp_path / "hub")(*inputs), narrow(*inputs))
        assert torch.equal(gantailor.HubGenerator.from_pretrained(tmp_path / "hub")(*inputs), narrow(*inputs))


def test_nobodys_code_is_imported(tmp_path, offline):
    exported(tmp_path / "export", ngf=4)
    gantailor.HubGenerator.of(tmp_path / "export").save_pretrained(tmp_path / "hub")
    file, config = tmp_path / "hub" / "model.safetensors", tmp_path / "hub" / "config.json"
    save_file(load_file(file), file, {"format": "pt"})
    config.write_text(json.dumps(json.loads(config.read_text()) | {"generator": "evil:build"}))
    for read in (gantailor.load, gantailor.HubGenerator.from_pretrained):
        with pytest.raises(CheckpointError, match="not made by you"):
            read(tmp_path / "hub")


def test_what_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="is no folder here"):
        gantailor.HubGenerator.from_pretrained("nobody/nothing")
    with pytest.raises(CheckpointError, match="gantailor export"):
        gantailor.HubGenerator.of(tmp_path)
