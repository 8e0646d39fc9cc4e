"""One input or several: what becomes of them wherever a model is called."""

import numpy as np
import pytest
import torch
from torch import nn

from gantailor.export.rewrites import HalfPrecision
from gantailor.supernet import calling
from gantailor.supernet.calibration import recalibrate
from gantailor.supernet.errors import ConfigError, GantailorError
from gantailor.supernet.importance.diversity import activation_scores, content_scores, diversity_scores
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.teaching.teacher_cache import Teacher
from gantailor.supernet.verify import verify


class Both(nn.Module):
    """A picture, and a second input: a latent, or a mask of one channel."""

    def __init__(self, *, latent, width=6):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3 if latent else 4, width, 3, padding=1)
        self.style = nn.Linear(5, width) if latent else None
        self.norm = nn.BatchNorm2d(width)
        self.b, self.c = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, picture, second, *, strength=1.0):
        if self.style is None:
            x = self.a(torch.cat([picture, second], 1))
        else:
            x = self.a(picture) + self.style(second)[:, :, None, None]
        return torch.tanh(self.c(torch.relu(self.b(torch.relu(self.norm(x)))))) * strength


class Fixed(nn.Module):
    """The same with one of its inputs fixed."""

    def __init__(self, both, value, *, place):
        super().__init__()
        self.both, self.place = both, place
        self.register_buffer("value", value)

    def forward(self, one):
        value = self.value.expand(len(one), *self.value.shape[1:])
        return self.both(value, one) if self.place == 0 else self.both(one, value)


def inputs(*, latent, count=10):
    random = torch.Generator().manual_seed(1)
    picture = torch.rand(count, 3, 8, 8, generator=random) * 2 - 1
    second = torch.randn(count, 5, generator=random) if latent else torch.rand(count, 1, 8, 8, generator=random) * 2 - 1
    return picture, second


@pytest.mark.parametrize(
    ("layer", "shape", "said"),
    [
        (nn.Conv2d(3, 3, 1), (0, 3, 8, 8), r"the example is \[0, 3, 8, 8\], without a row; give one or more"),
        (nn.Conv2d(3, 3, 1), (), r"the example is \[\], without a row"),
        (nn.Conv2d(3, 3, 1), (3, 8, 8), r"'0' \(Conv2d\) is given \[3, 8, 8\], without a batch; give an example with"),
        (nn.Linear(8, 3), (8,), r"'0' \(Linear\) is given \[8\], without a batch"),
    ],
)
def test_an_example_has_a_batch(layer, shape, said):
    with pytest.raises(GantailorError, match=said):
        Supernet(nn.Sequential(layer), torch.rand(shape))


@pytest.mark.parametrize("latent", [True, False])
def test_several_are_handled_as_one_is(latent):
    model, several = Both(latent=latent).eval(), inputs(latent=latent)
    one = several[0]
    assert torch.equal(calling.forward(model, several, strength=0.5), model(*several, strength=0.5))
    assert torch.equal(calling.forward(nn.Identity(), one), one)
    assert calling.first(several) is one and calling.first(one) is one
    assert calling.as_tuple(one) == (one,) and calling.alone((one,)) is one and calling.alone(several) is several
    assert calling.size_of(several) == calling.size_of(one) == 10
    rows = slice(2, 5)
    assert all(map(torch.equal, calling.rows_of(several, rows), (several[0][2:5], several[1][2:5])))
    assert torch.equal(calling.rows_of(one, torch.tensor([3, 1])), one[[3, 1]])
    parts = [calling.rows_of(several, slice(start, start + 5)) for start in (0, 5)]
    assert all(map(torch.equal, calling.joined(parts), several))
    assert torch.equal(calling.joined([one[:4], one[4:]]), one)
    assert calling.shape_of(one) == [10, 3, 8, 8]
    assert calling.shape_of(several) == [[10, 3, 8, 8], [10, 5] if latent else [10, 1, 8, 8]]
    assert [x.dtype for x in calling.each(several, torch.Tensor.double)] == [torch.float64] * 2


def test_a_discriminator_sees_pictures_of_the_first_ones_size():
    picture, mask, latent = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8), torch.rand(2, 5)
    small = torch.rand(2, 1, 4, 4)
    assert calling.condition(picture) is picture and calling.condition((picture, latent)) is picture
    seen = calling.condition((picture, latent, mask, small))
    assert torch.equal(seen, torch.cat([picture, mask], 1))


def test_names_are_those_of_the_forward():
    model = Both(latent=True)
    assert calling.input_names(model, 2) == ("picture", "second")
    assert calling.input_names(HalfPrecision(model), 2) == ("picture", "second"), "a wrapper has its generator's"
    assert calling.input_names(nn.Identity(), 1) == ("input",)
    assert calling.input_names(Supernet(model.eval(), inputs(latent=True)), 2) == ("picture", "second")

    class Any(nn.Module):
        def forward(self, *given):
            return given[0]

    assert calling.input_names(Any(), 2) == ("input_0", "input_1")


@pytest.mark.parametrize("latent", [True, False])
def test_statistics_are_of_all_inputs(latent):
    model, several = Both(latent=latent), inputs(latent=latent)
    recalibrate(model, [calling.rows_of(several, slice(start, start + 5)) for start in (0, 5)])
    picture, second = several
    with torch.no_grad():
        if latent:
            seen = model.a(picture) + model.style(second)[:, :, None, None]
        else:
            seen = model.a(torch.cat([picture, second], 1))
    expected = torch.stack([part.mean((0, 2, 3)) for part in (seen[:5], seen[5:])]).mean(0)
    torch.testing.assert_close(model.norm.running_mean, expected)


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_a_teacher_keeps_what_it_makes_of_all_inputs(tmp_path, cache):
    model, several = Both(latent=True).eval(), inputs(latent=True, count=4)
    context = lambda: torch.autocast("cpu", enabled=False)  # noqa: E731
    teacher = Teacher(model, ["b"], cache=cache, folder=tmp_path, content="x", context=context)
    keys = [(row, 0) for row in range(4)]
    for _ in range(2):
        output, features = teacher(several, keys)
        torch.testing.assert_close(output, model(*several))
        assert features["b"].shape == (4, 6, 8, 8)


@pytest.mark.parametrize("latent", [True, False])
def test_traces_and_verifies(latent):
    supernet = Supernet(Both(latent=latent).eval(), inputs(latent=latent, count=2))
    verify(supernet)
    config = supernet.full_config()
    first = next(iter(config))
    narrow = supernet.extract({**config, first: 3})
    several = inputs(latent=latent)
    torch.testing.assert_close(narrow(*several), supernet(*several, config={**config, first: 3}))


@pytest.mark.parametrize("latent", [True, False])
@pytest.mark.parametrize("scores", [diversity_scores, content_scores, activation_scores])
def test_rankings_move_one_input_and_leave_the_others(latent, scores):
    """With the others all alike it is the ranking of a generator of the one that moves: the latent, else the first."""
    both = Both(latent=latent).eval()
    picture, second = inputs(latent=latent)
    place = 0 if latent else 1  # what stays
    still = (picture, second)[place][:1]
    several = (still.expand_as(picture), second) if latent else (picture, still.expand_as(second))
    mine = scores(Supernet(both, calling.rows_of(several, slice(2))), several)
    moved = several[1 - place]
    expected = scores(Supernet(Fixed(both, still, place=place), moved[:2]), moved)
    assert mine.keys() == {"a", "b"} and any(values.std() > 0 for values in mine.values())
    for name, values in mine.items():
        np.testing.assert_allclose(values, expected[f"both.{name}"], rtol=1e-4)


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda net: torch.jit.trace(net, torch.zeros(1, 3, 8, 8)), "is TorchScript, .*; give the module"),
        (nn.DataParallel, r"is wrapped in DataParallel; give its \.module"),
        (type, "is the class Conv2d; give a torch.nn.Module"),
        (lambda net: net.state_dict(), "is a OrderedDict; give a torch.nn.Module"),
    ],
)
def test_what_is_no_module_to_narrow_is_told_before_it_is_traced(wrap, said):
    given = wrap(nn.Conv2d(3, 3, 1))
    with pytest.raises(ConfigError, match=said):
        Supernet(given, torch.zeros(1, 3, 8, 8))
