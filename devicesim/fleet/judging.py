"""The verdicts of a run, out of its record: devices, what they saw, what the accounts hold. One device at a time."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator

from devicesim.fleet.world import World, makes_things, user_expectation
from devicesim.outcome import Verdict
from devicesim.record.facts import DeviceRecord, Phase
from devicesim.record.store import RunReader
from devicesim.record.stories import stories
from devicesim.record.verdict import DeviceFacts, judge
from devicesim.rules import Expectation


def verdicts(reader: RunReader, world: World, *, unfinished: Collection[int], asked: bool) -> Iterator[Verdict]:
    """Where every device ended that came to an end. ``asked``: the accounts were asked what they hold after the run.

    ``unfinished`` were cut short: they have attempts on record, and get no verdict.
    """
    groups = world.fleet.file.groups

    def expectation(device: DeviceRecord) -> Expectation:
        return device.expectation or world.expectation(device.group)

    expected_in: dict[str, Counter[str]] = defaultdict(Counter)
    shared = reader.shared_certificates()
    if shared:
        for device in reader.devices():
            place = expectation(device).registered_in
            if device.certificate_id in shared and place is not None:
                expected_in[device.certificate_id][place] += 1
    known_before = any(True for _ in reader.holdings(Phase.BEFORE))
    for device, attempts, _ in stories(reader):
        if device.number in unfinished:
            continue
        certificate, hope = device.certificate_id, expectation(device)
        own = hope.registered_in
        others = expected_in[certificate] - Counter([own] if own is not None else []) if certificate in shared else ()
        facts = DeviceFacts(
            device=device.number,
            certificate_id=certificate,
            addressed=world.addressed(device.group),
            expected_elsewhere=frozenset(others),
            abroad=world.abroad(device.group),
        )
        yield judge(
            facts,
            attempts,
            reader.holdings_of(Phase.AFTER, certificate) if asked else None,
            hope,
            user_expectation(groups[device.group]),
            before=reader.holdings_of(Phase.BEFORE, certificate) if known_before else (),
            things_known=hope.account is None or makes_things(world.fleet, hope.account) is not None,
        )
