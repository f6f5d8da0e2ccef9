"""Random numbers of one device."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from devicesim.fleet.draws import Draws


@given(st.text(), st.integers(1, 20))
def test_draws_are_the_same_for_the_same_seed_whoever_else_draws(seed: str, count: int) -> None:
    alone = Draws(seed)
    expected = [alone() for _ in range(count)]

    one, other = Draws(seed), Draws(seed + "'")
    among_others = []
    for _ in range(count):
        other()
        among_others.append(one())

    assert among_others == expected
    assert all(0 <= each < 1 for each in expected)


def test_draws_of_a_seed_are_not_those_of_another_nor_its_own_again() -> None:
    seeds = [f"run/{number}{rest}" for number in range(300) for rest in ("", "/telemetry")]
    numbers = [draws() for draws in map(Draws, seeds) for _ in range(5)]

    assert len(set(numbers)) == len(numbers)


def test_draws_are_spread_evenly_over_seeds_and_over_a_seeds_own_numbers() -> None:
    """20 classes of 1000 each: chi-squared with 19 degrees of freedom is above 43.8 once in a thousand. And what is
    drawn next does not hang on what was drawn before."""
    own = Draws("run/0")
    for numbers in (
        [Draws(f"run/{number}")() for number in range(20_000)],
        [own() for _ in range(20_000)],
    ):
        classes = [0] * 20
        for each in numbers:
            classes[int(each * 20)] += 1
        assert sum((count - 1000) ** 2 / 1000 for count in classes) < 43.8
        together = sum((one - 0.5) * (two - 0.5) for one, two in pairwise(numbers)) / len(numbers) * 12
        assert abs(together) < 0.03
