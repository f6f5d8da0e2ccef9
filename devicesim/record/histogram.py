"""A histogram of durations that merges: shards of a run, or runs, combine without their samples. Pure.

Buckets are logarithmic: each power of two is cut into 64 of equal width, so that whatever a sample was, the middle of
its bucket is within 1/128 (0.8 %) of it. The bucket of a sample is exact arithmetic on the float's own mantissa and
exponent, the same on every machine, and everything that merges is an integer, a minimum or a maximum: the order in
which histograms are merged cannot be told from the result.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

BUCKETS_PER_OCTAVE = 64
RELATIVE_ERROR = 1 / (2 * BUCKETS_PER_OCTAVE)
"""Of a quantile, at most, against the sample of that rank."""

_NANOSECONDS = 1_000_000_000


class Histogram:
    """Durations in seconds, each 0 or more."""

    __slots__ = ("_buckets", "_maximum", "_minimum", "_total", "_zeros")

    def __init__(self, samples: Iterable[float] = ()) -> None:
        self._buckets: dict[int, int] = {}
        self._zeros = 0
        self._total = 0
        """Nanoseconds, for sums of floats depend on their order."""
        self._minimum = math.inf
        self._maximum = -math.inf
        for sample in samples:
            self.add(sample)

    def add(self, seconds: float) -> None:
        """Count one sample. Raises ``ValueError`` when it is negative or not finite."""
        if not (0 <= seconds < math.inf):
            raise ValueError(f"duration {seconds!r} is not a finite number of seconds of 0 or more")
        if seconds:
            bucket = _bucket(seconds)
            self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        else:
            self._zeros += 1
        self._total += round(seconds * _NANOSECONDS)
        self._minimum = min(self._minimum, seconds)
        self._maximum = max(self._maximum, seconds)

    def merge(self, other: "Histogram") -> "Histogram":
        """The histogram of both sets of samples; neither of the two is changed."""
        merged = Histogram()
        merged._buckets = dict(self._buckets)
        for bucket, count in other._buckets.items():
            merged._buckets[bucket] = merged._buckets.get(bucket, 0) + count
        merged._zeros = self._zeros + other._zeros
        merged._total = self._total + other._total
        merged._minimum = min(self._minimum, other._minimum)
        merged._maximum = max(self._maximum, other._maximum)
        return merged

    def __len__(self) -> int:
        """Samples."""
        return self._zeros + sum(self._buckets.values())

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, Histogram) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        if not self:
            return "<Histogram, empty>"
        middle = self.quantile(0.5)
        return f"<Histogram of {len(self)}: {self._minimum:.6g} to {self._maximum:.6g} s, median {middle:.6g} s>"

    @property
    def minimum(self) -> float | None:
        """Exact; ``None`` when empty."""
        return self._minimum if self else None

    @property
    def maximum(self) -> float | None:
        """Exact; ``None`` when empty."""
        return self._maximum if self else None

    @property
    def mean(self) -> float | None:
        """Exact to the nanosecond of each sample; ``None`` when empty."""
        return self._total / (_NANOSECONDS * len(self)) if self else None

    def quantile(self, q: float) -> float | None:
        """The sample of rank ``ceil(q * n)`` (at least the first), within :data:`RELATIVE_ERROR`; ``None`` when empty.

        The smallest and the largest sample are exact.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"quantile {q!r} is not between 0 and 1")
        if not self:
            return None
        count = len(self)
        rank = max(1, math.ceil(q * count))
        if rank == count:
            return self._maximum
        if rank == 1:
            return self._minimum
        seen = self._zeros
        if rank <= seen:
            return 0.0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if rank <= seen:
                return min(max(_middle(bucket), self._minimum), self._maximum)
        raise AssertionError(f"rank {rank} of {count} is in no bucket")

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; :meth:`from_dict` reads it back, equal."""
        return {
            "buckets_per_octave": BUCKETS_PER_OCTAVE,
            "zeros": self._zeros,
            "total_nanoseconds": self._total,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "buckets": [[bucket, self._buckets[bucket]] for bucket in sorted(self._buckets)],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Histogram":
        """Read what :meth:`to_dict` wrote. Raises ``ValueError`` when the buckets are of another width."""
        if data["buckets_per_octave"] != BUCKETS_PER_OCTAVE:
            raise ValueError(
                f"a histogram of {data['buckets_per_octave']!r} buckets an octave does not merge; expected"
                f" {BUCKETS_PER_OCTAVE}"
            )
        histogram = cls()
        histogram._zeros = data["zeros"]
        histogram._total = data["total_nanoseconds"]
        histogram._minimum = math.inf if data["minimum"] is None else data["minimum"]
        histogram._maximum = -math.inf if data["maximum"] is None else data["maximum"]
        histogram._buckets = dict(data["buckets"])
        return histogram


def _bucket(seconds: float) -> int:
    mantissa, exponent = math.frexp(seconds)  # mantissa in [0.5, 1)
    return exponent * BUCKETS_PER_OCTAVE + int((mantissa - 0.5) * 2 * BUCKETS_PER_OCTAVE)


def _middle(bucket: int) -> float:
    exponent, step = divmod(bucket, BUCKETS_PER_OCTAVE)
    return math.ldexp(0.5 + (step + 0.5) / (2 * BUCKETS_PER_OCTAVE), exponent)
