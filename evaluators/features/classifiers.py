"""The convolutions of image classifiers, whose features perceptual distances compare; weights are the user's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from gantailor.evaluators.weights import read_weights
from gantailor.supernet.errors import EvaluationError

ClassifierName = Literal["alex", "vgg"]


@dataclass(frozen=True)
class Architecture:
    """Convolutions in torchvision's order.

    Attributes:
        title: as users know it.
        convs: (channels, kernel, stride, padding) of each, a ReLU behind it.
        pooled: numbers of the convolutions before which the features are pooled.
        pool: size of the max pooling, whose stride is 2.
        tapped: numbers of the convolutions whose ReLU gives features.
    """

    title: str
    convs: tuple[tuple[int, int, int, int], ...]
    pooled: tuple[int, ...]
    pool: int
    tapped: tuple[int, ...]


ARCHITECTURES: dict[ClassifierName, Architecture] = {
    "alex": Architecture(
        "AlexNet",
        ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)),
        pooled=(1, 2),
        pool=3,
        tapped=(0, 1, 2, 3, 4),
    ),
    "vgg": Architecture(
        "VGG16",
        tuple((width, 3, 1, 1) for width, count in ((64, 2), (128, 2), (256, 3), (512, 6)) for _ in range(count)),
        pooled=(2, 4, 7, 10),
        pool=2,
        tapped=(1, 3, 6, 9, 12),  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
    ),
}


class Classifier(nn.Module):
    """Features of ``[N, 3, H, W]``, a list of ``[N, C, h, w]`` behind five ReLUs; frozen.

    Args:
        name: AlexNet (Krizhevsky 2014, arXiv 1404.5997) or VGG16 (Simonyan & Zisserman 2014, arXiv 1409.1556).
        file: its weights in torchvision's key layout (``features.0.weight``...); those of the classifier may be there.
        purpose: who asks for it, in errors.

    Attributes:
        widths: channels of each of the five.

    Raises:
        EvaluationError: a missing file, or weights of another network.
    """

    def __init__(self, name: ClassifierName, file: str | Path, *, purpose: str) -> None:
        super().__init__()
        made = ARCHITECTURES[name]
        layers: list[nn.Module] = []
        tapped, inputs = [], 3
        for number, (width, kernel, stride, padding) in enumerate(made.convs):
            if number in made.pooled:
                layers.append(nn.MaxPool2d(made.pool, 2))
            layers += [nn.Conv2d(inputs, width, kernel, stride=stride, padding=padding), nn.ReLU()]
            tapped += [len(layers) - 1] if number in made.tapped else []
            inputs = width
        self.layers, self.tapped = nn.Sequential(*layers), frozenset(tapped)
        self.widths = [made.convs[number][0] for number in made.tapped]
        own = self.layers.state_dict()
        shapes = {f"features.{key}": list(tensor.shape) for key, tensor in own.items()}
        wanted = f"{purpose} needs {made.title}'s weights in torchvision's layout"
        found = read_tensors(file, shapes, title=f"{purpose}'s {made.title}", wanted=wanted)
        self.layers.load_state_dict({key: found[f"features.{key}"] for key in own})
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, taps = images, []
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in self.tapped:
                taps.append(x)
        return taps


def read_tensors(
    file: str | Path, shapes: Mapping[str, Sequence[int]], *, title: str, wanted: str
) -> dict[str, Tensor]:
    """The named tensors of a file, in float32; ``title`` says what they are, ``wanted`` which file to give.

    Raises:
        EvaluationError: a missing or damaged file; a tensor that is missing or has another shape.
    """
    state = read_weights(file, wanted=wanted)
    missing = [name for name in shapes if not isinstance(state.get(name), Tensor)]
    if missing:
        raise EvaluationError(f"{str(file)!r} is not {title}: it has no {', '.join(missing[:3])}; {wanted}")
    for name, shape in shapes.items():
        if list(state[name].shape) != list(shape):
            raise EvaluationError(
                f"{str(file)!r} is not {title}: {name} has shape {list(state[name].shape)}, not {list(shape)}; {wanted}"
            )
    return {name: state[name].float() for name in shapes}
