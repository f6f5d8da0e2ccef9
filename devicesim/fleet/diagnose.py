"""Why devices are not connected: the record's evidence, joined with what the accounts say now, and ranked.

run = RecordedRun(reader, fleet, material)
async with control_planes(accesses, ...) as planes:
    diagnoses = await diagnose_devices(run, numbers, planes, clock=time.time)
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import trio
from cryptography import x509

from devicesim.cloud.account import AccountAccess, AccountClient
from devicesim.cloud.asking import reason
from devicesim.cloud.inspect import Inspector, Question
from devicesim.diagnosis.evidence import AccountEvidence, DeviceEvidence
from devicesim.diagnosis.findings import Diagnosis
from devicesim.diagnosis.rank import diagnose
from devicesim.errors import TargetError
from devicesim.fleet.recorded import RecordedRun

EXAMPLES = 20
"""Devices that look alike in a record: so many of them are looked at one by one. Each takes some six calls to every
account."""
AT_ONCE = 8
CALLS_PER_SECOND = 5.0
"""Of each operation to an account of AWS, which answers ten (aws-iot-behaviour.md §6) to all who ask it."""


class ControlPlanes:
    """The accounts of a fleet, for questions about its devices. Made by :func:`control_planes`."""

    def __init__(self, inspectors: Mapping[str, Inspector], refused: Mapping[str, str]) -> None:
        """``refused``: accounts that have no client, with the reason."""
        self._inspectors = inspectors
        self.unanswered = dict(refused)
        """Accounts that could not be asked for anything, with the reason; complete once a device was asked about."""

    async def leaf(self, certificate_id: str) -> x509.Certificate | None:
        """The certificate, from the first account that has it."""
        for inspector in self._inspectors.values():
            found = await inspector.leaf(certificate_id)
            if found is not None:
                return found
        return None

    async def ask(self, evidence: DeviceEvidence, question: Question) -> DeviceEvidence:
        """The evidence with what every account says now; where one cannot be asked, what was known stays."""
        said: dict[str, AccountEvidence] = {}

        async def inspect(name: str, inspector: Inspector) -> None:
            said[name] = await inspector.inspect(question)

        async with trio.open_nursery() as nursery:
            for name, inspector in self._inspectors.items():
                nursery.start_soon(inspect, name, inspector)
        return replace(evidence, accounts=[self._joined(each, said.get(each.name)) for each in evidence.accounts])

    def _joined(self, known: AccountEvidence, said: AccountEvidence | None) -> AccountEvidence:
        if said is None:
            refused = self.unanswered.get(known.name)
            return known if refused is None else replace(known, not_asked=(refused,))
        if said.cas is None and not said.record_asked:
            if said.not_asked:
                self.unanswered[known.name] = said.not_asked[0]
            endpoint = said.endpoint or known.endpoint
            return replace(known, endpoint=endpoint, clock_offset=said.clock_offset, not_asked=said.not_asked)
        return replace(
            said,
            endpoint=said.endpoint or known.endpoint,
            planned_mode=known.planned_mode,
            planned_template=known.planned_template,
        )


@asynccontextmanager
async def control_planes(
    accesses: Mapping[str, AccountAccess],
    *,
    ca_id: str | None,
    since: float,
    until: float,
    clock: Callable[[], float],
) -> AsyncIterator[ControlPlanes]:
    """Clients of every account, read-only. ``ca_id`` is that of the fleet's CA. Its devices tried to connect from
    ``since`` to ``until``, in seconds since the Unix epoch, as ``clock`` tells."""
    clients: dict[str, AccountClient] = {}
    refused: dict[str, str] = {}
    for name, access in accesses.items():
        try:
            clients[name] = AccountClient(access, calls_per_second=None if access.emulated else CALLS_PER_SECOND)
        except TargetError as exc:  # a profile that does not exist
            refused[name] = f"nothing could be asked: {reason(exc)}"
    inspectors = {
        name: Inspector(client, ca_id=ca_id, since=since, until=until, clock=clock) for name, client in clients.items()
    }
    try:
        yield ControlPlanes(inspectors, refused)
    finally:
        for client in clients.values():
            client.close()


async def diagnose_devices(
    run: RecordedRun,
    numbers: Sequence[int],
    planes: ControlPlanes | None,
    *,
    clock: Callable[[], float],
    examples: int | None = EXAMPLES,
) -> list[Diagnosis]:
    """A diagnosis of each of these devices, in their order. Without ``planes`` no account is asked.

    Of devices that look alike in the record at most ``examples`` are looked at one by one, and what most of those have
    is told of the others; ``None`` is all.
    """
    found: dict[int, Diagnosis] = {}
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def look_at(number: int) -> None:
        async with limiter:
            found[number] = await _diagnose(run, number, planes, clock)

    for alike in run.alike(numbers):
        looked_at = alike if examples is None else alike[:examples]
        await look_at(looked_at[0])  # what is the same for all is asked once, not by eight side by side
        async with trio.open_nursery() as nursery:
            for number in looked_at[1:]:
                nursery.start_soon(look_at, number)
        usual = _most_frequent([found[number] for number in looked_at])
        for number in alike[len(looked_at) :]:
            found[number] = replace(usual, device=run.name(number), tries=run.tries(number), like=usual.device)
    return [found[number] for number in numbers]


async def _diagnose(
    run: RecordedRun, number: int, planes: ControlPlanes | None, clock: Callable[[], float]
) -> Diagnosis:
    then = run.seen_at or clock()
    if run.accepted(number):  # what the accounts say would not be looked at
        return diagnose(run.evidence(number, None, now=then))
    leaf = run.leaf(number)
    if leaf is None and planes is not None:
        leaf = await planes.leaf(run.devices[number].certificate_id)
    evidence = run.evidence(number, leaf, now=then)
    if planes is not None:
        evidence = await planes.ask(evidence, run.question(number, leaf))
        if any(each.name not in planes.unanswered for each in evidence.accounts):
            evidence = replace(evidence, now=clock())
    return diagnose(evidence)


def diagnose_planned(run: RecordedRun, groups: Collection[str], *, clock: Callable[[], float]) -> list[Diagnosis]:
    """Of a run whose setup failed: what that means for each of these groups."""
    counts = run.fleet.file.groups
    return [replace(diagnose(each), devices=counts[each.group].count) for each in run.planned(groups, now=clock())]


def _most_frequent(diagnoses: Sequence[Diagnosis]) -> Diagnosis:
    """The first of those that name the causes which most of them name."""
    causes = [tuple(finding.cause.id for finding in each.findings) for each in diagnoses]
    usual = Counter(causes).most_common(1)[0][0]
    return diagnoses[causes.index(usual)]
