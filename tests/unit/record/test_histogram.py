"""The histogram by example; what holds for all samples is in tests/property/test_histogram.py."""

import json
import math

import pytest

from devicesim.record.histogram import BUCKETS_PER_OCTAVE, Histogram


def test_empty_histogram_has_no_quantile_mean_or_extremes() -> None:
    empty = Histogram()

    assert (len(empty), empty.quantile(0.5), empty.mean, empty.minimum, empty.maximum) == (0, None, None, None, None)


def test_extremes_and_mean_are_exact() -> None:
    histogram = Histogram([0.001, 0.002, 0.006])

    assert (histogram.minimum, histogram.maximum, histogram.mean) == (0.001, 0.006, 0.003)
    assert (histogram.quantile(0), histogram.quantile(1)) == (0.001, 0.006)


def test_quantile_is_the_sample_of_its_rank() -> None:
    histogram = Histogram([1.0] * 95 + [100.0] * 5)

    assert histogram.quantile(0.95) == pytest.approx(1.0, rel=1 / 128)
    assert histogram.quantile(0.951) == 100.0


def test_zero_is_a_sample_like_any_other() -> None:
    histogram = Histogram([0.0, 0.0, 0.0, 2.0])

    assert (histogram.quantile(0.5), histogram.quantile(0.75), histogram.minimum) == (0.0, 0.0, 0.0)
    assert histogram.mean == 0.5


def test_one_sample_is_every_quantile_exactly() -> None:
    histogram = Histogram([0.123456])

    assert {histogram.quantile(q) for q in (0, 0.5, 0.95, 1)} == {0.123456}


@pytest.mark.parametrize("sample", [-1e-9, math.nan, math.inf, -math.inf])
def test_what_is_no_duration_is_refused(sample: float) -> None:
    with pytest.raises(ValueError, match="is not a finite number of seconds of 0 or more"):
        Histogram([sample])


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_what_is_no_quantile_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="is not between 0 and 1"):
        Histogram([1.0]).quantile(q)


def test_merging_leaves_both_as_they_were() -> None:
    one, other = Histogram([1.0]), Histogram([2.0])

    both = one.merge(other)

    assert (len(one), len(other), len(both)) == (1, 1, 2)
    both.add(3.0)
    assert (len(one), len(other)) == (1, 1)


def test_histogram_of_other_buckets_is_not_read() -> None:
    data = Histogram([1.0]).to_dict() | {"buckets_per_octave": 32}

    with pytest.raises(ValueError, match=f"of 32 buckets an octave does not merge; expected {BUCKETS_PER_OCTAVE}"):
        Histogram.from_dict(data)


def test_serialised_form_is_small_and_stable() -> None:
    histogram = Histogram([0.0, 0.5, 0.5, 1.0])

    assert json.dumps(histogram.to_dict()) == (
        '{"buckets_per_octave": 64, "zeros": 1, "total_nanoseconds": 2000000000, "minimum": 0.0, "maximum": 1.0,'
        ' "buckets": [[0, 2], [64, 1]]}'
    )


def test_repr_says_what_is_in_it() -> None:
    assert repr(Histogram()) == "<Histogram, empty>"
    assert repr(Histogram([0.5, 0.5, 2.0])) == "<Histogram of 3: 0.5 to 2 s, median 0.503906 s>"


def test_only_equal_contents_are_equal() -> None:
    assert Histogram([1.0]) == Histogram([1.0])
    assert Histogram([1.0]) != Histogram([2.0])
    assert Histogram() != "a histogram"
