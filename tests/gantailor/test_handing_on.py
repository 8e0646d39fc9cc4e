"""What a training hands on: its discriminator and 1x1 maps to fine-tuning, a narrow student to another run."""

from contextlib import suppress

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import gantailor
from gantailor.cli.main import main
from gantailor.pipeline.check import check, find_mistakes
from gantailor.pipeline.compress import compress
from gantailor.pipeline.training import finetune as finetuning
from gantailor.pipeline.training import train as training
from gantailor.run.loading import load_config
from gantailor.run.run import Run, open_run
from gantailor.supernet.calling import forward
from gantailor.supernet.errors import CheckpointError, ConfigError
from gantailor.supernet.files import load_tensors, save_tensors
from gantailor.supernet.training import image_to_image
from gantailor.supernet.training.teaching.distillation import capture
from gantailor.supernet.traits import plain_generator
from gantailor.zoo.discriminators.build import make_discriminator
from gantailor.zoo.tasks import image_to_image as pairs_task
from gantailor.zoo.tasks.training import judge_of


class StoppedError(Exception):
    """Fine-tuning was about to begin."""


@pytest.fixture
def tasks(monkeypatch):
    """Trainings that take no step: the first one's gates, maps and discriminator become random. Both tasks, by name."""
    seen = {}

    def trained(run, task, recipe, **more):
        seen["train"] = task
        torch.manual_seed(1)
        for name in ("discriminator", "judges", "maps"):
            for parameter in task.parts().get(name, nn.Module()).parameters():
                nn.init.normal_(parameter)
        if hasattr(task, "gates"):
            task.gates.values.data.uniform_(0.1, 1)
            task.control.close(task.gates.values.detach())
            task.gates.values.data.mul_(task.gates.open)
        return task.generator.eval()

    def about_to_begin(run, task, recipe, **more):
        seen["finetune"] = task
        raise StoppedError

    monkeypatch.setattr(training, "fit", trained)
    monkeypatch.setattr(finetuning, "fit", about_to_begin)
    return seen


def settings(teacher, **more):
    short = {"kimg": 0.02, "batch": 4, "ndf": 4, "watch_kimg": 0, "bits": 0}
    own = {"options": {"ngf": 8}, "teacher": teacher, "data": {"size": 32}, "budget": "0.4x"}
    own |= {"search": {"trials": 1}, "evaluation": {"search_images": 4, "final": ["l1"]}}
    return load_config({**own, "train": short, "finetune": short, **more})


def through(folder, config):
    """A run whose stages go up to the first step of fine-tuning."""
    run = Run(folder, config)
    with suppress(StoppedError):
        compress(run, until="finetune")
    return run


def mapped(maps, model, inputs, chosen=None):
    """What 1x1 maps make of a model's features, of which all but the chosen channels are zeros."""
    with torch.no_grad(), capture(plain_generator(model), maps.layers) as features:
        closes = hasattr(model, "gates")  # its own forward leaves out what is closed
        model.supernet.call_with(model.tensors(), (inputs,)) if closes else forward(model, inputs)
    found = {}
    for name, weight, bias in zip(maps.layers, maps.maps, maps.biases, strict=True):
        feature = features[name]
        if chosen is not None:
            feature = torch.zeros_like(feature)
            feature[:, chosen[name]] = features[name][:, chosen[name]]
        found[name] = F.conv2d(feature, weight, bias)
    return found


def equal(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.long
def test_maps_of_a_supernet_go_on(tasks, tiny_teacher, tmp_path):
    """On the narrow net's features they give what the old ones give on those of the supernet at its widths."""
    run = through(tmp_path, settings(str(tiny_teacher), hand_on="all", space="default"))
    old, new = tasks["train"], tasks["finetune"]
    config, inputs = run.subnet_config(), run.setup.example
    whole = {name: parameter.shape[1] for name, parameter in zip(old.maps.layers, old.maps.maps, strict=True)}
    assert any(weight.shape[1] < whole[name] for name, weight in zip(new.maps.layers, new.maps.maps, strict=True))
    with torch.no_grad(), capture(old.generator.generator, old.maps.layers) as features:
        old.generator(inputs, config=config)
    for (name, made), weight, bias in zip(
        mapped(new.maps, new.generator, inputs).items(), old.maps.maps, old.maps.biases, strict=True
    ):
        feature = torch.zeros(1, weight.shape[1], *features[name].shape[2:])
        feature[:, : features[name].shape[1]] = features[name]  # the leading channels are kept
        torch.testing.assert_close(made, F.conv2d(feature, weight, bias), rtol=1e-4, atol=1e-4)
    assert equal(judge_of(old), judge_of(new))


@pytest.mark.long
@pytest.mark.parametrize("method", ["slimming", "hypernetwork"])
def test_maps_of_single_channels_go_on(tasks, method, tiny_teacher, tmp_path):
    """These channels are put into another order when they are chosen, and the maps with them."""
    more = {"method_options": {}, "feature_weight": 1.0, "output_weight": 1.0}
    config = settings(str(tiny_teacher), method=method, hand_on="all")
    sections = {part: getattr(config, part).model_copy(update=more) for part in ("train", "finetune")}
    config = config.model_copy(update=sections)
    run = through(tmp_path, config)
    old, new = tasks["train"], tasks["finetune"]
    model, inputs = old.generator, run.setup.example
    selection = old.selection()
    chosen = {}
    for layer in new.maps.layers:
        axis = run.setup.traced.graph.activations[layer]
        widths = run.setup.traced.graph.widths
        places = zip(axis.width, axis.unit, strict=True)
        chosen[layer] = [number for number, (w, unit) in enumerate(places) if unit in selection[widths[w].name]]
    assert any(kept != list(range(len(kept))) for kept in chosen.values()), "not the leading channels"
    aim = mapped(old.parts()["maps"], model, inputs, chosen)
    for name, made in mapped(new.maps, new.generator, inputs).items():
        torch.testing.assert_close(made, aim[name], rtol=1e-3, atol=1e-3)
    assert equal(judge_of(old), judge_of(new))


@pytest.mark.long
def test_the_discriminator_alone_or_nothing(tasks, tiny_teacher, tmp_path):
    through(tmp_path / "one", settings(str(tiny_teacher), hand_on="discriminator", space="default"))
    old, new = tasks["train"], tasks["finetune"]
    fresh = [bool((bias == 0).all()) for bias in new.maps.biases]
    assert equal(old.discriminator, new.discriminator) and all(fresh)
    run = through(tmp_path / "none", settings(str(tiny_teacher), space="default"))
    new = tasks["finetune"]
    assert equal(make_discriminator(run.config.finetune, input_nc=3, output_nc=3), new.discriminator)
    stored, _ = load_tensors(run.folder.supernet_discriminator)  # is left for whoever wants it
    assert all(torch.equal(stored[name], tensor) for name, tensor in tasks["train"].discriminator.state_dict().items())


def domains(folder, count=4, pixels=32):
    """B's pictures are 100 + their number all over, A's are noise."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for side in "AB":
            (folder / f"{split}{side}").mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)
                picture = noise if side == "A" else np.full_like(noise, 100 + number)
                Image.fromarray(picture).save(folder / f"{split}{side}" / f"{number}.png")
    return {"kind": "domains", "path": str(folder), "size": pixels}


@pytest.mark.long
def test_both_discriminators_of_a_cyclegan(tasks, tmp_path):
    cycle = {"preset": "teacher-cyclegan", "batch": 2, "ndf": 4, "kimg": 0.02, "watch_kimg": 0}
    own = {"options": {"ngf": 8}, "data": domains(tmp_path / "data"), "method": "hypernetwork", "budget": "0.4x"}
    config = load_config({**own, "train": cycle, "finetune": cycle, "hand_on": "discriminator"})
    through(tmp_path / "run", config)
    old, new = judge_of(tasks["train"]), judge_of(tasks["finetune"])
    assert set(old) == {"a", "b"} and equal(old, new)


@pytest.mark.long
def test_fine_tuning_goes_on_from_there(tiny_teacher, tmp_path):
    """The whole job, trained: what fine-tuning leaves lies beside the subnet and is further trained."""
    run = Run(tmp_path, settings(str(tiny_teacher), hand_on="all"))
    compress(run, until="finetune")
    kept, info = load_tensors(tmp_path / "supernet_discriminator.safetensors")
    checkpoint, _ = load_tensors(tmp_path / "supernet.ckpt.safetensors")
    assert all(torch.equal(kept[name], checkpoint[f"discriminator.{name}"]) for name in kept)
    assert info == {"stage": "supernet"}
    tuned, _ = load_tensors(tmp_path / "subnet_discriminator.safetensors")
    assert set(tuned) == set(kept) and any(not torch.equal(tuned[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"train": {"kimg": 0}}, "hand_on 'all' has nothing to hand on: train.kimg is 0; set hand_on to none"),
        ({"finetune": {"gan": "none"}}, "needs a discriminator in both trainings; set train.gan and finetune.gan"),
        ({"finetune": {"ndf": 8, "conditional": False}}, "make ndf, conditional the same in train and finetune"),
    ],
)
def test_what_cannot_go_on_is_told(more, said, tiny_teacher, tmp_path):
    config = settings(str(tiny_teacher), hand_on="all")
    for part, changes in more.items():
        config = config.model_copy(update={part: getattr(config, part).model_copy(update=changes)})
    with pytest.raises(ConfigError, match=said) as error:
        find_mistakes(Run(tmp_path, config))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_narrow_student_first(tmp_path):
    """GAN Compression's first stage: pruned to 3/4 and distilled, another run starts from it and its judge."""
    torch.manual_seed(0)
    teacher = {"generator": "mobile_resnet_6blocks", "options": {"ngf": 8}, "weights": str(tmp_path / "teacher.pth")}
    torch.save(gantailor.build("mobile_resnet_6blocks", ngf=8).state_dict(), teacher["weights"])
    more = {"generator": "mobile_resnet_6blocks", "space": {"name": "uniform", "fractions": [0.75]}}
    first = settings(teacher, **more, budget="1x")
    first = first.model_copy(update={"train": first.train.model_copy(update={"kimg": 0.0})})
    compress(Run(tmp_path / "first", first), until="export")
    exported = tmp_path / "first/export/model.safetensors"
    narrow = gantailor.load(exported).state_dict()
    fresh = gantailor.build("mobile_resnet_6blocks", ngf=6).state_dict()
    assert {name: tensor.shape for name, tensor in narrow.items()} == {name: t.shape for name, t in fresh.items()}

    judge = str(tmp_path / "first/subnet_discriminator.safetensors")
    for file in (exported, tmp_path / "first/subnet.safetensors"):
        starts = {"supernet": str(file), "discriminator": judge, "options": {"ngf": 6}, "budget": "0.6x"}
        second = settings(teacher, **{**more, "space": "default", **starts})
        run = Run(tmp_path / f"second from {file.stem}", second)
        check(run)
        task = run.method.task(training.RunContext(run))
        assert all(torch.equal(task.generator.generator.state_dict()[name], narrow[name]) for name in narrow)
        known, _ = load_tensors(tmp_path / "first/subnet_discriminator.safetensors")
        assert all(torch.equal(task.discriminator.state_dict()[name], known[name]) for name in known)
        assert [weight.shape[:2] for weight in task.maps.maps] == [(32, 24)] * len(task.maps.maps)
    compress(run, until="finetune")
    assert open_run(tmp_path / "second from subnet").subnet()[0]


@pytest.mark.long
def test_a_supernet_of_other_widths_is_told_before(tiny_teacher, tmp_path):
    file = tmp_path / "other.safetensors"
    save_tensors(file, gantailor.build("resnet_6blocks", ngf=6).state_dict(), {})
    with pytest.raises(CheckpointError, match="belongs to another architecture"):
        find_mistakes(Run(tmp_path / "run", settings(str(tiny_teacher), supernet=str(file))))


def test_a_discriminator_from_scratch():
    """A shipped StyleGAN2's own is the default; the published retraining begins with a new one."""
    assert load_config({"generator": "stylegan2"}).discriminator is not None
    assert load_config({"generator": "stylegan2", "discriminator": "none"}).discriminator is None
    assert load_config({"generator": "stylegan2"}, {"discriminator": "none"}).discriminator is None


class Judge(nn.Module):
    """A discriminator that remembers what it judged."""

    def __init__(self, channels):
        super().__init__()
        self.net, self.judged = nn.Conv2d(channels, 1, 3, 2), {}

    def forward(self, pictures):
        made = self.net(pictures)
        self.judged[id(made)] = (made, pictures.detach().clone())
        return made


@pytest.mark.long
def test_every_real_picture_is_one_of_b(tiny_teacher, tmp_path, monkeypatch):
    """By default, through the pipeline: all pictures whose judgements are taken for those of real ones."""
    judges, real = [], []

    def made(recipe, *, input_nc, output_nc):
        judges.append(Judge(output_nc + (input_nc if recipe.conditional else 0)))
        return judges[-1]

    plain = image_to_image.real_loss

    def taken_for_real(kind, judged, reduction):
        real.extend(next(judge.judged[id(judged)][1] for judge in judges if id(judged) in judge.judged))
        return plain(kind, judged, reduction)

    monkeypatch.setattr(pairs_task, "make_discriminator", made)
    monkeypatch.setattr(image_to_image, "real_loss", taken_for_real)
    config = settings(str(tiny_teacher), data=domains(tmp_path / "data"))
    assert not config.train.conditional and not config.finetune.conditional
    run = Run(tmp_path / "run", config)
    compress(run, until="check")  # which estimates a step
    assert real
    real.clear()
    compress(run, until="finetune")
    assert len(real) == (config.train.steps + config.finetune.steps) * 4
    colours = [((picture + 1) * 127.5).round().unique().tolist() for picture in real]
    assert {colour for (colour,) in colours} == {100, 101, 102, 103}


def test_whose_word_counts_where_no_picture_belongs_to_an_input(tiny_teacher, tmp_path, capsys):
    data = domains(tmp_path / "data")
    assert load_config({"data": {"kind": "openmoji"}}).train.conditional
    for preset in ("pix2pix", "spade", "cyclegan"):
        assert not load_config({"data": data, "train": {"preset": preset}}).train.conditional
    own = {
        "options": {"ngf": 8},
        "teacher": str(tiny_teacher),
        "data": data,
        "train": {"conditional": True, "batch": 4},
    }
    with pytest.raises(ConfigError) as error:
        find_mistakes(Run(tmp_path / "run", load_config({**own, "finetune": {"batch": 4}})))
    assert "pictures of B belong to none; set train.conditional to false" in str(error.value)
    assert "\n" not in str(error.value)
    (tmp_path / "config.yaml").write_text(f"data: {{kind: domains, path: {tmp_path / 'data'}}}\noptions: {{ngf: 8}}\n")
    flags = [
        "--teacher",
        str(tiny_teacher),
        "--data.size",
        "32",
        "--finetune.conditional",
        "true",
        "--train.batch",
        "4",
    ]
    arguments = ["compress", str(tmp_path / "config.yaml"), *flags, "--finetune.batch", "4", "--dry-run"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert "set finetune.conditional to false" in capsys.readouterr().err
