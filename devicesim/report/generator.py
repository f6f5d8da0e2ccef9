"""What making the load cost, and whether this machine rather than the target was the bottleneck. Pure."""

from collections.abc import Iterable, Sequence
from functools import reduce

from devicesim.record.facts import GeneratorSample
from devicesim.record.histogram import Histogram
from devicesim.report.document import Generator, ProcessSummary, Quantiles, rounded

BUSY_CORE = 0.9
"""Share of one core from which on a process is the bottleneck. Python runs one thread at a time, so that a whole core
is all that it has, and before a server that is busy for 90 % of the time the queue is nine times as long as before one
that is busy for half of it."""
SLOW_LOOP_SECONDS = 0.1
"""A wake-up of the event loop so late, at the 99th percentile, is in every latency that is measured: as much as a
whole handshake takes over the internet."""
WHOLE_SAMPLE_SECONDS = 0.5
"""A shorter sample, such as the last, says nothing of a peak: one call fills it."""


def generator(samples: Iterable[GeneratorSample]) -> Generator | None:
    """Fold the samples; ``None``: there are none."""
    by_process: dict[str, list[GeneratorSample]] = {}
    for sample in samples:
        by_process.setdefault(sample.process, []).append(sample)
    if not by_process:
        return None
    starting = [each for own in by_process.values() for each in own if each.starts]
    first = min((each.at - each.wall for each in starting), default=0.0)
    last = max((each.at for each in starting), default=0.0)
    processes, reasons = [], []
    for name, own in by_process.items():
        then = [each for each in own if each.at > first and each.at - each.wall < last]
        lag, lag_then = _lag(own), _lag(then)
        processes.append(_process(name, own, _share(then), lag, lag_then))
        if reason := _why(name, _share(then), lag, lag_then):
            reasons.append(reason)
    return Generator(bottleneck=bool(reasons), reason="; ".join(reasons), processes=tuple(processes))


def _process(
    name: str, samples: Sequence[GeneratorSample], cpu_starting: float | None, lag: Histogram, lag_starting: Histogram
) -> ProcessSummary:
    """``_starting``: while the run started devices."""
    whole = [each for each in samples if each.wall >= WHOLE_SAMPLE_SECONDS] or samples
    return ProcessSummary(
        name=name,
        starts=sum(each.starts for each in samples),
        cpu_mean=_share(samples) or 0.0,
        cpu_peak=max(_share([each]) or 0.0 for each in whole),
        cpu_starting=cpu_starting,
        lag=Quantiles.of(lag),
        lag_starting=Quantiles.of(lag_starting),
        rss_peak_bytes=max(each.rss for each in samples),
    )


def _share(samples: Sequence[GeneratorSample]) -> float | None:
    """CPU seconds a second."""
    wall = sum(each.wall for each in samples)
    return rounded(sum(each.cpu for each in samples) / wall) if wall > 0 else None


def _lag(samples: Iterable[GeneratorSample]) -> Histogram:
    return reduce(Histogram.merge, (each.lag for each in samples), Histogram())


def _why(name: str, cpu_starting: float | None, lag: Histogram, lag_starting: Histogram) -> str:
    """Why a process is the bottleneck; empty when it is not."""
    if cpu_starting is not None and cpu_starting > BUSY_CORE:
        used, limit = (f"{100 * share:.0f} %" for share in (cpu_starting, BUSY_CORE))
        return f"{name} used {used} of a core while devices were started (more than {limit})"
    for histogram, when in ((lag_starting, " while devices were started"), (lag, "")):
        lateness = _late(histogram)
        if lateness > SLOW_LOOP_SECONDS:
            late, limit = (f"{1000 * each:.0f} ms" for each in (lateness, SLOW_LOOP_SECONDS))
            return f"one wake-up in a hundred of {name} was {late} late{when} (more than {limit})"
    return ""


def _late(lag: Histogram) -> float:
    """The 99th percentile; of fewer than a hundred wake-ups the second largest, for one may be anybody's hiccup."""
    count = len(lag)
    return (lag.quantile(min(0.99, 1 - 1.5 / count)) or 0.0) if count > 1 else 0.0
