"""Generators that were given from Python: a module in place of a name and a checkpoint.

    gantailor.compress(model, data=dataset, budget="0.1x")

Settings name them by what they are, ``python:DIGEST``: as a generator by architecture (class, layers, names and shapes
of its tensors), as a teacher by its weights too. Only the process that was given one has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from gantailor.supernet.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

GIVEN = "python"  # the module of what was given from Python
_given: dict[str, nn.Module] = {}  # by name: what only this process has


def give(model: nn.Module) -> tuple[str, str]:
    """The module's names as a generator and as a teacher; a copy of it is kept, in eval mode.

    Raises:
        ConfigError: it cannot be narrowed, whatever it computes, or its weights are not in float32.
    """
    from gantailor.supernet.calling import check_module, not_float32
    from gantailor.supernet.files import state_digest
    from gantailor.supernet.subnets.copying import copied

    check_module(model)
    if odd := not_float32(model.parameters()):
        raise ConfigError(
            f"the generator is in {', '.join(odd)}; give it in float32, model.float(): precision says what it is "
            "trained in, a device of float16 rounds by itself"
        )
    kept = copied(model).eval()
    kind, tensors = type(model), [(name, list(one.shape)) for name, one in model.state_dict().items()]
    said = f"{kind.__module__}.{kind.__qualname__}|{model!r}|{tensors}"
    architecture = f"{GIVEN}:g{hashlib.sha256(said.encode()).hexdigest()[:12]}"
    weights = f"{GIVEN}:w{state_digest(kept, said)[:12]}"
    _given[architecture] = _given[weights] = kept
    return architecture, weights


def is_given(name: str) -> bool:
    """Whether a name is one of a module from Python."""
    return name.startswith(f"{GIVEN}:")


def given(name: str) -> Callable[[], nn.Module]:
    """What makes copies of the module that was given to this process under a name.

    Raises:
        ConfigError: none was; the run, or the export, needs it again.
    """
    from gantailor.supernet.subnets.copying import copied

    if name not in _given:
        raise ConfigError(
            f"the generator was given from Python ({name}), and this process does not have it; pass it again: "
            "gantailor.load(..., model=...), gantailor.open_run(folder, model=...) or gantailor.compress(model, ...)"
        )
    kept = _given[name]

    def build() -> nn.Module:
        return copied(kept)

    return build
