"""The tests that every generator family and every kind of data pass, one's own too.

    class TestMine(GeneratorConformance):
        name = "mymodule:MINE"
        options = {"width": 8}

    class TestMyData(DataKindConformance):
        def config(self, folder):
            return DataConfig(kind="mymodule:MY_DATA", size=32)

        def changed(self, folder):
            return DataConfig(kind="mymodule:MY_DATA", size=32, options={"fold": 1})

``pytest`` runs them.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gantailor.supernet.calling import Inputs, as_tuple, first, rows_of
from gantailor.supernet.errors import CheckpointError, ConfigError, DataError, GantailorError
from gantailor.supernet.files import save_tensors
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.batches import Move
from gantailor.supernet.traits import Traits, traits_of
from gantailor.supernet.verify import verify
from gantailor.zoo.checkpoints import load_teacher
from gantailor.zoo.data import SPLITS
from gantailor.zoo.data.config import DataConfig
from gantailor.zoo.data.latents import Latents
from gantailor.zoo.data.pairs import Pairs
from gantailor.zoo.data.read import find_kind, read_domains, read_split, whole
from gantailor.zoo.data.record import DataSet
from gantailor.zoo.generators.record import Generator, build, find_generator

WIDTH = 7  # of the latents that a kind of data stands beside


def _refusal(call: Callable[[], object], kind: type[GantailorError]) -> str:
    """The message with which a call is refused."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


class GeneratorConformance:
    """Inherit and say which generator.

    Attributes:
        name: of the zoo, or ``module:name``.
        options: as small as the generator allows.
        shapes: of the inputs, without batch; None: what the module declares (``input_shapes``).
        bounded: outputs lie in [-1, 1]; a generator of latents may go a little beyond.
        repair: verification may freeze widths that the trace got wrong, as every stage of a run does.
    """

    name = ""
    options: Mapping[str, Any] = {}
    shapes: tuple[tuple[int, ...], ...] | None = None
    bounded = True
    repair = False

    def module(self, seed: int = 0) -> nn.Module:
        """A generator with fresh weights, in eval mode."""
        torch.manual_seed(seed)
        return build(self.name, **self.options).eval()

    def inputs(self, count: int = 2) -> tuple[Tensor, ...]:
        """Examples of what it takes, in [-1, 1] (latents: normal)."""
        traits = traits_of(self.module())
        shapes = self.shapes or traits.input_shapes
        assert shapes, "say its shapes: the module declares no input_shape"
        random = torch.Generator().manual_seed(1)
        draws = [torch.randn(count, *shape, generator=random) for shape in shapes]
        return tuple(draws if traits.takes == "latents" else (draw.clamp(-1, 1) for draw in draws))

    def test_record(self) -> None:
        """The name finds a record, whose task can train it."""
        record = find_generator(self.name)
        assert isinstance(record, Generator)
        assert record.training(self.module()).student is not None, "its task trains no students"

    def test_builds(self) -> None:
        """Fresh weights are a function of the global seed; an option that it lacks is named."""
        first, second, other = (self.module(seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)
        assert "has no option 'widht'" in _refusal(lambda: build(self.name, widht=1), ConfigError)

    def test_traits(self) -> None:
        """What the module declares about itself is whole: shapes it runs on, layers that it has."""
        traits = traits_of(self.module())
        if traits.input_shapes:
            with torch.device("meta"):
                made = build(self.name, **self.options).eval()
                assert made(*(torch.empty(1, *shape) for shape in traits.input_shapes)).ndim == 4

    @torch.no_grad()
    def test_forward(self) -> None:
        """Float pictures ``[N, C, H, W]``, finite, in range, each independent of the rest of its batch."""
        module, inputs = self.module(), self.inputs()
        made = module(*inputs)
        assert made.ndim == 4 and len(made) == len(inputs[0]) and made.dtype == torch.float32
        assert torch.isfinite(made).all()
        assert not self.bounded or float(made.abs().max()) <= 1
        torch.testing.assert_close(module(*(x[1:] for x in inputs)), made[1:], atol=1e-4, rtol=1e-3)

    def test_traces_and_verifies(self) -> None:
        """Widths are found, and narrowing, exchanging and removing channels is what the trace says, in float64."""
        supernet = Supernet(self.module(), self.inputs())
        assert supernet.graph.widths, "nothing can be narrowed"
        proof = verify(supernet, repair=self.repair)
        if proof.bits == 64:
            assert proof.sliced_extracted <= 1e-12 and proof.permuted <= 1e-8 and proof.removed <= 1e-8

    @torch.no_grad()
    def test_state_dict_round_trip(self) -> None:
        """All that it computes with is in its state dict."""
        module, other, inputs = self.module(), self.module(1), self.inputs()
        other.load_state_dict(module.state_dict())
        assert torch.equal(module(*inputs), other(*inputs))

    @torch.no_grad()
    def test_checkpoint_round_trip(self, tmp_path: Path) -> None:
        """``load_teacher`` reads what PyTorch saved (prefixed too) and what we save; both give the same pictures."""
        module, inputs = self.module(), self.inputs()
        torch.save({f"module.{key}": value for key, value in module.state_dict().items()}, tmp_path / "net.pth")
        save_tensors(tmp_path / "net.safetensors", module.state_dict(), {})
        for file in ("net.pth", "net.safetensors"):
            read = load_teacher(tmp_path / file, generator=self.name, **self.options)
            assert not read.training and torch.equal(module(*inputs), read(*inputs)), file

    def test_another_architecture_is_named(self, tmp_path: Path) -> None:
        """A file of other weights is refused with a message."""
        torch.save({"strange.weight": torch.zeros(1)}, tmp_path / "net.pth")
        _refusal(lambda: load_teacher(tmp_path / "net.pth", generator=self.name, **self.options), CheckpointError)

    def test_defaults(self) -> None:
        """A run's settings are plain values, whatever the user's are."""
        for own in ({}, {"data": {"kind": "folder"}, "teacher": "mine.pth"}):
            json.dumps(dict(find_generator(self.name).defaults(own)))

    def test_shipped(self) -> None:
        """What is shipped can be read."""
        record = find_generator(self.name)
        if record.shipped_teacher is not None:
            read = load_teacher(record.shipped_teacher, generator=self.name, **(record.shipped_options or {}))
            assert all(torch.isfinite(value).all() for value in read.state_dict().values())
            assert record.teacher_file(record.shipped_options or {}) == record.shipped_teacher
        assert record.shipped_discriminator is None or record.shipped_discriminator.exists()


class DataKindConformance:
    """Inherit and say which data, in two versions; ``folder`` is empty, for files that they need."""

    def config(self, folder: Path) -> DataConfig:
        """The ``data`` section of a small data set with every split."""
        raise NotImplementedError("say which data")

    def changed(self, folder: Path) -> DataConfig:
        """The same with other pictures."""
        raise NotImplementedError("say what changes it")

    def touch(self, folder: Path) -> bool:
        """Change one pixel of a training picture in the files of ``config``; False where there are none."""
        return False

    def test_every_split(self, tmp_path: Path) -> None:
        """Train, search and test hold pictures of the configured size, in range, with a source for provenance."""
        config = self.config(tmp_path)
        kind = find_kind(config.kind)
        for split in SPLITS:
            data = read_split(config, split)
            assert len(data) > 0 and data.source, split
            given, targets = data.batch(np.arange(len(data)))
            inputs, *others = as_tuple(given)
            assert not data.paired or targets is not None, "paired data have targets"
            assert all(len(other) == len(data) and other.dtype == torch.float32 for other in others)
            for images, shape in ((inputs, config.shape), (targets, target_shape(config))):
                if images is not None:
                    assert images.dtype == torch.float32 and images.ndim == 4 and len(images) == len(data)
                    assert images.shape[2:] == shape
            assert targets is None or (targets.shape[1] == config.channels_of(1) and float(targets.abs().max()) <= 1)
            if kind.yields == "labels":
                assert bool(((inputs == 0) | (inputs == 1)).all())
            else:
                assert float(inputs.abs().max()) <= 1
        _refusal(lambda: read_split(config, "tset"), DataError)

    def test_rows(self, tmp_path: Path) -> None:
        """A batch holds the rows that were asked for, in that order."""
        data = read_split(self.config(tmp_path), "train")
        every, _ = data.batch(np.arange(len(data)))
        rows = np.arange(len(data))[::-2].copy()
        expected = as_tuple(rows_of(every, torch.from_numpy(rows)))
        assert all(map(torch.equal, as_tuple(data.batch(rows)[0]), expected))

    def test_deterministic(self, tmp_path: Path) -> None:
        """Read again it is the same."""
        config = self.config(tmp_path)
        for split in SPLITS:
            first, second = read_split(config, split), read_split(config, split)
            assert first.digest() == second.digest() and len(first) == len(second)
            for one, two in zip(_few(first), _few(second), strict=True):
                assert (one is None and two is None) or (one is not None and two is not None and torch.equal(one, two))

    def test_digest_changes(self, tmp_path: Path) -> None:
        """Other pictures, another digest."""
        digests = []
        for name in ("config", "changed"):
            folder = tmp_path / name
            folder.mkdir()
            digests.append(read_split(getattr(self, name)(folder), "train").digest())
        assert digests[0] != digests[1]

    def test_digest_knows_every_pixel(self, tmp_path: Path) -> None:
        """One pixel changed, another digest."""
        config = self.config(tmp_path)
        before = read_split(config, "train").digest()
        if self.touch(tmp_path):
            assert read_split(config, "train").digest() != before

    def test_names(self, tmp_path: Path) -> None:
        """Where items have names, each has one of its own, and those taken keep theirs."""
        data = read_split(self.config(tmp_path), "train")
        if isinstance(data, Pairs):
            assert len(data.names) == len(set(data.names)) == len(data)
            some = data.take(np.array([len(data) - 1, 0]))
            assert some.names == (data.names[-1], data.names[0])
            wanted = as_tuple(data.batch(np.array([len(data) - 1, 0]))[0])
            assert all(map(torch.equal, as_tuple(some.batch(np.arange(2))[0]), wanted))

    def test_other_processes_can_read_it(self, tmp_path: Path) -> None:
        """It is pickled for them, and reads the same there."""
        data = read_split(self.config(tmp_path), "train")
        data.batch(np.arange(1))  # what is open then stays behind
        other = pickle.loads(pickle.dumps(data))
        assert other.digest() == data.digest() and len(other) == len(data)
        for one, two in zip(_few(data), _few(other), strict=True):
            assert (one is None and two is None) or (one is not None and two is not None and torch.equal(one, two))

    def test_further_inputs_move_along(self, tmp_path: Path) -> None:
        """Pictures among them are mirrored where the first is; vectors stay."""
        data = read_split(self.config(tmp_path), "train")
        rows = np.arange(min(2, len(data)))
        plain, mirrored = (
            as_tuple(data.batch(rows, moves=[Move(mirror, 0, 0)] * len(rows))[0]) for mirror in (False, True)
        )
        moved = torch.equal(mirrored[0], plain[0].flip(3))
        for one, two in zip(plain[1:], mirrored[1:], strict=True):
            assert torch.equal(two, one.flip(3) if moved and one.ndim == plain[0].ndim else one)

    def test_moves(self, tmp_path: Path) -> None:
        """Pictures and targets move together, or not at all."""
        data = read_split(self.config(tmp_path), "train")
        rows = np.arange(min(2, len(data)))
        plain = _shown(data.batch(rows))
        still = _shown(data.batch(rows, moves=[Move(False, 0, 0)] * len(rows)))
        mirrored = _shown(data.batch(rows, moves=[Move(True, 0, 0)] * len(rows)))
        assert torch.equal(plain[0], still[0])
        moved = torch.equal(mirrored[0], plain[0].flip(3))
        assert moved or torch.equal(mirrored[0], plain[0])
        if plain[1] is not None and mirrored[1] is not None:
            assert torch.equal(mirrored[1], plain[1].flip(3) if moved and data.paired else plain[1])
        shifted, _ = _shown(data.batch(rows, moves=[Move(False, 1, 2)] * len(rows)))
        expected = plain[0][:, :, :-1, :-2] if moved else shifted[:, :, 1:, 2:]
        assert torch.equal(shifted[:, :, 1:, 2:], expected)

    def test_domains(self, tmp_path: Path) -> None:
        """Two sets of pictures, uint8 or float32, or one clear message."""
        config = self.config(tmp_path)
        if find_kind(config.kind).domains is None:
            assert "two sets of pictures" in _refusal(lambda: read_domains(config), DataError)
            return
        domains = read_domains(config)
        for side, images in enumerate((domains.a, domains.b)):
            assert images.dtype in (np.uint8, np.float32) and len(images)
            assert images.shape[1:] == (*config.shape, config.channels_of(side))

    def test_beside_latents(self, tmp_path: Path) -> None:
        """A generator from latents gets other ones in each split, beside the training pictures."""
        config = self.config(tmp_path)
        if not isinstance(config.size, int):
            return  # they make square pictures
        traits = Traits(input_shapes=((WIDTH,),), takes="latents", size=config.size)
        found = {split: read_split(config, split, traits) for split in SPLITS}
        assert len({data.digest() for data in found.values()}) == len(SPLITS)
        count = len(read_split(whole(config), "train"))
        for data in found.values():
            assert isinstance(data, Latents) and not data.paired and len(data) == count
            latents, real = _shown(data.batch(np.arange(1)))
            assert (
                latents.shape == (1, WIDTH)
                and real is not None
                and real.shape == (1, config.channels_of(1), *target_shape(config))
            )
        other = Traits(input_shapes=((WIDTH,),), takes="latents", size=2 * config.size)
        assert "make them the same" in _refusal(lambda: read_split(config, "train", other), ConfigError)


def target_shape(config: DataConfig) -> tuple[int, int]:
    """Height and width of targets."""
    scale = config.scale or 1
    return scale * config.shape[0], scale * config.shape[1]


def _few(data: DataSet) -> tuple[Tensor | None, ...]:
    given, targets = data.batch(np.arange(min(3, len(data))))
    return (*as_tuple(given), targets)


def _shown(batch: tuple[Inputs, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """The first input, and the targets."""
    return first(batch[0]), batch[1]
