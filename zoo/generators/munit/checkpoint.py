"""Reads MUNIT generators: NVlabs/MUNIT's ``gen_*.pt``."""

from __future__ import annotations

import re
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


def munit_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Channels, style, depth and form."""
    stem, mlp, style = (
        state.get(name)
        for name in ("enc_content.model.0.conv.weight", "mlp.model.0.fc.weight", "enc_style.model.6.weight")
    )
    if stem is None:
        return {}
    content = {match[1] for name in state if (match := re.match(r"enc_content\.model\.(\d+)\.conv\.", name))}
    blocks = {match[1] for name in state if (match := re.match(r"dec\.model\.0\.model\.(\d+)\.", name))}
    found: dict[str, Any] = {"input_nc": stem.shape[1], "ngf": stem.shape[0], "n_downsample": len(content) - 1}
    found |= {"n_res": len(blocks)} if blocks else {}
    found |= {"separable": any(re.match(r"dec\.model\.0\.model\.0\.model\.0\.conv\.conv\.", name) for name in state)}
    found |= {} if mlp is None else {"mlp_dim": mlp.shape[0]}
    return found | ({} if style is None else {"style_dim": style.shape[0]})
