"""Teachers from the checkpoints people have: our own files and the original formats of every generator."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gantailor.supernet.errors import CheckpointError
from gantailor.supernet.files import load_tensors
from gantailor.zoo.generators.pix2pix_checkpoint import STATISTICS
from gantailor.zoo.generators.record import find_generator


def load_teacher(path: str | Path, *, generator: str, side: str | None = None, **options: Any) -> nn.Module:
    """A trained generator in eval mode, from our safetensors or from the original code's file.

    ============  ==================================================================================================
    generator     files
    ============  ==================================================================================================
    resnet, unet  ``latest_net_G.pth`` of pytorch-CycleGAN-and-pix2pix: also old ones with instance norm statistics,
                  ``module.`` prefixes, or dropout (whose layer names are shifted)
    spade         ``latest_net_G.pth`` of NVlabs/SPADE; spectral norm is folded
    munit         ``gen_*.pt`` of NVlabs/MUNIT
    cartoongan    ``*_net_G_float.pth`` of the PyTorch port, turned from BGR to RGB
    stylegan2     rosinality's ``.pt``; the state dict of a stylegan2-ada or stylegan3 ``G_ema``. Size and widths are
                  read from the file
    ============  ==================================================================================================

    Each is read in ``gantailor/zoo/generators/<family>/checkpoint.py``.

    Args:
        path: the file.
        generator: zoo name or ``module:name``.
        side: MUNIT only: ``a`` (default), ``b``, ``a2b`` or ``b2a``, see ``read_munit``.
        options: as for ``build``.

    Raises:
        CheckpointError: missing, damaged or unsafe file, or another architecture (the first differing keys are named).
    """
    record = find_generator(generator)
    checkpoint = _plain(_read_file(Path(path)))
    state: Mapping[str, Tensor] = _flat(record.state_of(checkpoint, **({"side": side} if side else {})), str(path))
    model = record.make_for(state, **options)
    load_state(model, record.completed(model, state), str(path))
    return model.eval()


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file as float32, ``module.`` prefixes taken off.

    Raises:
        CheckpointError: missing, damaged or unsafe file, or one that holds more than tensors.
    """
    return _flat(_plain(_read_file(path)), str(path))


def _read_file(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        return load_tensors(path)[0]
    if not path.is_file():
        raise CheckpointError(f"checkpoint {str(path)!r} does not exist; give the path of a .pth or .safetensors file")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # rosinality's training settings: plain data
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{str(path)!r} wants to run code when it is read, or is no checkpoint, and was refused "
            f"({str(error).splitlines()[0][:120]}); save its state_dict alone"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} is not a whole checkpoint ({str(error)[:120]}); copy it again") from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{str(path)!r} is not a state_dict of tensors; save model.state_dict() alone")
    return loaded


def _plain(loaded: Mapping[str, Any]) -> dict[str, Any]:
    """Half precision to float32 and ``module.`` prefixes off, also in the mappings inside a checkpoint."""
    result: dict[str, Any] = {}
    for name, value in loaded.items():
        plain = value
        if isinstance(value, Tensor) and value.is_floating_point():
            plain = value.float()
        elif isinstance(value, Mapping):
            plain = _plain(value)
        result[str(name).removeprefix("module.")] = plain
    return result


def _flat(loaded: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """A mapping of tensors and nothing else."""
    strange = next((name for name, value in loaded.items() if not isinstance(value, Tensor)), None)
    if strange is not None:
        raise CheckpointError(
            f"{source!r} is not a state_dict of tensors ({strange!r} is a {type(loaded[strange]).__name__}); "
            "save model.state_dict() alone"
        )
    return dict(loaded)


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put the tensors into the model; running statistics that old instance norms left idle are dropped.

    Raises:
        CheckpointError: names the first keys or shapes in which file and generator differ.
    """
    expected = model.state_dict()
    state = {name: tensor for name, tensor in state.items() if name in expected or not name.endswith(STATISTICS)}
    _check_keys(expected, state, source)
    model.load_state_dict(state)


def _check_keys(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
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
