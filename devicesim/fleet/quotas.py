"""AWS's default limits of an account, and which of them a fleet meets first. Pure.

From ``aws-iot-behaviour.md`` §6: AWS's table of 2019 and the names in Service Quotas. They are Regional and many can be
raised; AWS counts requests and says nothing of bursts. Look them up in your account before you rely on them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from devicesim.cloud.verify import PAGE_SIZE
from devicesim.fleet.demand import AccountDemand


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A limit of one account in one Region."""

    name: str
    limit: float
    """A second, unless ``at_once``."""
    mark: str
    """D documented, D/I the number documented, that it counts here inferred."""
    source: str
    at_once: bool = False
    """Counts what is there at a time."""
    per_connection: bool = False
    unit: str = ""
    afterwards: bool = False
    """Used when the run asks the account what it holds, not while devices connect."""


_TABLE = "§6: AWS's table of limits, 2019"
CONNECTS = Quota(name="CONNECT", limit=500, mark="D", source=_TABLE)
CONNECTIONS = Quota(name="connections at once", limit=500_000, mark="D", source=_TABLE, at_once=True)
REGISTRATIONS = Quota(name="certificate registrations", limit=15, mark="D", source=_TABLE)
REGISTER_THING = Quota(name="RegisterThing", limit=10, mark="D", source=f"{_TABLE}; §3: JITP is RegisterThing")
_INNER = f"{_TABLE}; §3: JITP's inner calls count"
CREATE_THING = Quota(name="CreateThing", limit=15, mark="D/I", source=_INNER)
ATTACH_THING = Quota(name="AttachThingPrincipal", limit=15, mark="D/I", source=_INNER)
ATTACH_POLICY = Quota(name="AttachPolicy", limit=15, mark="D/I", source=_INNER)
UPDATE_CERTIFICATE = Quota(name="UpdateCertificate", limit=10, mark="D/I", source=_INNER)
ACTIVATOR_POLICY = Quota(name="AttachPolicy", limit=15, mark="D", source=f"{_TABLE}; §2: the activator's calls")
ACTIVATOR_UPDATE = Quota(name="UpdateCertificate", limit=10, mark="D", source=f"{_TABLE}; §2: the activator's calls")
PUBLISHES = Quota(name="inbound publishes", limit=20_000, mark="D", source=_TABLE)
CONNECTION_PUBLISHES = Quota(name="publishes, one device", limit=100, mark="D", source=_TABLE, per_connection=True)
CONNECTION_BYTES = Quota(
    name="throughput, one device", limit=512 * 1024, mark="D", source=_TABLE, per_connection=True, unit="B"
)
LIST_CERTIFICATES = Quota(
    name="ListCertificatesByCA", limit=10, mark="D", source=f"{_TABLE}: most List*", afterwards=True
)
LIST_THINGS = Quota(name="ListPrincipalThings", limit=10, mark="D", source=f"{_TABLE}: most List*", afterwards=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One limit, and what the fleet asks of it."""

    quota: Quota
    total: int | None
    """Requests in all; ``None`` of what is not used up."""
    needed: float | None
    """A second, or at once, to keep the schedule; ``None`` afterwards, when there is none."""

    @property
    def seconds(self) -> float:
        """The least that it takes at the default limit."""
        return 0.0 if self.total is None else self.total / self.quota.limit

    @property
    def exceeded(self) -> bool:
        return self.needed is not None and self.needed > self.quota.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountBounds:
    """An account's limits, as far as the fleet uses them."""

    name: str
    bounds: tuple[Bound, ...]

    @property
    def binding(self) -> Bound | None:
        """The limit that takes longest while devices connect."""
        timed = [each for each in self.bounds if each.total and not each.quota.afterwards]
        return max(timed, key=lambda each: each.seconds, default=None)

    @property
    def seconds(self) -> float:
        """The least that it takes to provision the devices at the default limits."""
        return 0.0 if self.binding is None else self.binding.seconds

    @property
    def seconds_asking(self) -> float:
        """The least that it takes to ask afterwards; the two operations are asked one after the other."""
        return sum(each.seconds for each in self.bounds if each.quota.afterwards)

    @property
    def slowed(self) -> float:
        """By how much the schedule would have to be slower to keep within the default rates; 1: it does already.

        Connections at once and what a single connection may do are no matter of the schedule's pace alone, and left
        out.
        """
        rates = [
            each.needed / each.quota.limit for each in self.bounds if each.needed is not None and each.total is not None
        ]
        return max([1.0, *rates])


def account_bounds(demand: AccountDemand) -> AccountBounds:
    """What a fleet asks of one account, held against AWS's defaults."""
    return AccountBounds(name=demand.name, bounds=tuple(_bounds(demand)))


def _bounds(demand: AccountDemand) -> Iterator[Bound]:
    yield Bound(quota=CONNECTS, total=demand.connections, needed=demand.connects_per_second)
    yield Bound(quota=CONNECTIONS, total=None, needed=demand.connected)
    if demand.registrations:
        for quota in (REGISTRATIONS, *_provisioning(demand)):
            yield Bound(quota=quota, total=demand.registrations, needed=demand.registrations_per_second)
    if demand.messages:
        yield Bound(quota=PUBLISHES, total=None, needed=demand.messages)
        yield Bound(quota=CONNECTION_PUBLISHES, total=None, needed=demand.messages_per_connection)
        yield Bound(quota=CONNECTION_BYTES, total=None, needed=demand.message_bytes_per_connection)
    if demand.registrations:
        yield Bound(quota=LIST_CERTIFICATES, total=ceil(demand.registrations / PAGE_SIZE), needed=None)
        asked = demand.registrations if demand.things_asked is None else min(demand.things_asked, demand.registrations)
        if asked:
            yield Bound(quota=LIST_THINGS, total=asked, needed=None)


def _provisioning(demand: AccountDemand) -> Iterator[Quota]:
    account = demand.account
    if account.provisioning == "JITP":
        yield REGISTER_THING
        if demand.things:
            yield CREATE_THING
            yield ATTACH_THING
        yield ATTACH_POLICY
        yield UPDATE_CERTIFICATE
    elif account.provisioning == "JITR" and account.activator != "none":
        yield ACTIVATOR_POLICY
        yield ACTIVATOR_UPDATE
