"""As many minutes for every arm: a short run of each tells how many images those are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gantailor.comparison.runs import WEIGHTS, Comparison, Entry
from gantailor.pipeline.compress import compress
from gantailor.run.folder import read_config
from gantailor.run.run import Run
from gantailor.supernet.errors import ConfigError

Lengths = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Timed(Entry):
    """A short run that is only timed; nothing of it is scored on the test split."""

    @property
    def done(self) -> bool:
        """Whether its trainings are over."""
        return (self.folder / WEIGHTS).exists()

    def complete(self, run: Run) -> None:
        """Train it."""
        compress(run, until="finetune")


def timed(comparison: Comparison, folder: Path) -> list[Timed]:
    """Every arm at every budget, with the first seed."""
    if comparison.pace is None:
        return []
    short = comparison.model_copy(update={"kimg": comparison.pace.kimg, "seeds": comparison.seeds[:1]})
    return [Timed(**vars(entry)) for entry in short.entries(folder / "pace")]


def lengths(comparison: Comparison, measured: Sequence[Timed]) -> tuple[Lengths | None, list[str]]:
    """Thousands of images of each arm at each budget whose short run has ended, and what to say of them.

    None where images are what is equal.

    Raises:
        ConfigError: a run was too short to be timed.
    """
    if comparison.pace is None:
        return None, []
    found = Lengths()
    for entry in (one for one in measured if one.done):
        kimg, seconds = entry.spent(read_config(entry.folder / "subnet.json"))
        if not seconds:
            raise ConfigError(
                f"{entry.folder.name} was too short to be timed, {kimg:g} kimg; give pace a larger kimg, and delete "
                f"{str(entry.folder.parent)!r}"
            )
        found[entry.method, entry.budget] = kimg * 60 * comparison.pace.minutes / seconds
    told = ", ".join(f"{name} at {budget} {kimg:.3g}" for (name, budget), kimg in found.items())
    return found, [f"kimg that each arm was expected to see in {comparison.pace.minutes:g} minutes: {told}"]
