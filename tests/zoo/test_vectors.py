"""Further inputs of a data set: masks that move with their pictures, latents and classes beside them."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from gantailor.supernet.errors import DataError
from gantailor.supernet.training.batches import Move, PairBatches
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.traits import Traits
from gantailor.zoo.data.class_labels import ClassLabels
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.vectors import WithVectors, fitted_to

PICTURE, MASK, GREY = (3, 64, 64), (1, 64, 64), (1, 8, 8)


def pairs(count=4, height=8, width=10, **more):
    """Random pictures; as a mask the first channel, so that what moves alike stays equal."""
    inputs = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    vectors = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    names = tuple(map(str, range(count)))
    return Pairs(inputs, 255 - inputs, names, "random", more=(inputs[..., :1], vectors), **more)


def literal(image, move, *, crop=None):
    """One picture ``[H, W, C]`` mirrored, shifted with its edge repeated, and cropped, pixel by pixel."""
    height, width, _ = image.shape
    mirror, down, right, top, left = Move(*move)
    rows, columns = crop or (height, width)
    made = np.empty((rows, columns, image.shape[2]), image.dtype)
    for y in range(rows):
        for x in range(columns):
            from_y = min(max(top + y - down, 0), height - 1)
            from_x = min(max(left + x - right, 0), width - 1)
            made[y, x] = image[from_y, width - 1 - from_x if mirror else from_x]
    return made


@pytest.mark.parametrize("crop", [None, (4, 6)])
def test_masks_move_as_their_pictures_do(crop):
    data, rows = pairs(crop=crop), np.array([2, 0, 3])
    moves = [
        Move(True, 0, 0),
        Move(False, 2, -3, *((1, 2) if crop else ())),
        Move(True, -1, 4, *((4, 4) if crop else ())),
    ]
    (shown, mask, vectors), targets = data.batch(rows, moves=moves)
    assert torch.equal(mask[:, 0], shown[:, 0]) and torch.allclose(targets, -shown, atol=1e-6)
    for row, move, one in zip(rows, moves, mask, strict=True):
        expected = literal(data.more[0][row], move, crop=crop)[..., 0]
        assert_array_equal(one[0].add(1).mul(127.5).round().numpy(), expected)
    assert_array_equal(vectors, data.more[1][rows])


def test_without_moves_they_are_as_they_lie():
    data = pairs()
    (_, mask, vectors), _ = data.batch(np.array([1]))
    assert_array_equal(mask[0, 0].add(1).mul(127.5).round().numpy(), data.inputs[1, ..., 0])
    assert vectors.dtype == torch.float32 and vectors.tolist() == [[2.0, 3.0]]
    taken = data.take(np.array([3, 1]))
    assert all(map(torch.equal, taken.batch(np.arange(2))[0], data.batch(np.array([3, 1]))[0]))


def test_the_digest_is_of_every_input():
    data = pairs()
    changed = Pairs(data.inputs, data.targets, data.names, "random", more=(data.more[0], data.more[1] + 1))
    plain = Pairs(data.inputs, data.targets, data.names, "random")
    assert len({one.digest() for one in (data, changed, plain)}) == 3


def plain(count=6, **more):
    inputs = np.zeros((count, 8, 8, 3), np.uint8)
    return Pairs(inputs, None, tuple(map(str, range(count))), "zeros", **more)


def test_latents_stand_in_for_vectors_that_are_missing():
    traits = Traits(input_shapes=(PICTURE, (5,), GREY, (2,)))
    data = plain(more=(np.ones((6, 8, 8, 1), np.uint8),))
    found = fitted_to(data, traits, 2)
    (picture, first, mask, second), targets = found.batch(np.array([4, 1]))
    assert [tuple(x.shape) for x in (picture, first, mask, second)] == [(2, 3, 8, 8), (2, 5), (2, 1, 8, 8), (2, 2)]
    assert targets is None and found.drawn == {1: 5, 3: 2} and not found.paired and len(found) == 6
    assert torch.equal(found.batch(np.array([1]))[0][1], first[1:])
    assert not torch.equal(first[:, :2], second), "each has its own"
    every = [fitted_to(data, traits, seed).batch(np.arange(6))[0][1] for seed in (0, 1, 2)]
    assert torch.equal(every[2][[4, 1]], first) and not torch.equal(every[0], every[1])
    many = fitted_to(plain(4000), Traits(input_shapes=(PICTURE, (5,))), 0).batch(np.arange(4000))[0][1]
    assert abs(float(many.mean())) < 0.03 and abs(float(many.std()) - 1) < 0.03
    assert found.digest() != data.digest() and "normal5-2-1" in found.source
    again = pickle.loads(pickle.dumps(found))
    assert torch.equal(again.batch(np.array([4, 1]))[0][1], first)


def test_latents_of_a_training_are_functions_of_seed_step_and_row():
    data = fitted_to(plain(), Traits(input_shapes=(PICTURE, (5,))), 0)
    recipe = Recipe(batch=4, kimg=1)
    batches = PairBatches(data, recipe)
    whole = batches(3).inputs[1]
    assert torch.equal(torch.cat([batches(3, part, 4).inputs[1] for part in range(4)]), whole)
    others = [batches(2), PairBatches(data, Recipe(batch=4, kimg=1, seed=1))(3)]
    assert all(not torch.equal(other.inputs[1], whole) for other in others)
    moved = PairBatches(data, Recipe(batch=4, kimg=1, shift=0, mirror=False))(3)
    assert torch.equal(moved.inputs[1], whole), "moves are not in the way"


def test_classes_stand_in_before_latents():
    labels = ClassLabels(np.array([0, 3, 1, 2, 0, 1]))
    found = fitted_to(plain(), Traits(input_shapes=(PICTURE, (8,), (4,))), 0, labels=labels)
    (_, latent, hot), _ = found.batch(np.arange(6))
    assert torch.equal(hot, torch.eye(4)[[0, 3, 1, 2, 0, 1]]), "where their number fits"
    assert found.drawn == {1: 8} and latent.shape == (6, 8)
    only = fitted_to(plain(), Traits(input_shapes=(PICTURE, (9,))), 0, labels=labels)
    assert torch.equal(only.batch(np.array([1]))[0][1], torch.eye(9)[[3]]) and only.drawn == {}
    with pytest.raises(DataError, match="takes 3 classes, the data has 4"):
        fitted_to(plain(), Traits(input_shapes=(PICTURE, (3,))), 0, labels=labels)


def test_a_class_beside_latents():
    latents = Latents.of(plain(), 7, seed=0, name="train")
    traits = Traits(input_shapes=((7,), (3,)), takes="latents")
    found = fitted_to(latents, traits, 0, labels=ClassLabels(np.array([0, 1, 2, 0, 1, 2])))
    (z, hot), _ = found.batch(np.array([2]))
    assert torch.equal(z, latents.batch(np.array([2]))[0]) and hot.tolist() == [[0, 0, 1]]


def test_what_the_data_holds_is_taken_as_it_is():
    data = pairs()
    for shapes in ((), (PICTURE, MASK, (2,))):
        assert fitted_to(data, Traits(input_shapes=shapes), 0) is data
    one = plain()
    for shapes in ((), (PICTURE,), (MASK,)):  # of one input the shape check looks at the channels
        assert fitted_to(one, Traits(input_shapes=shapes), 0) is one


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ((PICTURE,), "takes 1 input, 3x64x64, the data has 3 inputs, 3x8x10 and 1x8x10 and 2 numbers"),
        ((PICTURE, MASK), "takes 2 inputs, 3x64x64 and 1x64x64, the data has 3 inputs"),
        ((PICTURE, MASK, (3,)), "1x64x64 and 3 numbers, the data has 3 inputs, 3x8x10 and 1x8x10 and 2 numbers"),
        ((PICTURE, (2,), MASK), "takes 3 inputs, 3x64x64 and 2 numbers and 1x64x64"),
        ((PICTURE, MASK, (2,), MASK), "takes 4 inputs"),
    ],
)
def test_other_inputs_are_one_line(wanted, said):
    with pytest.raises(DataError) as error:
        fitted_to(pairs(), Traits(input_shapes=wanted), 0)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_only_latents_are_told_as_such():
    found = fitted_to(plain(), Traits(input_shapes=(PICTURE, (5,))), 0)
    assert isinstance(found, WithVectors)
    assert found.told(("picture", "z")).startswith("the generator takes picture, z; z is a latent, drawn anew")
