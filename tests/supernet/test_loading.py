"""Batches are functions of seed and step: the same read by whom you like, and as they were before workers read them."""

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from gantailor.supernet.errors import ConfigError, DataError, VerificationError
from gantailor.supernet.training import loading
from gantailor.supernet.training.batches import Move, PairBatches
from gantailor.supernet.training.image_to_image import ImageToImage
from gantailor.supernet.training.recipe import Recipe
from gantailor.supernet.training.trainer import Trainer, TrainingError
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.pictures import to_float

RECIPE = Recipe(kimg=0.036, batch=4, gan="none", precision="float32", watch_kimg=0, seed=5, shift=2)


def pairs(count=10):
    inputs = np.random.default_rng(0).integers(0, 256, (count, 8, 6, 3), dtype=np.uint8)
    return Pairs(inputs, 255 - inputs, tuple(map(str, range(count))), "random")


@dataclass(frozen=True)
class Data(Pairs):
    """What happens when a picture of this number is read, in a worker."""

    trap: int = -1
    how: str = ""

    def batch(self, indices, *, moves=None):
        if self.trap in indices:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"ours": DataError("broken.png is cut off"), "its own": KeyError("no such column")}[self.how]
        return super().batch(indices, moves=moves)


def trap(how, picture=7):
    data = pairs()
    return Data(data.inputs, data.targets, data.names, data.source, trap=picture, how=how)


def trainer(workers=0, recipe=RECIPE, data=None):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(4, 3, 1))
    return Trainer(ImageToImage(net, data or pairs(), recipe), recipe, workers=workers)


@pytest.mark.parametrize("mirror", [True, False])
def test_batches_are_what_they_were(mirror):
    """The formula of the first versions, word for word."""
    data, recipe = pairs(), RECIPE.model_copy(update={"mirror": mirror})
    for step in range(6):
        count = len(data)
        positions = np.arange(step * recipe.batch, (step + 1) * recipe.batch)
        orders = {
            e: np.random.default_rng((recipe.seed, 1, e)).permutation(count) for e in set((positions // count).tolist())
        }
        indices = np.array([orders[p // count][p % count] for p in positions.tolist()])
        rng = np.random.default_rng((recipe.seed, step))
        keys, inputs = [], []
        for i in indices:
            mirrored = bool(rng.random() < 0.5) and recipe.mirror
            down, right = rng.integers(-recipe.shift, recipe.shift + 1, 2).tolist()
            picture = data.inputs[i][:, ::-1] if mirrored else data.inputs[i]
            y, x = np.clip(np.arange(8) - down, 0, 7), np.clip(np.arange(6) - right, 0, 5)
            inputs.append(picture[y][:, x])
            keys.append((int(i), int(mirrored)))
        batch = PairBatches(data, recipe)(step)
        assert torch.equal(batch.inputs, to_float(np.stack(inputs)))
        assert torch.equal(batch.targets, to_float(255 - np.stack(inputs)))
        assert batch.keys == tuple(keys)


@pytest.mark.parametrize("of", [1, 2, 4])
def test_parts_are_the_whole_and_read_no_more(of):
    batches, whole = PairBatches(pairs(), RECIPE), PairBatches(pairs(), RECIPE)(3)
    seen = []

    class Seen(Data):
        def batch(self, indices, *, moves=None):
            seen.append(list(indices))
            return super().batch(indices, moves=moves)

    data = pairs()
    batches = PairBatches(Seen(data.inputs, data.targets, data.names, data.source), RECIPE)
    parts = [batches(3, part, of) for part in range(of)]
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
    assert sum((part.keys for part in parts), ()) == whole.keys
    assert [len(rows) for rows in seen] == [4 // of] * of


def test_crops_lie_anywhere_and_change_nothing_else():
    """Every corner that there is room for comes, and mirrors, shifts and order stay as they are without crops."""

    class Source:
        size = (8, 6)

        def __init__(self, crop):
            self.crop, self.moves = crop, []

        def __len__(self):
            return 10

        def batch(self, indices, *, moves=None):
            self.moves += [(int(i), move) for i, move in zip(indices, moves, strict=True)]
            return torch.zeros(len(indices), 1), None

    plain, cropped = Source(None), Source((6, 5))
    for step in range(30):
        for source in (plain, cropped):
            PairBatches(source, RECIPE)(step)
    corners = {(move.top, move.left) for _, move in cropped.moves}
    assert corners == {(top, left) for top in range(3) for left in range(2)}
    assert {(move.top, move.left) for _, move in plain.moves} == {(0, 0)}
    assert [(i, move[:3]) for i, move in plain.moves] == [(i, move[:3]) for i, move in cropped.moves]
    assert Move(True, 1, 2) == (True, 1, 2, 0, 0)


def test_the_teacher_is_not_cached_of_crops():
    data = Data(**{**vars(pairs()), "trap": -1})
    object.__setattr__(data, "crop", (4, 4))
    recipe = RECIPE.model_copy(update={"teacher_cache": "memory", "shift": 0})
    net = torch.nn.Conv2d(3, 3, 1)
    with pytest.raises(ConfigError, match=r"teacher_cache cannot be 'memory' because of data\.crop"):
        ImageToImage(net, data, recipe, teacher=net)


@pytest.mark.long
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resuming_is_exact_with_any_number_of_workers(tmp_path, accumulate):
    recipe = RECIPE.model_copy(update={"accumulate": accumulate})
    whole = trainer(0, recipe).run().state_dict()
    assert all(torch.equal(whole[k], v) for k, v in trainer(1, recipe).run().state_dict().items())
    assert all(torch.equal(whole[k], v) for k, v in trainer(2, recipe).run().state_dict().items())
    for number, workers in enumerate([(2, 0, 1), (0, 2, 2), (1, 1, 0)]):
        path = tmp_path / f"{number}.safetensors"
        for count, stop in zip(workers, (2, 5, None), strict=True):
            resumed = trainer(count, recipe).run(path, stop_after=stop).state_dict()
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not multiprocessing.active_children()


def test_what_workers_read_is_what_is_read_here(monkeypatch):
    """To the layout in memory, as convolutions of another one round otherwise; also where shared memory is full."""
    here = [PairBatches(pairs(), RECIPE)(step) for step in range(3)]

    def read(workers):
        run = loading.Loading(PairBatches(pairs(), RECIPE), RECIPE, workers=workers)
        with run.ahead(range(3)):
            return [run.parts(step)[0] for step in range(3)]

    before = torch.get_rng_state()

    def full(tensor):
        raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")

    shared = read(2)
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    by_value = read(2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(batch.inputs.is_shared() for batch in shared) and not any(b.inputs.is_shared() for b in by_value)
    for a, *others in zip(here, shared, by_value, strict=True):
        for b in others:
            assert torch.equal(a.inputs, b.inputs) and a.inputs.stride() == b.inputs.stride() and a.keys == b.keys


def test_a_device_has_its_batches_read_ahead_in_pinned_memory(monkeypatch):
    """A thread reads them where there are no workers; nothing but the asked for steps."""
    pinned, threads = [], set()

    class Seen(Data):
        def batch(self, indices, *, moves=None):
            threads.add(threading.current_thread())
            return super().batch(indices, moves=moves)

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
    data = pairs()
    recipe = RECIPE.model_copy(update={"accumulate": 2})
    batches = PairBatches(Seen(data.inputs, data.targets, data.names, data.source), recipe)
    run = loading.Loading(batches, recipe, on_device=True)
    with run.ahead(range(2, 5)):
        found = [run.parts(step) for step in range(2, 5)]
    assert len(pinned) == 3 * 2 * 2 and len(threads) == 1 and threading.current_thread() not in threads
    for step, parts in zip(range(2, 5), found, strict=True):
        assert torch.equal(torch.cat([part.inputs for part in parts]), batches(step).inputs)
    failing = loading.Loading(PairBatches(trap("ours", int(found[0][0].keys[0][0])), recipe), recipe, on_device=True)
    with pytest.raises(DataError, match="cut off"), failing.ahead(range(2, 5)):
        failing.parts(2)


@pytest.mark.long
def test_a_full_shared_memory_does_not_end_a_run(tmp_path):
    """As in containers, with 64 KiB of it; where no own /dev/shm is allowed, no file may be larger."""
    script = tmp_path / "small.py"
    script.write_text(
        "from tests.supernet.test_loading import *\n"
        "with pytest.raises(RuntimeError):\n"
        "    torch.zeros(1 << 20).share_memory_()\n"
        "inputs = np.random.default_rng(0).integers(0, 256, (10, 128, 128, 3), dtype=np.uint8)\n"
        "data = Pairs(inputs, 255 - inputs, tuple(map(str, range(10))), 'random')\n"
        "weights = [trainer(workers, data=data).run().state_dict() for workers in (0, 2)]\n"
        "assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])\n"
    )
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    small = ["unshare", "-rm", "sh", "-c"]
    tried = subprocess.run([*small, mount], capture_output=True, check=False) if shutil.which("unshare") else None
    allowed = tried is not None and tried.returncode == 0
    shell = [*small, f'{mount} && exec "$0" "$1"'] if allowed else ["sh", "-c", 'ulimit -f 128 && exec "$0" "$1"']
    command = [*shell, sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_data_raises_is_told_in_one_line(workers):
    with pytest.raises(DataError, match=r"^broken.png is cut off$"):
        trainer(workers, data=trap("ours")).run()
    place = rf"KeyError\('no such column'\) in {__file__}, line \d+$"
    with pytest.raises(DataError, match=rf"^the batch of step \d cannot be read: {place}"):
        trainer(workers, data=trap("its own")).run()
    assert not multiprocessing.active_children()


def test_errors_travel():
    class OddError(DataError):
        def __init__(self, file, line):
            super().__init__(f"{file}, line {line}")

    for error, kind in ((VerificationError("x", ["a"]), VerificationError), (OddError("f", 3), DataError)):
        told = pickle.loads(pickle.dumps(loading._told(error, 0)))
        assert type(told) is kind and str(told) == str(error)
    assert isinstance(loading._told(MemoryError(), 3), MemoryError)


def test_a_killed_worker_is_one_clear_message(tmp_path):
    path = tmp_path / "state.safetensors"
    trainer(data=pairs()).run(path, stop_after=1)
    order = PairBatches(pairs(), RECIPE).indices(2)
    with pytest.raises(TrainingError, match=r"pictures was lost at step [12]; the last good .* step 1.*Loader worker"):
        trainer(2, data=trap("killed", order[0])).run(path)
    assert not multiprocessing.active_children()
    resumed = trainer(2).run(path).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in trainer().run().state_dict().items())


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_killed_while_it_hands_over(error):
    """Its end shows as an error of the connection, too."""

    def gone():
        raise error
        yield

    with pytest.raises(RuntimeError, match="DataLoader worker does not answer") as found:
        loading._next(gone())
    assert loading.is_lost(found.value) and not loading.is_lost(RuntimeError("shapes do not fit"))


def test_workers_that_cannot_start(monkeypatch):
    def refused(*_):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.context.Process._Popen", refused)
    with pytest.raises(ConfigError, match=r"data\.workers 2: the processes cannot be started .*set it to 0"):
        trainer(2).run()


SCRIPT = """
import os, sys, time
from tests.supernet.test_loading import *
class Slow(Data):
    def batch(self, indices, *, moves=None):
        open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
        time.sleep(0.05)
        return super().batch(indices, moves=moves)
data = pairs()
recipe = RECIPE.model_copy(update={"kimg": 4.0, "channels_last": False})  # nothing is read here to be measured
run = trainer(2, recipe, Slow(data.inputs, data.targets, data.names, data.source))
try:
    run.run(Path(sys.argv[1]) / "state.safetensors")
except KeyboardInterrupt:
    print("step", run.step, flush=True)
"""


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_training(tmp_path, number):
    """The whole group gets the signal, as from a terminal or a batch system; a killed training cannot tell anybody."""
    script, folder = tmp_path / "train.py", tmp_path / "workers"
    folder.mkdir()
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (tmp_path / "err").open("w+") as err:
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            start_new_session=True,
        )
        wait_until(lambda: len([*folder.glob("[0-9]*")]) == 2)
        time.sleep(0.5)
        if number == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=60)
        err.seek(0)
        assert not err.read()
    wait_until(lambda: not any(map(runs, map(int, [file.name for file in folder.glob("[0-9]*")]))), 20)
    if number != signal.SIGKILL:
        assert output.startswith("step ") and int(output.split()[1]) > 0
        assert (folder / "state.safetensors").exists()


def runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


RANKS = """
import sys
from tests.supernet.test_loading import *
from gantailor.supernet.training import distributed
distributed.join()
run = trainer(1, RECIPE.model_copy(update={"accumulate": 2}))
torch.save(run.run().state_dict(), f"{sys.argv[1]}.{distributed.rank()}")
"""


@pytest.mark.long
def test_processes_that_each_read_their_rows_train_what_one_does(tmp_path):
    script, state = tmp_path / "rank.py", str(tmp_path / "state")
    script.write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script), state]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    whole, start = trainer().run().state_dict(), trainer().task.generator.state_dict()
    zero, one = (torch.load(f"{state}.{rank}", weights_only=True) for rank in range(2))
    for name, value in whole.items():
        assert torch.equal(zero[name], one[name])
        assert float((zero[name] - value).abs().max()) < 0.01 * float((start[name] - value).abs().max())
