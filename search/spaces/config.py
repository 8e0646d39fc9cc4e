"""What a user can set of a search space."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

FRACTIONS = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1.0)


class SpaceConfig(BaseModel):
    """Which subnets a search may look at."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str = Field(
        "default",
        description="default, uniform (one share for all widths), every (size), path (the supernet trains along it), "
        "or a table such as resnet/channels-48",
    )
    fractions: tuple[float, ...] | None = Field(
        None, description="shares of the full width; 1/4, 1/3, 1/2, 2/3, 5/6 and 1, or every size if uniform"
    )
    multiple: int | None = Field(
        None, gt=0, description="round widths to this multiple of channels; 4, or 1 if uniform, every or path"
    )
    ties: tuple[tuple[str, ...], ...] = Field((), description="default space: lists of widths that shrink together")
    freeze: tuple[str, ...] = Field((), description="default space: widths that stay whole; wildcards allowed")
    drop_branches: bool = Field(
        False, description="widths within residual branches may lose all channels: the block is then an identity"
    )

    @field_validator("fractions")
    @classmethod
    def _shares(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is None:
            return None
        if not value or any(not 0 < fraction <= 1 for fraction in value):
            raise ValueError("shares of the full width, each above 0 and at most 1")
        return tuple(sorted(set(value)))

    @property
    def rounding(self) -> int:
        """The multiple, that of the space where none was given."""
        return self.multiple or (1 if self.name in ("uniform", "every", "path") else 4)
