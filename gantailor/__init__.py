"""gantailor: cut a trained GAN generator to a MAC budget.

The public names; everything else is reachable through the rooms ``gantailor.supernet``, ``gantailor.search``,
``gantailor.evaluators`` and ``gantailor.zoo``. Each name is imported when it is first used, so that the command line
answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gantailor.api import compress, export, load, open_run
    from gantailor.handover.hub import HubGenerator
    from gantailor.search.spaces.space import Space, space
    from gantailor.search.standalone.search import search
    from gantailor.supernet.calibration import recalibrate
    from gantailor.supernet.errors import GantailorError
    from gantailor.supernet.graph import Selection, SubnetConfig, WidthGraph
    from gantailor.supernet.importance.ranking import rank_channels
    from gantailor.supernet.supernet import Supernet
    from gantailor.supernet.training.narrowing import narrow
    from gantailor.supernet.verify import verify
    from gantailor.zoo.checkpoints import load_teacher
    from gantailor.zoo.generators.record import build

__version__ = "0.1.0"

_PUBLIC = {  # where each lives; a package that is a function too by its own name
    "GantailorError": "gantailor.supernet.errors",
    "HubGenerator": "gantailor.handover.hub",
    "Selection": "gantailor.supernet.graph",
    "Space": "gantailor.search.spaces.space",
    "SubnetConfig": "gantailor.supernet.graph",
    "Supernet": "gantailor.supernet.supernet",
    "WidthGraph": "gantailor.supernet.graph",
    "build": "gantailor.zoo.generators.record",
    "compress": "gantailor.api",
    "export": "gantailor.export",
    "load": "gantailor.api",
    "load_teacher": "gantailor.zoo.checkpoints",
    "narrow": "gantailor.supernet.training.narrowing",
    "open_run": "gantailor.api",
    "rank_channels": "gantailor.supernet.importance.ranking",
    "recalibrate": "gantailor.supernet.calibration",
    "search": "gantailor.search",
    "space": "gantailor.search.spaces.space",
    "verify": "gantailor.supernet.verify",
}

__all__ = [
    "GantailorError",
    "HubGenerator",
    "Selection",
    "Space",
    "SubnetConfig",
    "Supernet",
    "WidthGraph",
    "build",
    "compress",
    "export",
    "load",
    "load_teacher",
    "narrow",
    "open_run",
    "rank_channels",
    "recalibrate",
    "search",
    "space",
    "verify",
]


def __getattr__(name: str) -> Any:
    """A public name, imported at its first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'gantailor' has no attribute {name!r}")
    found = import_module(_PUBLIC[name])
    return found if _PUBLIC[name] == f"{__name__}.{name}" else getattr(found, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
