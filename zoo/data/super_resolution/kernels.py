"""Blur kernels of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833), float64 ``[size, size]`` with a sum of one."""

from __future__ import annotations

import math

import numpy as np

LARGEST = 21  # pixels of a kernel


def bell(size: int, covariance: np.ndarray, *, shape: str = "gaussian", beta: float = 1.0) -> np.ndarray:
    """A Gaussian, generalised Gaussian or plateau of a covariance ``[2, 2]``, in pixels squared.

    With ``q`` the squared distance from the middle in units of the covariance: ``exp(-q / 2)``, ``exp(-q^beta / 2)``
    (Liu et al. 2020, arXiv 1908.11131), ``1 / (q^beta + 1)``.
    """
    place = np.arange(size) - (size - 1) / 2
    grid = np.stack(np.meshgrid(place, place), -1)  # x, y
    distance = np.einsum("yxi,ij,yxj->yx", grid, np.linalg.inv(covariance), grid)
    power = distance**beta if shape != "gaussian" else distance
    values = 1 / (power + 1) if shape == "plateau" else np.exp(-power / 2)
    found: np.ndarray = values / values.sum()
    return found


def covariance(across: float, along: float, angle: float) -> np.ndarray:
    """``[2, 2]`` of two standard deviations in pixels, turned by an angle."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    found: np.ndarray = turn @ np.diag([across**2, along**2]) @ turn.T
    return found


def sinc(size: int, cutoff: float) -> np.ndarray:
    """An ideal low-pass of all directions: ``w J1(w r) / (2 pi r)``, its middle ``w^2 / (4 pi)``; ``w`` in radians."""
    from scipy.special import j1

    place = np.arange(size) - (size - 1) / 2
    radius = np.hypot(*np.meshgrid(place, place))
    middle = radius == 0
    values = cutoff * j1(cutoff * radius) / (2 * math.pi * np.where(middle, 1, radius))
    values = np.where(middle, cutoff**2 / (4 * math.pi), values)
    found: np.ndarray = values / values.sum()
    return found
