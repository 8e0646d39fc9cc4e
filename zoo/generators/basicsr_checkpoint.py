"""What checkpoints of BasicSR, and so of Real-ESRGAN, are: weights and their average beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gantailor.supernet.errors import CheckpointError

PARTS = ("params_ema", "params")  # the average first


def averaged(checkpoint: Mapping[str, Any], *, first: Sequence[str], what: str) -> dict[str, Any]:
    """The mapping of weights in a file: ``params_ema`` where there is one, else ``params``, else the file itself.

    Args:
        first: what the first layer's weights may be called.
        what: the family, for the message.

    Raises:
        CheckpointError: the file is BasicSR's, of another net.
    """
    part = next((name for name in PARTS if isinstance(checkpoint.get(name), Mapping)), None)
    found = checkpoint if part is None else checkpoint[part]
    weights = {name.removeprefix("_orig_mod.").removeprefix("module."): value for name, value in found.items()}
    if part is not None and not any(name in weights for name in first):
        raise CheckpointError(
            f"its {part} belongs to another architecture than {what}: it has no {first[0]}, only "
            f"{', '.join(list(weights)[:4]) or 'nothing'}, ...; name the generator that it was trained with"
        )
    return weights
