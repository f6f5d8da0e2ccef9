"""What the control plane of several accounts must do with CAs and device certificates: a model for the stateful test.

Written from ``aws-iot-behaviour.md`` §1 and §10a, and where that page names a choice (I), from the default that the
emulator's settings document. It sees neither the emulator nor its state. Every call answers the errors one of which AWS
must answer, and does nothing then; without any it has done what the call asks for. Which of several mistakes in one
call AWS names is not documented, so each will do.

Connections are the oracle's affair: the model is told what comes of one (:meth:`Model.registered`,
:meth:`Model.presented`), and knows what follows of itself: JITP, which ends in its time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from devicesim import rules

ACTIVE, INACTIVE, REVOKED = "ACTIVE", "INACTIVE", "REVOKED"
PENDING_ACTIVATION, PENDING_TRANSFER = "PENDING_ACTIVATION", "PENDING_TRANSFER"
ASKABLE: Final = (ACTIVE, INACTIVE, REVOKED)
"""What a caller may ask for; the others are AWS's own (§1.4)."""
HELD_FAST: Final = (REVOKED, PENDING_TRANSFER)
"""What no caller can change to another status."""

ALLOW, OTHER, DENY = "allow", "other", "deny"
"""Policies: everything is allowed; something is, but not to connect; connecting is denied whatever else allows it."""
GOOD, BARRED, BROKEN, NAMED, DISABLED = "good", "barred", "broken", "named", "disabled"
"""Templates: with the policy ``allow``; with the policy ``other``; one that asks the subject for what it has not; a
provisioning template like the first; and one that is not enabled."""
ATTACHED_BY: Final[Mapping[str, str]] = {GOOD: ALLOW, BARRED: OTHER, NAMED: ALLOW}
"""What those that work attach."""

RIGHT, FOREIGN_CODE, FOREIGN_KEY = "right", "foreign code", "foreign key"
"""Verification certificates: as it should be; with the code of another account; signed by another CA."""

JITP_SECONDS: Final = 2.0
"""From the connection to the end of the template's run, as ``emulator_support.World`` has it."""

Errors = frozenset[str]
NONE: Final[Errors] = frozenset()
EXISTS, NOT_FOUND = "ResourceAlreadyExistsException", "ResourceNotFoundException"
STATE, VALIDATION = "CertificateStateException", "CertificateValidationException"
INVALID, WRONG_CODE = "InvalidRequestException", "RegistrationCodeValidationException"
DELETE_CONFLICT, TRANSFER_CONFLICT = "DeleteConflictException", "TransferConflictException"
NOT_IN_TRANSFER: Final = frozenset({NOT_FOUND, INVALID, "TransferAlreadyCompletedException"})
"""Of what is not there to be accepted, rejected or cancelled (which of them when: I)."""


class Place(NamedTuple):
    """An account in a Region."""

    account: str
    region: str

    def __str__(self) -> str:
        return f"{self.account}/{self.region}"


Spot = tuple[Place, int]
"""A place, and the number of a CA or of a device's certificate."""


@dataclass(frozen=True)
class CA:
    """How a place holds a CA."""

    mode: rules.Mode
    active: bool
    auto: bool
    template: str | None = None
    """``None`` is JITR."""

    @property
    def registers(self) -> bool:
        return self.active and self.auto


@dataclass(frozen=True)
class Record:
    """A place's record of a device's certificate."""

    status: str
    mode: rules.Mode
    under: int | None
    """Number of the CA; ``None`` for one that was registered without."""
    policies: frozenset[str] = frozenset()
    thing: bool = False
    transfer: tuple[str, str] | None = None
    """Source and target account, while the status is PENDING_TRANSFER."""

    @property
    def allowed(self) -> bool:
        return allowed(self.policies)


def allowed(policies: frozenset[str]) -> bool:
    return ALLOW in policies and DENY not in policies


@dataclass(frozen=True)
class Run:
    """JITP under way."""

    due: float
    template: str


@dataclass(frozen=True)
class Activator:
    """Who acts on the event of a JITR registration: what a Lambda function does."""

    policy: str
    thing: bool


@dataclass
class Model:
    """Everything that the accounts hold."""

    signer: Sequence[int]
    """Number of the CA that signed each device's certificate."""
    cas: dict[Spot, CA] = field(default_factory=dict)
    records: dict[Spot, Record] = field(default_factory=dict)
    runs: dict[Spot, Run] = field(default_factory=dict)
    now: float = 0.0

    # --- CAs (§1.1 to 1.3, §10a) ---

    def default_holder(self, region: str, ca: int) -> Place | None:
        held = (at for (at, number), each in self.cas.items() if number == ca and each.mode == "DEFAULT")
        return next((at for at in held if at.region == region), None)

    def register_ca(self, at: Place, ca: int, asked: CA, proof: str | None) -> Errors:
        errors = set()
        if (proof is None) is (asked.mode == "DEFAULT"):  # wanted in DEFAULT mode, forbidden in SNI_ONLY (§1.2, D)
            errors.add(INVALID)
        if proof == FOREIGN_CODE:
            errors.add(WRONG_CODE)
        if proof == FOREIGN_KEY:
            errors.add(VALIDATION)
        if (at, ca) in self.cas or (asked.mode == "DEFAULT" and self.default_holder(at.region, ca) is not None):
            errors.add(EXISTS)
        if not errors:
            self.cas[at, ca] = asked
        return frozenset(errors)

    def update_ca(self, spot: Spot, *, active: bool | None, auto: bool | None, template: str | None) -> Errors:
        """``None`` leaves as it is."""
        held = self.cas.get(spot)
        if held is None:
            return frozenset({NOT_FOUND})
        self.cas[spot] = replace(
            held,
            active=held.active if active is None else active,
            auto=held.auto if auto is None else auto,
            template=held.template if template is None else template,
        )
        return NONE

    def remove_auto_registration(self, spot: Spot) -> Errors:
        """The way from JITP back to JITR (§1.3)."""
        if spot not in self.cas:
            return frozenset({NOT_FOUND})
        self.cas[spot] = replace(self.cas[spot], auto=False, template=None)
        return NONE

    def delete_ca(self, spot: Spot) -> Errors:
        """Its certificates stay as they are."""
        held = self.cas.get(spot)
        if held is None or held.active:
            return frozenset({NOT_FOUND if held is None else STATE})
        del self.cas[spot]
        return NONE

    # --- certificates (§1.4, §10a) ---

    def register(self, at: Place, leaf: int, status: str, given: int | None) -> Errors:
        """RegisterCertificate; ``given`` is the CA whose PEM is passed along."""
        errors = set() if status in ASKABLE else {STATE}
        signer = self.signer[leaf]
        held = self.cas.get((at, signer))
        if held is None or given not in (None, signer):
            errors.add(VALIDATION)
        if held is not None and not held.active:
            errors.add(STATE)
        if (at, leaf) in self.records:
            errors.add(EXISTS)
        if not errors:
            assert held is not None
            self.records[at, leaf] = Record(status, held.mode, signer)
        return frozenset(errors)

    def register_alone(self, at: Place, leaf: int, status: str) -> Errors:
        errors = set() if status in ASKABLE else {STATE}
        if (at, leaf) in self.records:
            errors.add(EXISTS)
        if not errors:
            self.records[at, leaf] = Record(status, "SNI_ONLY", None)
        return frozenset(errors)

    def update(self, spot: Spot, status: str) -> Errors:
        record = self.records.get(spot)
        errors = set() if status in ASKABLE else {STATE}
        if record is None:
            errors.add(NOT_FOUND)
        elif record.status != status and record.status in HELD_FAST:
            errors.add(STATE)
        if not errors:
            self._put(spot, status=status)
        return frozenset(errors)

    def delete(self, spot: Spot, *, force: bool) -> Errors:
        record = self.records.get(spot)
        if record is None:
            return frozenset({NOT_FOUND})
        errors = {STATE} if record.status in (ACTIVE, PENDING_TRANSFER) else set()
        if record.thing or (record.policies and not force):
            errors.add(DELETE_CONFLICT)
        if not errors:
            del self.records[spot]
        return frozenset(errors)

    def attach(self, spot: Spot, policy: str, *, attach: bool) -> Errors:
        """Attaching again, or detaching what is not attached, changes nothing."""
        record = self.records.get(spot)
        if record is None:
            return frozenset({NOT_FOUND})
        self._put(spot, policies=record.policies | {policy} if attach else record.policies - {policy})
        return NONE

    def attach_thing(self, spot: Spot, *, attach: bool) -> Errors:
        """Detaching what is not attached is not found."""
        record = self.records.get(spot)
        if record is None or not (attach or record.thing):
            return frozenset({NOT_FOUND})
        self._put(spot, thing=attach)
        return NONE

    # --- transfers: they stay in their Region (§1.4) ---

    def transfer(self, spot: Spot, account: str) -> Errors:
        (at, leaf), record = spot, self.records.get(spot)
        target = (Place(account, at.region), leaf)
        errors = {INVALID} if account == at.account else set()
        if record is None:
            errors.add(NOT_FOUND)
            return frozenset(errors)
        if record.status in (ACTIVE, *HELD_FAST):
            errors.add(STATE)
        if record.policies or record.thing or target in self.records:
            errors.add(TRANSFER_CONFLICT)
        if not errors:
            self._put(spot, status=PENDING_TRANSFER, transfer=(at.account, account))
            self.records[target] = self.records[spot]
        return frozenset(errors)

    def accept(self, spot: Spot, *, active: bool) -> Errors:
        source = self._other_end(spot, me=1)
        if source is None:
            return NOT_IN_TRANSFER
        del self.records[source]
        self._put(spot, status=ACTIVE if active else INACTIVE, transfer=None)
        return NONE

    def reject(self, spot: Spot) -> Errors:
        source = self._other_end(spot, me=1)
        return NOT_IN_TRANSFER if source is None else self._give_back(source, spot)

    def cancel(self, spot: Spot) -> Errors:
        target = self._other_end(spot, me=0)
        return NOT_IN_TRANSFER if target is None else self._give_back(spot, target)

    def _other_end(self, spot: Spot, *, me: int) -> Spot | None:
        """Of a pending transfer in which the account is the source (0) or the target (1)."""
        (at, leaf), record = spot, self.records.get(spot)
        if record is None or record.transfer is None or record.transfer[me] != at.account:
            return None
        return Place(record.transfer[1 - me], at.region), leaf

    def _give_back(self, source: Spot, target: Spot) -> Errors:
        del self.records[target]
        self._put(source, status=INACTIVE, transfer=None)
        return NONE

    # --- what connections set going (§2, §3) ---

    def registered(self, spot: Spot) -> None:
        """A first connection made a record."""
        at, leaf = spot
        signer = self.signer[leaf]
        self.records[spot] = Record(PENDING_ACTIVATION, self.cas[at, signer].mode, signer)

    def presented(self, spot: Spot) -> None:
        """A pending certificate was presented: the CA's template runs, unless a run is under way."""
        at, leaf = spot
        held = self.cas.get((at, self.signer[leaf]))
        if held is not None and held.registers and held.template is not None and spot not in self.runs:
            self.runs[spot] = Run(self.now + JITP_SECONDS, held.template)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for spot, run in list(self.runs.items()):
            if run.due > self.now:
                continue
            del self.runs[spot]
            record = self.records.get(spot)
            if record is not None and record.status == PENDING_ACTIVATION and run.template in ATTACHED_BY:
                added = {ATTACHED_BY[run.template]}
                self._put(spot, status=ACTIVE, policies=record.policies | added, thing=True)

    def _put(self, spot: Spot, **fields: object) -> None:
        self.records[spot] = replace(self.records[spot], **fields)  # type: ignore[arg-type]  # each caller names its own

    # --- for the oracle ---

    def view(self, at: Place, leaf: int, endpoint: str, activator: Activator | None) -> rules.AccountView:
        """One place as the oracle is told of it; ``activator`` acts on the events of JITR, everywhere."""
        held, record = self.cas.get((at, self.signer[leaf])), self.records.get((at, leaf))
        ca, certificate = None, None
        provisioning: rules.Provisioning = "none"
        added, thing = frozenset[str](), None
        if held is not None:
            ca = rules.CARegistration(mode=held.mode, active=held.active, auto_registration=held.auto)
            if held.template is None and activator is not None:
                provisioning, added, thing = "JITR", frozenset({activator.policy}), activator.thing
            elif held.template in ATTACHED_BY and held.template is not None:
                provisioning, added, thing = "JITP", frozenset({ATTACHED_BY[held.template]}), True
        if record is not None:
            certificate = rules.CertificateView(status=record.status, mode=record.mode, policy_allows=record.allowed)
            added |= record.policies
        return rules.AccountView(
            name=str(at),
            account_id=at.account,
            region=at.region,
            endpoint=endpoint,
            ca=ca,
            provisioning=provisioning,
            thing=thing,
            policy_allows=allowed(added),
            certificate=certificate,
        )
