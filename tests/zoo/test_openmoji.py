"""The embedded pictures: clean splits, real pairs."""

import numpy as np

from gantailor.zoo.data.kinds.openmoji import openmoji


def test_splits_are_disjoint_and_fixed():
    splits = {name: openmoji(size=64, split=name) for name in ("train", "search", "test")}
    assert [len(p) for p in splits.values()] == [1480, 198, 295]
    names = [set(p.names) for p in splits.values()]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])


def test_line_art_is_grey_and_targets_are_coloured():
    pairs = openmoji(size=64, split="test")
    spread = lambda images: np.ptp(images.astype(int), axis=-1).max((1, 2))  # noqa: E731
    assert (spread(pairs.targets) > 40).mean() > 0.8
    assert (spread(pairs.inputs) < spread(pairs.targets)).mean() > 0.8


def test_batches_are_augmented_together():
    pairs = openmoji(size=64, split="test")
    inputs, targets = pairs.batch(np.arange(8), moves=[(k % 2 == 0, k % 3 - 1, 3 - k) for k in range(8)])
    again, _ = pairs.batch(np.arange(8), moves=[(k % 2 == 0, k % 3 - 1, 3 - k) for k in range(8)])
    assert (inputs == again).all()
    assert inputs.shape == targets.shape == (8, 3, 64, 64)
    assert inputs.min() >= -1 and targets.max() <= 1
