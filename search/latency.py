"""Latency on a device, predicted from a few dozen measured subnets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gantailor.search.spaces.space import Space
from gantailor.supernet.errors import ConfigError, why_of
from gantailor.supernet.files import write_json
from gantailor.supernet.received.documents import read_json
from gantailor.supernet.supernet import Supernet


@dataclass(frozen=True)
class LatencyProfile:
    """Milliseconds as a non-negative sum of a constant, MACs, parameters and widths, so that wider is never faster.

    Attributes:
        device: what was measured and how, for the reader.
        widths: names that the last coefficients belong to.
        coefficients: of (1, true MACs, parameters, each width).
        error: median relative error on the subnets left out of the fit.
        margin: the largest share by which one of those took longer than predicted; budgets keep that far away.
    """

    device: str
    widths: tuple[str, ...]
    coefficients: tuple[float, ...]
    error: float
    margin: float = 0.0

    @classmethod
    def fit(
        cls, supernet: Supernet, sizes: np.ndarray, milliseconds: Sequence[float] | np.ndarray, *, device: str
    ) -> LatencyProfile:
        """From measured subnets (widths ``[N, n_widths]``, N at least 8); every fourth of them judges the fit.

        Raises:
            ConfigError: too few, or times that are not positive.
        """
        from scipy.optimize import nnls  # slow to import, and only a profile needs it

        times = np.asarray(milliseconds, np.float64)
        if len(times) < 8 or not (times > 0).all():
            raise ConfigError(
                f"a latency profile needs at least 8 measured subnets with positive times, not {len(times)}"
            )
        features = _features(supernet, sizes)
        held = np.arange(len(times)) % 4 == 3
        scale = np.maximum(features.max(0), 1)  # a layer of a branch may be gone in all of them

        def solve(rows: np.ndarray) -> np.ndarray:
            weights = 1 / times[rows]  # relative errors count, not absolute ones
            solved: np.ndarray = nnls(features[rows] / scale * weights[:, None], times[rows] * weights)[0] / scale
            return solved

        longer = times[held] / (features[held] @ solve(~held)) - 1
        names = tuple(width.name for width in supernet.graph.widths)
        everything = solve(np.ones(len(times), bool))
        return cls(
            device, names, tuple(everything.tolist()), float(np.median(np.abs(longer))), max(0.0, float(longer.max()))
        )

    def predict(self, space: Space, indices: np.ndarray) -> np.ndarray:
        """Milliseconds of each row of choice indices.

        Raises:
            ConfigError: the profile was made for another generator.
        """
        return self.predict_sizes(space.supernet, space.sizes(indices))

    def predict_sizes(self, supernet: Supernet, sizes: np.ndarray) -> np.ndarray:
        """Milliseconds of each row of widths, see ``predict``."""
        if self.widths != tuple(width.name for width in supernet.graph.widths):
            raise ConfigError("the latency profile was measured on another generator; make one with: gantailor profile")
        predicted: np.ndarray = _features(supernet, sizes) @ np.array(self.coefficients)
        return predicted

    def bound(self, supernet: Supernet, sizes: np.ndarray) -> np.ndarray:
        """Milliseconds of each row of widths that are hardly exceeded: the prediction and the margin."""
        return self.predict_sizes(supernet, sizes) * (1 + self.margin)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> LatencyProfile:
        """From the JSON object that ``save`` writes."""
        coefficients = tuple(map(float, raw["coefficients"]))
        return cls(raw["device"], tuple(raw["widths"]), coefficients, raw["error"], raw.get("margin", 0.0))

    @classmethod
    def load(cls, path: str | Path) -> LatencyProfile:
        """Read what ``save`` wrote.

        Raises:
            ConfigError: no such file, or another content.
        """
        try:
            return cls.of(read_json(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"latency profile {str(path)!r} cannot be read ({why_of(error)}); make one with: gantailor profile"
            ) from None


def _features(supernet: Supernet, sizes: np.ndarray) -> np.ndarray:
    macs, parameters = supernet.macs_many(sizes), supernet.cost.parameters(sizes)
    return np.concatenate([np.ones((len(sizes), 1)), np.stack([macs, parameters], 1), sizes], 1).astype(np.float64)
