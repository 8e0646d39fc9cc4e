"""Reading the weights files that a user names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from gantailor.evaluators.errors import EvaluationError


def read_weights(path: str | Path, *, wanted: str) -> dict[str, Tensor]:
    """The tensors of a file; nothing in it is run. ``wanted`` says which file to give.

    Raises:
        EvaluationError: a missing or damaged file.
    """
    if not Path(path).is_file():
        raise EvaluationError(f"weights {str(path)!r} do not exist; {wanted}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise EvaluationError(f"weights {str(path)!r} cannot be read: {str(error)[:120]}") from None


def weights_digest(*files: str | Path) -> str:
    """sha256 over the contents of the files, in order; a missing file counts as empty (reading it will say so)."""
    sha = hashlib.sha256()
    for file in map(Path, files):
        sha.update(hashlib.sha256(file.read_bytes() if file.is_file() else b"").digest())
    return sha.hexdigest()
