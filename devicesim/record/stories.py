"""A record's devices, each with all that is recorded of it, in one pass over the three tables."""

from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter

from devicesim.outcome import Attempt, Verdict
from devicesim.record.facts import DeviceRecord
from devicesim.record.store import RunReader

Story = tuple[DeviceRecord, list[Attempt], Verdict | None]


def stories(reader: RunReader) -> Iterator[Story]:
    """By device number. The tables are in the same order, so no more than one device is in memory at a time."""
    tries = groupby(reader.attempts(), key=attrgetter("device"))
    verdicts = reader.verdicts()
    next_tries, verdict = next(tries, None), next(verdicts, None)
    for device in reader.devices():
        attempts: list[Attempt] = []
        if next_tries is not None and next_tries[0] == device.number:
            attempts = list(next_tries[1])
            next_tries = next(tries, None)
        own = verdict if verdict is not None and verdict.device == device.number else None
        if own is not None:
            verdict = next(verdicts, None)
        yield device, attempts, own
