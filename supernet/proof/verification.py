"""What a proof found, and how far apart values may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# By the bits of the coarsest number in a forward, as a share of the output's largest value: sliced against extracted
# (the same operations on the same numbers), and what is summed in another order.
TOLERANCES = {64: (1e-12, 1e-8), 32: (1e-5, 1e-3), 16: (1e-2, 5e-2)}


@dataclass(frozen=True)
class Verification:
    """Largest absolute differences found.

    Attributes:
        original: between the supernet at full width and the generator that it was made from.
        subnets: narrow nets that run the operations of the whole one, with as many MACs as ``macs`` says.
        bits: of the coarsest number in the generator's forward; 64 where all is float64.
        frozen: why nothing can shrink, where nothing can.
    """

    sliced_extracted: float
    permuted: float
    removed: float
    widths: int
    original: float
    subnets: int
    bits: int
    frozen: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.widths:
            why = "; ".join(f"{name} {reason}" for name, reason in [*self.frozen.items()][:5]) or "it has no layers"
            return f"no width is left that can shrink, so that nothing is to be proved: {why}"
        coarse = f"; computed in float{self.bits}, tolerance {TOLERANCES[self.bits][1]}" if self.bits < 64 else ""
        return (
            f"{self.widths} widths hold: sliced = extracted to {self.sliced_extracted:.1e}, "
            f"permuted = original to {self.permuted:.1e}, removed = zeroed at the consumers to {self.removed:.1e}, "
            f"supernet = generator to {self.original:.1e}; {self.subnets} subnets run its operations, with the MACs "
            f"that macs() says{coarse}"
        )
