"""Checkpoints whose names are other ones altogether: matched by shape and order, proved by an input and its output."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gantailor
from gantailor.run.loading import load_config
from gantailor.run.run import Run
from gantailor.run.setup import Setup
from gantailor.supernet.calibration import per_picture
from gantailor.supernet.errors import CheckpointError, ConfigError, GantailorError
from gantailor.supernet.files import save_tensors
from gantailor.zoo.reading.matching import assignments, natural

SIDE = 32
SAID = {"generator": "resnet_6blocks", "ngf": 4, "norm": "batch"}


def trained(name="resnet_6blocks", seed=0, **options):
    """With statistics and scales that another order of norms would change."""
    torch.manual_seed(seed)
    net = gantailor.build(name, **options).eval()
    for value in net.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.add_(0.3 * torch.rand_like(value))
    return net


def written(folder, net, names, *, order=None, side=SIDE):
    """The checkpoint with other names, in a mapping with an epoch, and an example of tensors; their paths."""
    state = {names[name]: net.state_dict()[name] for name in order or net.state_dict()}
    torch.save({"generator_ab": state, "epoch": 3}, folder / "net.pth")
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        np.savez(folder / "pair.npz", input=x.numpy(), output=net(x).numpy())
    return folder / "net.pth", folder / "pair.npz"


def at_random(net, *, kinds, seed=0):
    """Names that tell nothing; with ``kinds`` they end as the generator's do."""
    rng = random.Random(seed)
    modules = {name.rpartition(".")[0]: f"m{rng.getrandbits(40):x}" for name in net.state_dict()}
    if kinds:
        return {name: f"{modules[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in net.state_dict()}
    return {name: f"t{rng.getrandbits(40):x}" for name in net.state_dict()}


def same(read, net, side=SIDE):
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return torch.equal(read(x), net(x))


CASES = {
    "resnet with batch norms": ("resnet_6blocks", {"ngf": 4, "norm": "batch"}, SIDE),
    "mobile": ("mobile_resnet_6blocks", {"ngf": 4, "norm": "batch"}, SIDE),
    "four channels": ("resnet_6blocks", {"ngf": 4, "norm": "instance_affine", "input_nc": 3, "output_nc": 4}, SIDE),
    "U-Net, whose inner layers come last": ("unet_128", {"ngf": 2}, 128),
    "CartoonGAN": ("cartoongan", {"ngf": 4}, SIDE),
}


@pytest.mark.parametrize("kinds", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_random_names_are_matched_in_order(case, kinds, tmp_path):
    name, options, side = CASES[case]
    net = trained(name, **options)
    file, pair = written(tmp_path, net, at_random(net, kinds=kinds), side=side)
    with pytest.raises(CheckpointError):
        gantailor.load_teacher(file, generator=name, **options)
    read = gantailor.load_teacher(file, generator=name, example=pair, **options)
    assert same(read, net, side) and not read.training


def test_two_equal_layers_exchanged_in_the_file_are_refused(tmp_path):
    """With names that tell nothing only the file's order is left, and that is wrong; the best error is told."""
    net = trained(ngf=4, norm="batch")
    order = list(net.state_dict())
    one, two = (order.index(f"model.{number}.conv_block.1.weight") for number in (11, 14))
    order[one], order[two] = order[two], order[one]
    file, pair = written(tmp_path, net, at_random(net, kinds=True), order=order)
    said = r"of \d+ ways to match them by shape and order none gives teacher.example, the best differs by [\d.]+"
    with pytest.raises(CheckpointError, match=said) as error:
        gantailor.load_teacher(file, example=pair, **SAID)
    assert "\n" not in str(error.value) and "rename" in str(error.value)


def test_names_that_sort_are_matched_in_any_order_of_the_file(tmp_path):
    net = trained(ngf=4, norm="batch")
    modules = {name: f"layer{number}" for number, name in enumerate(dict.fromkeys(modules_of(net)))}
    names = {name: f"{modules[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in net.state_dict()}
    order = random.Random(3).sample(list(names), len(names))
    file, pair = written(tmp_path, net, names, order=order)
    assert natural("layer9.weight") < natural("layer10.bias") < natural("layer11.bias")
    assert same(gantailor.load_teacher(file, example=pair, **SAID), net)


def modules_of(net):
    return [name.rpartition(".")[0] for name in net.state_dict()]


class Crossed(nn.Module):
    """Its layers are made in another order than they run."""

    input_shape = (3, SIDE, SIDE)

    def __init__(self):
        super().__init__()
        self.last, self.middle, self.first = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x):
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


def test_a_file_in_the_order_of_the_forward(tmp_path):
    torch.manual_seed(0)
    net, order = Crossed().eval(), ["first.weight", "first.bias", "middle.weight", "middle.bias"]
    order += ["last.weight", "last.bias"]
    file, pair = written(tmp_path, net, at_random(net, kinds=True), order=order)
    assert same(gantailor.load_teacher(file, generator=f"{__name__}:Crossed", example=str(pair)), net)


def shown(tensor):
    return Image.fromarray(((tensor[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy())


def pictures(folder, net):
    """Two picture files: an input, and the output in 8 bits."""
    x = torch.randint(0, 256, (1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(3)) / 127.5 - 1
    with torch.no_grad():
        shown(x).save(folder / "input.png")
        shown(net(x)).save(folder / "output.png")
    return [str(folder / "input.png"), str(folder / "output.png")]


def test_two_pictures_prove_it_too(tmp_path):
    net = trained(ngf=4, norm="batch")
    file, _ = written(tmp_path, net, at_random(net, kinds=False))
    pair = pictures(tmp_path, net)
    assert same(gantailor.load_teacher(file, example=pair, **SAID), net)
    Image.fromarray(255 - np.asarray(Image.open(pair[1]))).save(pair[1])
    with pytest.raises(CheckpointError, match=r"differs by \d+ of 255 levels in the mean \(allowed: 1\)"):
        gantailor.load_teacher(file, example=pair, **SAID)


def test_a_proof_that_does_not_tell_two_ways_apart_is_no_proof(tmp_path):
    """Two layers that are nearly one: 8 bits do not see which is which, tensors do."""
    net = trained(ngf=4, norm="batch")
    state = net.state_dict()
    one, two = (f"model.{number}.conv_block.1.weight" for number in (11, 14))
    state[two].copy_(state[one] + 1e-6 * torch.randn_like(state[one]))
    names = {name: f"layer{number:03}.{name.rpartition('.')[2]}" for number, name in enumerate(state)}
    order = [{one: two, two: one}.get(name, name) for name in state]
    file, _ = written(tmp_path, net, names, order=order)
    with pytest.raises(CheckpointError, match=r"two ways to match them give teacher\.example"):
        gantailor.load_teacher(file, example=pictures(tmp_path, net), **SAID)


def test_names_that_fit_are_proved_as_well(tmp_path):
    net = trained(ngf=4, norm="batch")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    _, pair = written(tmp_path / ".", trained(seed=1, ngf=4, norm="batch"), {n: n for n in net.state_dict()})
    torch.save(net.state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"is read as resnet_6blocks, which differs from teacher.example by"):
        gantailor.load_teacher(tmp_path / "net.pth", example=pair, **SAID)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("input.png",), "input.png'?: give one FILE.npz"),
        (("pair.npz", "input.png"), "cannot be"),
        (("none.npz",), "none.npz' does not exist"),
        (("empty.npz",), "holds input; give one"),
        (("text.npz",), "cannot be read"),
        (("small.npz",), r"is \[1, 3, 8, 8\], the generator makes \[1, 3, 32, 32\]"),
        (("odd.safetensors",), r"cannot run on \[1, 7, 32, 32\]"),
    ],
)
def test_examples_that_are_none(files, said, tmp_path):
    net = trained(ngf=4, norm="batch")
    file, _ = written(tmp_path, net, at_random(net, kinds=True))
    pictures(tmp_path, net)
    np.savez(tmp_path / "empty.npz", input=np.zeros(3))
    np.savez(tmp_path / "small.npz", input=np.zeros((3, SIDE, SIDE), np.float32), output=np.zeros((3, 8, 8)))
    (tmp_path / "text.npz").write_text("no archive")
    save_tensors(tmp_path / "odd.safetensors", {"input": torch.zeros(1, 7, SIDE, SIDE), "output": torch.zeros(1)}, {})
    with pytest.raises(GantailorError, match=said) as error:
        gantailor.load_teacher(file, example=[str(tmp_path / name) for name in files], **SAID)
    assert "\n" not in str(error.value)


def test_other_shapes_are_no_match():
    """A property: what is yielded is one to one, and of equal shapes; else nothing is."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        shapes = [tuple(rng.integers(1, 3, rng.integers(1, 3))) for _ in range(6)]
        own = {f"own{number}.weight": torch.zeros(shape) for number, shape in enumerate(shapes)}
        file = {f"x{number}.weight": torch.zeros(shapes[number]) for number in rng.permutation(6)}
        for _, names in assignments(file, own, {"made": list(own), "sorted": sorted(own)}):
            assert sorted(names) == sorted(file) and sorted(names.values()) == sorted(own)
            assert all(file[theirs].shape == own[ours].shape for theirs, ours in names.items())
        file["x0.weight"] = torch.zeros(5)
        assert not list(assignments(file, own, {"made": list(own)}))


@pytest.fixture
def run_settings(tmp_path):
    """A teacher with random names whose owner saw it with each picture's own statistics, and a few pairs."""
    net = trained(ngf=4, norm="batch")
    file, pair = written(tmp_path, net, at_random(net, kinds=True))
    x = torch.from_numpy(np.load(pair)["input"])
    with torch.no_grad():
        np.savez(pair, input=x.numpy(), output=per_picture(net)(x).numpy())
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for number in range(2):
            side_by_side = rng.integers(0, 256, (SIDE, 2 * SIDE, 3), dtype=np.uint8)
            Image.fromarray(side_by_side).save(tmp_path / "data" / split / f"{number}.png")
    return net, {
        "generator": "resnet_6blocks",
        "options": {"ngf": 4, "norm": "batch"},
        "teacher": {"weights": str(file), "example": str(pair), "statistics": "batch"},
        "data": {"kind": "folder", "path": str(tmp_path / "data"), "size": SIDE},
        "train": {"kimg": 0},
        "search": {"trials": 1},
        "finetune": {"kimg": 0},
        "budget": "0.5x",
    }


@pytest.mark.long
def test_a_run_proves_once_and_replays_the_names(run_settings, tmp_path):
    net, settings = run_settings
    run = gantailor.compress(settings, out=tmp_path / "run", until="check")
    stored = json.loads((tmp_path / "run" / "trace.json").read_text())["teacher_names"]
    assert stored["inside"] == "generator_ab" and set(stored["names"].values()) == set(net.state_dict())
    assert "matched by shape and order" in run.setup.loaded.matched.said
    (tmp_path / "pair.npz").unlink()
    later = Run(tmp_path / "run", load_config(settings))
    assert later.setup.loaded.matched.names == stored["names"]
    assert same(later.setup.loaded.module, net)
    with pytest.raises(ConfigError, match=r"teacher\.example .*pair\.npz' does not exist"):
        _ = Setup(load_config(settings)).loaded
    settings["teacher"]["statistics"] = "running"
    _, pair = written(tmp_path, net, at_random(net, kinds=True))
    x = torch.from_numpy(np.load(pair)["input"])
    with torch.no_grad():
        np.savez(pair, input=x.numpy(), output=per_picture(net)(x).numpy())
    with pytest.raises(CheckpointError, match=r"the best differs by .*teacher\.statistics"):
        _ = Setup(load_config(settings)).loaded
