"""One device's evidence, read: what it saw last, which account answered, what that account says. Pure.

The causes share these readings, so that each is made once and in one way. Two accounts matter, and may be two: the one
*dialled*, where the device's owner wants it to be, and the one that *decides* by the server name that is sent
(aws-iot-behaviour.md §10, decision procedure). What an account's control plane says is looked for in the one that
decides, else in the one dialled.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from devicesim.diagnosis import oracle
from devicesim.diagnosis.evidence import (
    AccountEvidence,
    CAEvidence,
    DeviceEvidence,
    LogEvent,
    ProvisioningEvent,
    RecordEvidence,
)
from devicesim.diagnosis.oracle import SLACK_SECONDS
from devicesim.diagnosis.scales import HINT, PROOF, USUAL
from devicesim.outcome import Attempt, Failure, FailureKind, Stage
from devicesim.rules import read_server_name

JITP_SECONDS = 3.0
"""JITP is usually done after 1 to 3 s (§3): who gives up sooner may have missed it."""
PROVISIONING_SECONDS = 10.0
"""What is not done after so long has not come off."""
LOG_SECONDS = 60.0
"""How long before the first try an entry of a log may be and still be about it."""


class Sight(StrEnum):
    """What the last try saw, as far as causes differ by it."""

    NOTHING = "nothing"
    """There was no try, or it was cut short."""
    CONNECTED = "connected"
    NO_NAME = "no_name"
    """The name that is dialled was not resolved."""
    NO_TCP = "no_tcp"
    HANDSHAKE = "handshake"
    """The handshake failed for neither name nor trust."""
    UNTRUSTED = "untrusted"
    SERVER_EXPIRED = "server_expired"
    WRONG_NAME = "wrong_name"
    REFUSED = "refused"
    """Turned away after a handshake that was good on our side: AWS IoT's refusal (§4.2)."""
    SILENT = "silent"
    """No answer to CONNECT."""
    NOT_MQTT = "not_mqtt"
    LOST = "lost"
    """Accepted, and ended later by the other side."""
    OURS = "ours"
    """This machine's resources."""


class Telling(StrEnum):
    """What a failure's words say that its kind does not. Causes look at no other words of it."""

    HTTP = "http"
    PLAIN_TEXT = "plain_text"
    """The other side does not speak TLS."""
    TAKEN_OVER = "taken_over"
    NOT_AUTHORIZED = "not_authorized"
    QUOTA = "quota"
    CLIENT_ID = "client_id"
    NONE = ""


_WORDS = (
    (re.compile(r"HTTP/[0-9.]+|\bhttps? (?:proxy )?request\b", re.IGNORECASE), Telling.HTTP),
    (re.compile(r"wrong version number|packet length too long"), Telling.PLAIN_TEXT),
)
_CODES = (
    (re.compile(r"^0x8e\b"), Telling.TAKEN_OVER),
    (re.compile(r"^0x8[67]\b|^[45] "), Telling.NOT_AUTHORIZED),
    (re.compile(r"^0x(?:8[89]|9[67f])\b|^3 "), Telling.QUOTA),
    (re.compile(r"^0x85\b|^2 "), Telling.CLIENT_ID),
)
"""Reason codes are MQTT 5's in hexadecimal and 3.1.1's in decimal, as ``net`` words them."""
_WITH_CODE = frozenset({FailureKind.CONNACK_REFUSED, FailureKind.DISCONNECTED_BY_SERVER, FailureKind.REQUEST_REFUSED})


def telling(failure: Failure) -> Telling:
    """The one thing that a failure's words tell, for causes and for whoever groups failures."""
    rows = _CODES if failure.kind in _WITH_CODE else _WORDS
    return next((what for pattern, what in rows if pattern.search(failure.detail)), Telling.NONE)


HANDSHAKE_ALERTS = frozenset(
    {
        *("handshake_failure", "protocol_version", "insufficient_security", "illegal_parameter", "decode_error"),
        *("record_overflow", "unexpected_message", "bad_record_mac", "internal_error", "missing_extension"),
        *("unsupported_extension", "decrypt_error"),
    }
)
"""Alerts about TLS itself: nobody's certificate or name."""

MQTT_ALPN = "x-amzn-mqtt-ca"
"""Without it port 443 speaks HTTP (§4.3 [D])."""
_BEFORE_ACCOUNT = frozenset(
    {
        *(Sight.OURS, Sight.NO_NAME, Sight.NO_TCP, Sight.HANDSHAKE, Sight.UNTRUSTED, Sight.SERVER_EXPIRED),
        *(Sight.WRONG_NAME, Sight.NOT_MQTT),
    }
)

_SIGHT = {
    FailureKind.NAME_NOT_RESOLVED: Sight.NO_NAME,
    FailureKind.TCP_REFUSED: Sight.NO_TCP,
    FailureKind.TCP_UNREACHABLE: Sight.NO_TCP,
    FailureKind.LOCAL_RESOURCES: Sight.OURS,
    FailureKind.TLS_PROTOCOL_ERROR: Sight.HANDSHAKE,
    FailureKind.SERVER_CERTIFICATE_UNTRUSTED: Sight.UNTRUSTED,
    FailureKind.SERVER_CERTIFICATE_EXPIRED: Sight.SERVER_EXPIRED,
    FailureKind.SERVER_NAME_MISMATCH: Sight.WRONG_NAME,
    FailureKind.CLOSED_IN_HANDSHAKE: Sight.HANDSHAKE,
    FailureKind.CLOSED_BEFORE_CONNACK: Sight.REFUSED,
    FailureKind.CONNACK_REFUSED: Sight.REFUSED,
    FailureKind.MQTT_PROTOCOL_ERROR: Sight.NOT_MQTT,
    FailureKind.DISCONNECTED_BY_SERVER: Sight.LOST,
    FailureKind.CLOSED_AFTER_CONNACK: Sight.LOST,
    FailureKind.REQUEST_REFUSED: Sight.LOST,
}
_SIGHT_BY_STAGE = {
    Stage.TCP: Sight.NO_TCP,
    Stage.TLS: Sight.HANDSHAKE,
    Stage.CONNECT: Sight.REFUSED,
    Stage.CONNACK: Sight.REFUSED,
    Stage.SESSION: Sight.LOST,
}


def sight(attempt: Attempt | None) -> Sight:
    if attempt is None:
        return Sight.NOTHING
    failure = attempt.failure
    if failure is None:
        return Sight.CONNECTED if attempt.connack_code == 0 else Sight.NOTHING
    if failure.kind is FailureKind.TLS_ALERT:
        # a client certificate that is refused in the handshake is the refusal of former years (§4.2)
        return Sight.HANDSHAKE if _alert(attempt) in HANDSHAKE_ALERTS else Sight.REFUSED
    if failure.kind is FailureKind.TIMEOUT and failure.stage in (Stage.CONNECT, Stage.CONNACK):
        return Sight.SILENT
    if failure.kind in _SIGHT:
        found = _SIGHT[failure.kind]
        return Sight.LOST if found is Sight.NOT_MQTT and failure.stage is Stage.SESSION else found
    return _SIGHT_BY_STAGE[failure.stage]  # TIMEOUT, CONNECTION_RESET


def _alert(attempt: Attempt) -> str:
    if attempt.failure is not None and attempt.failure.kind is FailureKind.TLS_ALERT and attempt.failure.detail:
        return attempt.failure.detail
    return attempt.alert.name if attempt.alert is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The evidence with its readings."""

    evidence: DeviceEvidence
    sight: Sight
    last: Attempt | None
    tells: Telling
    alert: str
    """Name of the TLS alert that the last try received; empty: none."""
    sent: str | None
    """The server name as IoT Core reads it; ``None``: none."""
    dialled: AccountEvidence | None
    decider: AccountEvidence | None
    """The account that answers by the server name, or without one by DEFAULT mode; ``None``: none, or not known."""
    place: AccountEvidence | None
    """Where the account's own causes are looked for: the decider, else the account dialled."""
    proof: int
    """What the word of that account's control plane weighs: :data:`PROOF` where it has decided what was seen and is
    the one dialled, less where it is another, least where the device never came so far."""
    expected: oracle.Reading | None
    """What IoT Core should have done with the last try; ``None``: not enough is known."""

    @property
    def place_name(self) -> str:
        """That account, for people."""
        return "the account" if self.place is None else self.place.name

    @property
    def failure(self) -> Failure | None:
        return None if self.last is None else self.last.failure

    @property
    def before_account(self) -> bool:
        """The device did not come so far that an account decided anything: what accounts say stands in its way next."""
        wire = self.evidence.wire
        no_mqtt = wire.port == 443 and MQTT_ALPN not in wire.alpn and not wire.assumed and not self.ever_accepted
        return self.sight in _BEFORE_ACCOUNT or no_mqtt

    @property
    def connected(self) -> bool:
        return self.sight is Sight.CONNECTED

    @property
    def refused(self) -> bool:
        return self.sight is Sight.REFUSED

    @property
    def tries(self) -> int:
        return len(self.evidence.attempts)

    @property
    def tried_for(self) -> float:
        """Seconds between the starts of the first and the last try."""
        attempts = self.evidence.attempts
        return attempts[-1].start - attempts[0].start if attempts else 0.0

    @property
    def ever_accepted(self) -> bool:
        return any(attempt.connack_code == 0 for attempt in self.evidence.attempts)

    @property
    def ever_shook_hands(self) -> bool:
        return any(Stage.TLS in attempt.reached for attempt in self.evidence.attempts)

    @property
    def elsewhere(self) -> bool:
        """Another account than the one dialled decides: what it does, it does to a device that is not meant for it."""
        return self.decider is not None and self.dialled is not None and self.decider is not self.dialled

    @property
    def right_name(self) -> bool:
        """The server name sent is the endpoint of the account dialled."""
        return self.dialled is not None and self.sent is not None and _same(self.dialled.endpoint, self.sent)

    @property
    def endpoints_known(self) -> bool:
        """Every account's endpoint is known, so that a name that is none of them is nobody's here."""
        return bool(self.evidence.accounts) and all(account.endpoint for account in self.evidence.accounts)

    @property
    def record(self) -> RecordEvidence | None:
        return None if self.place is None else self.place.record

    @property
    def no_record(self) -> bool:
        """The account was asked, and has no record of the certificate."""
        return self.place is not None and self.place.record_asked and self.place.record is None

    @property
    def from_outside(self) -> bool:
        """No account says anything of the certificate, it was turned away more than once, and some account may have
        done that."""
        place = self.place
        asked = place is not None and place.record_asked
        some = self.decider is not None or place is None or place.cas is None
        return self.tries > 1 and not asked and some

    @property
    def signers(self) -> tuple[CAEvidence, ...]:
        """CAs of the account that can be found as the certificate's issuer: its subject, and a key that verifies."""
        return tuple(ca for ca in (self.cas or ()) if ca.signed_leaf and ca.same_subject)

    @property
    def cas(self) -> tuple[CAEvidence, ...] | None:
        return None if self.place is None else self.place.cas

    @property
    def registering(self) -> CAEvidence | None:
        """The CA under which the account would register the certificate."""
        return next((ca for ca in self.signers if ca.active and ca.auto_registration), None)

    @property
    def provisioned_by(self) -> CAEvidence | None:
        """The CA whose template (or activator) has to do with the record: its own, else the one that would register."""
        own = None if self.record is None else self.record.ca_certificate_id
        return next((ca for ca in (self.cas or ()) if ca.certificate_id == own), None) or self.registering

    @property
    def pending_for(self) -> float | None:
        """Seconds for which the certificate has been PENDING_ACTIVATION at least; ``None``: it is not, or not known."""
        if self.record is None or self.record.status != "PENDING_ACTIVATION":
            return None
        since = self.record.created
        if since is None and self.evidence.attempts:
            since = self.evidence.attempts[0].end
        return None if since is None else max(0.0, self.evidence.now - since)

    @property
    def still_trying(self) -> bool:
        """The device has tries left, and the last one was a moment ago."""
        last = self.last
        left = self.tries < self.evidence.wire.tries_allowed
        return left and last is not None and self.evidence.now - last.end < PROVISIONING_SECONDS

    @property
    def activated_after_last_try(self) -> bool | None:
        """Whether an ACTIVE record came to be so only after the last try; ``None``: it is not ACTIVE, or not known."""
        record, last = self.record, self.last
        if record is None or record.status != "ACTIVE" or last is None or record.changed is None:
            return None
        if record.never_pending and last.start <= record.changed < last.start + SLACK_SECONDS:
            return None  # a call of the API, or a try whose template was done within the same tick of the clock
        # within what clocks can tell, a try has made it so, or a call of the API came before all tries
        return record.changed >= last.start + (SLACK_SECONDS if record.never_pending else -SLACK_SECONDS)

    @property
    def last_provisioning(self) -> ProvisioningEvent | None:
        events = None if self.place is None else self.place.provisioning
        return events[-1] if events else None

    @property
    def logged(self) -> tuple[LogEvent, ...]:
        """What the account's log says of this device since its first try."""
        events = () if self.place is None or self.place.logs is None else self.place.logs
        since = self.evidence.attempts[0].start - LOG_SECONDS if self.evidence.attempts else None
        return tuple(event for event in events if since is None or event.time >= since)

    @property
    def peers_get_in(self) -> bool:
        """Others that do the same are accepted: what they share is not the cause."""
        return self.evidence.fleet.peers_accepted > 0


def read(evidence: DeviceEvidence) -> Case:
    """The readings of a device's evidence."""
    attempts = evidence.attempts
    last = attempts[-1] if attempts else None
    saw = sight(last)
    failure = None if last is None else last.failure
    sent, _ = read_server_name(evidence.wire.server_name)
    dialled = next((account for account in evidence.accounts if account.name == evidence.wire.dials), None)
    decider = _decider(evidence, dialled, sent)
    received = last is not None and failure is not None and failure.kind is FailureKind.TLS_ALERT
    if saw in (Sight.REFUSED, Sight.LOST, Sight.CONNECTED):
        proof = PROOF if decider is not None and decider is dialled else USUAL
    else:
        proof = HINT
    return Case(
        evidence=evidence,
        sight=saw,
        last=last,
        tells=Telling.NONE if failure is None else telling(failure),
        alert=_alert(last) if received and last is not None else "",
        sent=sent,
        dialled=dialled,
        decider=decider,
        place=decider or dialled,
        proof=proof,
        expected=oracle.reading(evidence, dialled) if _dropped(saw, failure) else None,
    )


def _dropped(saw: Sight, failure: Failure | None) -> bool:
    """It was refused after its CONNECT, and for nothing but who it is: of that alone the oracle speaks."""
    if saw is not Sight.REFUSED or failure is None or failure.kind is FailureKind.TLS_ALERT:
        return False
    return telling(failure) in (Telling.NONE, Telling.NOT_AUTHORIZED)


def _same(endpoint: str | None, name: str) -> bool:
    return endpoint is not None and endpoint.lower() == name.lower()


def _decider(evidence: DeviceEvidence, dialled: AccountEvidence | None, sent: str | None) -> AccountEvidence | None:
    """The account that answers (§10, decision procedure 2 and 3), as far as the accounts could be asked."""
    region = None if dialled is None else dialled.region
    local = [account for account in evidence.accounts if region is None or account.region == region]
    if sent is not None:
        named = next((account for account in local if _same(account.endpoint, sent)), None)
        if named is None and dialled is not None and dialled.endpoint is None:
            return dialled  # its endpoint could not be asked; what was sent is taken for it until told otherwise
        return named
    holds = [account for account in local if account.record is not None and account.record.mode == "DEFAULT"]
    if holds:
        return holds[0] if len(holds) == 1 else None
    return next((account for account in local if _registers_without_name(account, evidence.wire.chain_sent)), None)


def _registers_without_name(account: AccountEvidence, chain_sent: bool) -> bool:
    default: Sequence[CAEvidence] = [ca for ca in account.cas or () if ca.signed_leaf and ca.mode == "DEFAULT"]
    return chain_sent and bool(default) and account.record is None
