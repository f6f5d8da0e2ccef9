"""AWS's quotas on rates and numbers (aws-iot-behaviour.md §6), and what of them each account has used. Pure.

:class:`Quotas` says how much is allowed; :class:`QuotaMeter` counts. Rates are kept by the generic cell rate algorithm,
which is a token bucket that needs one number for each counter: the time at which the bucket is full again. What is
refused uses nothing up. Quotas are Regional: an account has its own in each Region.

What a throttled request looks like stands in ``Settings`` (``throttled_*``).
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

AccountKey = tuple[str, str]
"""Account id and Region."""

_RATES: Final[Mapping[float, str]] = {
    350: "DescribeThing",
    100: "DescribeBillingGroup DescribeThingGroup",
    60: "AddThingToBillingGroup AddThingToThingGroup",
    50: "GetEffectivePolicies",
    25: "CreateBillingGroup CreateThingGroup ListThingsInBillingGroup ListThingsInThingGroup",
    20: "GetIndexingConfiguration",
    15: (
        "AttachPolicy AttachPrincipalPolicy AttachThingPrincipal CreateCertificateFromCsr CreateThing "
        "CreateThingType DeleteBillingGroup DeleteThing DeleteThingGroup DeleteThingType DeprecateThingType "
        "DetachPolicy DetachPrincipalPolicy DetachThingPrincipal GetCardinality GetPercentiles GetPolicyVersion "
        "GetStatistics ListAttachedPolicies ListPrincipalPolicies "
        "RemoveThingFromBillingGroup RemoveThingFromThingGroup SearchIndex UpdateBillingGroup UpdateThingGroup"
    ),
    5: "CreateDynamicThingGroup DeleteDynamicThingGroup ListIndices UpdateDynamicThingGroup",
    2: "LookupEvents",
    1: "UpdateIndexingConfiguration",
}
API_RATES: Final[Mapping[str, float]] = {name: rate for rate, names in _RATES.items() for name in names.split()}
"""Requests a second of one account, of the operations that AWS gives another rate than 10 (general reference "AWS IoT
throttling limits", 2019, D), and of CloudTrail's (botocore, D)."""
REGISTERING: Final = frozenset({"RegisterCertificate", "RegisterCertificateWithoutCA"})
"""Operations that count against the registrations of device certificates, beside their own rate."""
_SHADOW_OPERATIONS: Final = frozenset({"GetThingShadow", "UpdateThingShadow", "DeleteThingShadow"})
JITP_OPERATION: Final = "RegisterThing"
"""JITP is RegisterThing, called by the service (§3), and shares its rate with the API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """How much an account may do in a Region: AWS's defaults. ``None`` lifts a quota."""

    connects_per_second: float | None = 500
    """MQTT CONNECT of one account, whatever becomes of them (§6, D)."""
    connects_per_client_id_per_second: float | None = 1
    """MQTT CONNECT of one client id of an account, counted once the certificate is authenticated: a device that is not
    cannot use up another's (§6, D; that order I)."""
    connections: int | None = 500_000
    """Connections of one account at a time (§6, D)."""
    certificate_registrations_per_second: float | None = 15
    """Device certificates registered in one account, on a first connection or by RegisterCertificate and
    RegisterCertificateWithoutCA (§6, D; that those count together I)."""
    publishes_per_connection_per_second: float | None = 100
    """PUBLISH each way on one connection. "Publish requests that exceed that quota are discarded" (general reference,
    D); QoS 1 to a device is sent all the same here, and counted (I)."""
    inbound_publishes_per_second: float | None = 20_000
    """PUBLISH received from all devices of one account, and by HTTP (§6, D)."""
    outbound_publishes_per_second: float | None = 20_000
    """PUBLISH sent to all devices of one account (§6, D); what is more is discarded with QoS 0 (I)."""
    subscribes_per_second: float | None = 500
    """Topic filters subscribed to in one account; a SUBSCRIBE with three counts three times (general reference, D)."""
    throughput_per_connection: float | None = 512 * 1024
    """Bytes a second that are received on one connection: "data that exceeds the maximum throughput is delayed in
    processing" (general reference, D)."""
    api_default: float | None = 10
    """Requests a second for each operation of the API that is not in ``api`` (§6 "most", D; for operations that AWS's
    table does not name, I)."""
    api: Mapping[str, float | None] = field(default_factory=lambda: dict(API_RATES))
    """Requests a second by operation name, AWS's table. RegisterThing's (10, D) also limits JITP."""
    shadow_requests_per_second: float | None = 4_000
    """GetThingShadow, UpdateThingShadow and DeleteThingShadow of one account together, called by HTTP (general
    reference: 4,000 in the largest Regions, 400 in others; D)."""
    burst_seconds: float = 1.0
    """How many seconds' worth of a rate may come at once. AWS gives rates "per second" and no burst (I)."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            rates = value if name == "api" else {name: value}
            for key, rate in rates.items():
                if rate is not None and not 0 < rate < float("inf"):
                    raise ValueError(f"quota {key} is {rate}, must be above 0 and finite, or none to lift it")

    @classmethod
    def lifted(cls) -> "Quotas":
        """No quota at all."""
        return cls(
            connects_per_second=None,
            connects_per_client_id_per_second=None,
            connections=None,
            certificate_registrations_per_second=None,
            publishes_per_connection_per_second=None,
            inbound_publishes_per_second=None,
            outbound_publishes_per_second=None,
            subscribes_per_second=None,
            throughput_per_connection=None,
            api_default=None,
            api={},
            shadow_requests_per_second=None,
        )

    def api_rate(self, operation: str) -> float | None:
        """Requests a second of an operation of the API."""
        return self.api.get(operation, self.api_default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled:
    """A quota that is used up."""

    quota: str
    """Its field in :class:`Quotas`, or ``api.<operation>``."""
    limit: float

    @property
    def detail(self) -> str:
        return f"quota {self.quota} is used up: {self.limit:g} allowed"


class RateLimiter:
    """One rate for any number of keys: at most ``rate`` a second each, and ``burst`` at once.

    A key costs memory only until its bucket is full again.
    """

    __slots__ = ("_full_at", "_interval", "_slack", "rate")

    def __init__(self, rate: float, *, burst_seconds: float = 1.0) -> None:
        self.rate = rate
        self._interval = 1.0 / rate
        burst = max(1.0, rate * burst_seconds)
        self._slack = (burst - 1.0) * self._interval
        """By how much a request may come before its turn."""
        self._full_at: dict[Hashable, float] = {}
        """When the key's bucket is full again, the longest unused first."""

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, key: Hashable, now: float) -> float:
        """Seconds until one more is allowed; 0 when it is. Takes nothing."""
        # A hair's breadth: the sums of a hundred intervals are not exactly a second.
        return max(0.0, self._full_at.get(key, now) - self._slack - now - 1e-9)

    def take(self, key: Hashable, now: float, amount: float = 1.0) -> bool:
        """Take one (``amount`` together count from the first on: all, as soon as one is allowed); ``False`` when it is
        not allowed now."""
        if self.wait(key, now) > 0:
            return False
        self._put(key, now, amount)
        return True

    def reserve(self, key: Hashable, now: float, amount: float = 1.0) -> float:
        """Take ``amount`` in any case; answers the seconds until the turn of the first."""
        wait = self.wait(key, now)
        self._put(key, now, amount)
        return wait

    def _put(self, key: Hashable, now: float, amount: float) -> None:
        full_at = max(self._full_at.pop(key, now), now) + amount * self._interval
        self._forget_full(now)
        self._full_at[key] = full_at

    def _forget_full(self, now: float) -> None:
        """Two each time, so that they go faster than they come."""
        for _ in range(2):
            oldest = next(iter(self._full_at), None)
            if oldest is None or self._full_at[oldest] > now:
                return
            del self._full_at[oldest]


class QuotaMeter:
    """What every account has used. One for the emulator; ``now`` is its monotonic clock."""

    def __init__(self, quotas: Quotas) -> None:
        self.quotas = quotas
        self.throttled: Counter[str] = Counter()
        """How often each quota has refused something."""
        self._limiters: dict[str, RateLimiter] = {}

    def replace(self, quotas: Quotas) -> None:
        """Other quotas from now on; what was used so far is forgotten."""
        self.quotas = quotas
        self._limiters.clear()

    # --- connecting ---

    def connect(self, account: AccountKey, now: float) -> Throttled | None:
        """A CONNECT has come that names the account."""
        return self._take("connects_per_second", self.quotas.connects_per_second, account, now)

    def connect_client_id(self, account: AccountKey, client_id: str, now: float) -> Throttled | None:
        """Its client is authenticated."""
        rate = self.quotas.connects_per_client_id_per_second
        return self._take("connects_per_client_id_per_second", rate, (*account, client_id), now)

    def connections(self, connected: int) -> Throttled | None:
        """One more connection is to be admitted in an account that has ``connected``."""
        limit = self.quotas.connections
        if limit is None or connected < limit:
            return None
        return self._count(Throttled(quota="connections", limit=limit))

    def registration(self, account: AccountKey, now: float) -> Throttled | None:
        """A device certificate is to be registered."""
        rate = self.quotas.certificate_registrations_per_second
        return self._take("certificate_registrations_per_second", rate, account, now)

    def explain_connect(
        self, account: AccountKey, client_id: str, connected: int, now: float
    ) -> Mapping[str, Throttled | None]:
        """What a CONNECT would meet at ``now``, by quota. Takes nothing."""
        quotas = self.quotas
        found = {
            "connects_per_second": self._peek("connects_per_second", quotas.connects_per_second, account, now),
            "connects_per_client_id_per_second": self._peek(
                "connects_per_client_id_per_second",
                quotas.connects_per_client_id_per_second,
                (*account, client_id),
                now,
            ),
            "certificate_registrations_per_second": self._peek(
                "certificate_registrations_per_second", quotas.certificate_registrations_per_second, account, now
            ),
            "connections": None,
        }
        if quotas.connections is not None and connected >= quotas.connections:
            found["connections"] = Throttled(quota="connections", limit=quotas.connections)
        return found

    # --- connected ---

    def publish(self, account: AccountKey, connection: Hashable, now: float) -> Throttled | None:
        """A PUBLISH has come on ``connection``."""
        rate = self.quotas.publishes_per_connection_per_second
        throttled = self._take("publishes_per_connection_per_second", rate, (connection, "in"), now)
        return throttled or self.inbound(account, now)

    def inbound(self, account: AccountKey, now: float) -> Throttled | None:
        """A PUBLISH has come, whichever way."""
        return self._take("inbound_publishes_per_second", self.quotas.inbound_publishes_per_second, account, now)

    def outbound(self, account: AccountKey, connection: Hashable, now: float) -> Throttled | None:
        """A PUBLISH is to be sent on ``connection``."""
        rate = self.quotas.publishes_per_connection_per_second
        throttled = self._take("publishes_per_connection_per_second", rate, (connection, "out"), now)
        if throttled is not None:
            return throttled
        return self._take("outbound_publishes_per_second", self.quotas.outbound_publishes_per_second, account, now)

    @property
    def limits_outbound(self) -> bool:
        """Whether :meth:`outbound` has anything to count."""
        quotas = self.quotas
        return (
            quotas.publishes_per_connection_per_second is not None or quotas.outbound_publishes_per_second is not None
        )

    def subscribe(self, account: AccountKey, filters: int, now: float) -> Throttled | None:
        """A SUBSCRIBE has come."""
        rate = self.quotas.subscribes_per_second
        return self._take("subscribes_per_second", rate, account, now, amount=filters)

    def received(self, connection: Hashable, size: int, now: float) -> float:
        """``size`` bytes were read from ``connection``: the seconds after which more may be."""
        limiter = self._limiter("throughput_per_connection", self.quotas.throughput_per_connection)
        if limiter is None:
            return 0.0
        limiter.reserve(connection, now, size)
        return limiter.wait(connection, now)

    # --- the API ---

    def call(self, account: AccountKey, operation: str, now: float) -> Throttled | None:
        """An operation of ``iot`` (or of a service that tells what happened) is called, or JITP calls
        ``RegisterThing``."""
        throttled = self._take(f"api.{operation}", self.quotas.api_rate(operation), account, now)
        if throttled is None and operation in REGISTERING:
            return self.registration(account, now)
        return throttled

    def call_data(self, account: AccountKey, operation: str, now: float) -> Throttled | None:
        """An operation of ``iot-data`` is called."""
        if operation == "Publish":
            return self.inbound(account, now)
        if operation in _SHADOW_OPERATIONS:
            rate = self.quotas.shadow_requests_per_second
            return self._take("shadow_requests_per_second", rate, account, now)
        return None

    def reserve_call(self, account: AccountKey, operation: str, now: float) -> float:
        """As :meth:`call` for one that can wait: counts it in any case, and answers the seconds until its turn."""
        limiter = self._limiter(f"api.{operation}", self.quotas.api_rate(operation))
        return 0.0 if limiter is None else limiter.reserve(account, now)

    # ---

    def _limiter(self, name: str, rate: float | None) -> RateLimiter | None:
        if rate is None:
            return None
        limiter = self._limiters.get(name)
        if limiter is None:
            limiter = self._limiters[name] = RateLimiter(rate, burst_seconds=self.quotas.burst_seconds)
        return limiter

    def _take(
        self, name: str, rate: float | None, key: Hashable, now: float, *, amount: float = 1.0
    ) -> Throttled | None:
        limiter = self._limiter(name, rate)
        if limiter is None or limiter.take(key, now, amount):
            return None
        return self._count(Throttled(quota=name, limit=limiter.rate))

    def _peek(self, name: str, rate: float | None, key: Hashable, now: float) -> Throttled | None:
        limiter = self._limiter(name, rate)
        if limiter is None or not limiter.wait(key, now):
            return None
        return Throttled(quota=name, limit=limiter.rate)

    def _count(self, throttled: Throttled) -> Throttled:
        self.throttled[throttled.quota] += 1
        return throttled
