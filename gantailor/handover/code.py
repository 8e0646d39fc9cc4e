"""The few lines that turn a picture into a picture with one runtime, numpy and Pillow: written out for an export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODES = {"RGB": "RGB", "grey": "L", "RGBA": "RGBA"}  # Pillow's words


@dataclass(frozen=True)
class Calls:
    """How one runtime is called, in lines of Python.

    Attributes:
        install: packages besides numpy and Pillow, as pip takes them.
        imports: of the runtime.
        load: lines before a picture is read.
        one: from the single input ``x``, float32 ``[1, ...]``, to the output ``y``, ``[1, C, H, W]``.
        several: the same from ``stored``, arrays by the names of the inputs.
    """

    install: str
    imports: tuple[str, ...]
    load: tuple[str, ...]
    one: tuple[str, ...]
    several: tuple[str, ...]


def program(manifest: Mapping[str, Any], *, weights: bool = False) -> str:
    """A script: ``python apply.py input.png made.png``; of inputs that are no picture from ``input.npz``.

    Args:
        manifest: of one device's export, or with ``weights`` of the whole.
        weights: of ``model.safetensors``, by PyTorch and gantailor.
    """
    calls, picture = calls_of(manifest, weights=weights), takes_picture(manifest)
    standard = sorted(["import sys", *(line for line in calls.imports if line in STANDARD)])
    others = [line for line in calls.imports if line not in STANDARD]
    others += ["import numpy as np", f"from PIL import Image{', ImageOps' if picture else ''}"]
    lines = [*standard, "", *sorted(others, key=lambda line: line.split()[1].lower()), ""]
    lines += ["source, target = sys.argv[1:]", *calls.load]
    lines += [*_read(manifest), *calls.one] if picture else ["stored = dict(np.load(source))", *calls.several]
    return "\n".join([*lines, *_written(manifest)]) + "\n"


STANDARD = ("import json", "import pathlib", "import runpy", "import types")


def takes_picture(manifest: Mapping[str, Any]) -> bool:
    """Whether one picture goes in, so that a PNG becomes a PNG."""
    return len(manifest["inputs"]) == 1 and "prepare" in manifest["pictures"]


def calls_of(manifest: Mapping[str, Any], *, weights: bool = False) -> Calls:
    """How an export is called."""
    if weights:
        return _torch(manifest)
    return BY_RUNTIME.get(str(manifest["runtime"]), _any)(manifest)


def _torch(manifest: Mapping[str, Any]) -> Calls:
    names = ", ".join(f"torch.from_numpy(stored[{_quoted(one['name'])}])" for one in manifest["inputs"])
    return Calls(
        "gantailor",
        ("import gantailor", "import torch"),
        ('generator = gantailor.load("model.safetensors")',),
        ("with torch.no_grad():", "    y = generator(torch.from_numpy(x)).numpy()"),
        ("with torch.no_grad():", f"    y = generator({names}).numpy()"),
    )


def _onnxruntime(manifest: Mapping[str, Any]) -> Calls:
    providers = list(dict.fromkeys([*manifest["providers"], "CPUExecutionProvider"]))
    return Calls(
        "onnxruntime",
        ("import onnxruntime",),
        (f"session = onnxruntime.InferenceSession({_quoted(manifest['file'])}, providers={_quoted(providers)})",),
        (f"y = session.run(None, {{{_quoted(manifest['inputs'][0]['name'])}: x}})[0]",),
        ("y = session.run(None, stored)[0]",),
    )


def _ncnn(manifest: Mapping[str, Any]) -> Calls:
    half = manifest["precision"] == "float16"
    options = "net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic"
    end = f"y = np.array(extractor.extract({_quoted(manifest['outputs'][0]['name'])})[1])[None]"
    given = f"extractor.input({_quoted(manifest['inputs'][0]['name'])}, ncnn.Mat(held).clone())"
    return Calls(
        "ncnn",
        ("import ncnn",),
        ("net = ncnn.Net()", f"{options} = {half}", 'net.load_param("model.param")', 'net.load_model("model.bin")'),
        (
            "extractor = net.create_extractor()",
            "held = np.ascontiguousarray(x[0])  # a Mat does not hold it",
            given,
            end,
        ),
        (
            "extractor = net.create_extractor()",
            "for name, array in stored.items():",
            "    held = np.ascontiguousarray(array[0])",
            "    extractor.input(name, ncnn.Mat(held).clone())",
            end,
        ),
    )


def _litert(manifest: Mapping[str, Any]) -> Calls:
    name, made = _quoted(manifest["inputs"][0]["name"]), _quoted(manifest["outputs"][0]["name"])
    return Calls(
        "ai-edge-litert",
        ("from ai_edge_litert.interpreter import Interpreter",),
        (f"model = Interpreter(model_path={_quoted(manifest['file'])}).get_signature_runner()",),
        (f"y = model(**{{{name}: x}})[{made}]",),
        (f"y = model(**stored)[{made}]",),
    )


def _any(manifest: Mapping[str, Any]) -> Calls:
    """By ``runtime.py`` beside the model, which every export has."""
    fed = ", ".join(f"stored[{_quoted(one['name'])}]" for one in manifest["inputs"])
    return Calls(
        str(manifest["runtime"]).partition(":")[0],
        STANDARD,
        (
            'manifest = json.loads(pathlib.Path("manifest.json").read_text())',
            'load = runpy.run_path("runtime.py")["load"]',
            'model = load(pathlib.Path(manifest["file"]), types.SimpleNamespace(**manifest))',
        ),
        ("y = model(np.ascontiguousarray(x))",),
        (f"y = model({fed})",),
    )


BY_RUNTIME = {"onnxruntime": _onnxruntime, "ncnn": _ncnn, "litert": _litert}


def _read(manifest: Mapping[str, Any]) -> list[str]:
    """From a file to ``x``, as the manifest's ``pictures.prepare`` says."""
    prepare, channels = manifest["pictures"]["prepare"], manifest["inputs"][0]["channels"]
    low, high = map(int, manifest["inputs"][0]["range"])
    background = prepare["transparent"].removeprefix("laid on ")
    lines = ['picture = ImageOps.exif_transpose(Image.open(source)).convert("RGBA")']
    if channels != "RGBA":
        lines += [f"ground = Image.new({_quoted('RGBA')}, picture.size, {_quoted(background)})"]
        lines += [f"picture = Image.alpha_composite(ground, picture).convert({_quoted(MODES[channels])})"]
    lines += _sized(manifest, prepare, background)
    shades = "np.asarray(picture, np.float32)"
    shades = f"{shades}[None, None]" if channels == "grey" else f"{shades}.transpose(2, 0, 1)[None]"
    return [*lines, f"x = {shades} * np.float32({high - low} / 255){f' - {-low}' if low else ''}"]


def _sized(manifest: Mapping[str, Any], prepare: Mapping[str, Any], background: str) -> list[str]:
    """A picture of another shape, brought to size."""
    if prepare["size"] is None:
        multiple = int(manifest["inputs"][0].get("multiple_of", 1))
        cut = f"(0, 0, picture.width // {multiple} * {multiple}, picture.height // {multiple} * {multiple})"
        return [f"picture = picture.crop({cut})"] if multiple > 1 else []
    height, width = map(int, prepare["size"])
    size, filtered = f"({width}, {height})", "Image.Resampling.BICUBIC"
    by_rule = {
        "stretch": f"picture = picture.resize({size}, {filtered})",
        "scale-and-crop": f"picture = ImageOps.fit(picture, {size}, {filtered})",
        "crop": f"left, top = (picture.width - {width}) // 2, (picture.height - {height}) // 2\n"
        f"picture = picture.crop((left, top, left + {width}, top + {height}))",
        "pad": f"picture = ImageOps.pad(picture, {size}, {filtered}, color={_quoted(background)})",
    }
    return [by_rule[prepare["resize"]]]


def _written(manifest: Mapping[str, Any]) -> list[str]:
    """From ``y`` to a file, as ``pictures.read_back`` says."""
    end = manifest["outputs"][0]
    low, high = map(int, end["range"])
    scaled = f"(y[0] - {low})" if low > 0 else f"(y[0] + {-low})" if low else "y[0]"
    shades = f"np.rint({scaled} * {_number(255 / (high - low))}).clip(0, 255).astype(np.uint8)"
    shades = f"{shades}[0]" if end["channels"] == "grey" else f"{shades}.transpose(1, 2, 0)"
    return [f"pixels = {shades}", "Image.fromarray(pixels).save(target)"]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _quoted(value: Any) -> str:
    """A word, or a list of such, as Python is written here: whatever a manifest says stays a text."""
    return json.dumps(value)
