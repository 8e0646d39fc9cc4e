"""ncnn's files in 8 bits. ncnn's own tools for it (``ncnn2table``, ``ncnn2int8``) come in no package; none is needed.

Weights are int8 by output channel, 127 at the largest of each. Inputs of layers are int8 by tensor, with the scale that
loses least of what calibration pictures bring there. Norms, activations and all else stay in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gantailor.export.quantization import most_sensitive
from gantailor.export.targets.ncnn_files import Layer, arrays_of, content_of, layers_text

LAYERS = ("Convolution", "ConvolutionDepthWise", "InnerProduct")  # that ncnn computes in 8 bits
TOP = 127  # -128 is not used
VALUES = 4096  # of each picture at each layer, to find a scale with
SHARES = np.linspace(0.3, 1.0, 36)  # of the largest value, tried as the one that becomes 127
TRIED = 8  # pictures that layers are tried on one at a time

Feeds = tuple[np.ndarray, ...]  # the inputs of one picture, without the batch
Layers = Sequence[Layer]


@dataclass(frozen=True)
class FloatNet:
    """A net in float32, with what 8 bits need.

    Attributes:
        arrays: of each layer, by its name.
        scales: of the inputs of layers that can be in 8 bits: int8 is ``scale * value``, rounded.
    """

    layers: Layers
    arrays: Mapping[str, Sequence[np.ndarray]]
    scales: Mapping[str, float]

    def in_eight_bits(self, chosen: Collection[str]) -> tuple[list[Layer], bytes]:
        """Layers and ``.bin`` file of the net with these layers in 8 bits."""
        layers = [_marked(layer) if layer.name in chosen else layer for layer in self.layers]
        arrays = dict(self.arrays)
        for layer in layers:
            if layer.name in chosen:
                arrays[layer.name] = _quantised(layer, arrays[layer.name], self.scales[layer.name])
        return layers, content_of(layers, arrays)


def _marked(layer: Layer) -> Layer:
    """As one in 8 bits: with a scale for each output channel, or each group."""
    kind = "1" if layer.kind == "ConvolutionDepthWise" else "2"
    return replace(layer, settings={**layer.settings, "8": kind})


def _quantised(layer: Layer, arrays: Sequence[np.ndarray], scale: float) -> list[np.ndarray]:
    """A layer's weights as int8, its bias, scales of the weights and of the input."""
    weight = arrays[0].reshape(layer.number(7, 1) if layer.kind == "ConvolutionDepthWise" else layer.number(0), -1)
    largest = np.abs(weight).max(1)
    scales = np.where(largest > 0, TOP / np.maximum(largest, 1e-30), 0).astype(np.float32)
    whole = np.rint(weight * scales[:, None]).astype(np.int8).reshape(-1)
    return [whole, *arrays[1:], scales, np.array([scale], np.float32)]


def in_eight_bits(layers: Layers, content: bytes, pictures: Sequence[Feeds]) -> tuple[list[Layer], bytes, list[str]]:
    """A float32 net in 8 bits: its layers, its ``.bin`` file, and the layers that stay in float.

    Args:
        pictures: to calibrate with, as the net's input blobs take them.

    Raises:
        ExportError: a layer whose numbers are not known here.
    """
    arrays = arrays_of(layers, content)
    able = [layer for layer in layers if layer.kind in LAYERS and len(arrays[layer.name])]
    scales = _scales(layers, content, able, pictures)
    net, sizes = FloatNet(layers, arrays, scales), {layer.name: arrays[layer.name][0].size for layer in able}
    tried = pictures[:TRIED]
    expected = _outputs(layers, content, tried)
    errors = {name: _error(expected, _outputs(*net.in_eight_bits([name]), tried)) for name in sizes}
    kept = most_sensitive(errors, sizes)
    return *net.in_eight_bits(set(sizes) - set(kept)), kept


def _scales(layers: Layers, content: bytes, able: Layers, pictures: Sequence[Feeds]) -> dict[str, float]:
    """Of every such layer's input."""
    seen: dict[str, list[np.ndarray]] = {layer.name: [] for layer in able}
    rng, net = np.random.default_rng(0), _Net(layers, content)
    for feeds in pictures:
        blob = net.begin(feeds)
        for layer in able:
            values = np.abs(blob(layer.inputs[0])).reshape(-1)
            some = rng.choice(values, VALUES) if values.size > VALUES else values
            seen[layer.name].append(np.append(some, values.max()))
    return {name: scale_of(np.concatenate(values)) for name, values in seen.items()}


def scale_of(values: np.ndarray) -> float:
    """The scale with which 8 bits lose least of these magnitudes, as mean squares; larger ones are clipped."""
    largest = float(values.max())
    if largest == 0:
        return 1.0
    scales = TOP / (largest * SHARES)
    losses = [np.square(np.rint(values * scale).clip(max=TOP) / scale - values).mean() for scale in scales]
    return float(scales[int(np.argmin(losses))])


def _error(expected: list[np.ndarray], made: list[np.ndarray]) -> float:
    return float(np.mean([np.square(a - b).mean() for a, b in zip(expected, made, strict=True)]))


def _outputs(layers: Layers, content: bytes, pictures: Sequence[Feeds]) -> list[np.ndarray]:
    net = _Net(layers, content)
    (last,) = net.net.output_names()
    return [net.begin(feeds)(last) for feeds in pictures]


class _Net:
    """A net in ncnn's own runtime, whose blobs can be looked at."""

    def __init__(self, layers: Layers, content: bytes) -> None:
        import ncnn

        self.ncnn, self.net = ncnn, ncnn.Net()
        self.net.opt.lightmode = False  # which lets go of blobs that were read
        self.net.opt.num_threads = 1
        self.net.opt.use_fp16_packed = self.net.opt.use_fp16_storage = self.net.opt.use_fp16_arithmetic = False
        with tempfile.TemporaryDirectory() as scratch:
            param, numbers = Path(scratch) / "net.param", Path(scratch) / "net.bin"
            param.write_text(layers_text(layers))
            numbers.write_bytes(content)
            self.net.load_param(str(param))
            self.net.load_model(str(numbers))

    def begin(self, feeds: Feeds) -> Callable[[str], np.ndarray]:
        """From the name of a blob to what it holds with these inputs."""
        extractor = self.net.create_extractor()
        for name, feed in zip(self.net.input_names(), feeds, strict=True):
            held = np.ascontiguousarray(feed)  # a Mat keeps no hold of the array that it was made of
            extractor.input(name, self.ncnn.Mat(held).clone())
        return lambda name: np.array(extractor.extract(name)[1])
