"""Reads MUNIT generators: NVlabs/MUNIT's ``gen_*.pt``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gantailor.supernet.errors import CheckpointError, ConfigError, nearest


def read_munit(state: Mapping[str, Any], *, side: str = "a") -> dict[str, Tensor]:
    """One generator of an NVlabs/MUNIT ``gen_*.pt`` in the names of ``MunitGenerator``.

    Args:
        state: the file's mapping, ``{"a": tensors, "b": tensors}``, or one generator's tensors, which pass as they are.
            Idle running statistics are dropped.
        side: ``a`` or ``b``, the auto-encoder of that domain; ``a2b`` or ``b2a``, the translator: content
            encoder of the first domain, and style encoder, MLP and decoder of the second. Give a translator a
            style code: its style encoder knows pictures of the second domain only.

    Raises:
        ConfigError: unknown ``side``.
        CheckpointError: the mapping lacks a needed side.
    """
    if side not in ("a", "b", "a2b", "b2a"):
        raise ConfigError(f"side {side!r} is unknown: {nearest(side, ('a', 'b', 'a2b', 'b2a'))}")
    if any(name.startswith("enc_content.") for name in state):
        state = {"a": state, "b": state}
    for needed in (side[0], side[-1]):
        if not isinstance(state.get(needed), Mapping):
            raise CheckpointError(
                f"side {needed!r} is not in the checkpoint, which holds"
                f" {', '.join(list(state)[:4]) or 'nothing'}; allowed are files of NVlabs/MUNIT with"
                " {'a': ..., 'b': ...}: give a gen_*.pt"
            )
    content = {name: value for name, value in state[side[0]].items() if name.startswith("enc_content.")}
    others = {name: value for name, value in state[side[-1]].items() if not name.startswith("enc_content.")}
    return {
        name: value
        for name, value in (content | others).items()
        if not name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))
    }
