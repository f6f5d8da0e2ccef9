"""A run's record, read for diagnosis: each device's evidence as the record, its fleet file and the fleet's material
have it. What accounts say now is :mod:`devicesim.fleet.diagnose`'s to add.
"""

import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from pydantic import ValidationError

from devicesim.cloud.inspect import Question
from devicesim.cloud.leaf import leaf_evidence
from devicesim.diagnosis.evidence import AccountEvidence, DeviceEvidence, FleetEvidence, WireEvidence
from devicesim.diagnosis.from_record import Rates, device_evidence, device_name
from devicesim.errors import KeyMaterialError, RecordError
from devicesim.fleet.identities import Material, Minter, client_id, minter
from devicesim.fleet.sections import FleetFile
from devicesim.fleet.spec import Fleet
from devicesim.fleet.world import server_name
from devicesim.outcome import Attempt, Holding, Stage
from devicesim.record.facts import DeviceRecord, GroupRecord, Phase
from devicesim.record.store import RunReader

MOST_LOST = 1
"""Connections that a device may lose after CONNACK 0 before it comes to stay: of one that loses more, that it is
connected when the run ends says nothing, unless it has been so for ``retry.stable_after``."""

Address = Callable[[str, str], tuple[str, int]]
"""From an account's name and its endpoint to what is dialled for it."""


def recorded_fleet(reader: RunReader) -> Fleet:
    """The fleet of a run, by the fleet file in its record. What the file refers to is looked for in the working
    directory, for a record does not say where its file stood."""
    facts = reader.run()
    try:
        file = FleetFile.model_validate(tomllib.loads(facts.fleet_file))
    except (tomllib.TOMLDecodeError, ValidationError) as exc:
        raise RecordError(
            f"the fleet file in {str(reader.path)!r} is not one that this devicesim reads",
            hint=f"read the record with devicesim {facts.version}, which made it",
        ) from exc
    return Fleet(file=file, path=Path(f"{facts.fleet}.toml"), text=facts.fleet_file, templates={}, policies={})


class RecordedRun:
    """The devices of a record, with all that is known of each without asking an account."""

    def __init__(
        self,
        reader: RunReader,
        fleet: Fleet,
        material: Material | None,
        *,
        prepared: bool = True,
        held: bool = False,
        address: Address | None = None,
    ) -> None:
        """``material`` is the fleet's, where it is at hand: certificates are minted again with it. ``prepared``: setup
        has seen to it that the accounts are as the fleet file says. ``held``: accepted connections were kept open and
        watched. ``address`` tells what is dialled, where that is known.
        """
        self.fleet = fleet
        self._material = material
        self._mint: Minter | None = None
        self._prepared = prepared
        self._held = held
        self._address = address
        with reader.snapshot():
            self._accounts = reader.accounts()
            self._groups = {group.name: group for group in reader.groups()}
            self.devices = {device.number: device for device in reader.devices()}
            self._attempts: dict[int, list[Attempt]] = defaultdict(list)
            for attempt in reader.attempts():
                self._attempts[attempt.device].append(attempt)
            self._asked = reader.asked(Phase.AFTER)
            self._holdings: dict[str, list[Holding]] = defaultdict(list)
            for holding in reader.holdings(Phase.AFTER):
                self._holdings[holding.certificate_id].append(holding)
            self._ended_at = reader.run().ended_at
            self.errors = tuple(note.text for note in reader.notes() if note.kind == "error")
        self._count()

    def _count(self) -> None:
        self._rates = Rates()
        self._names: Counter[tuple[str, str]] = Counter()
        self._in_group: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        for number, device in self.devices.items():
            attempts = self._attempts[number]
            dials = self._groups[device.group].account
            self._rates.add(dials, attempts)
            self._names[dials, device.client_id] += 1
            self._in_group[device.group] += 1
            if attempts:
                self._accepted[device.group] += self.accepted(number)

    @property
    def span(self) -> tuple[float, float] | None:
        """When the first try began and the last ended, in seconds since the Unix epoch; ``None``: there was none."""
        tried = [attempts for attempts in self._attempts.values() if attempts]
        if not tried:
            return None
        return min(each[0].start for each in tried), max(each[-1].end for each in tried)

    @property
    def seen_at(self) -> float | None:
        """When what the record says was so: at the end of the run, or of its last try; ``None``: it has neither."""
        return self._ended_at or (None if self.span is None else self.span[1])

    @property
    def issuer(self) -> x509.Certificate | None:
        """The fleet's CA, where it is at hand."""
        return None if self._material is None else self._material.authority.certificate

    def name(self, number: int) -> str:
        """The device for people."""
        return device_name(self.devices[number])

    def tries(self, number: int) -> int:
        """How many it made."""
        return len(self._attempts[number])

    def accepted(self, number: int) -> bool:
        """The last try was accepted and not lost again, and is not just one more of a row that were lost."""
        attempts = self._telling(number)
        return bool(attempts) and attempts[-1].failure is None and attempts[-1].connack_code == 0

    def _telling(self, number: int) -> list[Attempt]:
        """The tries as far as they tell what becomes of the device: of one that is put out time and again, to the last
        time."""
        attempts = self._attempts[number]
        if (_held_open(attempts) or 0.0) >= self.fleet.file.retry.stable_after:
            return attempts  # a network that failed more than once in a long hold is no row of being put out
        lost = [at for at, each in enumerate(attempts) if each.connack_code == 0 and each.failure is not None]
        return attempts[: lost[-1] + 1] if len(lost) > MOST_LOST and attempts[-1].failure is None else attempts

    def alike(self, numbers: Sequence[int]) -> list[list[int]]:
        """The devices by what the record says of them: those in one list differ by no more than names and times."""
        found: dict[object, list[int]] = defaultdict(list)
        for number in numbers:
            device, attempts = self.devices[number], self._telling(number)
            held = tuple((each.account, each.status, each.mode) for each in self._holdings[device.certificate_id])
            alone = self._names[self._groups[device.group].account, device.client_id] == 1
            found[device.group, _seen(attempts) if attempts else None, len(attempts) > 1, held, alone].append(number)
        return list(found.values())

    def leaf(self, number: int) -> x509.Certificate | None:
        """The device's certificate, minted again; ``None`` where what is at hand does not make the one recorded."""
        device = self.devices[number]
        try:
            if self._mint is None and self._material is not None:
                self._mint = minter(self.fleet, self._material)
            if self._mint is None:
                return None
            member = device.index - self.fleet.first_index(device.group)
            identity = self._mint(device.group, member)
        except (KeyMaterialError, IndexError):  # a key or a bundle that is not at hand
            return None
        return identity.certificate if identity.certificate_id == device.certificate_id else None

    def evidence(self, number: int, leaf: x509.Certificate | None, *, now: float) -> DeviceEvidence:
        """All that is known of a device without asking an account."""
        device = self.devices[number]
        group, attempts = self._groups[device.group], self._telling(number)
        evidence = device_evidence(
            device,
            group,
            self._accounts,
            attempts,
            self._holdings[device.certificate_id],
            self._asked,
            now=now,
            gave_up=True,
            fleet=self._fleet_evidence(device, group),
        )
        return replace(
            evidence,
            leaf=None if leaf is None else leaf_evidence(leaf),
            wire=self._wire(group, device.client_id),
            held_open=_held_open(attempts) if self._held else None,
            accounts=[each if self._prepared else _unverified(each) for each in evidence.accounts],
        )

    def question(self, number: int, leaf: x509.Certificate | None) -> Question:
        """The device as accounts are asked about it."""
        device = self.devices[number]
        return Question(
            certificate_id=device.certificate_id,
            client_id=device.client_id,
            leaf=leaf,
            issuer=self.issuer,
            server_name=self._groups[device.group].sni,
            tries=tuple((each.start, each.end) for each in self._attempts[number]),
        )

    def _wire(self, group: GroupRecord, name: str) -> WireEvidence:
        endpoint = next((each.endpoint for each in self._accounts if each.name == group.account), None) or ""
        own = self.fleet.file.groups.get(group.name)
        return replace(
            self._wire_of_file(group.account, endpoint, name),
            server_name=group.sni,
            verify_name=(own.verify_name if own is not None else None) or endpoint,
        )

    def _wire_of_file(self, account: str, endpoint: str, name: str) -> WireEvidence:
        """What all devices of the fleet file do alike."""
        file = self.fleet.file
        return WireEvidence(
            dials=account,
            address=None if self._address is None else self._address(account, endpoint),
            port=file.mqtt.port,
            server_name=endpoint,
            verify_name=endpoint,
            chain_sent=file.tls.send_chain,
            alpn=file.tls.alpn,
            client_id=name,
            mqtt_version=file.mqtt.version,
            tries_allowed=file.retry.attempts,
            foreign_roots=file.tls.roots is not None,
        )

    def _fleet_evidence(self, device: DeviceRecord, group: GroupRecord) -> FleetEvidence:
        accepted = self.accepted(device.number)
        return FleetEvidence(
            same_client_id=self._names[group.account, device.client_id] - 1,
            first_tries_per_second=self._rates.first(group.account),
            tries_per_second=self._rates.all(group.account),
            peers=self._in_group[device.group] - 1,
            peers_accepted=self._accepted[device.group] - accepted,
            errors=self.errors,
        )

    # --- a run whose setup failed ---

    @property
    def was_set_up(self) -> bool:
        """The accounts were set up, so that devices could start."""
        return bool(self._groups)

    def planned(self, groups: Collection[str], *, now: float) -> Iterator[DeviceEvidence]:
        """Of a run that was never set up: the first device of each of these groups, which has not tried to connect."""
        file = self.fleet.file
        endpoints = {name: f"the endpoint of {name}" for name in file.accounts}
        accounts = [
            AccountEvidence(
                name=name,
                account_id=account.id,
                region=account.region,
                endpoint=endpoints[name],
                cas=None,
                record_asked=False,
                record=None,
                planned_mode=None if account.ca_mode == "none" else account.ca_mode,
                planned_template=account.provisioning == "JITP",
            )
            for name, account in file.accounts.items()
        ]
        for name in groups:
            group = file.groups[name]
            wire = self._wire_of_file(group.account, endpoints[group.account], self._planned_client_id(name))
            yield DeviceEvidence(
                name=f"{group.count} device{'s' if group.count != 1 else ''}",
                group=name,
                leaf=None,
                certificate_id=None,
                wire=replace(
                    wire,
                    server_name=server_name(group, endpoints),
                    verify_name=group.verify_name or endpoints[group.account],
                ),
                attempts=(),
                held_open=None,
                accounts=accounts,
                now=now,
                fleet=FleetEvidence(errors=self.errors, peers=group.count - 1),
                never_started="the run ended before its accounts were set up"
                + "".join(f": {each}" for each in self.errors[:1]),
            )

    def _planned_client_id(self, group: str) -> str:
        if self._material is None:
            return self.fleet.file.groups[group].client_id
        try:
            return client_id(self.fleet, group, 0, minter(self.fleet, self._material)(group, 0))
        except KeyMaterialError:
            return self.fleet.file.groups[group].client_id


def _seen(attempts: Sequence[Attempt]) -> object:
    """What the last try saw, without its words."""
    last = attempts[-1]
    failure = None if last.failure is None else (last.failure.kind, last.failure.stage)
    return failure, None if last.alert is None else last.alert.name, last.connack_code


def _held_open(attempts: Sequence[Attempt]) -> float | None:
    last = attempts[-1] if attempts else None
    if last is None or last.connack_code != 0:
        return None
    return last.end - last.start - last.reached[Stage.CONNACK]


def _unverified(account: AccountEvidence) -> AccountEvidence:
    """An account that nobody has set up: what the fleet file says of its CA is a plan, and nothing is known."""
    return replace(account, cas=None, record_asked=False, record=None)
