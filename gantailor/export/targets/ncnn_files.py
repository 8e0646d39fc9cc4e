"""ncnn's two files: ``.param``, a line of text for each layer, and ``.bin``, their numbers one after another.

The formats are described in ncnn's own documentation (param and model file structure; operators).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gantailor.export.errors import ExportError

MAGIC = "7767517"
HALF, EIGHT, SINGLE = 0x01306B47, 0x000D4B38, 0  # what stands before numbers whose type is free
KINDS = {HALF: "float16", EIGHT: "int8", SINGLE: "float32", 0x0002C056: "float32"}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A line of a ``.param`` file.

    Attributes:
        kind: ``Convolution``, ``PReLU``, ...
        inputs: names of the blobs that it reads; ``outputs`` of those that it makes.
        settings: numbers, or lists of numbers, by ncnn's keys for them, as they are written.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[str, str]

    def number(self, key: int, default: int = 0) -> int:
        """A whole number among the settings."""
        return int(self.settings.get(str(key), default))

    def __str__(self) -> str:
        head = f"{self.kind:<24} {self.name:<24} {len(self.inputs)} {len(self.outputs)}"
        return " ".join(
            [head, *self.inputs, *self.outputs, *(f"{key}={value}" for key, value in self.settings.items())]
        )


def read_layers(text: str) -> list[Layer]:
    """The layers of a ``.param`` file, in the order in which they run."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    found = []
    for kind, name, inputs, outputs, *rest in lines[2:]:
        ends, middle = int(inputs) + int(outputs), int(inputs)
        settings = dict(item.split("=", 1) for item in rest[ends:])
        found.append(
            Layer(
                kind=kind,
                name=name,
                inputs=tuple(rest[:middle]),
                outputs=tuple(rest[middle:ends]),
                settings=settings,
            )
        )
    return found


def layers_text(layers: Sequence[Layer]) -> str:
    """A ``.param`` file of these layers."""
    blobs = {blob for layer in layers for blob in layer.outputs}
    return "\n".join([MAGIC, f"{len(layers)} {len(blobs)}", *map(str, layers)]) + "\n"


def renamed(layers: Sequence[Layer], names: Mapping[str, str]) -> list[Layer]:
    """The layers with other names for some blobs, and for the layers called so."""

    def change(blobs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(blob, blob) for blob in blobs)

    return [
        replace(one, name=names.get(one.name, one.name), inputs=change(one.inputs), outputs=change(one.outputs))
        for one in layers
    ]


@dataclass(frozen=True)
class Numbers:
    """An array of a layer in the ``.bin`` file.

    Attributes:
        tagged: whether its type stands before it; without, it is float32.
    """

    count: int
    tagged: bool = False


def _weighted(size: int, bias: int, outputs: int) -> Callable[[Layer], list[Numbers]]:
    """Of a layer with weights and perhaps a bias; the arguments are ncnn's keys."""

    def numbers(layer: Layer) -> list[Numbers]:
        count = layer.number(outputs)
        found = [Numbers(layer.number(size), tagged=True), *([Numbers(count)] if layer.number(bias) else [])]
        scales = layer.number(8)
        return [*found, *([Numbers(layer.number(7, 1) if scales == 1 else count), Numbers(1)] if scales else [])]

    return numbers


def _affine(channels: int, flag: int) -> Callable[[Layer], list[Numbers]]:
    return lambda layer: [Numbers(layer.number(channels))] * (2 if layer.number(flag, 1) else 0)


def _memory(layer: Layer) -> list[Numbers]:
    sides = [layer.number(key) for key in (0, 1, 11, 2)]
    return [Numbers(int(np.prod([side for side in sides if side])), tagged=layer.number(21, 1) == 0)]


_HELD: dict[str, Callable[[Layer], list[Numbers]]] = {
    "Convolution": _weighted(6, 5, 0),
    "ConvolutionDepthWise": _weighted(6, 5, 0),
    "Deconvolution": _weighted(6, 5, 0),
    "DeconvolutionDepthWise": _weighted(6, 5, 0),
    "InnerProduct": _weighted(2, 1, 0),
    "PReLU": lambda layer: [Numbers(layer.number(0))],
    "InstanceNorm": _affine(0, 2),
    "GroupNorm": _affine(1, 3),
    "LayerNorm": _affine(0, 2),
    "BatchNorm": lambda layer: [Numbers(layer.number(0))] * 4,
    "Scale": lambda layer: [Numbers(layer.number(0))] * (2 if layer.number(1) else 1),
    "Bias": lambda layer: [Numbers(layer.number(0))],
    "MemoryData": _memory,
}


def _numbers(layer: Layer) -> list[Numbers]:
    return _HELD[layer.kind](layer) if layer.kind in _HELD else []


def arrays_of(layers: Sequence[Layer], content: bytes) -> dict[str, list[np.ndarray]]:
    """The arrays of each layer, by its name: flat, in the types that they are stored in.

    Raises:
        ExportError: the layers that are known here hold more or fewer numbers than there are.
    """
    place, arrays = 0, {}
    for layer in layers:
        found = arrays[layer.name] = list[np.ndarray]()
        for numbers in _numbers(layer):
            kind = "float32"
            if numbers.tagged:
                tag = int.from_bytes(content[place : place + 4], "little")
                if tag not in KINDS:
                    raise ExportError(f"ncnn's file holds numbers of an unknown type, {tag:#x}, in {layer.name}")
                kind, place = KINDS[tag], place + 4
            array = np.frombuffer(content[place:], kind, count=numbers.count)
            place += -(-array.nbytes // 4) * 4
            found.append(array)
    if place != len(content):
        kinds = sorted({layer.kind for layer in layers} - set(_HELD))
        raise ExportError(f"ncnn's file holds {len(content) - place} bytes of layers unknown here ({', '.join(kinds)})")
    return arrays


def content_of(layers: Sequence[Layer], arrays: Mapping[str, Sequence[np.ndarray]]) -> bytes:
    """A ``.bin`` file of the arrays of each layer, by its name: the inverse of ``arrays_of``."""
    parts = []
    for layer in layers:
        for numbers, array in zip(_numbers(layer), arrays.get(layer.name, ()), strict=True):
            if numbers.tagged:
                parts.append(next(tag for tag, kind in KINDS.items() if kind == array.dtype).to_bytes(4, "little"))
            content = array.tobytes()
            parts.append(content + bytes(-len(content) % 4))
    return b"".join(parts)
