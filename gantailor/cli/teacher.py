"""Command ``teacher``: a teacher from pictures alone."""

from __future__ import annotations

import argparse

import yaml

from gantailor.cli.flags import config_of
from gantailor.pipeline.teacher import train_teacher
from gantailor.run.run import Run
from gantailor.supernet.training.recipe import Recipe

TEACHER_RECIPE = Recipe(kimg=160, ema_kimg=5, decay_from=0.4)


def teacher(arguments: argparse.Namespace) -> None:
    """Train a teacher on the run's data."""
    preset = vars(arguments)["set:train.preset"]
    base = {} if preset else {f"train.{k}": v for k, v in TEACHER_RECIPE.model_dump(exclude={"seed"}).items()}
    run = Run(arguments.out, config_of(arguments, base))
    if arguments.dry_run:
        print(yaml.safe_dump(run.config.train.model_dump(mode="json"), sort_keys=False))
        return
    print(train_teacher(run))
