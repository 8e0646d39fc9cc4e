"""Items are read once: index, shards and decoding on demand give the same pictures, whatever happens between."""

import errno
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch.utils.data import DataLoader

from gantailor.cli.main import main
from gantailor.evaluators.pictures import reader
from gantailor.supernet.errors import ConfigError, DataError
from gantailor.supernet.training.batches import Move
from gantailor.supernet.traits import Traits
from gantailor.zoo.data import shards
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.fit import Reading
from gantailor.zoo.data.index import CHUNK, telling
from gantailor.zoo.data.items import stored
from gantailor.zoo.data.latents import Latents, real_pictures
from gantailor.zoo.data.pairs import Pairs, pixel_digest
from gantailor.zoo.data.read import read_domains, read_split
from gantailor.zoo.data.shards import Side

SIZE = 16


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GANTAILOR_CACHE", str(cache))
    monkeypatch.setattr(reader, "_said", set())
    return cache


def save(folder, count, shape, *, seed=0, high=256):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = np.random.default_rng(seed).integers(0, high, (count, *shape), dtype=np.uint8)
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{number:03d}.png")
    return arrays


def resized(arrays, height, width, resample=Image.Resampling.BICUBIC):
    return np.stack([np.asarray(Image.fromarray(a).resize((width, height), resample)) for a in arrays])


COUNT = 2 * CHUNK + 3  # three chunks


@dataclass(frozen=True)
class Noise:
    """Items of random pixels and a class, each the same whenever it is read; counts what it reads."""

    count: int = COUNT
    shape: tuple[int, ...] = (4, 6, 3)
    dies: int = -1
    skips: int = -1
    odd: int = -1
    parent: int = field(default_factory=os.getpid)
    read_ones: list = field(default_factory=list)

    def __len__(self):
        return self.count

    @property
    def names(self):
        return tuple(f"item {n}" for n in range(self.count))

    def stamp(self, index):
        return f"{index}"

    def pixels(self, index):
        return np.random.default_rng(index).integers(0, 256, self.shape, dtype=np.uint8)

    def read(self, index, note):
        self.read_ones.append(index)
        if index == self.dies and os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self.skips:
            return None
        if index % 2:
            note("odd")
        pixels = self.pixels(index)
        if index == self.odd:
            pixels = pixels[1:]
        return pixels, (255 - self.pixels(index)).astype(np.uint16), np.array([index, 7], np.float32)


def noise(items=None, **options):
    return stored(items or Noise(), Reading(size=SIZE, **options), name="noise", what="noise 'x'", key="x")


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("cache", ["on", "off", "auto"])
def test_every_way_gives_the_same(cache, workers, monkeypatch, caplog):
    """Several shards, several processes, one that is skipped; in any order, slices and single ones."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * 4 * 6 * 3 * 3)
    monkeypatch.setattr(shards, "OPEN_FILES", 2)
    items = Noise(skips=70)
    for _ in range(2):
        found = noise(items, cache=cache, workers=workers)
        rows = [n for n in range(COUNT) if n != 70]
        expected = np.stack([items.pixels(n) for n in rows])
        inputs, targets, vectors = found.sides
        assert found.names == tuple(f"item {n}" for n in rows) and found.total == COUNT
        assert inputs.shape == (COUNT - 1, 4, 6, 3) and (inputs.dtype, targets.dtype) == (np.uint8, np.uint16)
        assert np.array_equal(inputs[:], expected) and np.array_equal(targets[:], 255 - expected)
        assert np.array_equal(np.asarray(inputs), expected) and vectors[:, 0].tolist() == rows
        some = np.array([70, 3, 3, -1])
        assert np.array_equal(inputs[some], expected[some]) and np.array_equal(inputs[::-9], expected[::-9])
        assert np.array_equal(inputs[-2], expected[-2]) and np.array_equal(inputs[5, 1:, 2], expected[5, 1:, 2])
        assert np.array_equal(inputs[3:8, 1], expected[3:8, 1]) and inputs[:0].shape == (0, 4, 6, 3)
        part = inputs.some(slice(60, 80)).some(np.array([3, 12]))
        assert np.array_equal(part[:], expected[60:80][[3, 12]]) and len(part) == 2
        with pytest.raises(IndexError):
            inputs[COUNT - 1]
    assert caplog.text.count(f"noise 'x': of {COUNT} pictures 1 cannot be read and are left out (item 70); 65 odd") == 1


def test_digests_know_pixels_and_order(own_cache):
    """The same whatever is kept and however many processes read; another for other pixels, rows, sides."""
    found = [noise(cache=cache, workers=workers) for cache in ("on", "off") for workers in (0, 2)]
    digests = {pixel_digest(*one.sides[:2]) for one in found}
    assert len(digests) == 1
    inputs, targets, _ = found[0].sides
    swapped = np.arange(COUNT)
    swapped[:2] = 1, 0
    others = [(targets, inputs), (inputs,), (inputs.some(swapped), targets), (inputs.some(slice(5)),)]
    other = noise(Noise(COUNT - 1)).sides
    assert len(digests | {pixel_digest(*sides) for sides in [*others, other[:2]]}) == 6
    array = inputs[:]
    assert pixel_digest(array) == pixel_digest(array[:])
    pairs = Pairs(inputs, targets, found[0].names, "noise")
    few = pairs.take(np.array([4, 2]))
    assert few.names == ("item 4", "item 2") and isinstance(few.inputs, Side) and few.digest() != pairs.digest()
    assert np.array_equal(few.inputs[:], array[[4, 2]])


class Plain(Noise):
    """Quicker."""

    def pixels(self, index):
        return np.full(self.shape, index % 256, np.uint8)


@pytest.mark.long
def test_a_batch_reads_its_items_and_no_more():
    """Of 100,000 items four; both sides of a pair at once; the second start reads none."""
    items = Plain(100_000, (1, 1, 3))
    found = noise(items, cache="off")
    assert len(items.read_ones) == 100_001  # the first tells the shapes
    items.read_ones.clear()
    found = noise(items, cache="off")
    assert not items.read_ones
    pairs = Pairs(*found.sides[:2], found.names, "noise")
    pairs.batch(np.array([99_999, 7, 50_000, 7]), moves=[Move(True, 1, 0)] * 4)
    assert items.read_ones == [99_999, 7, 50_000]
    items.read_ones.clear()
    Latents.of(pairs, 3, seed=0, name="train").batch(np.arange(2))
    replace(pairs, targets=None, others=pairs.targets).batch(np.arange(2))
    assert items.read_ones == [0, 1] and pairs.digest()
    items = Noise()
    kept = noise(items, cache="on")
    items.read_ones.clear()
    assert kept.sides[0][[5, 6]].shape == (2, 4, 6, 3) and not items.read_ones


def test_a_killed_process_is_told():
    with pytest.raises(DataError, match=r"noise 'x': a process that read pictures was killed, .* set data\.workers"):
        noise(Noise(dies=CHUNK + 1), workers=2)
    assert noise(Noise(dies=CHUNK + 1), workers=0).total == COUNT


class Slow(Plain):
    """Writes which process reads."""

    def read(self, index, note):
        Path(os.environ["READERS"], str(os.getpid())).touch()
        time.sleep(0.01)
        return super().read(index, note)


def test_nobody_is_left_behind(tmp_path, monkeypatch):
    """Who reads ends when the process that waits is killed."""
    monkeypatch.setenv("READERS", str(tmp_path))
    waits = multiprocessing.get_context("fork").Process(target=noise, args=(Slow(50 * CHUNK),), kwargs={"workers": 2})
    waits.start()
    end = time.monotonic() + 60
    while (
        len([*tmp_path.iterdir()]) < 3 and time.monotonic() < end
    ):  # the first item tells the shapes to the one that waits
        time.sleep(0.05)
    readers = {int(file.name) for file in tmp_path.iterdir()} - {waits.pid}
    assert len(readers) == 2
    waits.kill()
    waits.join()
    while any(_runs(pid) for pid in readers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in readers)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_others_shapes_are_told():
    message = r"'item 3' is uint8 \[3, 6, 3\] and .*, those before uint8 \[4, 6, 3\] and .*; all must be alike"
    with pytest.raises(DataError, match=message):
        noise(Noise(odd=3))


def test_progress():
    heard = []
    with telling(lambda done, total: heard.append((done, total))):
        noise(workers=2)
        noise(workers=2)
    assert heard == [(CHUNK, COUNT), (2 * CHUNK, COUNT), (COUNT, COUNT)]


def folder_of(root, **options):
    return DataConfig(path=str(root), **{"kind": "folder", "size": [16, 32], "direction": "BtoA", **options})


WAYS = [{"cache": "on"}, {"cache": "off"}, {"cache": "off", "workers": 2}, {"cache": "on", "workers": 2}]


def test_pictures_of_every_kind_as_before(tmp_path):
    """To the bit what Pillow makes of each half, of label maps, of two domains; one digest."""
    halves = save(tmp_path / "train", COUNT, (12, 40, 3))
    targets, inputs = resized(halves[:, :, :20], 16, 32), resized(halves[:, :, 20:], 16, 32)
    found = [read_split(folder_of(tmp_path, **way), "train") for way in WAYS]
    ids = save(tmp_path / "train_label", 9, (12, 20), high=5)
    instances = save(tmp_path / "train_inst", 9, (16, 32), high=2)
    shown = save(tmp_path / "train_img", 9, (12, 20, 3), seed=1)
    maps = [read_split(folder_of(tmp_path, kind="labels", classes=5, **way), "train") for way in WAYS]
    first, second = save(tmp_path / "trainA", 3, (16, 32, 3)), save(tmp_path / "trainB", 4, (12, 20, 3), seed=2)
    domains = [read_domains(folder_of(tmp_path, kind="domains", **way)) for way in WAYS]
    for pairs, labels, both in zip(found, maps, domains, strict=True):
        assert np.array_equal(pairs.inputs[:], inputs) and np.array_equal(pairs.targets[:], targets)
        assert np.array_equal(labels.inputs[..., 0], resized(ids, 16, 32, Image.Resampling.NEAREST))
        edges = np.zeros((9, 16, 32), bool)
        edges[:, 1:] |= instances[:, 1:] != instances[:, :-1]
        edges[:, :-1] |= instances[:, 1:] != instances[:, :-1]
        edges[:, :, 1:] |= instances[:, :, 1:] != instances[:, :, :-1]
        edges[:, :, :-1] |= instances[:, :, 1:] != instances[:, :, :-1]
        assert np.array_equal(labels.inputs[..., 1], edges)
        assert np.array_equal(labels.targets[:], resized(shown, 16, 32))
        # BtoA exchanges the domains as well
        assert np.array_equal(both.b[:], first) and np.array_equal(both.a[:], resized(second, 16, 32))
    assert len({pairs.digest() for pairs in found}) == len({labels.digest() for labels in maps}) == 1


def test_changed_files_are_noticed(tmp_path, own_cache):
    """Other contents of one size, other times, files that come and go; what was kept of the former ones goes."""
    for number in range(2):
        save(tmp_path / f"other {number}", 3, (12, 40, 3), seed=number)
        read_split(DataConfig(kind="folder", path=str(tmp_path / f"other {number}"), size=16), "train")
    save(tmp_path / "train", 3, (12, 40, 3))
    file = tmp_path / "train" / "001.png"

    def read():
        data = read_split(folder_of(tmp_path), "train")
        return data.digest(), len(data)

    digests = [read()]
    before = file.stat()
    pixels = np.asarray(Image.open(file)).copy()
    pixels[0, 0] += 1
    Image.fromarray(pixels).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    digests.append(read())
    shutil.copy(file, tmp_path / "train" / "007.png")
    digests.append(read())
    (tmp_path / "train" / "000.png").unlink()
    digests.append(read())
    assert len({digest for digest, _ in digests}) == 4 and [count for _, count in digests] == [3, 3, 4, 3]
    assert read() == digests[-1] and len([*own_cache.iterdir()]) == 3


def _cut(file):
    file.write_bytes(file.read_bytes()[:-9])


def _flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("index.npz", _cut),
        ("index.npz", _flip),
        ("index.npz", lambda file: file.write_bytes(b"")),
        ("index.npz", lambda file: file.write_bytes(b"\x00" * 500)),
        ("00001.npy", _cut),
        ("00001.npy", Path.unlink),
    ],
)
def test_damage_is_said_and_mended(name, harm, own_cache, monkeypatch, caplog):
    monkeypatch.setattr(shards, "SHARD_BYTES", 50 * 4 * 6 * 3 * 3)
    first = noise(cache="on")
    assert len([*own_cache.rglob("*.npy")]) == 3
    harm(next(own_cache.rglob(name)))
    again = noise(cache="on")
    assert caplog.text.count("are damaged; they are read again") == 1
    assert np.array_equal(again.sides[0][:], np.stack([Noise().pixels(n) for n in range(COUNT)]))
    assert pixel_digest(again.sides[0]) == pixel_digest(first.sides[0]) and len([*own_cache.rglob("*.npy")]) == 3
    assert sorted(f.name for f in own_cache.iterdir()) == [next(own_cache.glob("noise-*-*")).name], "nothing half done"


def test_a_cache_that_goes_away_under_way(own_cache, caplog):
    found = noise(cache="on")
    shutil.rmtree(own_cache)
    for _ in range(2):
        assert np.array_equal(found.sides[0][[3, 1]], np.stack([Noise().pixels(n) for n in (3, 1)]))
    assert caplog.text.count("decoded pictures cannot be read") == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_without_room(own_cache, monkeypatch, caplog, workers):
    """No folder can be made, or the disk is full: said once, and everything is read all the same."""

    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    expected = np.stack([Noise().pixels(n) for n in range(COUNT)])
    for _ in range(2):
        assert np.array_equal(noise(cache="on", workers=workers).sides[0][:], expected)
    assert caplog.text.count("the cache folder cannot be used (No space left on device), so pictures are decoded") == 1
    assert not [*own_cache.iterdir()]
    (own_cache / "file").write_text("")
    monkeypatch.setenv("GANTAILOR_CACHE", str(own_cache / "file" / "folder"))
    assert np.array_equal(noise(cache="on", workers=workers).sides[0][:], expected)
    assert caplog.text.count("the cache folder cannot be used (Not a directory)") == 1


def test_auto_keeps_what_is_small(own_cache, monkeypatch):
    noise(cache="auto")
    assert [*own_cache.rglob("*.npy")]
    shutil.rmtree(own_cache)
    monkeypatch.setattr("gantailor.zoo.data.items.AUTO_BYTES", 1000)
    items = Noise()
    noise(items, cache="auto")
    assert not [*own_cache.rglob("*.npy")] and len([*own_cache.rglob("index.npz")]) == 1
    items.read_ones.clear()
    noise(items, cache="auto"), noise(items, cache="off")
    assert not items.read_ones
    noise(items, cache="on")
    assert [*own_cache.rglob("*.npy")]
    items.read_ones.clear()
    noise(items, cache="auto"), noise(items, cache="off")
    assert not items.read_ones


def _digest_of(path, queue):
    data = read_split(folder_of(path, cache="on"), "train")
    queue.put((data.digest(), data.inputs[:].tobytes()))


def test_two_processes_at_once(tmp_path, own_cache):
    save(tmp_path / "train", 60, (40, 80, 3))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    several = [context.Process(target=_digest_of, args=(tmp_path, queue)) for _ in range(3)]
    for process in several:
        process.start()
    found = {queue.get(timeout=60) for _ in several}
    for process in several:
        process.join(60)
    data = read_split(folder_of(tmp_path), "train")
    assert found == {(data.digest(), data.inputs[:].tobytes())}
    assert len([*own_cache.iterdir()]) == 1


@pytest.mark.parametrize("cache", ["on", "off"])
def test_other_processes_read_as_well(tmp_path, cache):
    """Pickled as spawned workers get it, and forked ones after this process has read."""
    save(tmp_path / "train", 12, (12, 40, 3))
    data = read_split(folder_of(tmp_path, cache=cache), "train")
    expected, _ = data.batch(np.arange(12))
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy.batch(np.arange(12))[0], expected) and copy.digest() == data.digest()
    batches = [np.arange(12)[k::3] for k in range(3)]
    read = [*DataLoader(_Rows(data), sampler=batches, batch_size=None, num_workers=2)]
    assert all(torch.equal(one, expected[torch.from_numpy(rows)]) for one, rows in zip(read, batches, strict=True))


class _Rows(torch.utils.data.Dataset):
    def __init__(self, data):
        self.data = data

    def __getitem__(self, rows):
        return self.data.batch(rows)[0]


@pytest.mark.parametrize("workers", [0, 3])
def test_the_first_broken_picture_is_named(tmp_path, workers):
    """Whatever the number of processes, before anything is trained; left out where it may be."""
    save(tmp_path / "train", COUNT, (12, 40, 3))
    for number in (COUNT - 1, CHUNK + 5):
        file = tmp_path / "train" / f"{number:03d}.png"
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataError, match=rf"{CHUNK + 5:03d}\.png' cannot be read"):
        read_split(folder_of(tmp_path, workers=workers), "train")
    assert len(read_split(folder_of(tmp_path, workers=workers, skip_corrupt=True), "train")) == COUNT - 2


@settings(deadline=None, max_examples=60)
@given(
    factor=st.integers(1, 3),
    mirror=st.booleans(),
    shift=st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    corner=st.tuples(st.integers(0, 2), st.integers(0, 3)),
)
def test_moves_pixel_by_pixel(factor, mirror, shift, corner):
    """Mirrored, then shifted with edges repeated, then cut; targets by so many times as many pixels."""
    inputs = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 1), dtype=np.uint8)
    targets = np.random.default_rng(1).integers(0, 256, (2, 6 * factor, 8 * factor, 3), dtype=np.uint8)
    pairs = Pairs(inputs, targets, ("a", "b"), "x", more=(targets,), crop=(4, 5))
    move = Move(mirror, *shift, *corner)
    found = *pairs.rows(np.array([1, 0]), [move, Move(False, 0, 0)]), pairs.moved(targets[[1, 0]], [move, move])
    for pictures, read, times in ((inputs, found[0], 1), (targets, found[1], factor), (targets, found[2], factor)):
        height, width = pictures.shape[1:3]
        assert read.shape == (2, 4 * times, 5 * times, pictures.shape[3])
        for row in range(4 * times):
            for column in range(5 * times):
                y = min(max(row + corner[0] * times - shift[0] * times, 0), height - 1)
                x = min(max(column + corner[1] * times - shift[1] * times, 0), width - 1)
                assert (read[0, row, column] == pictures[1, y, width - 1 - x if mirror else x]).all()
    assert np.array_equal(found[1][1], targets[0, : 4 * factor, : 5 * factor])


def test_load_and_crop(tmp_path):
    """Training pictures of 20 x 24 and random parts of 16 x 20 of them; everything else is whole."""
    for split in ("train", "test"):
        arrays = save(tmp_path / split, 2, (20, 48, 3))
    config = folder_of(tmp_path, size=[16, 20], load=[20, 24], direction="AtoB")
    train, test = read_split(config, "train"), read_split(config, "test")
    assert (train.crop, train.size, test.crop, test.size) == ((16, 20), (20, 24), None, (16, 20))
    inputs, targets = train.rows(np.arange(2), [Move(False, 0, 0, 4, 1), Move(True, 0, 0, 0, 4)])
    assert np.array_equal(inputs[0], arrays[0, 4:, 1:21]) and np.array_equal(targets[0], arrays[0, 4:, 25:45])
    assert np.array_equal(inputs[1], arrays[1, :16, :24][:, ::-1][:, 4:])
    still, _ = train.rows(np.arange(2), None)
    assert np.array_equal(still, arrays[:, 2:18, 2:22]), "the middle, as large as scores are"
    assert np.array_equal(test.inputs[:], resized(arrays[:, :, :24], 16, 20))
    parts = read_split(folder_of(tmp_path, size=[20, 24], crop=16, direction="AtoB"), "train")
    assert parts.crop == (16, 16) and parts.batch(np.arange(2))[0].shape == (2, 3, 20, 24)
    assert parts.batch(np.arange(2), moves=[Move(False, 0, 0)] * 2)[0].shape == (2, 3, 16, 16)
    save(tmp_path / "trainA", 2, (20, 24, 3)), save(tmp_path / "trainB", 2, (20, 24, 3))
    both = read_domains(config.model_copy(update={"kind": "domains"}))
    assert both.crop == (16, 20) and both.size == (20, 24)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 64, "crop": 65}, "crops of 65 x 65 do not fit in training pictures of 64 x 64"),
        ({"size": 64, "crop": [32, 80]}, "crops of 32 x 80 do not fit in training pictures of 64 x 64"),
        ({"size": 64, "load": 48}, "crops of 64 x 64 do not fit in training pictures of 48 x 48"),
        ({"size": 64, "load": 48, "crop": 50}, "crops of 50 x 50 do not fit in training pictures of 48 x 48"),
    ],
)
def test_crops_that_do_not_fit(setting, message):
    with pytest.raises(ValidationError, match=re.escape(message)) as error:
        DataConfig(**setting)
    assert error.value.error_count() == 1


def test_no_crops_of_latents(tmp_path):
    save(tmp_path / "train", 2, (16, 16, 3))
    config = folder_of(tmp_path, size=16, load=20, direction="unpaired")
    with pytest.raises(ConfigError, match=r"data\.crop 16 is for generators of pictures; leave it and load out"):
        read_split(config, "train", Traits(input_shapes=((7,),), takes="latents", size=16))
    with pytest.raises(ConfigError, match=r"data\.crop is for generators of pictures"):
        real_pictures(read_split(config, "train"))


@pytest.mark.parametrize("fit", ["stretch", "crop", "scale-and-crop", "pad"])
def test_targets_of_twice_the_size(tmp_path, fit):
    """Halves of one picture: the target is read at 32 x 48, the input at 16 x 24, and they show the same."""
    ramp = np.linspace(0, 255, 96).astype(np.uint8)
    half = np.broadcast_to(ramp[:, None, None], (96, 144, 3))
    (tmp_path / "train").mkdir()
    Image.fromarray(np.concatenate([half, half], 1)).save(tmp_path / "train" / "0.png")
    pairs = read_split(folder_of(tmp_path, size=[16, 24], scale=2, fit=fit, direction="AtoB"), "train")
    assert pairs.inputs.shape == (1, 16, 24, 3) and pairs.targets.shape == (1, 32, 48, 3)
    top, bottom = (32, 64) if fit == "crop" else (0, 96)
    part = np.ascontiguousarray(half[top:bottom, 48:96] if fit == "crop" else half)
    assert np.array_equal(pairs.targets[:], resized([part], 32, 48))
    assert np.array_equal(pairs.inputs[:], resized([part], 16, 24))


def test_scale_of_label_maps_and_emojis(tmp_path):
    ids, shown = save(tmp_path / "train_label", 2, (8, 16), high=3), save(tmp_path / "train_img", 2, (16, 32, 3))
    data = read_split(folder_of(tmp_path, kind="labels", classes=3, size=[16, 32], scale=2), "train")
    assert np.array_equal(data.inputs[..., 0], ids.repeat(2, 1).repeat(2, 2))
    assert np.array_equal(data.targets[:], resized(shown, 32, 64))


@pytest.mark.long
def test_emojis_of_any_shape_and_channels():
    plain = read_split(DataConfig(size=32), "test")
    config = DataConfig(size=[16, 32], channels=[1, 4], fit="pad")
    wide = read_split(config, "test")
    assert wide.inputs.shape[1:] == (16, 32, 1) and wide.targets.shape[1:] == (16, 32, 4) and wide.names == plain.names
    assert (wide.inputs[:, :, :8] == 255).all() and (wide.targets[:, :, 8:24, 3] == 255).all()
    small = resized(plain.targets, 16, 16)
    assert np.array_equal(wide.targets[:, :, 8:24, :3], small) and "@16x32 pad/test" in wide.source
    twice = read_split(DataConfig(size=16, scale=2), "test")
    assert np.array_equal(twice.targets, plain.targets) and np.array_equal(twice.inputs, resized(plain.inputs, 16, 16))


@pytest.mark.long
def test_memory_does_not_grow_with_the_pictures(own_cache):
    """400 MB of decoded pictures are written, and read in batches, in a process that grows by less than 100 MB."""
    program = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from test_data_stored import Plain, noise
from gantailor.zoo.data.pairs import Pairs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = noise(Plain(1000, (256, 176, 3)), cache="on")
pairs = Pairs(*found.sides[:2], found.names, "grey")
for start in range(0, 1000, 8):
    inputs, _ = pairs.rows(np.arange(start, start + 8), None)
    assert inputs[3, 5, 5, 0] == (start + 3) % 256
pairs.digest()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert sum(file.stat().st_size for file in own_cache.rglob("*.npy")) > 400e6
    assert float(done.stdout) < 100


@pytest.mark.parametrize("cache", ["on", "off"])
def test_threads_read_at_once(cache, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * 4 * 6 * 3 * 3)
    monkeypatch.setattr(shards, "OPEN_FILES", 2)
    inputs, targets, _ = noise(cache=cache).sides
    expected = inputs[:]

    def same(seed):
        rows = np.random.default_rng(seed).integers(0, COUNT, 20)
        return np.array_equal(inputs[rows], expected[rows]) and np.array_equal(targets[rows], 255 - expected[rows])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, range(200)))


@pytest.mark.long
@pytest.mark.parametrize("data", [{"size": 32, "load": [36, 40]}, {"size": [32, 64], "crop": 32, "cache": "off"}])
def test_a_run_on_crops(tmp_path, data):
    """From files to the report: trained on random parts, scored on whole pictures."""
    for split in ("train", "test"):
        save(tmp_path / "data" / split, 6, (40, 80, 3))
    recipe = {"kimg": 0.004, "batch": 2, "ndf": 4}
    config = {
        "generator": "resnet_6blocks",
        "options": {"ngf": 8},
        "teacher": "none",
        "data": {"kind": "folder", "path": str(tmp_path / "data"), "fit": "crop", **data},
        "budget": "0.5x",
        "train": recipe,
        "finetune": recipe,
        "search": {"trials": 3},
        "evaluation": {"search": "l1", "final": ["l1"], "search_images": 4},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["compress", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").stat().st_size


def test_mistakes_of_crops_are_one_line(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"data": {"size": 32, "crop": 48}}))
    assert main(["compress", str(tmp_path / "run.yaml"), "--dry-run"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "crops of 48 x 48 do not fit in training pictures of 32 x 32" in said[0]
