"""Command ``profile``: latencies of subnets on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from gantailor.cli.flags import config_of
from gantailor.pipeline.profiling import measure_profile, profile_from_table
from gantailor.run.setup import Setup
from gantailor.supernet.errors import ConfigError


def profile(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure subnets on this device, or read a table, and fit a latency profile."""
    setup, path = Setup(config_of(arguments)), Path(arguments.file)
    if not path.absolute().parent.is_dir():  # before minutes of measuring
        raise ConfigError(f"profile {str(path)!r} cannot be written: its folder does not exist; make it first")
    if arguments.table:
        profile = profile_from_table(setup, arguments.table, device=arguments.runtime)
    else:
        profile, table = measure_profile(
            setup,
            runtime=arguments.runtime,
            subnets=arguments.subnets,
            threads=arguments.threads,
            on_subnet=setup.report.pictures("subnets", "subnets"),
        )
        table.to_csv(path.with_suffix(".csv"), index=False)
    profile.save(path)
    space = setup.space
    ends = profile.predict(space, np.stack([space.smallest, space.largest]))
    print(f"{profile.device}: {ends[0]:.3g} to {ends[1]:.3g} ms over the space, ", end="")
    print(f"median error {100 * profile.error:.1f}% on the subnets left out of the fit")
    print(f"use it with: --budget 'latency_ms<={ends.mean():.3g}@{path}'")
    return {"file": path, "device": profile.device, "ms": ends, "median_error": profile.error}
