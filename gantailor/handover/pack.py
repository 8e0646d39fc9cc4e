"""One file to hand over: the exported models, what an app must know, samples, and the lines that run each."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gantailor.api import load
from gantailor.export.devices import is_name
from gantailor.export.errors import ExportError
from gantailor.export.weights import FILE
from gantailor.handover.card import FILE as CARD
from gantailor.handover.code import MODES, calls_of, program, takes_picture
from gantailor.inference.models import DeviceFolder, read_manifest
from gantailor.run.folder import RunFolder, damaged
from gantailor.supernet.errors import ConfigError, GantailorError
from gantailor.supernet.files import write_bytes
from gantailor.zoo.generators.given import is_given

BESIDE = ("manifest.json", "scores.json", "check.npz", "bench.py", "runtime.py")  # a model's file, where they are
DATED = (1980, 1, 1, 0, 0, 0)  # of all entries: the same export makes the same file


def pack(run: str | Path, out: str | Path | None = None, *, trust_code: bool = False) -> Path:
    """Write a ZIP with everything that was exported of a run; neither its data nor its teacher are asked for.

    In it, in a folder of the run's name: the weights and a folder for each device with their manifests, ``apply.py``
    (the lines that turn ``input.png`` into ``output.png`` with that runtime, numpy and Pillow), these two pictures, and
    a ``README.md``. Where a generator takes something else than one picture, ``input.npz`` holds its inputs. Of a
    module that was given from Python the weights are there alone, and the lines are the devices'.

    Args:
        run: a run folder, or its ``export``.
        out: the file; beside the run folder, of its name, if missing.
        trust_code: see ``gantailor.load``.

    Raises:
        ExportError: nothing was exported, or files of it are missing.
        ConfigError: the file's name does not end with ``.zip``.
    """
    place = Path(run)
    folder = place if (place / FILE).is_file() else RunFolder(place).export
    owner = folder.absolute().parent if folder.name == "export" else folder.absolute()
    target = Path(out) if out is not None else owner.with_name(f"{owner.name}.zip")
    if target.suffix != ".zip":
        raise ConfigError(f"--out {str(target)!r} must end with .zip")
    name, content = target.stem, io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for path, part in _entries(folder, name, trust_code=trust_code):
            packed.writestr(zipfile.ZipInfo(f"{name}/{path}", DATED), part, zipfile.ZIP_DEFLATED)
    write_bytes(target, content.getvalue())
    return target


def _entries(folder: Path, name: str, *, trust_code: bool) -> Iterator[tuple[str, bytes]]:
    """Names within the folder, and what they hold."""
    manifest = _manifest(folder)
    with damaged(folder / "manifest.json"):
        names = [name for name in manifest["devices"] if is_name(name)]
        devices = {name: DeviceFolder.read(folder / name, trust_code=trust_code) for name in names}
        for found in devices.values():
            found.check_files()
        inputs = _stored_inputs(next(iter(devices.values())), manifest) if devices else None
        if inputs is None:
            raise ExportError(f"{str(folder)!r} holds no device's model; run: gantailor export {folder.parent}")
        yield "README.md", _readme(name, manifest, devices).encode()
        for beside in (FILE, *BESIDE[:2]):
            if (folder / beside).is_file():
                yield beside, (folder / beside).read_bytes()
        if (folder / CARD).is_file():
            yield "MODEL_CARD.md", (folder / CARD).read_bytes()
        if not is_given(manifest["generator"]):  # a module from Python has no name to build it by, here or elsewhere
            generator = load(folder / FILE, trust_code=trust_code)
            yield "apply.py", program(manifest, weights=True).encode()
            yield from _samples(manifest, inputs, lambda fed: _by_torch(generator, fed), "")
        for device, found in devices.items():
            files = [*found.manifest["sha256"], *(one for one in BESIDE if (found.folder / one).is_file())]
            for file in map(Path, dict.fromkeys(files)):
                yield f"{device}/{file.name}", (found.folder / file.name).read_bytes()
            yield f"{device}/apply.py", program(found.manifest).encode()
            stored = _stored_inputs(found, found.manifest)
            yield from _samples(found.manifest, stored, lambda fed, one=found: _by_device(one, fed), f"{device}/")


def _manifest(folder: Path) -> dict[str, Any]:
    """What was exported.

    Raises:
        ExportError: nothing was, by an earlier version, or the manifest cannot be read.
    """
    found = read_manifest(folder)
    if "outputs" not in found or not (folder / FILE).is_file():
        raise ExportError(f"{str(folder)!r} is not whole, or was exported by an earlier version; export anew")
    return found


def _stored_inputs(found: DeviceFolder, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inputs that the export was compared on, by the names that a manifest has, in its range of pictures."""
    file = found.folder / "check.npz"
    if not file.is_file():
        raise ExportError(f"{str(found.folder)!r} lacks check.npz; export anew")
    with np.load(file, allow_pickle=False) as stored:
        arrays = [stored[name] for name in stored.files if name.startswith("input")]
    low, high = found.profile.picture_range
    if (low, high) != (-1, 1) and manifest is not found.manifest:
        arrays = [(one - low) * (2 / (high - low)) - 1 for one in arrays]
    return {one["name"]: array for one, array in zip(manifest["inputs"], arrays, strict=True)}


def _samples(manifest: Mapping[str, Any], inputs: Mapping[str, np.ndarray], run: Any, place: str) -> Iterator[Any]:
    """Sample inputs and what is made of them: of a picture the one that its file holds, in 8 bits."""
    if takes_picture(manifest):
        ((name, values),) = inputs.items()
        low, high = manifest["inputs"][0]["range"]
        shades = np.rint((values - low) * (255 / (high - low))).clip(0, 255)
        yield f"{place}input.png", _png(shades, manifest["inputs"][0]["channels"])
        inputs = {name: shades.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)}
    else:
        buffer = io.BytesIO()
        np.savez(buffer, **inputs)  # type: ignore[arg-type]
        yield f"{place}input.npz", buffer.getvalue()
    low, high = manifest["outputs"][0]["range"]
    made = np.rint((run(tuple(inputs.values())) - low) * (255 / (high - low))).clip(0, 255)
    yield f"{place}output.png", _png(made, manifest["outputs"][0]["channels"])


def _png(shades: np.ndarray, channels: str) -> bytes:
    """The first of ``[N, C, H, W]``, values from 0 to 255."""
    pixels = shades[0].astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if MODES[channels] == "L" else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _by_torch(generator: torch.nn.Module, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
    with torch.inference_mode():
        made: np.ndarray = generator(*map(torch.from_numpy, inputs)).numpy()
        return made


def _by_device(found: DeviceFolder, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
    """What a device's model makes; where it does not run here, what PyTorch made of the stored input."""
    try:
        return np.asarray(found.runner()(*map(np.ascontiguousarray, inputs)))
    except GantailorError:
        with np.load(found.folder / "check.npz", allow_pickle=False) as stored:
            kept: np.ndarray = stored["output"]
            return kept


README = """# {name}

A narrow `{generator}` generator, made by gantailor {version}: {macs:,} multiply-accumulates a picture, {ratio:.3g}x
fewer than its teacher, {parameters:,} parameters. Licence: {licence}.

| folder | runtime | precision | needs |
|---|---|---|---|
{table}

Each folder has `{given}` and the `output.png` that belongs to it. `manifest.json` says names, shapes, layout,
channels and ranges, how pictures are prepared and read back, and where all of it comes from. In a folder:

    python apply.py {given} made.png

"""


def _readme(name: str, manifest: Mapping[str, Any], devices: Mapping[str, DeviceFolder]) -> str:
    """What is in the file, in Markdown."""
    rows, texts = [], {}
    if not is_given(manifest["generator"]):
        rows.append(f"| `.` | PyTorch | float32 | `pip install gantailor` ({FILE} says how the generator is built) |")
        texts["."] = program(manifest, weights=True)
    for device, found in devices.items():
        said, install = found.manifest, calls_of(found.manifest).install
        rows.append(f"| `{device}` | {said['runtime']} | {said['precision']} | `pip install numpy pillow {install}` |")
        texts[device] = program(said)
    head = README.format(
        name=name,
        generator=manifest["generator"],
        version=manifest["provenance"]["gantailor"],
        macs=manifest["macs"]["true"],
        ratio=manifest["teacher_macs"]["true"] / max(1, manifest["macs"]["true"]),
        parameters=manifest["parameters"],
        licence=manifest["licence"] or "not said",
        table="\n".join(rows),
        given="input.png" if takes_picture(manifest) else "input.npz",
    )
    return head + "\n".join(f"## `{place}`\n\n```python\n{text}```\n" for place, text in texts.items())
