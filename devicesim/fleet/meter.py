"""What making the load costs the process that makes it: CPU, memory, and how late its event loop wakes up.

A load generator that is itself the bottleneck measures itself. So it is measured along with the target, and the report
says which of the two it was.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from devicesim.record.facts import GeneratorSample
from devicesim.record.histogram import Histogram

SAMPLE_SECONDS = 1.0
WAKE_SECONDS = 0.05
"""How often the loop is tried: 20 wake-ups a second cost some 2 ms."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How a process reads what it has used."""

    cpu: Callable[[], float]
    """Seconds of CPU of all its threads."""
    rss: Callable[[], int]
    """Resident memory in bytes."""


def this_machine() -> Machine:
    return Machine(cpu=time.process_time, rss=resident)


def resident() -> int:
    """Resident memory of this process in bytes; where the kernel does not tell the present one, the most it was."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def processors() -> int:
    """Those that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


@dataclass(slots=True)
class Meter:
    """Samples one process until cancelled."""

    process: str
    machine: Machine
    wall: Callable[[float], float]
    """Seconds since the Unix epoch of a reading of :func:`trio.current_time`."""
    record: Callable[[GeneratorSample], None]
    starts: int = 0
    """To be counted up by whoever starts devices."""
    _lag: Histogram = field(default_factory=Histogram)
    _since: float = 0.0
    _cpu: float = 0.0
    _starts: int = 0

    async def run(self) -> None:
        """Sample until cancelled; the last, shorter sample is taken then."""
        # starts count from the first on, also one that was made before this task had its turn
        self._since, self._cpu = trio.current_time(), self.machine.cpu()
        try:
            while True:
                wanted = trio.current_time() + WAKE_SECONDS
                await trio.sleep_until(wanted)
                now = trio.current_time()
                self._lag.add(max(0.0, now - wanted))
                if now - self._since >= SAMPLE_SECONDS:
                    self._take(now)
        finally:
            now = trio.current_time()
            if now > self._since:
                self._take(now)

    def _take(self, now: float) -> None:
        cpu = self.machine.cpu()
        sample = GeneratorSample(
            process=self.process,
            at=self.wall(now),
            wall=now - self._since,
            cpu=cpu - self._cpu,
            starts=self.starts - self._starts,
            lag=self._lag,
            rss=self.machine.rss(),
        )
        self._since, self._cpu, self._starts, self._lag = now, cpu, self.starts, Histogram()
        self.record(sample)
