"""Ways in which people save a generator: equal output, bit for bit, or the right reason in one line."""

import argparse
import collections
import gzip
import pickle
import re
import time
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import gantailor
from gantailor.supernet.errors import CheckpointError, GantailorError
from gantailor.supernet.files import save_tensors
from gantailor.supernet.traits import traits_of
from gantailor.zoo.discriminators.patch import PatchDiscriminator

RESNET = {"ngf": 4, "blocks": 6}


def built(name="resnet_6blocks", seed=0, **options):
    torch.manual_seed(seed)
    net = gantailor.build(name, **options)
    for module in net.modules():  # norms that are no identities
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d) and module.weight is not None:
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
    return net.eval()


def resnet(seed=0, **options):
    return built(seed=seed, ngf=4, **options)


def state(net):
    return dict(net.state_dict())


def prefixed(prefix, net):
    return {prefix + name: value for name, value in net.state_dict().items()}


def discriminator():
    torch.manual_seed(9)
    return PatchDiscriminator(input_nc=3, ndf=4, norm="batch")


def same(net, path, *, generator="resnet_6blocks", inputs=None, **options):
    began = time.monotonic()
    read = gantailor.load_teacher(path, generator=generator, **options)
    assert time.monotonic() - began < 5
    inputs = inputs or (torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1,)
    with torch.no_grad():
        assert not read.training and torch.equal(read(*inputs), net(*inputs))
    return read


def refused(path, *, generator="resnet_6blocks", **options):
    began = time.monotonic()
    with pytest.raises(GantailorError) as caught:
        gantailor.load_teacher(path, generator=generator, **options)
    assert time.monotonic() - began < 5
    message = str(caught.value)
    assert "\n" not in message and "\x1b" not in message and str(path).partition(":")[0] in message
    return message


def optimiser(net):
    found = torch.optim.Adam(net.parameters())
    net(torch.rand(1, 3, 32, 32)).sum().backward()
    found.step()
    net.zero_grad()
    return found.state_dict()


class Averaged:
    """Names as of torch.optim.swa_utils.AveragedModel."""

    def __new__(cls, net):
        return {"n_averaged": torch.tensor(7), **prefixed("module.", net)}


# What is saved of a generator, and which part is asked for (none where it is found).
FOUND = {
    "its state dict": (state, ""),
    "an OrderedDict": (lambda net: collections.OrderedDict(net.state_dict()), ""),
    "DataParallel": (lambda net: state(nn.DataParallel(net)), ""),
    "torch.compile": (lambda net: prefixed("_orig_mod.", net), ""),
    "DataParallel of torch.compile": (lambda net: prefixed("module._orig_mod.", net), ""),
    "torch.compile of DataParallel": (lambda net: prefixed("_orig_mod.module.", net), ""),
    "a compiled submodule": (
        lambda net: {name.replace("model.", "model._orig_mod.", 1): value for name, value in state(net).items()},
        "",
    ),
    "FSDP": (lambda net: prefixed("_fsdp_wrapped_module.", net), ""),
    "an attribute netG": (lambda net: prefixed("netG.", net), ""),
    "an attribute generator": (lambda net: prefixed("generator.", net), ""),
    "an attribute G": (lambda net: prefixed("G.", net), ""),
    "an attribute model": (lambda net: prefixed("model.", net), ""),
    "attributes within attributes": (lambda net: prefixed("module.model.generator.", net), ""),
    "without the model's own prefix": (lambda net: state(net.model), ""),
    "averaged weights": (Averaged, ""),
    "netG and epoch": (lambda net: {"netG": state(net), "epoch": 3}, ""),
    "state_dict": (lambda net: {"state_dict": state(net), "epoch": 3, "arch": "resnet"}, ""),
    "model_state_dict": (lambda net: {"epoch": 1, "model_state_dict": state(net), "loss": 0.1}, ""),
    "G_ema": (lambda net: {"G_ema": state(net)}, ""),
    "g": (lambda net: {"g": prefixed("module.", net), "steps": 10}, ""),
    "two domains, one asked for": (
        lambda net: {"genB2A": state(resnet(seed=3)), "genA2B": state(net), "disA": state(discriminator())},
        "genA2B",
    ),
    "beside a discriminator": (lambda net: {"D": state(discriminator()), "G": state(net)}, ""),
    "beside its optimiser": (lambda net: {"G": state(net), "optimizer_G": optimiser(net)}, ""),
    "Lightning": (
        lambda net: {
            "state_dict": prefixed("generator.", net) | prefixed("discriminator.", discriminator()),
            "optimizer_states": [optimiser(net)],
            "global_step": 7,
            "hyper_parameters": {"lr": 1e-4},
        },
        "",
    ),
    "Lightning with an average, one asked for": (
        lambda net: {"state_dict": prefixed("generator.", resnet(seed=3)) | prefixed("ema.module.", net)},
        "state_dict.ema",
    ),
    "a list of networks": (lambda net: [state(discriminator()), state(net)], ""),
    "a tuple in a dict": (lambda net: {"nets": (state(net), state(discriminator()))}, ""),
    "four mappings deep": (lambda net: {"a": {"b": {"c": {"d": state(net)}}}}, ""),
    "the same twice": (lambda net: {"model": state(net), "state_dict": state(net)}, ""),
    "numbers beside tensors": (lambda net: {**state(net), "epoch": 3, "best": np.float64(0.5)}, ""),
    "settings of argparse": (lambda net: {"opt": argparse.Namespace(lr=0.1), "netG": state(net)}, ""),
    "parameters with gradients": (lambda net: dict(net.named_parameters()), ""),
    "float64": (lambda net: {name: value.double() for name, value in state(net).items()}, ""),
}


@pytest.mark.parametrize("way", FOUND)
def test_saved_with_torch(tmp_path, way):
    net = resnet()
    make, inside = FOUND[way]
    torch.save(make(net), tmp_path / "net.pth")
    same(net, f"{tmp_path / 'net.pth'}:{inside}" if inside else tmp_path / "net.pth")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_narrow_numbers_become_float32(tmp_path, kind):
    net = resnet()
    torch.save({name: value.to(kind) for name, value in net.state_dict().items()}, tmp_path / "net.pth")
    net.load_state_dict({name: value.to(kind).float() for name, value in net.state_dict().items()})
    read = same(net, tmp_path / "net.pth")
    assert {value.dtype for value in read.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "net"])
def test_files_are_known_by_their_content(tmp_path, name):
    net = resnet()
    save_tensors(tmp_path / name, net.state_dict(), {})
    same(net, tmp_path / name)
    for old in (False, True):
        torch.save(net.state_dict(), tmp_path / name, _use_new_zipfile_serialization=not old)
        same(net, tmp_path / name)


def test_a_colon_in_the_files_name(tmp_path):
    net, other = resnet(), resnet(seed=1)
    torch.save({"netG": state(net), "ema": state(other)}, tmp_path / "a:b.pth")
    same(net, f"{tmp_path}/a:b.pth:netG")
    torch.save(state(other), tmp_path / "a:b.pth:netG")  # a file of that very name
    same(other, f"{tmp_path}/a:b.pth:netG")


# Options that a file tells, each beside the generator's name alone.
TOLD = {
    "resnet_6blocks": {"ngf": 5, "input_nc": 1, "output_nc": 4},
    "resnet_9blocks": {"ngf": 3, "dropout": True},
    "mobile_resnet_6blocks": {"ngf": 4},
    "resnet_6blocks batch": {"ngf": 4, "norm": "batch"},
    "resnet_6blocks none": {"ngf": 4, "norm": "none"},
    "resnet_6blocks instance_affine": {"ngf": 4, "norm": "instance_affine"},
    "resnet_6blocks batch, biased": {"ngf": 4, "norm": "batch", "bias": True},
    "resnet_6blocks instance_affine, unbiased": {"ngf": 4, "norm": "instance_affine", "bias": False},
    "mobile_resnet_9blocks batch": {"ngf": 2, "norm": "batch", "dropout": True},
    "unet_128": {"ngf": 2},
    "unet_128 instance": {"ngf": 2, "norm": "instance", "input_nc": 2, "output_nc": 1},
    "unet_128 none": {"ngf": 2, "norm": "none"},
    "unet_256": {"ngf": 2, "norm": "instance_affine"},
    "spade": {"ngf": 2, "label_channels": 5, "hidden": 6},
    "spade most": {"ngf": 2, "label_channels": 3, "upsampling": "most", "norm": "instance", "hidden": 6},
    "mobile_spade": {"ngf": 2, "label_channels": 4},
    "cartoongan": {"ngf": 3, "blocks": 5, "input_nc": 1, "output_nc": 2},
    "munit": {"ngf": 2, "style_dim": 3, "mlp_dim": 5, "n_downsample": 1, "n_res": 2, "input_nc": 1},
    "mobile_munit": {"ngf": 2, "n_downsample": 3, "mlp_dim": 6},
    "stylegan2": {"size": 8, "style_dim": 4, "n_mlp": 2, "channels": {4: 3, 8: 2}, "output_nc": 1},
    "stylegan2 rgba": {"size": 16, "style_dim": 4, "n_mlp": 1, "channels": {4: 3, 8: 2, 16: 2}, "output_nc": 4},
}


@pytest.mark.parametrize("case", TOLD)
def test_options_are_read_from_the_file(tmp_path, case):
    name = case.partition(" ")[0]
    net = built(name, **TOLD[case])
    torch.save({"netG": prefixed("module.", net)}, tmp_path / "net.pth")
    size = 256 if name in ("spade", "mobile_spade", "unet_256") else 128 if name == "unet_128" else 32
    shape = (4,) if name == "stylegan2" else (traits_of(net).input_shapes[0][0], size, size)
    same(net, tmp_path / "net.pth", generator=name, inputs=(torch.rand(1, *shape) * 2 - 1,))


def test_the_users_options_stand_over_the_files(tmp_path):
    net = built("unet_128", ngf=2, dropout=True, norm="instance")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    read = same(net, tmp_path / "net.pth", generator="unet_128", dropout=True, inputs=(torch.rand(1, 3, 128, 128),))
    assert sum(isinstance(module, nn.Dropout) for module in read.modules()) == 2


@pytest.mark.parametrize(
    ("generator", "made", "asked", "said"),
    [
        ("resnet_6blocks", {"ngf": 4}, {"ngf": 8}, "ngf is 8, the file has 4"),
        ("resnet_6blocks", {"ngf": 4}, {"input_nc": 1}, "input_nc is 1, the file has 3"),
        ("resnet_6blocks", {"ngf": 4}, {"norm": "batch"}, "norm is batch, the file has instance"),
        ("resnet_6blocks", {"ngf": 4, "norm": "batch"}, {"norm": "instance"}, "norm is instance, the file has batch"),
        ("resnet_6blocks", {"ngf": 4}, {"dropout": True}, "dropout is True, the file has False"),
        ("resnet_6blocks", {"ngf": 4, "blocks": 9}, {}, "blocks is 6, the file has 9"),
        ("resnet_6blocks", {"ngf": 4, "blocks": 9}, {}, "name generator resnet_9blocks"),
        ("resnet_6blocks", {"ngf": 4, "separable": True}, {}, "name generator mobile_resnet_6blocks"),
        ("unet_256", {"ngf": 2, "levels": 7}, {}, "name generator unet_128"),
        ("unet_128", {"ngf": 2}, {"output_nc": 1}, "output_nc is 1, the file has 3"),
        ("spade", {"ngf": 2, "label_channels": 5}, {"label_channels": 36}, "label_channels is 36, the file has 5"),
        ("cartoongan", {"ngf": 2}, {"blocks": 4}, "blocks is 4, the file has 8"),
        ("munit", {"ngf": 2, "n_res": 2}, {"n_res": 4}, "n_res is 4, the file has 2"),
        ("stylegan2", {"size": 8, "style_dim": 4}, {"size": 16}, "size is 16, the file has 8"),
    ],
)
def test_a_contradiction_names_both(tmp_path, generator, made, asked, said):
    small = {"channels": {4: 2, 8: 2}, "n_mlp": 1} if generator == "stylegan2" else {}
    torch.save(built(generator, **made, **small).state_dict(), tmp_path / "net.pth")
    message = refused(tmp_path / "net.pth", generator=generator, **asked)
    assert said in message and re.search("set options|name generator", message)


@pytest.mark.parametrize("norm", ["none", "instance_affine"])
def test_the_norms_that_files_have_can_be_narrowed(norm):
    supernet = gantailor.Supernet(resnet(norm=norm), (torch.rand(1, 3, 16, 16),))
    proof = gantailor.verify(supernet)
    assert len(supernet.graph.widths) == 11 and max(proof.sliced_extracted, proof.permuted, proof.removed) < 1e-12


def test_old_batch_norms_had_no_counters(tmp_path):
    net = resnet(norm="batch")
    kept = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "net.pth")
    same(net, tmp_path / "net.pth")


def test_several_that_fit_are_listed(tmp_path):
    file = tmp_path / "net.pth"
    torch.save({"genA2B": state(resnet()), "genB2A": state(resnet(seed=1)), "disA": state(discriminator())}, file)
    message = refused(file)
    assert "2 generators that fit: genA2B, genB2A" in message and f"{file}:genA2B" in message
    torch.save({"state_dict": prefixed("netG.", resnet()) | prefixed("ema.", resnet(seed=1))}, file)
    assert "state_dict.ema, state_dict.netG" in refused(file)
    assert "has no 'netX' inside; " in refused(f"{file}:netX") and "state_dict.netG" in refused(f"{file}:netX")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "flat.pth")
    assert "has no 'netG' inside; nothing in it has a name like that: leave :netG" in refused(
        f"{tmp_path}/flat.pth:netG"
    )
    assert "(state_dict.ema)" in refused(f"{file}:state_dict.ema", ngf=8)


# Names that differ, and what exchanges them.
RENAMED = {
    "block": ("conv_block", "block"),
    "trunk.0": ("model", "trunk.0"),
    "net": ("model", "net"),
}


@pytest.mark.parametrize("case", RENAMED)
def test_other_names_are_proposed_and_exchanged(tmp_path, case):
    net, (ours, theirs) = resnet(norm="instance_affine"), RENAMED[case]
    torch.save({name.replace(ours, theirs, 1): value for name, value in state(net).items()}, tmp_path / "net.pth")
    assert f"--teacher.rename '{theirs}={ours}'" in refused(tmp_path / "net.pth", norm="instance_affine", ngf=4)
    same(net, tmp_path / "net.pth", rename={theirs: ours})


def test_patterns_of_names(tmp_path):
    net = resnet()
    names = {name: re.sub(r"model\.(\d+)\.conv_block\.(\d)", r"body.b\1.layers.\2.conv", name) for name in state(net)}
    torch.save({names[name]: value for name, value in state(net).items()}, tmp_path / "net.pth")
    parts = {f"body.b{block}.layers.*.conv": f"model.{block}.conv_block.*" for block in range(10, 16)}
    same(net, tmp_path / "net.pth", rename=parts)
    assert "no tensor with 'blok' in its name" in refused(tmp_path / "net.pth", rename={"blok": "conv_block"})
    with pytest.raises(GantailorError, match="number of"):
        gantailor.load_teacher(tmp_path / "net.pth", generator="resnet_6blocks", rename={"a.*": "b"})


def with_tensor(make, name="model.4.weight"):
    def changed(net):
        found = state(net)
        return {**found, name: make(found[name])}

    return changed


def with_value(number):
    def changed(value):
        value = value.clone()
        value.view(-1)[3] = number
        return value

    return changed


# What is no weight, and what is said of it.
WRONG = {
    "NaN": (with_tensor(with_value(torch.nan)), "'model.4.weight' holds NaN"),
    "infinite": (with_tensor(with_value(-torch.inf)), "'model.4.weight' holds infinite values"),
    "complex": (with_tensor(lambda value: value.to(torch.complex64)), "'model.4.weight' is complex (complex64)"),
    "int8": (with_tensor(lambda value: (value * 99).to(torch.int8)), "'model.4.weight' holds whole numbers (int8)"),
    "bool": (with_tensor(lambda value: value > 0), "'model.4.weight' holds whole numbers (bool)"),
    "sparse": (with_tensor(lambda value: value.to_sparse()), "'model.4.weight' is sparse"),
    "quantised": (
        with_tensor(lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)),
        "'model.4.weight' is quantised (qint8)",
    ),
    "meta": (with_tensor(lambda value: value.to("meta")), "'model.4.weight' has no values"),
    "an empty dict": (lambda net: {}, "is an empty state_dict"),
    "a list of tensors": (lambda net: [p.detach() for p in net.parameters()], "list of 36 tensors without names"),
    "one tensor": (lambda net: torch.zeros(3), "is a single tensor"),
    "numbers only": (lambda net: {"epoch": 3, "lr": 0.1}, "'epoch' is a int, 'lr' is a float"),
    "a discriminator": (lambda net: state(discriminator()), "belongs to another architecture than resnet_6blocks"),
    "an optimiser": (lambda net: {"optimizer": optimiser(net)}, "holds none of resnet_6blocks: 'optimizer' is a dict"),
    "a missing layer": (
        lambda net: {name: value for name, value in state(net).items() if name != "model.4.bias"},
        "missing: model.4.bias",
    ),
    "a layer too many": (lambda net: {**state(net), "model.5.filt": torch.zeros(3)}, "generator: model.5.filt"),
    "spectral norm": (
        lambda net: state(nn.utils.parametrizations.spectral_norm(net.model[4]) and net),
        "remove_parametrizations",
    ),
    "weight norm of old": (
        lambda net: {
            (f"{name}_v" if name == "model.4.weight" else name): value for name, value in state(net).items()
        } | {"model.4.weight_g": torch.ones(8, 1, 1, 1)},
        "remove_weight_norm",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WRONG)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_weight_is_named(tmp_path, way):
    make, said = WRONG[way]
    torch.save(make(resnet()), tmp_path / "net.pth")
    assert said in refused(tmp_path / "net.pth")


@pytest.mark.parametrize("way", ["NaN", "complex", "int8", "sparse"])
def test_what_is_no_weight_is_named_for_what_computes_with_it(tmp_path, way):
    """SPADE's reader folds spectral norm."""
    net = built("spade", ngf=1, label_channels=2, hidden=2, upsampling="normal")
    saved = state(net)
    name = "head_0.conv_0.weight"
    matrix = saved.pop(name)
    saved |= {f"{name}_u": torch.ones(len(matrix)), f"{name}_v": torch.ones(matrix[0].numel()), f"{name}_orig": matrix}
    spoil = {
        "NaN": with_value(torch.nan),
        "complex": lambda value: value.to(torch.complex64),
        "int8": lambda value: (value * 99).to(torch.int8),
        "sparse": lambda value: value.flatten(1).to_sparse(),
    }
    torch.save({**saved, f"{name}_orig": spoil[way](matrix)}, tmp_path / "net.pth")
    assert "head_0.conv_0.weight" in refused(tmp_path / "net.pth", generator="spade")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def _text(path):
    path.write_text("<!DOCTYPE html>\n<html>Sign in</html>\n" * 20)


def _pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")


def _zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("latest_net_G.pth", "x")


def _script(path):
    torch.jit.save(torch.jit.trace(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)), path)


def _cut(path):
    torch.save(resnet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])


def _cut_safetensors(path):
    save_tensors(path, resnet().state_dict(), {})
    path.write_bytes(path.read_bytes()[:9000])


FILES = {
    "missing": (lambda path: None, "does not exist"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "a web page": (_text, "is no checkpoint but a text ('<!DOCTYPE html>' ...)"),
    "a Git LFS pointer": (_pointer, "git lfs pull"),
    "a zip archive": (_zipped, "zip archive of latest_net_G.pth"),
    "NumPy arrays": (lambda path: np.savez(path.open("wb"), a=np.zeros(3)), "zip archive of NumPy arrays"),
    "a NumPy array": (lambda path: np.save(path.open("wb"), np.zeros(3)), "a NumPy array"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"x" * 99)), "gzip archive"),
    "a picture": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50), "a picture"),
    "other bytes": (lambda path: path.write_bytes(bytes(range(8, 250))), "neither PyTorch nor safetensors wrote"),
    "TorchScript": (_script, "is a TorchScript program"),
    "cut off": (_cut, "is not a whole checkpoint"),
    "safetensors cut off": (_cut_safetensors, "is not a whole safetensors file"),
    "code": (lambda path: path.write_bytes(pickle.dumps(Evil(), protocol=2)), "it names print"),
    "code saved by torch": (lambda path: torch.save({"g": Evil()}, path), "was refused"),
    "a whole model": (lambda path: torch.save(nn.Sequential(nn.Conv2d(3, 3, 1)), path), "whole pickled model"),
    "a whole model of one's own": (lambda path: torch.save(Net(), path), "Net"),
    "a plain pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "pickle"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore")
def test_files_that_are_none(tmp_path, capsys, kind):
    make, said = FILES[kind]
    make(tmp_path / "net.pth")
    message = refused(tmp_path / "net.pth")
    assert said in message
    assert not message.endswith("...") and "code ran" not in capsys.readouterr().out
    if "refused" in message:
        assert "torch.save(model.state_dict(), 'weights.pth')" in message


def test_there_are_forty_ways():
    assert len(FOUND) + len(TOLD) + len(WRONG) + len(FILES) >= 40


def test_reader_errors_are_checkpoint_errors(tmp_path):
    torch.save({"strange.weight": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError):
        gantailor.load_teacher(tmp_path / "net.pth", generator="stylegan2")
