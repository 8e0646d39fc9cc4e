"""Batches of the tasks without pairs are what they were, word for word; parts of them read no more than they need."""

import pickle

import numpy as np
import pytest
import torch

from gantailor.supernet.training.recipe import Recipe
from gantailor.zoo.data.domains import DomainBatches, Domains
from gantailor.zoo.data.pictures import to_float
from gantailor.zoo.tasks.munit import StyledBatches
from gantailor.zoo.tasks.stylegan2 import PictureBatches

RECIPE = Recipe(batch=4, seed=3)
UNMIRRORED = RECIPE.model_copy(update={"mirror": False})


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)


def some(recipe, images, rows, rng):
    chosen = [images[i][:, ::-1] if recipe.mirror and rng.random() < 0.5 else images[i] for i in rows]
    return to_float(np.stack(chosen))


def two_domains(a, b, recipe, step):
    rng = np.random.default_rng((recipe.seed, step))
    positions = np.arange(step * recipe.batch, (step + 1) * recipe.batch)
    orders = {
        e: np.random.default_rng((recipe.seed, 1, e)).permutation(len(a)) for e in set((positions // len(a)).tolist())
    }
    first = [int(orders[p // len(a)][p % len(a)]) for p in positions.tolist()]
    second = rng.integers(0, len(b), recipe.batch).tolist()
    return some(recipe, a, first, rng), some(recipe, b, second, rng)


@pytest.mark.parametrize("recipe", [RECIPE, UNMIRRORED])
def test_two_domains_are_what_they_were(recipe):
    a, b = pictures(7), pictures(5, seed=1)
    for step in range(5):
        batch = DomainBatches(Domains(a, b), recipe)(step)
        expected = two_domains(a, b, recipe, step)
        assert torch.equal(batch.a, expected[0]) and torch.equal(batch.b, expected[1])


@pytest.mark.parametrize("recipe", [RECIPE, UNMIRRORED])
def test_styles_are_what_they_were(recipe):
    a, b = pictures(7), pictures(5, seed=1)
    for step in range(3):
        batch = StyledBatches(DomainBatches(Domains(a, b), recipe), 8)(step)
        random = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        for style in batch.styles:
            assert torch.equal(style, torch.randn((recipe.batch, 8, 1, 1), generator=random))
        assert torch.equal(batch.pictures.a, two_domains(a, b, recipe, step)[0])


@pytest.mark.parametrize("recipe", [RECIPE, UNMIRRORED])
def test_real_pictures_are_what_they_were(recipe):
    data = pictures(7)
    for step in range(5):
        rng = np.random.default_rng((recipe.seed, step))
        rows = rng.integers(0, len(data), recipe.batch)
        assert torch.equal(PictureBatches(data, recipe)(step).images, some(recipe, data, rows, rng))


class Counted:
    """Pictures as an array, and which of them were asked for."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.rows = array, array.shape, array.dtype, []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        self.rows.append(len(rows))
        return self.array[rows]


@pytest.mark.parametrize("of", [1, 2, 4])
def test_parts_are_the_whole_and_read_no_more(of):
    a, b = Counted(pictures(7)), Counted(pictures(5, seed=1))
    batches = StyledBatches(DomainBatches(Domains(a, b), RECIPE), 8)
    whole = pickle.loads(pickle.dumps(batches))(3)
    parts = [batches(3, part, of) for part in range(of)]
    for side in "ab":
        joined = torch.cat([getattr(part.pictures, side) for part in parts])
        assert torch.equal(joined, getattr(whole.pictures, side))
    for side in range(2):
        assert torch.equal(torch.cat([part.styles[side] for part in parts]), whole.styles[side])
    assert a.rows == b.rows == [4 // of] * of
    real = Counted(pictures(7))
    parts = [PictureBatches(real, RECIPE)(3, part, of) for part in range(of)]
    assert torch.equal(torch.cat([part.images for part in parts]), PictureBatches(pictures(7), RECIPE)(3).images)
    assert [part.number for part in parts] == list(range(of)) and real.rows == [4 // of] * of


def test_crops_of_two_domains():
    """Parts of the pictures that there are without crops, at every corner that there is room for."""
    a, b = pictures(7), pictures(5, seed=1)
    corners, places = set(), {(y, x) for y in range(3) for x in range(2)}
    for step in range(30):
        whole = DomainBatches(Domains(a, b), RECIPE)(step)
        cropped = DomainBatches(Domains(a, b, (4, 7)), RECIPE)(step)
        for images, parts in ((whole.a, cropped.a), (whole.b, cropped.b)):
            for image, part in zip(images, parts, strict=True):
                found = [
                    (y, x) for y in range(3) for x in range(2) if torch.equal(image[:, y : y + 4, x : x + 7], part)
                ]
                assert len(found) == 1
                corners.add(found[0])
    assert corners == places
