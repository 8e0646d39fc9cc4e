"""Feature extractors by name; known without importing a network."""

from __future__ import annotations

from gantailor.supernet.errors import EvaluationError

EFFICIENTNET, INCEPTION = "efficientnet-lite0", "inception-2015-12-05"
INCEPTION_VARIANTS = ("768", "192", "64")  # features of earlier layers, which scores carry in their names: fid768
EXTRACTORS = (EFFICIENTNET, INCEPTION, *(f"{INCEPTION}@{dims}" for dims in ("2048", *INCEPTION_VARIANTS)))


def check_extractor(name: str) -> str:
    """The same name, if it is an extractor's.

    Raises:
        EvaluationError: it is not.
    """
    if name not in EXTRACTORS:
        raise EvaluationError(
            f"extractor {name!r} is unknown; allowed are {EFFICIENTNET}, {INCEPTION} and its variants "
            + ", ".join(f"@{dims}" for dims in INCEPTION_VARIANTS)
        )
    return name


def missing_weights(name: str, weights: str | None) -> str | None:
    """What an extractor lacks, as one line for the user; ``None`` where nothing is missing."""
    if name.startswith(INCEPTION) and weights is None:
        return (
            f"extractor {name!r} needs --weights FILE: pytorch-fid's pt_inception-2015-12-05-6726825d.pth or "
            "torch-fidelity's weights-inception-2015-12-05-6726825d.pth"
        )
    return None
