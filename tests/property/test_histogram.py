"""Merging is associative and commutative to the bit, and quantiles are within the error that is promised."""

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.record.histogram import RELATIVE_ERROR, Histogram

seconds = st.one_of(st.floats(0, 1e6), st.floats(0.0001, 30), st.just(0.0))
samples = st.lists(seconds, max_size=60)


@given(samples, samples, samples)
@settings(max_examples=100)
def test_merge_is_associative_and_commutative(a: list[float], b: list[float], c: list[float]) -> None:
    one, two, three = Histogram(a), Histogram(b), Histogram(c)

    assert one.merge(two).merge(three) == one.merge(two.merge(three))
    assert one.merge(two) == two.merge(one)
    assert one.merge(two).merge(three) == Histogram([*a, *b, *c])
    assert one.merge(Histogram()) == one


@given(st.lists(seconds, min_size=1, max_size=200), st.floats(0, 1))
def test_quantile_is_within_the_promised_error_of_the_sample_of_its_rank(values: list[float], q: float) -> None:
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]

    estimate = Histogram(values).quantile(q)

    assert estimate is not None
    assert abs(estimate - exact) <= exact * RELATIVE_ERROR


@given(st.lists(seconds, min_size=1, max_size=50), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_are_in_order_and_between_the_extremes(values: list[float], p: float, q: float) -> None:
    histogram = Histogram(values)

    low, high = histogram.quantile(min(p, q)), histogram.quantile(max(p, q))

    assert low is not None
    assert high is not None
    assert min(values) <= low <= high <= max(values)


@given(samples)
def test_round_trip_through_json_is_equal(values: list[float]) -> None:
    histogram = Histogram(values)

    assert Histogram.from_dict(json.loads(json.dumps(histogram.to_dict()))) == histogram


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_mean_is_that_of_the_samples(values: list[float]) -> None:
    mean = Histogram(values).mean

    assert mean is not None
    assert math.isclose(mean, math.fsum(values) / len(values), rel_tol=1e-9, abs_tol=1e-9)
