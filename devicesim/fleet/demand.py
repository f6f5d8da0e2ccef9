"""What a fleet asks for, of whoever: starts, connections, tries and messages over time, by group. Pure.

As the oracle says that things go: a device that is provisioned just in time is dropped once and accepted on its second
try; one that IoT Core should refuse makes every try of ``[retry]``. What is at most at once is worked out from the
schedule, in closed form: a fleet of millions is looked at as fast as one of ten.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, inf

from devicesim.fleet.arrival import schedule_of
from devicesim.fleet.pacing import Bursts, Closed, Schedule
from devicesim.fleet.sections import Account
from devicesim.fleet.shard import backoff
from devicesim.fleet.spec import Fleet
from devicesim.fleet.world import World, makes_things, things_asked
from devicesim.outcome import DeviceOutcome

CONNECT_SECONDS = 1.0
"""Taken for a try from SYN to its end: some round trips to a Region far away. Loopback takes 10 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDemand:
    """What the devices of one group ask for."""

    name: str
    dials: str
    """The account dialled."""
    counts_in: str
    """The account that their connections count in: the one that answers, else the one dialled."""
    devices: int
    outcome: DeviceOutcome
    """Where the oracle says that they end."""
    tries: int
    """Connections of each device, at the least."""
    registers: bool
    """A first connection makes a record of the certificate."""
    stays: bool
    """They stay connected for the session's hold."""
    message_rate: float
    """Messages a second of each while it is connected."""
    message_bytes: int
    connected: int
    """Connections at once, at most, if the target answers as it should."""
    connected_if_slow: int
    """The same when every try takes as long as its deadlines allow."""
    under_way: int
    """Devices between start and end at once, at most."""

    @property
    def accepted(self) -> bool:
        return self.outcome is DeviceOutcome.PROVISIONED

    @property
    def messages(self) -> float:
        """Messages a second, at most."""
        return self.message_rate * min(self.connected, self.devices) if self.stays else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountDemand:
    """What the devices ask of one account."""

    name: str
    account: Account
    devices: int
    """That dial it or land in it."""
    connections: int
    connects_per_second: float
    connected: int
    registrations: int
    """Certificates that it registers, in all."""
    registrations_per_second: float
    things: bool | None
    """Whether provisioning makes a thing; ``None``: somebody else's activator decides."""
    things_asked: int | None
    """Certificates that are asked for their things after the run, at most; ``None``: all."""
    messages: float
    """A second."""
    message_bytes_per_connection: float
    """Bytes a second, of the busiest device."""
    messages_per_connection: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a whole fleet asks for."""

    devices: int
    schedule: Schedule
    seconds: float
    """Until the last device is due to start; of a closed model an estimate."""
    estimated: bool
    """The model is closed: its pace is the target's, taken to answer within :data:`CONNECT_SECONDS`."""
    starts_per_second: float
    """At most; of a burst, in the second in which it comes."""
    connects_per_second: float
    """At most, with the tries after the first."""
    hold: float
    """Seconds that accepted devices stay connected."""
    keep_alive: int
    groups: tuple[GroupDemand, ...]
    accounts: tuple[AccountDemand, ...]

    @property
    def connections(self) -> int:
        return sum(each.devices * each.tries for each in self.groups)

    @property
    def connected(self) -> int:
        """Connections at once, at most."""
        return sum(each.connected for each in self.groups)

    @property
    def connected_if_slow(self) -> int:
        return sum(each.connected_if_slow for each in self.groups)

    @property
    def under_way(self) -> int:
        return sum(each.under_way for each in self.groups)

    @property
    def staying(self) -> int:
        """Of those connected, devices that stay."""
        return sum(each.connected for each in self.groups if each.stays)

    @property
    def messages(self) -> float:
        """A second."""
        return sum(each.messages for each in self.groups)


def demand_of(fleet: Fleet, *, hold: float | None = None) -> Demand:
    """What ``fleet`` asks for; ``hold`` in place of the file's."""
    file, devices = fleet.file, fleet.size
    schedule = schedule_of(file.arrival, devices)
    stay = file.session.hold if hold is None else hold
    waits = _waits(fleet)
    world = World(fleet, {name: f"{name}-ats.iot.{each.region}.amazonaws.com" for name, each in file.accounts.items()})
    groups = tuple(_group(world, name, schedule, stay, waits) for name in file.groups)
    starts, seconds = schedule.peak_rate, schedule.duration(devices)
    estimated = starts is None or seconds is None
    if starts is None or seconds is None:
        concurrency = schedule.concurrency if isinstance(schedule, Closed) else devices
        mean = sum(each.devices * _life(each, stay, waits) for each in groups) / devices
        starts, seconds = concurrency / mean, devices * mean / concurrency
    tries = sum(each.devices * each.tries for each in groups) / devices
    apart = _apart(schedule, waits[: max(each.tries for each in groups) - 1])
    return Demand(
        devices=devices,
        schedule=schedule,
        seconds=seconds,
        estimated=estimated,
        starts_per_second=starts,
        connects_per_second=starts * (1.0 if apart else tries),
        hold=stay,
        keep_alive=file.mqtt.keep_alive,
        groups=groups,
        accounts=tuple(_accounts(fleet, groups, starts / devices, apart=apart)),
    )


def _group(world: World, name: str, schedule: Schedule, hold: float, waits: list[float]) -> GroupDemand:
    fleet, group = world.fleet, world.fleet.file.groups[name]
    arrival, limits = fleet.file.arrival, fleet.file.deadlines
    hope = world.expectation(name)
    needed, allowed = 1 if hope.first_try == "accepted" else 2, 1 + len(waits)
    accepted = hope.outcome is DeviceOutcome.PROVISIONED and needed <= allowed
    tries = needed if accepted else allowed
    stays = accepted and hold > 0
    waiting = sum(waits[: tries - 1])
    slow = allowed * (limits.tcp + limits.tls + limits.connack)
    most = arrival.concurrency if arrival.model == "closed" else arrival.max_under_way

    def at_once(seconds: float) -> float:
        """Devices of all groups that start within some seconds of each other, and are not kept from it."""
        within = schedule.most_within(seconds, fleet.size)
        return within if most is None else min(within, most)

    share = group.count / fleet.size
    # those that stay, and those whose try goes on; a device makes one connection at a time
    staying = at_once(hold + CONNECT_SECONDS) if stays else 0
    trying = min(at_once(CONNECT_SECONDS) * (tries - stays), at_once(tries * CONNECT_SECONDS + waiting))
    whole = at_once(waiting + tries * CONNECT_SECONDS + (hold if stays else 0.0))
    slowest = at_once(sum(waits) + slow + (hold if stays else 0.0))
    telemetry = group.telemetry if stays else None
    return GroupDemand(
        name=name,
        dials=group.account,
        counts_in=hope.registered_in or hope.account or group.account,
        devices=group.count,
        outcome=hope.outcome,
        tries=tries,
        registers=hope.registered_in is not None,
        stays=stays,
        message_rate=0.0 if telemetry is None else 1 / telemetry.every,
        message_bytes=0 if telemetry is None else telemetry.bytes,
        connected=min(group.count, ceil((staying + trying) * share), ceil(whole * share)),
        connected_if_slow=min(group.count, ceil(slowest * share)),
        under_way=min(group.count, ceil(whole * share)),
    )


def _accounts(
    fleet: Fleet, groups: tuple[GroupDemand, ...], starts_per_device: float, *, apart: bool
) -> Iterator[AccountDemand]:
    """``starts_per_device``: the peak of the starts, for each device of the fleet, for groups are interleaved;
    ``apart``: first tries and further ones do not come at the same time."""
    for name, account in fleet.file.accounts.items():
        own = [each for each in groups if each.counts_in == name]
        registrations = sum(each.devices for each in own if each.registers)
        devices, connections = sum(each.devices for each in own), sum(each.devices * each.tries for each in own)
        yield AccountDemand(
            name=name,
            account=account,
            devices=devices,
            connections=connections,
            connects_per_second=(devices if apart else connections) * starts_per_device,
            connected=sum(each.connected for each in own),
            registrations=registrations,
            registrations_per_second=registrations * starts_per_device,
            things=makes_things(fleet, name),
            things_asked=things_asked(fleet, name),
            messages=sum(each.messages for each in own),
            message_bytes_per_connection=max((each.message_rate * each.message_bytes for each in own), default=0.0),
            messages_per_connection=max((each.message_rate for each in own), default=0.0),
        )


def _waits(fleet: Fleet) -> list[float]:
    """Seconds before the second, third, ... try, in the middle of what is drawn."""
    return list(backoff(fleet).delays(lambda: 0.5))


def _life(group: GroupDemand, hold: float, waits: list[float]) -> float:
    """Seconds from a device's start to its end."""
    return group.tries * CONNECT_SECONDS + sum(waits[: group.tries - 1]) + (hold if group.stays else 0.0)


def _apart(schedule: Schedule, waits: list[float]) -> bool:
    """Whether a burst is over before its devices try again, and they before the next, so that tries do not add up."""
    return isinstance(schedule, Bursts) and min(waits, default=inf) > 1 and not 0 < schedule.every <= sum(waits)
