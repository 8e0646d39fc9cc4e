"""Trainings on a stand-in for a card are the CPU's, bit for bit; a tensor that stays behind is an error."""

import pytest
import torch

import gantailor
from gantailor.search.methods import METHODS
from gantailor.search.methods.conformance import MethodConformance
from gantailor.search.methods.method import method
from gantailor.supernet.device import HOST
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.trainer import Trainer
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.discriminators.build import make_discriminator
from gantailor.zoo.tasks import TASKS
from gantailor.zoo.tasks.cyclegan import CycleGan
from gantailor.zoo.tasks.munit import Munit
from gantailor.zoo.tasks.stylegan2 import StyleGan2
from tests.devices.card import NAME, WrongDeviceError, plain_gru, plugged_in
from tests.search import test_method_conformance as small
from tests.zoo.test_teacher_tasks import NARROW, pictures, recipe, two_domains

pytestmark = pytest.mark.long
PATH = {"space": {"name": "path"}, "finetune": {}}


def arm(kind, **train):
    """A conformance class with other settings of its training."""
    kept = {**kind.settings, "train": {**kind.settings.get("train", {}), **train}}
    return type(kind.__name__, (), {"made": kind, "settings": kept})


ARMS = {
    "supernet": arm(small.TestSupernet),
    "path": type("Path", (), {"made": small.TestSupernet, "settings": {**PATH, "train": {"output_weight": 10.0}}}),
    "path, gates": type(
        "Gates", (), {"made": small.TestSupernet, "settings": {**PATH, "train": {"method_options": {"order": "gates"}}}}
    ),
    "supernet, several at once": arm(small.TestSupernet, subnets=2, in_place_weight=1.0, sampling="sandwich"),
    "supernet, relations": arm(small.TestSupernet, feature_loss="relation"),
    "supernet, matching and a pool": arm(small.TestSupernet, matching_weight=1.0, matching_to="teacher", pool=4),
    "supernet, cached": arm(small.TestSupernet, teacher_cache="memory", mirror=False),
    "supernet, in parts, averaged": arm(small.TestSupernet, accumulate=2, ema_kimg=0.01),
    "diversity": arm(small.TestDiversity),
    "slimming": arm(small.TestSlimming),
    "slimming, 8 bits": arm(small.TestSlimming, bits=8),
    "slimming, learned ranges": arm(small.TestSlimming, bits=8, ranges="learned"),
    "slimming, penalty": arm(small.TestSlimming, method_options={"control": "penalty"}),
    "slimming, measured": arm(small.TestSlimming, method_options={"control": "measured"}),
    "hypernetwork": arm(small.TestHypernetwork),
    "hypernetwork, plan": arm(small.TestHypernetwork, method_options={"control": "plan"}),
    "agents": arm(small.TestAgents),
    "agents, told the centres": arm(small.TestAgents, conditional=False),
}


def context_of(which, device):
    """A method in a small run."""
    conformance: MethodConformance = ARMS[which].made()
    conformance.settings = ARMS[which].settings
    found = method(conformance.name)
    context = conformance.context(found)
    context.device = device
    return found, context


def task_of(which, device):
    """Its training."""
    found, context = context_of(which, device)
    return found.task(context), context.config.train


def trained(which, device):
    """Every weight that three steps of a method and two of its fine-tuning leave, and of what is watched."""
    found, context = context_of(which, device)
    task = found.task(context)
    model = Trainer(task, context.config.train).run(stop_after=3)
    left = {f"{name}.{k}": v for name, part in task.parts().items() for k, v in part.state_dict().items()}
    for name, net in found.watch(context, task, model).items():
        left |= {f"watched {name}.{k}": v for k, v in net.state_dict().items()}
        assert net(torch.zeros(1, 3, 32, 32, device=device)).device.type == device.type
    if found.searches:
        whole = context.supernet()
        tuned = found.finetune(context, whole.extract(context.space.to_config(context.space.smallest)), {})
        left |= dict(Trainer(tuned, context.config.finetune).run(stop_after=2).state_dict())
    return task, {name: value.to(HOST) for name, value in left.items()}


@pytest.mark.parametrize("which", ARMS)
def test_methods(which, monkeypatch):
    monkeypatch.setattr(torch._VF, "gru", plain_gru)  # sums in one order in both
    _, expected = trained(which, HOST)
    with plugged_in(monkeypatch) as card:
        task, found = trained(which, card)
        where = {p.device.type for part in task.parts().values() for p in part.parameters()}
    assert where == {NAME} and found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_every_method_is_here():
    assert {kind.made.name for kind in ARMS.values()} == set(METHODS)


def cyclegan(device):
    r = recipe("teacher-cyclegan", task_options={"pool": 3}, precision="float32")
    return CycleGan(gantailor.build("resnet_6blocks", ngf=4), two_domains(), r, device=device), r


def munit(device):
    r = recipe("teacher-munit", precision="float32")
    torch.manual_seed(1)
    return Munit(gantailor.build("munit", ngf=4, mlp_dim=8, n_res=1), two_domains(), r, device=device), r


def stylegan2(device):
    torch.manual_seed(1)
    net = gantailor.build("stylegan2", size=32, style_dim=8, n_mlp=2, channels=NARROW)
    r = recipe("teacher-stylegan2", task_options={"r1_every": 2, "path_every": 3, "augment": 1}, precision="float32")
    return StyleGan2(net, pictures(6), r, device=device), r


def image_to_image(device):
    r = recipe("teacher-pix2pix", precision="float32", pool=4)
    torch.manual_seed(1)
    net, data = gantailor.build("resnet_6blocks", ngf=4), Pairs(pictures(5), pictures(5, 1), tuple("abcde"), "random")
    return ImageToImage(net, data, r, discriminator=make_discriminator(r, input_nc=3, output_nc=3), device=device), r


TEACHERS = {"cyclegan": cyclegan, "munit": munit, "stylegan2": stylegan2, "image_to_image": image_to_image}


@pytest.mark.parametrize("name", TEACHERS)
def test_teachers(name, monkeypatch, tmp_path):
    """Also interrupted on the card and continued on the CPU."""
    task, r = TEACHERS[name](HOST)
    expected = Trainer(task, r).run(stop_after=4).state_dict()
    with plugged_in(monkeypatch) as card:
        task, r = TEACHERS[name](card)
        Trainer(task, r).run(tmp_path / "state.safetensors", stop_after=3)
        assert {p.device.type for part in task.parts().values() for p in part.parameters()} == {NAME}
    task, r = TEACHERS[name](HOST)
    found = Trainer(task, r).run(tmp_path / "state.safetensors", stop_after=4).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_every_task_is_here():
    assert set(TEACHERS) == set(TASKS)


def test_the_stand_in_refuses_what_a_card_refuses(monkeypatch):
    """Else nothing here could fail."""
    with plugged_in(monkeypatch) as card:
        net = torch.nn.Conv2d(3, 3, 1).to(card)
        with pytest.raises(WrongDeviceError, match="two devices"):
            net(torch.zeros(1, 3, 4, 4))
        with pytest.raises(WrongDeviceError):
            torch.zeros(3, device=card) + torch.zeros(3)
        with pytest.raises(WrongDeviceError):
            torch.stack([torch.zeros((), device=card), torch.zeros(())])
        assert float((torch.ones(3, device=card) * torch.tensor(2.0)).sum()) == 6  # numbers may
