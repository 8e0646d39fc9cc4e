"""What a user can set of a search."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gantailor.search.limits import COSTS
from gantailor.search.strategies import STRATEGIES, check_strategy

_USER = re.compile(r"(?<=://)([^:/?]*):(.*)@")  # up to the last @: one inside a password is no reason to show the rest
_SECRET = re.compile(r"([?&;][^=&;]*(?:pass|pwd|secret|token|odbc)[^=&;]*=)[^&;]*", re.IGNORECASE)


def shown(storage: object) -> str:
    """A journal or a database's URL as it may be seen by others: passwords are ``***``."""
    text = str(storage)
    return _SECRET.sub(r"\1***", _USER.sub(r"\1:***@", text)) if "://" in text else text


class SearchConfig(BaseModel):
    """How subnets are searched."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    strategy: str = Field("predictor", description=", ".join(STRATEGIES) + ", or module:name")
    trials: int = Field(
        40, ge=0, le=10**7, description="subnets that the search evaluates in all; 0: take the path's net"
    )
    tuning_kimg: float = Field(
        0.0, ge=0, description="thousand images that the best subnets are tuned on before one is chosen; 0: none are"
    )
    finalists: int = Field(
        8, gt=1, le=10**4, description="best subnets of the search that are tuned, if tuning_kimg is set"
    )
    front: bool = Field(False, description="search the whole front of score and MACs below the budget")
    front_cost: str = Field("macs", description="the front's cost: macs, params, or latency_ms@PROFILE")
    workers: int = Field(1, gt=0, le=1024, description="processes that evaluate")
    ray_address: str | None = Field(None, description="evaluate on a Ray cluster: auto, or its address")
    ray_cpus: float = Field(1.0, gt=0, description="CPUs of a Ray worker")
    ray_gpus: float = Field(0.0, ge=0, description="share of a GPU that a Ray worker computes on; 0: on CPUs")
    storage: str | None = Field(
        None,
        repr=False,  # it may hold a password
        description="Optuna storage URL for clusters; a journal file in the run if missing",
    )
    study: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="the study's name there, the same on every machine that shares it; the run's own if missing",
    )

    @field_validator("front_cost")
    @classmethod
    def _cost(cls, value: str) -> str:
        metric, _, profile = value.partition("@")
        if metric not in COSTS or (metric == "latency_ms") != bool(profile):
            raise ValueError("allowed: macs, params, latency_ms@PROFILE (made by: gantailor profile)")
        return value

    @field_validator("strategy")
    @classmethod
    def _known(cls, value: str) -> str:
        return check_strategy(value)
