"""What subnets compute: sliced is extracted, permuted and removed are the whole, the whole is the original."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from gantailor.supernet.errors import VerificationError, told
from gantailor.supernet.graph import Selection, SubnetConfig
from gantailor.supernet.proof.blame import accused, guilty
from gantailor.supernet.proof.values import Values, distance
from gantailor.supernet.proof.verification import TOLERANCES
from gantailor.supernet.subnets.folding import folded
from gantailor.supernet.subnets.slicing import tensors_of
from gantailor.supernet.supernet import Supernet

# Subnets whose values are compared beside the random ones, and those whose removal is held against zeroing.
COMPARED = ("half", "one unit", "equal sizes, 0")
REMOVALS = ("half", "equal sizes, 0", "random, 0")


class Comparisons:
    """All that is compared of one supernet.

    Args:
        configs: sizes of the subnets that are tried, by what they are called; not empty.
        seed: of their channels.
        tell: told about each comparison.
    """

    def __init__(
        self, values: Values, configs: Mapping[str, SubnetConfig], seed: int, tell: Callable[[], None]
    ) -> None:
        self.values, self.graph, self.tell = values, values.graph, tell
        self.rng = np.random.default_rng(seed)
        chosen = {name: config for name, config in configs.items() if name in COMPARED or name.startswith("random")}
        self.selections = {name: values.selection(config, self.rng) for name, config in chosen.items()}
        self.every = range(len(self.graph.widths))
        self.near = TOLERANCES[values.bits][1] * values.scale

    def sliced(self) -> float:
        """A sliced forward equals the extracted plain module.

        Raises:
            VerificationError: it does not; or two forwards on the same input differ.
        """
        if not self.values.repeats(self.selections.get("one unit", next(iter(self.selections.values())))):
            raise VerificationError(
                "two forwards on the same input differ, so nothing can be proved; is there a state that each call "
                "changes (a power iteration, a counter)? Make the forward repeatable"
            )
        allowed = TOLERANCES[self.values.bits][0] * max(1.0, self.values.scale)
        found = 0.0
        for name, selection in self.selections.items():
            text = f"sliced and extracted subnets differ by {{}}; allowed is {allowed:.1e} ({name})"

            def measure(widths: Collection[int], selection: Selection = selection) -> float:
                return self.values.sliced(self.values.narrowed(selection, widths))

            found = max(found, self._within(measure, self.every, allowed, text))
        return found

    def permuted(self) -> float:
        """Permuting all widths leaves the output as it was.

        Raises:
            VerificationError: it does not.
        """

        def measure(widths: Collection[int]) -> float:
            return self.values.permuted(widths, self.rng)

        return self._within(measure, self.every, self.near, "permuting the widths changes the output by {}")

    def removed(self) -> float:
        """Removing channels equals zeroing them where they are consumed; inexact widths are narrow in both.

        Raises:
            VerificationError: it does not.
        """
        exact, found = [w for w in self.every if w not in self.graph.inexact], 0.0
        for name in REMOVALS if exact else ():
            if name in self.selections:
                selection = self.selections[name]

                def measure(widths: Collection[int], selection: Selection = selection) -> float:
                    return self.values.removed(self.values.narrowed(selection, {*widths, *self.graph.inexact}), widths)

                text = f"removing channels is not zeroing them (off by {{}}; {name})"
                found = max(found, self._within(measure, exact, self.near, text, inexact=True))
        return found

    def _within(
        self,
        measure: Callable[[Collection[int]], float],
        widths: Collection[int],
        allowed: float,
        text: str,
        *,
        inexact: bool = False,
    ) -> float:
        self.tell()
        failed = []

        def measured(chosen: Collection[int]) -> float:
            try:
                return measure(chosen)
            except Exception as error:  # whatever a stranger's forward raises
                failed.append(told(error))
                return math.inf

        found = measured(widths)
        if found <= allowed:
            return found
        fails, text = bool(failed), f"a narrow forward fails: {failed[0]}" if failed else text.format(f"{found:.2e}")
        groups = guilty(lambda chosen: not measured(chosen) <= allowed, [*widths])
        raise accused(self.graph, text, groups, inexact=inexact and not fails)


def original(supernet: Supernet, values: Values) -> float:
    """How far the supernet at full width is from the generator that it was made from.

    Either may have been trained since: then that generator is held against a supernet's copy made anew.

    Raises:
        VerificationError: they are different functions.
    """
    own, caller = values.supernet.generator, supernet.caller.generator
    if _same(tensors_of(supernet.generator), tensors_of(caller)):
        return 0.0  # nothing was folded and nobody trained since: one is a copy of the other
    try:
        theirs = values.precise.like(caller)
        expected = values.run(theirs)
        found, allowed = distance(values.run(own), expected), TOLERANCES[values.bits][1] * float(expected.abs().max())
        if not found <= allowed:
            found = distance(values.run(folded(theirs, values.precise.inputs)), expected)
    except Exception as error:  # whatever a stranger's forward raises
        raise VerificationError(f"the generator that the supernet was made from does not run: {told(error)}") from None
    if not found <= allowed:
        raise VerificationError(
            f"the supernet at full width is another function than the generator that it was made from: off by "
            f"{found:.2e}, allowed is {allowed:.1e}; does its forward read what a norm of weights is computed from, or "
            "change a weight at every call? Remove the norm before (torch.nn.utils.parametrize.remove_parametrizations)"
        )
    return found


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        x.shape == y.shape and x.device == y.device and torch.equal(x, y)
        for x, y in zip(one.values(), (other[name] for name in one), strict=True)
    )
