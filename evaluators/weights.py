"""Reading the weights files that a user names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from gantailor.supernet.device import HOST
from gantailor.supernet.errors import EvaluationError
from gantailor.supernet.files import load_tensors


def read_weights(path: str | Path, *, wanted: str) -> dict[str, Tensor]:
    """The tensors of a file; nothing in it is run. ``wanted`` says which file to give.

    Raises:
        EvaluationError: a missing or damaged file.
    """
    if not Path(path).is_file():
        raise EvaluationError(f"weights {str(path)!r} do not exist; {wanted}")
    try:
        state: dict[str, Tensor] = torch.load(path, map_location=HOST, weights_only=True)
    except Exception as error:
        raise EvaluationError(f"weights {str(path)!r} cannot be read: {str(error)[:120]}") from None
    return state


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Put the tensors of a .pth or .safetensors file into a network, ``module.`` prefixes taken off.

    Raises:
        EvaluationError: a missing or damaged file, or weights of another network (the first differences are named).
    """
    file = Path(path)
    if file.suffix == ".safetensors" and file.is_file():
        state = load_tensors(file)[0]
    else:
        state = read_weights(file, wanted="give the network's state_dict as .pth or .safetensors")
    try:
        network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    except (RuntimeError, AttributeError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise EvaluationError(f"weights {str(path)!r} belong to another network: {said}; save its state_dict") from None


def weights_digest(*files: str | Path) -> str:
    """sha256 over the contents of the files, in order; a missing file counts as empty (reading it will say so)."""
    sha = hashlib.sha256()
    for file in map(Path, files):
        sha.update(hashlib.sha256(file.read_bytes() if file.is_file() else b"").digest())
    return sha.hexdigest()
