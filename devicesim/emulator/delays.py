"""How long something takes: a distribution over an interval, drawn from one uniform number. Pure."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Final, Literal

Shape = Literal["uniform", "lognormal", "exponential"]

_TAIL: Final = NormalDist().inv_cdf(0.95)
_EXPONENTIAL_95: Final = -math.log(0.05)


def problem(shape: Shape, interval: tuple[float, float]) -> str | None:
    """Why this is no distribution."""
    low, high = interval
    if not 0 <= low <= high < math.inf:
        return f"interval {low:g} to {high:g} s, must go up from at least 0"
    if shape == "lognormal" and low == 0 < high:
        return "a lognormal delay cannot begin at 0 s"
    return None


def draw(shape: Shape, interval: tuple[float, float], uniform: Callable[[float, float], float]) -> float:
    """Seconds. ``uniform``: anywhere in the interval. ``lognormal``: nine of ten in the interval, one of twenty longer,
    the median at its geometric mean. ``exponential``: at least its beginning, one of twenty beyond its end."""
    low, high = interval
    if low == high:
        return low
    if shape == "uniform":
        return uniform(low, high)
    share = min(max(uniform(0.0, 1.0), 1e-12), 1 - 1e-12)
    if shape == "exponential":
        return low - math.log(1 - share) * (high - low) / _EXPONENTIAL_95
    middle = (math.log(low) + math.log(high)) / 2
    width = (math.log(high) - math.log(low)) / 2 / _TAIL
    return math.exp(middle + width * NormalDist().inv_cdf(share))
