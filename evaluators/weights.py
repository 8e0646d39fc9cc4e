"""Reading the weights files that a user names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from evaluators.errors import EvaluationError


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
