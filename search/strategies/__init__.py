"""How the next subnets are chosen. Every strategy proposes only candidates that meet the budget.

A strategy is a function of what is known, the budget and a random generator (``common.Strategy``); it keeps nothing
between calls, so a search that was killed goes on as if it had not been. Or it is a class: made with ``seed=...``, its
instances are such functions. A class may also have ``probes(space)``: subnets that are scored before anything else,
whatever they cost (``History.probes``; a study of their own beside the search's); ``start``: how many trials are the
beginning that all searches have; ``remark(budget, trials)``: a line that is told before one.
``gantailor.search.conformance`` has the tests that each passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gantailor.supernet.errors import ConfigError
from gantailor.supernet.plugins import check_name, checked_call, find

if TYPE_CHECKING:
    from gantailor.search.strategies.common import Strategy

STRATEGIES = {
    "predictor": "gantailor.search.strategies.predictor:predictor",
    "evolution": "gantailor.search.strategies.evolution:Evolution",
    "sensitivity": "gantailor.search.strategies.sensitivity:Sensitivity",
    "random": "gantailor.search.strategies.random:random",
    "exhaustive": "gantailor.search.strategies.exhaustive:exhaustive",
    "tpe": "gantailor.search.strategies.optuna_samplers:TPE",
    "nsga2": "gantailor.search.strategies.optuna_samplers:NSGA2",
    "nsga3": "gantailor.search.strategies.optuna_samplers:NSGA3",
    "gp": "gantailor.search.strategies.optuna_samplers:GP",
}

WANTED = "a function of (history, budget, rng), or a class of such that is made with seed=..."
S = TypeVar("S", bound="str | Strategy")


def check_strategy(given: S) -> S:
    """The same name, or the same strategy; nothing is imported.

    Raises:
        ConfigError: there is no such strategy.
    """
    if isinstance(given, str):
        check_name(given, STRATEGIES, "strategy")
    elif not callable(given):
        raise ConfigError(f"strategy cannot be {given!r}; give a name, or {WANTED}")
    return given


def make_strategy(name: str, *, seed: int) -> Strategy:
    """A strategy by name, or one's own as ``module:name``.

    Raises:
        ConfigError: there is none, or it cannot be imported or made.
    """
    found = find(name, STRATEGIES, "strategy")
    wanted = f"give {WANTED}"
    try:
        checked_call(found, name, "strategy", wanted)
        made: Strategy = found(seed=seed) if isinstance(found, type) else found
    except TypeError as error:
        raise ConfigError(f"strategy {name!r} cannot be made: {error}; {wanted}") from None
    if not callable(made):
        raise ConfigError(f"strategy {name!r} is a {type(made).__name__}; {wanted}")
    return made
