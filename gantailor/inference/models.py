"""Exports opened, whichever runtime they are for: as a module that is scored, and as what ``gantailor run`` applies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gantailor.api import load
from gantailor.export.devices import Device
from gantailor.export.errors import ExportError
from gantailor.export.export import Exported, load_runner, model_files
from gantailor.export.target import Runner, find_target
from gantailor.export.weights import FILE, ORIGIN, read_weights
from gantailor.run.folder import damaged
from gantailor.supernet.errors import ConfigError, UnreadableError, first_line, nearest, why_of
from gantailor.supernet.files import stored_info
from gantailor.supernet.received.documents import read_json
from gantailor.supernet.received.signature import is_own
from gantailor.supernet.traits import plain_generator, traits_of

CHANNELS = (1, 3, 4)  # grey, RGB, RGB and alpha
TORCH = "torch"  # the name of the weights themselves, run by PyTorch
Sides = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True, kw_only=True)
class PictureModel:
    """A model from a picture to a picture.

    Attributes:
        name: where it lies, for messages.
        run: float32 ``[1, channels, H, W]`` to ``[1, channels of the output, ...]``, in ``picture_range`` both.
        channels: of the input.
        size: the only height and width that it takes; None where they are free.
        multiple: free sides are multiples of it, and at most ``largest``.
        picture_range: black and white.
        digest: of its files; another model has another one.
    """

    name: str
    run: Callable[[np.ndarray], np.ndarray]
    channels: int
    size: Sides | None = None
    multiple: int = 1
    largest: int | None = None
    picture_range: tuple[float, float] = (-1, 1)
    digest: str = ""

    @property
    def takes(self) -> str:
        """The size of its pictures in words."""
        return " x ".join(map(str, self.size)) if self.size else "any size"

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """``[channels, H, W]`` to ``[C, H', W']``.

        Raises:
            ExportError: the runtime fails, or what it makes is no picture.
        """
        try:
            made = self.run(np.ascontiguousarray(picture[None], np.float32))
        except Exception as error:  # whatever a runtime, or a generator of one's own, raises
            sides = " x ".join(map(str, picture.shape[1:]))
            raise ExportError(
                f"{self.name!r} cannot take {sides} pixels: {first_line(error)}; try another --tile"
            ) from error
        if made.ndim != 4 or made.shape[1] not in CHANNELS:
            raise ExportError(_no_picture(self.name, f"makes {list(made.shape)}"))
        picture_made: np.ndarray = made[0]
        return picture_made


@dataclass(frozen=True)
class _Call:
    """How a model is opened."""

    threads: int | None
    trust_code: bool


def _no_picture(name: str, why: str) -> str:
    return (
        f"{name!r} {why}: it is not from one picture to one; gantailor run is for generators of pictures [1, C, H, W] "
        f"of {', '.join(map(str, CHANNELS))} channels"
    )


def open_model(
    path: str | Path, *, device: str | None = None, threads: int | None = None, trust_code: bool = False
) -> PictureModel:
    """The model of a run folder, of its ``export``, of one device's folder there, or of a file in it.

    Of several devices it is the first that runs here, one that takes any size before one that takes one; without any
    the weights themselves, by PyTorch.

    Args:
        device: of a run's exports this one; ``torch`` is the weights.
        threads: of a call; as exported, if missing.
        trust_code: import the generator or the runtime that it names, though somebody else made it.

    Raises:
        ExportError: there is no export, none that runs here, or it is not from one picture to one.
        ConfigError: there is nothing, or no such device.
        RunError: a manifest is damaged.
    """
    place, call = Path(path), _Call(threads, trust_code)
    if not place.exists():
        raise ConfigError(f"{str(path)!r} does not exist; give a run folder, its export/DEVICE, or a file there")
    if place.is_file():
        weights = place.suffix == ".safetensors"
        return _of_weights(place, call) if weights else _of_device(place.parent, call)
    folder = place / "export" if (place / "config.json").exists() else place
    manifest = read_manifest(folder)
    if "devices" not in manifest:
        return _of_device(folder, call)
    with damaged(folder / "manifest.json"):
        known = _by_use(manifest["devices"])
    if device is not None and device not in known:
        raise ConfigError(f"{str(folder)!r} has no export for --device {device!r}; {nearest(device, known)}")
    return _of_run(folder, [device] if device else known, call)


def _by_use(devices: Mapping[str, Any]) -> list[str]:
    return [*sorted(devices, key=lambda name: devices[name].get("size") != "dynamic"), TORCH]


def _of_run(folder: Path, names: list[str], call: _Call) -> PictureModel:
    """The first that can be opened; if none can, the reason of the first."""
    failed: list[ExportError] = []
    for name in names:
        try:
            return _of_weights(folder / FILE, call) if name == TORCH else _of_device(folder / name, call)
        except ExportError as error:
            failed.append(error)
    raise failed[0]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an export, or of one device's folder in it.

    Raises:
        ExportError: there is none, or it cannot be read.
    """
    file = folder / "manifest.json"
    if not file.exists():
        run = folder.parent if folder.name == "export" else folder
        raise ExportError(f"{str(folder)!r} holds no export; run: gantailor export {run} --device onnxruntime-cpu")
    try:
        found: dict[str, Any] = read_json(file)
    except (OSError, UnreadableError) as error:
        raise ExportError(f"{str(file)!r} cannot be read ({why_of(error)}); export anew") from None
    return found


@dataclass(frozen=True)
class DeviceFolder:
    """What was exported for one device.

    Attributes:
        folder: where it lies.
        manifest: what ``manifest.json`` there says.
        profile: the device that it was made for, with as many threads as are wanted.
    """

    folder: Path
    manifest: Mapping[str, Any]
    profile: Device

    @classmethod
    def read(cls, folder: Path, *, threads: int | None = None, trust_code: bool = False) -> DeviceFolder:
        """A folder of an export.

        Args:
            trust_code: import the runtime that it names, though somebody else made it.

        Raises:
            ExportError: it has no manifest that can be read; or somebody else made it, and its runtime is code.
            RunError: its manifest is damaged.
        """
        manifest = read_manifest(folder)
        with damaged(folder / "manifest.json"):
            settings = {key: manifest[key] for key in Device.model_fields if key in manifest}
            wanted = {"name": manifest["device"], "threads": threads or manifest["threads"]}
            found = cls(folder, manifest, Device.model_validate({**settings, **wanted}))
            _ = found.file, manifest["shapes"][0]
        runtime = found.profile.runtime
        if ":" in runtime and not (trust_code or is_own(runtime, manifest.get("mark"))):
            raise ExportError(
                f"{str(folder)!r} was not made by you on this machine, and names what would be imported: runtime "
                f"{runtime!r}; where you trust who made it, pass --trust-code, or export anew"
            )
        return found

    @property
    def file(self) -> Path:
        """The model, or the first of its files."""
        return self.folder / str(self.manifest["file"])

    def check_files(self) -> None:
        """That all files of the model are there.

        Raises:
            ExportError: some are not.
        """
        names = self.manifest.get("sha256", [self.file.name])
        if missing := [name for name in names if not (self.folder / name).is_file()]:
            raise ExportError(f"{str(self.folder)!r} lacks {', '.join(missing)}; copy the whole folder, or export anew")

    def runner(self) -> Runner:
        """The model in its runtime.

        Raises:
            ExportError: a file is missing, it does not run here, or the runtime is missing.
        """
        self.check_files()
        return load_runner(self.file, self.profile)


def open_generator(path: str | Path, *, threads: int | None = None, trust_code: bool = False) -> nn.Module:
    """Any exported generator as a module whose pictures lie in [-1, 1], for evaluators.

    Args:
        path: a ``model.safetensors``, one device's folder, or a model file in it.
        threads: of a runtime; as exported, if missing.
        trust_code: see ``gantailor.load``.

    Raises:
        CheckpointError, ExportError: it cannot be read, or does not run here.
    """
    place = Path(path)
    if place.suffix == ".safetensors":
        return load(place, trust_code=trust_code)
    found = DeviceFolder.read(place if place.is_dir() else place.parent, threads=threads, trust_code=trust_code)
    profile, shapes = found.profile, found.manifest["shapes"]
    described = found.manifest.get("inputs", [{}])[0]
    multiple = profile.size_multiple if profile.size == "dynamic" else 1
    return Exported(
        found.runner(),
        batch=None if profile.batch == "dynamic" else 1,
        picture_range=profile.picture_range,
        input_shapes=tuple(tuple(n if isinstance(n, int) else multiple for n in shape[1:]) for shape in shapes),
        takes=described.get("kind"),
        size_multiple=multiple,
    )


def is_exported(path: str | Path) -> bool:
    """Whether a file or folder is an export, so that it says itself how it is opened; other checkpoints are not."""
    place = Path(path)
    if place.suffix == ".safetensors":
        return place.is_file() and set(ORIGIN) <= set(stored_info(place))
    manifest = (place if place.is_dir() else place.parent) / "manifest.json"
    if not place.exists() or not manifest.is_file():
        return False
    file = Path(str(read_manifest(manifest.parent).get("file", "")))
    return bool(file.name) and (place.is_dir() or place.stem == file.stem)


def described(path: str | Path) -> dict[str, Any]:
    """What an export says of itself as settings of a run: ``generator``, ``options`` and ``data.size``.

    A generator of somebody's own is not named: it would be imported.
    """
    place = Path(path)
    if place.suffix == ".safetensors":
        _, origin = read_weights(place, trust_code=True)  # only looked at
        shape, said = origin["input_shapes"][0], origin
    else:
        said = read_manifest(place if place.is_dir() else place.parent)
        shape = said["shapes"][0]
    found = {name: said[name] for name in ("generator", "options") if ":" not in str(said.get("generator", ":"))}
    sides = [side for side in shape[2:] if isinstance(side, int)]
    return found | ({"data.size": sides} if len(shape) == len(sides) + 2 == 4 else {})


def _of_device(folder: Path, call: _Call) -> PictureModel:
    """The model of one device's folder."""
    found, name = DeviceFolder.read(folder, threads=call.threads, trust_code=call.trust_code), str(folder)
    channels, profile = _channels(found.manifest, name), found.profile
    shape, free = found.manifest["shapes"][0], profile.size == "dynamic"
    return PictureModel(
        name=name,
        run=found.runner(),
        channels=channels,
        size=None if free else (shape[2], shape[3]),
        multiple=profile.size_multiple if free else 1,
        largest=profile.largest_side,
        picture_range=profile.picture_range,
        digest=_digest(model_files(folder, find_target(profile.runtime))),
    )


def _channels(manifest: Mapping[str, Any], name: str) -> int:
    """Of the one picture that a device's model takes.

    Raises:
        ExportError: it takes something else.
    """
    inputs = manifest.get("inputs", [])
    if len(inputs) > 1:
        raise ExportError(_no_picture(name, f"takes {len(inputs)} inputs"))
    shape = manifest.get("shapes", [[]])[0]
    if len(shape) != 4 or shape[1] not in CHANNELS:
        raise ExportError(_no_picture(name, f"takes {shape}"))
    pictures = list(manifest.get("picture_range", [-1, 1]))
    if inputs and inputs[0].get("range") != pictures:
        raise ExportError(_no_picture(name, f"takes values in {inputs[0].get('range') or 'no range'}"))
    return int(shape[1])


def _of_weights(file: Path, call: _Call) -> PictureModel:
    """The generator of an export's weights, by PyTorch; of any size."""
    _, origin = read_weights(file, trust_code=call.trust_code)
    (_, *shape), more = origin["input_shapes"][0], origin["input_shapes"][1:]
    generator = load(file, trust_code=call.trust_code)
    traits = traits_of(plain_generator(generator))
    if more or len(shape) != 3 or shape[0] not in CHANNELS or traits.takes != "pictures":
        told = f"{1 + len(more)} inputs" if more else f"{traits.takes} {[1, *shape]}"
        raise ExportError(_no_picture(str(file), f"takes {told}"))
    return PictureModel(
        name=str(file),
        run=_by_torch(generator, call.threads),
        channels=shape[0],
        multiple=traits.size_multiple,
        picture_range=getattr(plain_generator(generator), "picture_range", (-1, 1)),
        digest=_digest([file]),
    )


def _by_torch(generator: nn.Module, threads: int | None) -> Callable[[np.ndarray], np.ndarray]:
    @torch.inference_mode()
    def run(picture: np.ndarray) -> np.ndarray:
        if threads is not None:
            torch.set_num_threads(threads)
        made: np.ndarray = generator(torch.from_numpy(picture)).numpy()
        return made

    return run


def _digest(files: list[Path]) -> str:
    def parts() -> Iterator[bytes]:
        for file in files:
            yield file.name.encode()
            yield hashlib.sha256(file.read_bytes()).digest()

    return hashlib.sha256(b"".join(parts())).hexdigest()
