"""Delays drawn over an interval."""

import random

import pytest

from devicesim.emulator import delays

SHAPES: tuple[delays.Shape, ...] = ("uniform", "lognormal", "exponential")


@pytest.mark.parametrize("shape", SHAPES)
def test_an_interval_without_width_is_its_one_value(shape: delays.Shape) -> None:
    assert delays.draw(shape, (2.0, 2.0), lambda _low, _high: 1 / 0) == 2.0


def draws(shape: delays.Shape) -> list[float]:
    generator = random.Random(7)
    return sorted(delays.draw(shape, (1.0, 3.0), generator.uniform) for _ in range(20_000))


def test_uniform_delays_stay_in_the_interval() -> None:
    found = draws("uniform")

    assert found[0] >= 1
    assert found[-1] <= 3
    assert found[10_000] == pytest.approx(2, abs=0.05)


def test_lognormal_delays_have_the_interval_as_their_middle_nine_tenths() -> None:
    found = draws("lognormal")

    assert found[1000] == pytest.approx(1, rel=0.03)
    assert found[10_000] == pytest.approx(3**0.5, rel=0.03)
    assert found[19_000] == pytest.approx(3, rel=0.03)
    assert found[-1] > 4


def test_exponential_delays_begin_with_the_interval_and_outlast_it_once_in_twenty() -> None:
    found = draws("exponential")

    assert found[0] >= 1
    assert found[19_000] == pytest.approx(3, rel=0.05)
    assert found[-1] > 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_of_the_uniform_number_are_finite_delays(shape: delays.Shape, share: float) -> None:
    assert 0 <= delays.draw(shape, (1.0, 3.0), lambda low, high: low + share * (high - low)) < 1000


@pytest.mark.parametrize(
    ("shape", "interval", "fine"),
    [
        ("uniform", (0.0, 0.0), True),
        ("uniform", (0.0, 3.0), True),
        ("uniform", (3.0, 1.0), False),
        ("uniform", (-1.0, 1.0), False),
        ("uniform", (0.0, float("inf")), False),
        ("lognormal", (0.0, 1.0), False),
        ("lognormal", (0.0, 0.0), True),
        ("exponential", (0.0, 1.0), True),
    ],
)
def test_what_is_no_distribution_is_said(shape: delays.Shape, interval: tuple[float, float], fine: bool) -> None:
    assert (delays.problem(shape, interval) is None) == fine
