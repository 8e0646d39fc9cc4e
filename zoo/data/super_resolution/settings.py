"""The ranges of Real-ESRGAN's degradation, by the names of its public code, and which parts of it there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from gantailor.supernet.errors import ConfigError, nearest

Range = tuple[float, float]
KERNELS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
PARTS = ("blur", "resize", "noise", "jpeg", "sinc", "second")  # that may be left out; second: the second round
DEGRADATIONS = ("bicubic", "area", "realesrgan")


@dataclass(frozen=True)
class Round:
    """One round: blur, resize, noise, JPEG. Defaults are the first round's.

    Attributes:
        kernel_prob: chances of the six ``KERNELS``, where it is no sinc.
        sinc_prob: chance of a sinc kernel.
        blur_sigma: standard deviations in pixels.
        betag_range, betap_range: exponents of generalised Gaussians and of plateaus, a half of them below 1.
        blur_prob: chance of any blur.
        resize_prob: chances of larger, smaller, the same.
        resize_range: factors on the sides.
        gaussian_noise_prob: chance of Gaussian noise; else it is Poisson's.
        noise_range: standard deviations, of 255.
        poisson_scale_range: factors on Poisson noise.
        gray_noise_prob: chance that all channels have the same noise.
        jpeg_range: qualities.
    """

    kernel_prob: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_prob: float = 0.1
    blur_sigma: Range = (0.2, 3)
    betag_range: Range = (0.5, 4)
    betap_range: Range = (1, 2)
    blur_prob: float = 1.0
    resize_prob: tuple[float, ...] = (0.2, 0.7, 0.1)
    resize_range: Range = (0.15, 1.5)
    gaussian_noise_prob: float = 0.5
    noise_range: Range = (1, 30)
    poisson_scale_range: Range = (0.05, 3)
    gray_noise_prob: float = 0.4
    jpeg_range: Range = (30, 95)


SECOND = Round(
    blur_sigma=(0.2, 1.5),
    blur_prob=0.8,
    resize_prob=(0.3, 0.4, 0.3),
    resize_range=(0.3, 1.2),
    noise_range=(1, 25),
    poisson_scale_range=(0.05, 2.5),
)


@dataclass(frozen=True)
class Chain:
    """Two rounds, and a sinc filter at the end.

    Attributes:
        final_sinc_prob: chance of the last filter.
        without: parts that are left out, of ``PARTS``.
    """

    first: Round = field(default_factory=Round)
    second: Round = SECOND
    final_sinc_prob: float = 0.8
    without: tuple[str, ...] = ()

    def has(self, part: str) -> bool:
        """Whether a part is there."""
        return part not in self.without


def degradation_of(options: Mapping[str, Any]) -> tuple[str, Chain]:
    """The degradation that ``data.options`` name, bicubic by default, and Real-ESRGAN's ranges.

    Names are the public code's: those of the second round end in 2, its blur's chance is ``second_blur_prob``.

    Raises:
        ConfigError: an unknown name, or a value that cannot be.
    """
    given = dict(options)
    name = given.pop("degradation", "bicubic")
    if name not in DEGRADATIONS:
        raise ConfigError(f"data.options.degradation {name!r} is unknown; {nearest(str(name), DEGRADATIONS)}")
    if given and name != "realesrgan":
        raise ConfigError(
            f"data.options {', '.join(given)} are those of degradation realesrgan, and it is {name}; leave them out"
        )
    rounds: dict[str, dict[str, Any]] = {"first": {}, "second": {}}
    without, final = given.pop("without", ()), Chain().final_sinc_prob
    usual = {"first": Round(), "second": SECOND}
    known = [f.name for f in fields(Round) if f.name != "blur_prob"]
    for option, value in given.items():
        if option == "final_sinc_prob":
            final = _checked(option, final, value)
        elif option == "second_blur_prob":
            rounds["second"]["blur_prob"] = _checked(option, SECOND.blur_prob, value)
        elif option.removesuffix("2") in known:
            which, plain = ("second" if option.endswith("2") else "first"), option.removesuffix("2")
            rounds[which][plain] = _checked(option, getattr(usual[which], plain), value)
        else:
            every = [*known, *(f"{n}2" for n in known), "second_blur_prob", "final_sinc_prob", "without", "degradation"]
            raise ConfigError(f"data.options has no {option!r}; {nearest(option, every)}")
    first, second = (replace(usual[which], **values) for which, values in rounds.items())
    return name, Chain(first, second, final, _parts(without))


def _parts(value: Any) -> tuple[str, ...]:
    given = (value,) if isinstance(value, str) else tuple(value)
    for part in given:
        if part not in PARTS:
            raise ConfigError(f"data.options.without {part!r} is no part; {nearest(str(part), PARTS)}")
    return given


def _checked(option: str, usual: Any, value: Any) -> Any:
    """The value as the usual one is: a chance, several chances, or a range.

    Raises:
        ConfigError: it is another thing.
    """
    several, count = isinstance(usual, tuple), len(usual) if isinstance(usual, tuple) else 1
    numbers = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    good = len(numbers) == count and all(type(n) in (int, float) and n >= 0 for n in numbers)
    if option.removesuffix("2").endswith("_prob"):
        good = good and (sum(numbers) > 0 if several else numbers[0] <= 1)
        wanted = f"{count} chances" if several else "a chance from 0 to 1"
    else:
        good = good and 0 < numbers[0] <= numbers[-1]
        wanted = "a range of two numbers above 0, the smaller first"
        if option.startswith("jpeg"):
            good, wanted = good and numbers[-1] <= 100, "two qualities from 1 to 100, the smaller first"
    if not good:
        raise ConfigError(f"data.options.{option} cannot be {value!r}; give {wanted}, as {list(numbers_of(usual))}")
    return tuple(map(float, numbers)) if several else float(numbers[0])


def numbers_of(value: Any) -> tuple[float, ...]:
    """One number or several."""
    return value if isinstance(value, tuple) else (value,)
