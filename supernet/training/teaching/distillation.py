"""Feature distillation: the student's intermediate features match the teacher's, in one of three senses.

After learned 1x1 convolutions: Li et al. 2020, GAN Compression (arXiv 2003.08936), section 3.2. By kernel alignment,
which needs no maps: Jin et al. 2021, CAT (arXiv 2103.03467). By the relations between images: Xu et al. 2022, StyleKD
(arXiv 2208.14840).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gantailor.supernet.calling import as_tuple, evaluating
from gantailor.supernet.device import HOST
from gantailor.supernet.errors import ConfigError, nearest
from gantailor.supernet.graph import FIXED
from gantailor.supernet.supernet import Supernet
from gantailor.supernet.training.losses import l1_loss, mse_loss


@contextmanager
def capture(model: nn.Module, layers: Iterable[str] | Mapping[str, str]) -> Iterator[dict[str, Tensor]]:
    """Within the block, a forward of ``model`` leaves the outputs of the named modules in the yielded mapping.

    A mapping gives the names that they have there.
    """
    modules = dict(model.named_modules())
    features: dict[str, Tensor] = {}
    handles = []
    for called, name in (layers if isinstance(layers, Mapping) else {name: name for name in layers}).items():
        if name not in modules:
            raise ConfigError(f"feature layer {name!r} is not in the generator: {nearest(name, modules)}")

        def hook(_module: nn.Module, _inputs: object, output: Tensor, *, key: str = called) -> None:
            features[key] = output

        handles.append(modules[name].register_forward_hook(hook))
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def proposed_layers(supernet: Supernet, count: int = 4) -> tuple[str, ...]:
    """Modules of a generator whose outputs are worth comparing, in forward order: for one that declares none itself.

    The forward is cut into ``count`` parts of equal MACs. Of those that end in the middle half of a part the outermost
    module is taken (a block, before the layers in it), of equally deep ones, or where none ends there, the nearest to
    the part's middle, and the last there (behind norm and activation). Only outputs ``[N, C, H, W]`` of several places
    count whose channels can be narrowed; a part may have none.
    """
    layers = {name for name, _ in supernet.generator.named_modules()}
    costs: dict[str, float] = {}
    for term in supernet.graph.terms:
        cost = term.coefficients["true"] * math.prod(len(axis) for axis in term.axes)
        costs[term.layer] = costs.get(term.layer, 0.0) + (cost if term.layer in layers else 0.0)
    done, whole = 0.0, sum(costs.values())
    parts: list[list[tuple[bool, int, float, int, str]]] = [[] for _ in range(count)]
    for number, (name, shape) in enumerate(_outputs(supernet).items()):
        done += costs.get(name, 0.0)
        axis = supernet.graph.activations.get(name)
        if len(shape) != 4 or shape[2] * shape[3] == 1 or axis is None or not (axis.width != FIXED).any() or not done:
            continue
        place = count * done / whole
        part = min(int(place), count - 1)
        off = round(abs(place - part - 0.5), 6)
        parts[part].append((off > 0.25, name.count(".") if off <= 0.25 else 0, off, -number, name))
    return tuple(min(found)[-1] for found in parts if found)


@torch.no_grad()
def _outputs(supernet: Supernet) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs of all modules that give a tensor, in the order in which they end for the last time."""
    shapes: dict[str, tuple[int, ...]] = {}
    handles = []
    for path, module in supernet.generator.named_modules():

        def hook(_module: nn.Module, _inputs: object, output: object, *, name: str = path) -> None:
            shapes.pop(name, None)
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape)

        if path:
            handles.append(module.register_forward_hook(hook))
    try:
        with evaluating(supernet.generator):
            supernet.generator(*as_tuple(supernet.example_inputs))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


class FeatureMaps(nn.Module):
    """One 1x1 convolution for each layer, from the student's widest channels to the teacher's.

    A subnet's features have fewer channels; ``kept`` names which (the leading ones if it is ``None``), and the map's
    input columns are sliced to match. Biases are zero at first.

    Args:
        init: first weights, N(0, 0.02), or Xavier with gain 0.02 (the public code's for SPADE).
        absolute: L1 in place of squares, as for MUNIT's content code.
    """

    def __init__(
        self,
        student: dict[str, int],
        teacher: dict[str, int],
        *,
        init: Literal["normal", "xavier"] = "normal",
        absolute: bool = False,
    ) -> None:
        super().__init__()
        self.layers, self.distance = tuple(student), l1_loss if absolute else mse_loss
        shapes = [(teacher[name], student[name], 1, 1) for name in self.layers]
        self.maps = nn.ParameterList(
            nn.init.xavier_normal_(torch.empty(shape), 0.02)
            if init == "xavier"
            else nn.init.normal_(torch.empty(shape), 0, 0.02)
            for shape in shapes
        )
        self.biases = nn.ParameterList(torch.zeros(shape[0]) for shape in shapes)

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], kept: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Sum over layers of the mean squared (or absolute) difference, a scalar."""
        total = torch.zeros(())
        for name, weight, bias in zip(self.layers, self.maps, self.biases, strict=True):
            feature = student[name]
            used = weight[:, : feature.shape[1]] if kept is None else weight[:, kept[name].to(weight.device)]
            made = F.conv2d(feature, used.to(feature.dtype), bias.to(feature.dtype))
            total = total.to(feature.device) + self.distance(made.float(), teacher[name].float())
        return total

    def by_layer(self) -> dict[str, Tensor]:
        """Of each layer ``<layer>.weight`` ``[teacher's channels, student's, 1, 1]`` and ``<layer>.bias``."""
        rows = zip(self.layers, self.maps, self.biases, strict=True)
        return {f"{n}.{kind}": t.detach() for n, w, b in rows for kind, t in (("weight", w), ("bias", b))}

    @torch.no_grad()
    def take_over(self, weights: Mapping[str, Tensor]) -> None:
        """Go on with what ``by_layer`` gave, of the same channels; layers that it does not have stay."""
        for name, tensor in self.by_layer().items():
            if name in weights:
                tensor.copy_(weights[name])


def for_channels(weights: Mapping[str, Tensor], channels: Mapping[str, Tensor | slice]) -> dict[str, Tensor]:
    """What ``FeatureMaps.by_layer`` gave, for a student of these channels, by layer, in this order."""
    narrow = {
        f"{name}.weight": weights[f"{name}.weight"].to(HOST)[:, chosen].contiguous()
        for name, chosen in channels.items()
    }
    return {**weights, **narrow}


COUPLED = ("alignment", "relation")  # losses of features that compare the pictures of a batch with each other
Features = dict[str, Tensor]


def of_whole_batch(mine: Features, parts: Sequence[Features], number: int, *, weight: float) -> Features:
    """Features of a whole batch, of which one part has a gradient, ``weight`` times: losses over it are those of all.

    With as many parts as the weight, gradients that are averaged over parts add up to the gradient of the whole batch
    (Gao et al. 2021, arXiv 2101.06983).
    """
    found = {}
    for name, feature in mine.items():
        if feature.requires_grad:  # PyTorch's instance norm goes wrong on one picture's gradient that lies otherwise
            feature.register_hook(partial(_laid_as, feature.detach()))  # type: ignore[no-untyped-call]
        own = feature.detach() + weight * (feature - feature.detach())
        found[name] = torch.cat([own if place == number else part[name] for place, part in enumerate(parts)])
    return found


def _laid_as(feature: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the memory layout of what it is of."""
    return torch.empty_like(feature).copy_(gradient)


def alignment_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Sum over layers of 1 - KA, the linear kernel alignment of the features at all places of the batch.

    ``KA(X, Y) = |Y^T X|^2 / (|X^T X| |Y^T Y|)`` with a row for each place; in [0, 1], and 1 for features that are equal
    up to rotation and scale. Student and teacher may have different numbers of channels.
    """
    losses = []
    for name in student:
        x, y = (f[name].float().movedim(1, -1).flatten(0, -2) for f in (student, teacher))
        cross, mine, theirs = (y.T @ x).square().sum(), (x.T @ x).norm(), (y.T @ y).norm()
        losses.append(1 - cross / (mine * theirs).clamp(min=1e-12))
    return torch.stack(losses).sum()


def relation_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], *, views: int = 1) -> Tensor:
    """Sum over layers of KL(teacher || student) between the softmaxed cosine similarities of the batch's images.

    With ``views`` of 2 the second half of the batch are shifted copies of the first, and images are compared with
    copies, as StyleKD does.

    Raises:
        ConfigError: a batch of one image has no relations.
    """
    losses = []
    for name in student:
        mine, theirs = (_relations(f[name], views) for f in (student, teacher))
        if len(mine) < 2:
            raise ConfigError("feature_loss relation compares the images of a batch; raise batch to 2 or more")
        losses.append(F.kl_div(mine, theirs, reduction="batchmean", log_target=True))
    return torch.stack(losses).sum()


def _relations(feature: Tensor, views: int) -> Tensor:
    """Log softmax over each image's cosine similarity to the images, or to their copies, ``[N, N]``."""
    units = F.normalize(feature.float().flatten(1), dim=1)
    first, second = units.chunk(2) if views == 2 else (units, units)
    return F.log_softmax(first @ second.T, dim=1)
