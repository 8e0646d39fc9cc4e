"""Generators by name, and teachers from the checkpoints people have."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from supernet.errors import CheckpointError, ConfigError, nearest
from supernet.files import load_tensors
from zoo.cartoongan import CartoonGenerator
from zoo.munit import MunitGenerator
from zoo.resnet import ResnetGenerator
from zoo.spade import SpadeGenerator
from zoo.stylegan2 import StyleGan2Generator
from zoo.unet import UnetGenerator

GENERATORS: dict[str, Callable[..., nn.Module]] = {
    "resnet_6blocks": partial(ResnetGenerator, blocks=6),
    "resnet_9blocks": partial(ResnetGenerator, blocks=9),
    "mobile_resnet_6blocks": partial(ResnetGenerator, blocks=6, separable=True),
    "mobile_resnet_9blocks": partial(ResnetGenerator, blocks=9, separable=True),
    "unet_128": partial(UnetGenerator, levels=7),
    "unet_256": partial(UnetGenerator, levels=8),
    "spade": SpadeGenerator,
    "mobile_spade": partial(SpadeGenerator, separable=True),
    "munit": MunitGenerator,
    "mobile_munit": partial(MunitGenerator, separable=True),
    "cartoongan": CartoonGenerator,
    "stylegan2": StyleGan2Generator,
}

WEIGHTS = Path(__file__).parent / "weights"


def build(name: str, **options: Any) -> nn.Module:
    """A generator of the zoo, or one's own as ``module:function``, with fresh weights.

    Raises:
        ConfigError: unknown name (the nearest are shown) or unknown option.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            factory: Callable[..., nn.Module] = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"generator {name!r} cannot be imported: {error}") from None
    elif name in GENERATORS:
        factory = GENERATORS[name]
    else:
        raise ConfigError(f"generator {name!r} is unknown; {nearest(name, GENERATORS)}, or 'module:function'")
    allowed = inspect.signature(factory).parameters
    for option in options:
        if option not in allowed and not any(p.kind is p.VAR_KEYWORD for p in allowed.values()):
            raise ConfigError(f"generator {name!r} has no option {option!r}; {nearest(option, allowed)}")
    return factory(**options)


def load_teacher(path: str | Path, *, generator: str, **options: Any) -> nn.Module:
    """A trained generator in eval mode, from our safetensors or a ``latest_net_G.pth`` of pytorch-CycleGAN-and-pix2pix.

    Old files with instance norm statistics and ``module.`` prefixes are read as well, and files trained with dropout
    (their layer names are shifted) without asking for it.

    Raises:
        CheckpointError: missing, damaged or unsafe file, or another architecture (the first differing keys are named).
    """
    state = read_state(Path(path))
    model = build(generator, **options)
    if not model.state_dict().keys() >= state.keys() and "dropout" not in options and _takes(generator, "dropout"):
        shifted = build(generator, dropout=True, **options)
        if set(shifted.state_dict()) == set(state):
            model = shifted
    check_keys(model, state, str(path))
    model.load_state_dict(state)
    return model.eval()


def _takes(generator: str, option: str) -> bool:
    return generator in GENERATORS and option in inspect.signature(GENERATORS[generator]).parameters


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file as float32, ``module.`` prefixes and instance norm statistics taken off.

    Raises:
        CheckpointError: missing, damaged or unsafe file.
    """
    if path.suffix == ".safetensors":
        tensors: Mapping[str, Tensor] = load_tensors(path)[0]
    else:
        tensors = _read_pickle(path)
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    norms = {name.rpartition(".")[0] for name in tensors if name.endswith(".running_mean")}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    plain = {norm for norm in norms if f"{norm}.weight" not in tensors}  # instance norm: no affine, so a leftover
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if not (name.rpartition(".")[0] in plain and name.rpartition(".")[2] in statistics)
    }


def _read_pickle(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"checkpoint {str(path)!r} does not exist; give the path of a .pth or .safetensors file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{str(path)!r} wants to run code when it is read, or is no checkpoint, and was refused "
            f"({str(error).splitlines()[0][:120]}); save its state_dict alone"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} is not a whole checkpoint ({str(error)[:120]}); copy it again") from None
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{str(path)!r} is not a state_dict of tensors; save model.state_dict() alone")
    return loaded


def check_keys(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Raise ``CheckpointError`` naming the first keys or shapes in which file and generator differ."""
    expected = model.state_dict()
    missing, extra = [k for k in expected if k not in state], [k for k in state if k not in expected]
    shapes = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(expected[k].shape)}"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    if missing or extra or shapes:
        parts = [f"missing: {', '.join(missing[:3])}"] * bool(missing)
        parts += [f"not in the generator: {', '.join(extra[:3])}"] * bool(extra)
        parts += [f"shapes: {'; '.join(shapes[:3])}"] * bool(shapes)
        raise CheckpointError(
            f"{source!r} belongs to another architecture ({'. '.join(parts)}); name the generator and its options "
            "(ngf, norm, dropout) that it was trained with"
        )


def init_weights(model: nn.Module) -> nn.Module:
    """Normal(0, 0.02) convolutions and zero biases, as pix2pix starts; in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
