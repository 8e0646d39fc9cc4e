"""How a generator is trained: one set of typed, validated numbers for teacher, supernet and fine-tuning alike."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from supernet.losses import GanLoss


class Recipe(BaseModel):
    """Losses, optimiser and length of one training. Defaults are the demo task's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kimg: float = Field(16.0, gt=0, description="training length in thousands of images")
    batch: int = Field(16, gt=0, description="images in a step")
    lr: float = Field(2e-4, gt=0, description="Adam learning rate of generator and discriminator")
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam beta1")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam beta2")
    decay_from: float = Field(0.5, ge=0, le=1, description="share of the length after which lr falls linearly")
    gan: GanLoss = Field("hinge", description="adversarial loss, or none to train without a discriminator")
    gan_weight: float = Field(1.0, ge=0, description="weight of the adversarial loss")
    target_weight: float = Field(50.0, ge=0, description="weight of L1 to the ground truth")
    output_weight: float = Field(0.0, ge=0, description="weight of L1 to the teacher's output")
    feature_weight: float = Field(0.0, ge=0, description="weight of MSE to the teacher's features")
    ema_kimg: float = Field(2.0, ge=0, description="half-life of the weight average, in kimg; 0 switches it off")
    sampling: Literal["uniform", "sandwich"] = Field(
        "uniform", description="subnets of a step: one at random, or smallest, largest and random in turn"
    )
    mirror: bool = Field(True, description="mirror pictures at random")
    shift: int = Field(4, ge=0, description="move pictures at random by up to so many pixels")
    precision: Literal["float32", "bfloat16"] = Field("bfloat16", description="precision of the networks' forward")
    seed: int = Field(0, ge=0, description="seed of data order, subnets and initial weights")

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return max(1, round(self.kimg * 1000 / self.batch))

    def lr_at(self, step: int) -> float:
        """Learning rate at a step: constant, then linear to zero."""
        done = step / self.steps
        if done < self.decay_from:
            return self.lr
        return self.lr * max(0.0, 1 - done) / max(1 - self.decay_from, 1e-9)
