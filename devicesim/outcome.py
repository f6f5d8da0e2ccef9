"""The vocabulary that is recorded: what one connection attempt saw, and where a device ended.

Kinds of failure name *what was seen on the wire*, never a guess at the cause. A number that was not measured is absent
(``None``, or no key), not 0. Pure data: times come in as arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Stage(StrEnum):
    """The stages of a connection, in order. A stage is *reached* when its last step is done."""

    TCP = "tcp"
    """The TCP connection is established."""
    TLS = "tls"
    """The TLS handshake is complete on our side and the server's chain and name are verified.

    In TLS 1.3 a client certificate that the server refuses is refused only after this."""
    CONNECT = "connect"
    """The MQTT CONNECT packet has been written."""
    CONNACK = "connack"
    """A CONNACK has been received (with whatever code)."""
    SESSION = "session"
    """The connection is in use. Never recorded as reached; a failure may stand here."""


class FailureKind(StrEnum):
    """What was seen when a connection did not come about or did not last."""

    NAME_NOT_RESOLVED = "name_not_resolved"
    TCP_REFUSED = "tcp_refused"
    TCP_UNREACHABLE = "tcp_unreachable"
    CONNECTION_RESET = "connection_reset"
    """A TCP reset, at the stage given."""
    LOCAL_RESOURCES = "local_resources"
    """This machine ran out of file descriptors, ports or memory: the generator's fault, not the target's."""
    TIMEOUT = "timeout"
    """The deadline of the stage given passed."""
    TLS_ALERT = "tls_alert"
    """The server sent a fatal alert; its name is in ``Failure.detail`` and in the attempt's alert."""
    TLS_PROTOCOL_ERROR = "tls_protocol_error"
    SERVER_CERTIFICATE_UNTRUSTED = "server_certificate_untrusted"
    SERVER_CERTIFICATE_EXPIRED = "server_certificate_expired"
    """Expired, or not yet valid, by this machine's clock."""
    SERVER_NAME_MISMATCH = "server_name_mismatch"
    CLOSED_IN_HANDSHAKE = "closed_in_handshake"
    CLOSED_BEFORE_CONNACK = "closed_before_connack"
    """Handshake done, CONNECT sent, closed without CONNACK: AWS IoT's canonical refusal (aws-iot-behaviour.md 4.2)."""
    CONNACK_REFUSED = "connack_refused"
    """A CONNACK with a code other than 0."""
    MQTT_PROTOCOL_ERROR = "mqtt_protocol_error"
    DISCONNECTED_BY_SERVER = "disconnected_by_server"
    """An MQTT 5 DISCONNECT from the server, after CONNACK 0."""
    CLOSED_AFTER_CONNACK = "closed_after_connack"
    """The connection ended after CONNACK 0 without our asking."""
    REQUEST_REFUSED = "request_refused"
    """A SUBACK or PUBACK with a failure code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What was seen, at the stage that was under way (not the last one reached)."""

    kind: FailureKind
    stage: Stage
    detail: str = ""
    """The peer's or the library's own words, one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A TLS alert (RFC 8446, 6.2). ``name`` is the RFC's, e.g. ``unknown_ca``; ``direction`` as this side saw it."""

    name: str
    code: int
    level: str
    """``fatal`` or ``warning``. ``close_notify`` is not recorded as an alert."""
    direction: str
    """``received`` or ``sent``."""


@dataclass(slots=True, kw_only=True)
class Trace:
    """What one connection attempt has seen so far; filled in by ``net`` as it goes, also when it then fails.

    ``start`` and every ``now`` are readings of one monotonic clock, in seconds.
    """

    start: float
    reached: dict[Stage, float] = field(default_factory=dict)
    """Seconds from ``start`` until each stage was reached."""
    tls_version: str | None = None
    cipher: str | None = None
    alert: Alert | None = None
    """The first fatal alert seen, in either direction."""
    connack_code: int | None = None

    def reach(self, stage: Stage, now: float) -> None:
        self.reached[stage] = now - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One connection try of one device."""

    device: int
    """The device's number in the run, from 0."""
    number: int
    """1 for the device's first try."""
    account: str | None
    """The account (by its name in the fleet file) in which the oracle expects the device, if any."""
    sni: str | None
    """The server name sent in the ClientHello; ``None`` when the extension was not sent."""
    intended_start: float
    """When the schedule (first try) or the back-off (later tries) meant it to start; seconds since the Unix epoch."""
    start: float
    """When it did start; seconds since the Unix epoch."""
    end: float
    """When the connection was given up, refused or (after success) closed; seconds since the Unix epoch."""
    reached: Mapping[Stage, float]
    """Seconds from ``start`` until each stage was reached; a stage that was not reached is absent."""
    failure: Failure | None
    tls_version: str | None
    cipher: str | None
    alert: Alert | None
    connack_code: int | None
    published: int | None = None
    """Messages handed to the connection; ``None``: the device publishes nothing."""
    acknowledged: int | None = None
    """Those of them that the server acknowledged; ``None``: none are asked to be (QoS 0)."""


class DeviceOutcome(StrEnum):
    """Where a device ended."""

    PROVISIONED = "provisioned"
    """CONNACK 0, and the control plane confirms the account that holds its certificate ACTIVE."""
    PENDING = "pending"
    """Refused to the last, while an account holds its certificate as PENDING_ACTIVATION."""
    REFUSED = "refused"
    """Turned away by the target (closed before CONNACK, alert, CONNACK code) and pending nowhere."""
    UNREACHABLE = "unreachable"
    """No TCP connection, or the device refused the server (name, chain, expiry)."""
    FAILED = "failed"
    """Anything else: time-outs, protocol errors, local resources, or CONNACK 0 that the control plane contradicts."""
    NOT_STARTED = "not_started"
    """The run ended before its first attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One account's record of one device certificate, as the control plane tells it."""

    account: str
    """Name in the fleet file."""
    certificate_id: str
    status: str
    """As AWS spells it: ACTIVE, PENDING_ACTIVATION, INACTIVE, REVOKED, ..."""
    mode: str | None
    """DEFAULT or SNI_ONLY; ``None`` when the control plane did not say."""
    things: tuple[str, ...] | None = None
    """Their names; ``None``: not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Where a device ended, beside what was expected of it."""

    device: int
    outcome: DeviceOutcome
    account: str | None
    """The account in which it is provisioned or pending, confirmed by the control plane; else ``None``."""
    mode: str | None
    """The mode of its record in that account."""
    thing: str | None
    expected_outcome: DeviceOutcome
    expected_account: str | None
    agrees: bool
    reason: str
    """Why it does not agree; empty when it does."""
    attempts: int
    time_to_provision: float | None
    """Seconds from the first try's intended start to CONNACK 0."""
