"""What making the load cost, and when this machine rather than the target was the bottleneck."""

from dataclasses import replace

import pytest

from devicesim.record.histogram import Histogram
from devicesim.report.document import Generator, Quantiles
from devicesim.report.generator import generator
from tests.report_support import BUSY, sample

MIB = 1024 * 1024


def fold(*samples: object) -> Generator:
    found = generator(samples)  # type: ignore[arg-type]  # samples they are
    assert found is not None
    return found


def test_what_was_not_measured_is_absent() -> None:
    assert generator([]) is None


def test_process_is_summed_up_over_its_samples() -> None:
    (process,) = fold(*BUSY).processes

    assert (process.name, process.starts, process.rss_peak_bytes) == ("devices", 100, 90 * MIB)
    assert process.cpu_mean == pytest.approx((0.97 + 0.95 + 0.02) / 3, abs=1e-6)
    assert (process.cpu_peak, process.cpu_starting) == (0.97, 0.96)
    assert process.lag == Quantiles.of(Histogram([0.002] * 40 + [0.03] * 20))
    assert process.lag_starting == Quantiles.of(Histogram([0.002] * 20 + [0.03] * 20))


def test_short_last_sample_is_no_peak() -> None:
    short = sample(2.01, cpu=0.01, wall=0.01)

    assert fold(sample(1), sample(2), short).processes[0].cpu_peak == 0.3
    assert fold(short).processes[0].cpu_peak == 1.0


def test_core_that_is_busy_while_devices_start_is_the_bottleneck() -> None:
    found = fold(*BUSY)

    assert found.bottleneck
    assert found.reason == "devices used 96 % of a core while devices were started (more than 90 %)"


@pytest.mark.parametrize(("cpu", "bottleneck"), [(0.90, False), (0.91, True)])
def test_nine_tenths_of_a_core_are_allowed(cpu: float, bottleneck: bool) -> None:
    assert fold(sample(1, cpu=cpu), sample(2, cpu=cpu)).bottleneck is bottleneck


def test_core_that_is_busy_when_all_have_started_is_not_the_bottleneck() -> None:
    after = [sample(at, cpu=1.0, starts=0) for at in (2, 3, 4)]

    found = fold(sample(1), *after)

    assert (found.bottleneck, found.reason) == (False, "")
    assert found.processes[0].cpu_starting == 0.3


def test_coordinator_starts_nothing_and_is_measured_while_the_others_do() -> None:
    coordinator = [sample(at, cpu=cpu, starts=0, process="coordinator") for at, cpu in ((1, 0.2), (2, 1.0), (3, 0.2))]

    found = fold(sample(2, process="worker 1"), *coordinator)

    assert found.reason == "coordinator used 100 % of a core while devices were started (more than 90 %)"
    assert [each.name for each in found.processes] == ["worker 1", "coordinator"]


@pytest.mark.parametrize(("lag", "bottleneck"), [(0.099, False), (0.11, True)])
def test_loop_that_wakes_up_late_is_the_bottleneck(lag: float, bottleneck: bool) -> None:
    found = fold(sample(1, lag=lag), sample(2))

    assert found.bottleneck is bottleneck
    if bottleneck:
        assert found.reason == (
            "one wake-up in a hundred of devices was 110 ms late while devices were started (more than 100 ms)"
        )


def test_loop_that_wakes_up_late_after_the_starts_is_the_bottleneck_too() -> None:
    """Devices publish then."""
    found = fold(sample(1), sample(2, starts=0, lag=0.2))

    assert found.reason == "one wake-up in a hundred of devices was 200 ms late (more than 100 ms)"


@pytest.mark.parametrize(("hiccups", "bottleneck"), [(1, False), (2, True)])
def test_one_hiccup_of_a_short_run_may_be_anybodys(hiccups: int, bottleneck: bool) -> None:
    lag = Histogram([0.001] * 18 + [0.5] * hiccups)

    assert fold(replace(sample(1), lag=lag)).bottleneck is bottleneck


def test_every_process_that_is_slow_is_named() -> None:
    slow = [sample(1, cpu=0.99, process=f"worker {n}") for n in (1, 2)]

    assert fold(*slow, sample(1, process="coordinator")).reason == (
        "worker 1 used 99 % of a core while devices were started (more than 90 %); "
        "worker 2 used 99 % of a core while devices were started (more than 90 %)"
    )


def test_run_that_started_nothing_has_no_starting_phase() -> None:
    (process,) = fold(sample(1, starts=0, cpu=1.0)).processes

    assert (process.cpu_starting, process.lag_starting) == (None, None)
