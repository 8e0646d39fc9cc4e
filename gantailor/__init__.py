"""gantailor: cut a trained GAN generator to a MAC budget.

The public names; everything else is reachable through the packages ``supernet``, ``search``, ``evaluators``, ``zoo``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

__version__ = "0.1.0"


def _guard_packages() -> None:
    """Our top-level names are common words: say so if another installed package took one of them."""
    home = Path(__file__).resolve().parent.parent
    for name in ("supernet", "search", "evaluators", "zoo"):
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None or Path(found.origin).resolve().parent.parent != home:
            raise ImportError(
                f"gantailor needs its own package {name!r} from {home}, but Python finds "
                f"{found.origin if found else 'nothing'}; remove or rename that file or folder"
            )


_guard_packages()

from search.space import Space, space  # noqa: E402
from supernet.errors import GantailorError  # noqa: E402
from supernet.graph import Selection, SubnetConfig, WidthGraph  # noqa: E402
from supernet.ranking import rank_channels  # noqa: E402
from supernet.supernet import Supernet  # noqa: E402
from supernet.verify import verify  # noqa: E402
from zoo.builders import build  # noqa: E402
from zoo.checkpoints import load_teacher  # noqa: E402

__all__ = [
    "GantailorError",
    "Selection",
    "Space",
    "SubnetConfig",
    "Supernet",
    "WidthGraph",
    "build",
    "load_teacher",
    "rank_channels",
    "space",
    "verify",
]
