"""What making the load costs."""

import os
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from devicesim.fleet.meter import SAMPLE_SECONDS, WAKE_SECONDS, Machine, Meter, processors, resident, this_machine
from devicesim.record.facts import GeneratorSample

EPOCH = 1_760_000_000.0


@dataclass
class Readings:
    """A machine, and what was sampled of it."""

    cpu: float = 5.0
    rss: int = 1000
    samples: list[GeneratorSample] = field(default_factory=list)

    def meter(self) -> Meter:
        return Meter(
            process="fleet",
            machine=Machine(cpu=lambda: self.cpu, rss=lambda: self.rss),
            wall=lambda now: EPOCH + now,
            record=self.samples.append,
        )


async def test_process_is_sampled_every_second_and_once_more_when_cancelled(autojump_clock: MockClock) -> None:
    readings = Readings()
    meter = readings.meter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.run)
        await trio.sleep(0.02)
        readings.cpu, meter.starts = 5.5, 40
        await trio.sleep(1.2)
        readings.cpu, readings.rss, meter.starts = 5.75, 2000, 47
        await trio.sleep(1.03)
        nursery.cancel_scope.cancel()

    whole, second, rest = readings.samples
    assert whole.at == pytest.approx(EPOCH + SAMPLE_SECONDS, abs=WAKE_SECONDS + 1e-6)
    assert (whole.process, whole.cpu, whole.starts, whole.rss) == ("fleet", 0.5, 40, 1000)
    assert (second.cpu, second.starts, second.rss) == (0.25, 7, 2000)
    assert (rest.cpu, rest.starts) == (0.0, 0)
    assert rest.at == pytest.approx(EPOCH + 2.25)
    assert 0 < rest.wall < SAMPLE_SECONDS
    assert sum(each.wall for each in readings.samples) == pytest.approx(2.25)
    assert [each.at for each in readings.samples] == sorted({each.at for each in readings.samples})


async def test_samples_add_up_to_what_was_used_and_started(autojump_clock: MockClock) -> None:
    readings = Readings(cpu=0.0)
    meter = readings.meter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.run)
        for _ in range(100):
            await trio.sleep(0.0371)
            meter.starts += 3
            readings.cpu += 0.01
        nursery.cancel_scope.cancel()

    assert sum(each.starts for each in readings.samples) == 300
    assert sum(each.cpu for each in readings.samples) == pytest.approx(1.0)
    assert sum(each.wall for each in readings.samples) == pytest.approx(3.71)


async def test_start_that_was_made_before_the_meter_had_its_turn_is_counted(autojump_clock: MockClock) -> None:
    readings = Readings()
    meter = readings.meter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.run)
        meter.starts += 1
        await trio.sleep(0.02)
        nursery.cancel_scope.cancel()

    assert [each.starts for each in readings.samples] == [1]


async def test_cpu_between_two_samples_is_in_one_of_them(autojump_clock: MockClock) -> None:
    """A sample costs something too."""
    readings = Readings(cpu=0.0)

    def dear() -> int:
        readings.cpu += 0.125
        return 1

    meter = Meter(
        process="fleet",
        machine=Machine(cpu=lambda: readings.cpu, rss=dear),
        wall=lambda now: now,
        record=readings.samples.append,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter.run)
        await trio.sleep(3.52)
        nursery.cancel_scope.cancel()

    assert [each.cpu for each in readings.samples] == [0.0, 0.125, 0.125, 0.125]


async def test_lag_is_how_late_the_loop_woke_up(autojump_clock: MockClock) -> None:
    readings = Readings()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(readings.meter().run)
        await trio.sleep(0.51)
        autojump_clock.jump(0.3)  # a task that kept the loop for so long
        await trio.sleep(0.7)
        nursery.cancel_scope.cancel()

    first = readings.samples[0].lag
    assert first.maximum == pytest.approx(0.26, abs=0.011)  # the wake-up was due within 50 ms of the jump
    assert first.quantile(0.5) == pytest.approx(0.0, abs=1e-6)
    assert readings.samples[1].lag.maximum == pytest.approx(0.0, abs=1e-6)


async def test_nothing_is_sampled_of_no_time_at_all(autojump_clock: MockClock) -> None:
    readings = Readings()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(readings.meter().run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert readings.samples == []


async def test_meter_that_cannot_tell_ends_with_the_reason(autojump_clock: MockClock) -> None:
    def full(sample: GeneratorSample) -> None:
        raise OSError(28, "no space left")

    meter = Meter(process="fleet", machine=Machine(cpu=lambda: 0.0, rss=lambda: 0), wall=lambda now: now, record=full)
    with pytest.raises(OSError, match="no space left"):
        await meter.run()


def test_this_machine_tells_its_cpu_and_memory() -> None:
    machine = this_machine()
    before = machine.cpu()
    while machine.cpu() == before:
        sum(range(1000))
    with open("/proc/self/status") as status:
        told = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

    assert machine.cpu() > before
    assert machine.rss() == pytest.approx(told, rel=0.05)
    assert resident() % os.sysconf("SC_PAGE_SIZE") == 0


def test_memory_where_the_kernel_does_not_tell_the_present_one_is_the_most_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present = resident()

    def no_proc(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", no_proc)

    assert resident() >= present * 0.95


def test_processors_are_those_that_this_process_may_run_on() -> None:
    assert 1 <= processors() <= (os.cpu_count() or 1)
