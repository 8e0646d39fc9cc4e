"""The search spaces of the published tables, as literal data, and the widths that each of their variables drives.

Paper: Li et al. 2020, "GAN Compression" (arXiv 2003.08936). A config is written as base widths, ``16_16_24_...``; a
layer's width is the base width times the factor of its stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gantailor.search.spaces.variable import Variable
from gantailor.supernet.errors import ConfigError
from gantailor.supernet.supernet import Supernet

Group = tuple[str, tuple[tuple[str, int], ...]]  # a variable's name, and the widths that it drives with their factors

_C64 = (16, 24, 32, 48, 64)
_STEPS = tuple(range(16, 65, 8))
TABLES: dict[str, tuple[tuple[int, ...], ...]] = {
    "resnet/channels-48": ((32, 48),) * 2 + ((32, 40, 48),) * 4 + ((16, 24, 32, 48),) * 2,
    "resnet/channels-32": ((16, 24, 32),) * 8,
    "resnet/channels-64-cycleGAN": (_C64,) * 8,
    "resnet/channels-64-pix2pix": (_STEPS,) * 8,
    "spade/channels-48": ((32, 40, 48),) * 5 + ((24, 32, 40, 48),) * 3,
    "spade/channels-64": ((32, 40, 48, 64),) * 5 + ((24, 32, 40, 48, 64),) * 3,
    "munit/channels-64": (_STEPS,) * 10,
}


def published_variables(name: str, supernet: Supernet) -> list[Variable]:
    """The variables of a published table on this supernet.

    Raises:
        ConfigError: the generator does not have the table's layers.
    """
    groups = _GROUPS[name.partition("/")[0]](supernet)
    table = TABLES[name][-len(groups) :]  # of a MUNIT that is given its styles the first has no layers
    return [Variable.scaled(label, choices, driven) for (label, driven), choices in zip(groups, table, strict=True)]


def _resnet(supernet: Supernet) -> list[Group]:
    """Stem, two downs (the second is the residual trunk), three thirds of the blocks, two ups, in forward order."""
    names = [width.name for width in supernet.graph.widths]
    blocks = len(names) - 5
    if blocks < 3 or blocks % 3:
        raise ConfigError(
            f"the published ResNet spaces need 3, 6 or 9 residual blocks with inner widths; this generator has "
            f"{len(names)} widths"
        )
    third = blocks // 3
    groups = [names[0:1], names[1:2], names[2:3]]
    groups += [names[3 + third * k : 3 + third * (k + 1)] for k in range(3)]
    groups += [names[-2:-1], names[-1:]]
    labels = ("stem", "down1", "trunk", "blocks1", "blocks2", "blocks3", "up1", "up2")
    factors = (1, 2, 4, 4, 4, 4, 2, 1)
    return [
        (label, tuple((name, factor) for name in group))
        for label, group, factor in zip(labels, groups, factors, strict=True)
    ]


def _spade(supernet: Supernet) -> list[Group]:
    """The stream up to ``up_0``; then for each block its inner width, its output's and those inside its norms."""
    width = _finder(supernet, "SPADE")
    stages = {"head_0": 16, "G_middle_0": 16, "G_middle_1": 16, "up_0": 8, "up_1": 4, "up_2": 2, "up_3": 1}
    groups: list[Group] = [("stream", ((width("fc"), 16),))]
    for block, factor in stages.items():
        made = ["conv_0", "conv_1"] if block.startswith("up") else ["conv_0"]
        norms = ["norm_0", "norm_1", "norm_s"] if block.startswith("up") else ["norm_0", "norm_1"]
        driven = [(width(f"{block}.{layer}"), factor) for layer in made]
        driven += [(width(f"{block}.{norm}.mlp_shared"), 2) for norm in norms]
        groups.append((block, tuple(driven)))
    return groups


def _munit(supernet: Supernet) -> list[Group]:
    """Style encoder; content stem, downs and two halves of its blocks; two halves of the decoder's blocks; ups.

    A translator in styles that it is given has no style encoder.
    """
    width = _finder(supernet, "MUNIT")
    content, decoder = "enc_content.model", "dec.model"
    groups: list[Group] = []
    if any(made.name.startswith("enc_style.") for made in supernet.graph.widths):
        groups.append(("style", tuple((width(f"enc_style.model.{i}"), f) for i, f in enumerate((1, 2, 4, 4, 4)))))
    groups += [
        ("stem", ((width(f"{content}.0"), 1),)),
        ("down1", ((width(f"{content}.1"), 2),)),
        ("trunk", ((width(f"{content}.2"), 4),)),
    ]
    for label, blocks in (("encoder", f"{content}.3.model"), ("decoder", f"{decoder}.0.model")):
        for half in (0, 1):
            inner = tuple((width(f"{blocks}.{2 * half + i}.model.0"), 4) for i in (0, 1))
            groups.append((f"{label}{half + 1}", inner))
    return [*groups, ("up1", ((width(f"{decoder}.2"), 2),)), ("up2", ((width(f"{decoder}.4"), 1),))]


def _finder(supernet: Supernet, family: str) -> Callable[[str], str]:
    """The name of the width that a layer makes (the last convolution inside it, if it is separable)."""
    makers = {layer: width.name for width in supernet.graph.widths for layer in width.layers}

    def find(layer: str) -> str:
        inside: Sequence[str] = sorted(name for name in makers if name == layer or name.startswith(f"{layer}."))
        if not inside:
            raise ConfigError(
                f"the published {family} spaces need a free width made by {layer!r}, which this generator lacks; "
                "choose space 'default'"
            )
        return makers[inside[-1]]

    return find


_GROUPS: dict[str, Callable[[Supernet], list[Group]]] = {"resnet": _resnet, "spade": _spade, "munit": _munit}
