"""What an app has to know of an exported model: its inputs and outputs, and how pictures become values and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from torch import Tensor, nn

from gantailor.export.devices import Device
from gantailor.supernet.calling import Inputs, as_tuple, first, input_names
from gantailor.supernet.traits import plain_generator, traits_of

# What stands first in a manifest: an app needs these, and nobody else.
FOR_APPS = ("device", "file", "runtime", "precision", "inputs", "outputs", "pictures", "licence", "provenance")
CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA"}
LAYOUTS = {3: "NCL", 4: "NCHW", 5: "NCDHW"}
ENDS = ("input", "output")  # names where there is no file that has its own


def interface(
    model: nn.Module,
    fed: Inputs,
    made: Tensor,
    *,
    shapes: Sequence[Sequence[int | str]] | None = None,
    profile: Device | None = None,
    ends: tuple[str, str] = ENDS,
    fit: str = "stretch",
    background: str = "white",
) -> dict[str, Any]:
    """``inputs`` and ``outputs``, in the order of the forward, and for pictures ``pictures``: how they are read.

    An end has ``name``, ``shape``, ``dtype``, ``layout``, ``kind`` (``pictures``, ``labels``, ``latents`` or
    ``vector``), ``channels`` (``RGB``, ``grey``, ``RGBA``; None where they are no colours) and ``range`` (None: any
    values). An input also has ``fed``, the least and largest value of what the export was compared on, and where sides
    are free ``multiple_of``, and ``at_most`` if they are bounded.

    Args:
        fed: what the model was compared on, ``[N, ...]``.
        made: what it makes of the first of them, ``[1, ...]``.
        shapes: of the inputs as the file has them, with ``batch``, ``height`` and ``width`` where they are free.
        profile: what it was written for; None of the weights alone.
        ends: what the file calls a single input, and the output.
        fit: how pictures of another shape are brought to size, as ``data.fit``.
        background: what transparent pixels are laid on.
    """
    several, takes = as_tuple(fed), traits_of(plain_generator(model)).takes
    span = (-1, 1) if profile is None else profile.picture_range
    shapes = shapes or [[1, *one.shape[1:]] for one in several]
    kinds = [takes, *("pictures" if _has_pixels(one) else "vector" for one in several[1:])]
    inputs = []
    for name, one, shape, kind in zip(_names(model, len(several), ends[0]), several, shapes, kinds, strict=True):
        own = range_of(one) if span == (-1, 1) else list(span)
        entry = _end(name, shape, kind, own, one)
        entry["fed"] = [round(float(end), 4) for end in (one.min(), one.max())]
        inputs.append(entry | _bounds(shape, profile))
    output = _end(ends[1], _made_shape(made, first(fed), shapes[0]), "pictures", list(span), made)
    found: dict[str, Any] = {"inputs": inputs, "outputs": [output]}
    return found | {"pictures": _pictures(span, inputs[0], fit, background)}


def for_apps_first(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest in the order in which it is read."""
    return {name: manifest[name] for name in FOR_APPS if name in manifest} | dict(manifest)


def _end(name: str, shape: Sequence[int | str], kind: str, span: list[int] | None, one: Tensor) -> dict[str, Any]:
    colours = CHANNELS.get(one.shape[1]) if kind == "pictures" and one.ndim == 4 else None
    return {
        "name": name,
        "shape": list(shape),
        "dtype": str(one.dtype).removeprefix("torch."),
        "layout": LAYOUTS.get(one.ndim, "NC"),
        "kind": kind,
        "channels": colours,
        "range": span,
    }


def _names(model: nn.Module, count: int, single: str) -> list[str]:
    """As the file has them: a single one by the target's word, several by the forward's arguments, or counted up."""
    if single.endswith("_0"):
        return [f"{single[:-1]}{number}" for number in range(count)]
    return [single] if count == 1 else list(input_names(model, count))


def _bounds(shape: Sequence[int | str], profile: Device | None) -> dict[str, Any]:
    if "height" not in shape or profile is None:
        return {}
    bound = {} if profile.largest_side is None else {"at_most": profile.largest_side}
    return {"multiple_of": profile.size_multiple, **bound}


def _made_shape(made: Tensor, fed: Tensor, shape: Sequence[int | str]) -> list[int | str]:
    """Of the output: sides are so many times the input's free ones, ``4*height`` or ``1/2*height``."""
    found: list[int | str] = [shape[0], *made.shape[1:]]
    if "height" in shape and made.ndim == fed.ndim == 4:
        for axis, name in ((2, "height"), (3, "width")):
            factor = Fraction(made.shape[axis], fed.shape[axis])
            found[axis] = name if factor == 1 else f"{factor}*{name}"
    return found


def _has_pixels(one: Tensor) -> bool:
    return one.ndim == 4 and one.shape[2] * one.shape[3] > 1


def range_of(one: Tensor) -> list[int] | None:
    """Pictures lie in [-1, 1], one-hot maps and classes in [0, 1]; latents are normal, without bounds.

    A picture has no zero (of 8 bits 127.5 would be), so a plain white one is no map; a latent of one pixel is none.
    """
    if bool(((one == 0) | (one == 1)).all()) and bool((one == 0).any()):
        return [0, 1]
    return [-1, 1] if _has_pixels(one) and float(one.abs().max()) <= 1 else None


def _pictures(span: tuple[int, int], first_input: Mapping[str, Any], fit: str, background: str) -> dict[str, Any]:
    """From the pixels of a file to the values of an input, and from those of the output to pixels, step by step."""
    low, high = span
    found: dict[str, Any] = {}
    if first_input["channels"] and first_input["range"] == [low, high]:
        shape = first_input["shape"]
        free = "height" in shape
        found["prepare"] = {
            "pixels": f"8 bits, channels {first_input['channels']} as stored, upright by EXIF",
            "transparent": f"laid on {background}",
            "resize": "none" if free else fit,
            "filter": None if free else "bicubic, antialiased (Pillow's BICUBIC)",
            "size": None if free else list(shape[2:]),
            "values": {"times": (high - low) / 255, "plus": low},
        }
    found["read_back"] = {
        "values": {"minus": low, "times": 255 / (high - low)},
        "round": "to the nearest whole number, halves to even",
        "clip": [0, 255],
    }
    return found


def as_metadata(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What an app needs as pairs of texts, which files of some formats hold: each value JSON, but for plain words."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in for_apps_first(manifest).items()
        if name in FOR_APPS and name not in ("device", "file") and value is not None
    }
