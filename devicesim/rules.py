"""The oracle: what IoT Core should do with a device, as a table with a source per row. Pure.

Written from ``aws-iot-behaviour.md`` (its §10 is the truth table) and never from the emulator's code. The theory:

1. *Which account decides?* The server name that the device sends (SNI) names an account's data endpoint in the Region
   whose front door is dialled: that account decides, and no other is looked at. Without SNI only DEFAULT mode counts:
   the account that has the certificate on record in DEFAULT mode, else, when the chain was sent, the one that holds the
   CA in DEFAULT mode (unless it has this certificate in SNI_ONLY mode). Any other name decides nothing.
2. *What does it do?* Known certificate: by the record's status and policy. Unknown certificate of a CA that it holds
   ACTIVE and with automatic registration: it is registered in the CA's mode and the first connection is dropped (JITR,
   JITP). Otherwise the connection is dropped and nothing is created.

What is known of one device is folded into a :class:`Situation` of four values, and :data:`RULES` says what each leads
to. Exactly one rule matches each situation that can arise (``tests/unit/test_rules.py`` walks through them), so their
order means nothing, and a measurement on a real account corrects one of them.

CA sets are named as in §10 and meant generally, for any number of accounts of one Region: ``C0`` nobody holds the CA,
``C1`` one account does, DEFAULT; ``C2`` one, SNI_ONLY; ``C3`` one DEFAULT and others SNI_ONLY; ``C4`` several, all
SNI_ONLY. Regions are independent of each other (§1.1 [D]): accounts of other Regions are not looked at.
"""

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from devicesim.outcome import DeviceOutcome

Mode = Literal["DEFAULT", "SNI_ONLY"]
Provisioning = Literal["JITP", "JITR", "none"]
FirstTry = Literal["accepted", "closed_before_connack", "connack_refused"]

STATUSES = ("ACTIVE", "INACTIVE", "REVOKED", "PENDING_TRANSFER", "REGISTER_INACTIVE", "PENDING_ACTIVATION")
"""CertificateStatus as AWS spells it (§1.4 [D])."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CARegistration:
    """How one account holds the CA that signed the device's certificate."""

    mode: Mode
    active: bool = True
    """Its status is ACTIVE."""
    auto_registration: bool = True
    """Its autoRegistrationStatus is ENABLE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateView:
    """One account's record of the device's certificate, before the device connects."""

    status: str
    """One of :data:`STATUSES`."""
    mode: Mode
    policy_allows: bool = True
    """The policies attached to it let the device connect."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"certificate status {self.status!r} is not one of {', '.join(STATUSES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """What the oracle is told of one account in one Region."""

    name: str
    account_id: str
    region: str
    endpoint: str
    """Host name of its data endpoint (iot:Data-ATS)."""
    ca: CARegistration | None
    """``None``: the CA is not registered here."""
    provisioning: Provisioning
    """What becomes of a certificate that is registered on connection: a template provisions it (JITP), somebody
    activates it (JITR), or nobody does (``none``)."""
    thing: bool | None
    """Whether the template or the activator makes a thing and attaches it; ``None``: nobody here knows."""
    policy_allows: bool = True
    """Whether the policy that the template or the activator attaches lets the device connect."""
    certificate: CertificateView | None = None
    """This account's record of the device's certificate before the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the oracle, as documentation and reports show it."""

    id: str
    """Section of ``aws-iot-behaviour.md``, then the case: ``10b.C3.sB``."""
    says: str
    """What IoT Core should do and when, in one line."""
    mark: str
    """Evidence, as the page marks it: D documented, M measured by somebody, S works in practice, I inferred; ``D+M``
    is both, ``D/I`` partly the one and partly the other."""
    source: str
    """Where it stands, and on whose word (keys of the page's §0)."""

    @property
    def inferred(self) -> bool:
        """Whether some of it is inferred, so that a measurement on a real account may prove it wrong."""
        return "I" in self.mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What one device should see, and where its certificate should then be."""

    outcome: DeviceOutcome
    account: str | None
    """Name of the account in which it ends provisioned or pending; else ``None``."""
    mode: str | None
    """Mode of its record there."""
    thing: bool | None
    """Whether a thing is attached to it; ``None``: the rules cannot say (an older record, pending, or not known)."""
    first_try: FirstTry
    row: Row
    """The row that decides."""
    rests_on: tuple[Row, ...] = ()
    """Further rows that the expectation follows from, e.g. what JITP does after the registration."""
    registered_in: str | None = None
    """Name of the account in which connecting makes a new record of the certificate; ``None``: in none."""


# --- what the rules look at ---


class Named(StrEnum):
    """What the server name in the ClientHello names, at the front door dialled."""

    ACCOUNT = "account"
    ABSENT = "absent"
    """No SNI extension, or one that counts as none."""
    NOBODY = "nobody"
    OTHER_REGION = "other_region"
    """An account's endpoint, but in another Region than the one dialled."""


class CASet(StrEnum):
    """Who holds the CA in the Region, whatever its status; see the module's docstring."""

    C0 = "C0"
    C1 = "C1"
    C2 = "C2"
    C3 = "C3"
    C4 = "C4"


class Here(StrEnum):
    """How the deciding account holds the CA."""

    NONE = "none"
    """Not at all, or no account decides."""
    OFF = "off"
    """INACTIVE, or with automatic registration DISABLE."""
    DEFAULT = "default"
    SNI_ONLY = "sni_only"


class Leaf(StrEnum):
    """The Region's records of the device's certificate, seen from the deciding account."""

    UNKNOWN = "unknown"
    """No account has one."""
    ACTIVE = "active"
    DENIED = "denied"
    """ACTIVE, and no attached policy lets the device connect."""
    PENDING = "pending"
    INACTIVE = "inactive"
    """Also REGISTER_INACTIVE, which is deprecated."""
    REVOKED = "revoked"
    TRANSFER = "transfer"
    ELSEWHERE_DEFAULT = "elsewhere_default"
    """The deciding account (if any) has none; another has one in DEFAULT mode."""
    ELSEWHERE_SNI_ONLY = "elsewhere_sni_only"
    """The deciding account (if any) has none; others have it, all in SNI_ONLY mode."""


class Then(StrEnum):
    """What IoT Core does."""

    ADMIT = "admit"
    DENY = "deny"
    """Known, but the policy says no."""
    REFUSE = "refuse"
    REGISTER = "register"
    REPEAT = "repeat"
    """The certificate is pending already: the event, or the JITP workflow, is repeated."""
    STAY_PENDING = "stay_pending"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the rules look at."""

    named: Named
    ca_set: CASet
    here: Here
    leaf: Leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A row and the situations in which it holds; ``None`` means any value."""

    row: Row
    then: Then
    named: Collection[Named]
    ca_set: CASet | None
    here: Collection[Here] | None
    leaf: Collection[Leaf] | None

    def matches(self, situation: Situation) -> bool:
        return (
            situation.named in self.named
            and (self.ca_set is None or situation.ca_set is self.ca_set)
            and (self.here is None or situation.here in self.here)
            and (self.leaf is None or situation.leaf in self.leaf)
        )


# --- the table ---


def _row(section: str, case: str, mark: str, evidence: str, says: str) -> Row:
    source = f"aws-iot-behaviour.md §{section}"
    return Row(id=f"{section}.{case}", says=says, mark=mark, source=f"{source}: {evidence}" if evidence else source)


def _rule(
    section: str,
    case: str,
    mark: str,
    evidence: str,
    then: Then,
    *,
    named: Collection[Named],
    ca: CASet | None = None,
    here: Collection[Here] | None = None,
    leaf: Collection[Leaf] | None = None,
    says: str,
) -> Rule:
    row = _row(section, case, mark, evidence, says)
    return Rule(row=row, then=then, named=named, ca_set=ca, here=here, leaf=leaf)


_SNI, _NO_SNI, _EITHER = (Named.ACCOUNT,), (Named.ABSENT,), (Named.ACCOUNT, Named.ABSENT)
_JUNK, _OTHER_REGION = (Named.NOBODY,), (Named.OTHER_REGION,)
_NONE, _OFF, _DEFAULT, _SNI_ONLY = (Here.NONE,), (Here.OFF,), (Here.DEFAULT,), (Here.SNI_ONLY,)
_ON, _NOT_ON, _NOT_OFF = (*_DEFAULT, *_SNI_ONLY), (*_NONE, *_OFF), (*_NONE, *_DEFAULT, *_SNI_ONLY)
_UNKNOWN, _ACTIVE, _DENIED, _PENDING = (Leaf.UNKNOWN,), (Leaf.ACTIVE,), (Leaf.DENIED,), (Leaf.PENDING,)
_AT_DEFAULT, _AT_SNI_ONLY = (Leaf.ELSEWHERE_DEFAULT,), (Leaf.ELSEWHERE_SNI_ONLY,)
_NO_DEFAULT = (*_UNKNOWN, *_AT_SNI_ONLY)
_NOT_HERE = (*_UNKNOWN, *_AT_DEFAULT, *_AT_SNI_ONLY)

# A table: each rule is one line of conditions and one or two of words, kept so by hand.
# fmt: off
RULES: tuple[Rule, ...] = (
    # §10b: the certificate is unknown to the account that decides; the SNI is an account's endpoint
    _rule("10b", "C0.any", "D/I", "", Then.REFUSE, named=_EITHER, ca=CASet.C0, here=_NONE, leaf=_UNKNOWN,
          says="nobody has registered the CA: dropped after CONNECT, nothing is created"),
    _rule("10b", "C1.sA", "D+M", "MS1755", Then.REGISTER, named=_SNI, ca=CASet.C1, here=_DEFAULT, leaf=_UNKNOWN,
          says="SNI of the one account with the CA, DEFAULT: registered there in DEFAULT mode, first try dropped"),
    _rule("10b", "C1.sB", "I", "", Then.REFUSE, named=_SNI, ca=CASet.C1, here=_NONE, leaf=_UNKNOWN,
          says="SNI of an account without the CA, which one other holds, DEFAULT: dropped, nothing is created"),
    _rule("10b", "C2.sA", "D", "BLOG-MA", Then.REGISTER, named=_SNI, ca=CASet.C2, here=_SNI_ONLY, leaf=_UNKNOWN,
          says="SNI of the one account with the CA, SNI_ONLY: registered there in SNI_ONLY mode, first try dropped"),
    _rule("10b", "C2.sB", "I", "", Then.REFUSE, named=_SNI, ca=CASet.C2, here=_NONE, leaf=_UNKNOWN,
          says="SNI of an account without the CA, which one other holds, SNI_ONLY: dropped, nothing is created"),
    _rule("10b", "C3.sA", "D/I", "BLOG-MA", Then.REGISTER, named=_SNI, ca=CASet.C3, here=_DEFAULT, leaf=_UNKNOWN,
          says="SNI of the CA's DEFAULT holder, others hold it SNI_ONLY: registered in the one named alone, in DEFAULT"
               " mode, first try dropped"),
    _rule("10b", "C3.sB", "D/I", "BLOG-MA", Then.REGISTER, named=_SNI, ca=CASet.C3, here=_SNI_ONLY, leaf=_UNKNOWN,
          says="SNI of an SNI_ONLY holder of the CA, another holds it DEFAULT: registered in the one named alone, in"
               " SNI_ONLY mode, first try dropped"),
    _rule("10b", "C3.sX", "I", "as C1.sB", Then.REFUSE, named=_SNI, ca=CASet.C3, here=_NONE, leaf=_UNKNOWN,
          says="SNI of an account without the CA, which others hold DEFAULT and SNI_ONLY: dropped, nothing is created"),
    _rule("10b", "C4.sA", "D", "BLOG-MA", Then.REGISTER, named=_SNI, ca=CASet.C4, here=_SNI_ONLY, leaf=_UNKNOWN,
          says="SNI of one of several SNI_ONLY holders of the CA: registered in the one named alone, in SNI_ONLY mode,"
               " first try dropped"),
    _rule("10b", "C4.sB", "D", "BLOG-MA", Then.REGISTER, named=_SNI, here=_ON, leaf=_AT_SNI_ONLY,
          says="on record elsewhere in SNI_ONLY mode, SNI of another holder of the CA: a second, independent record"
               " there, first try dropped"),
    _rule("10b", "C4.sX", "I", "as C2.sX", Then.REFUSE, named=_SNI, ca=CASet.C4, here=_NONE, leaf=_UNKNOWN,
          says="SNI of an account without the CA, which several others hold SNI_ONLY: dropped, nothing is created"),
    _rule("10b", "ca-off.sA", "D/I", "own account D; although others hold it ACTIVE: I", Then.REFUSE,
          named=_SNI, here=_OFF, leaf=_NOT_HERE,
          says="SNI of an account whose CA is INACTIVE or without auto-registration: dropped, nothing is created"),
    # §10b: no SNI
    _rule("10b", "C1.none.chain", "D/I", "DG22 for the legacy way; today I", Then.REGISTER,
          named=_NO_SNI, ca=CASet.C1, here=_DEFAULT, leaf=_NO_DEFAULT,
          says="no SNI, chain sent: registered in the one account with the CA, DEFAULT; first try dropped"),
    _rule("10b", "C1.none.leaf", "D/I", "SNI is required without the chain; the stage is I", Then.REFUSE,
          named=_NO_SNI, ca=CASet.C1, here=_NONE, leaf=_UNKNOWN,
          says="no SNI and no chain: fails, although the one account with the CA holds it DEFAULT; nothing is created"),
    _rule("10b", "C2.none", "D/I", "SNI_ONLY must send SNI; the stage is I", Then.REFUSE,
          named=_NO_SNI, ca=CASet.C2, here=_NONE, leaf=_UNKNOWN,
          says="no SNI, and the one account with the CA holds it SNI_ONLY: fails, nothing is created"),
    _rule("10b", "C3.none.chain", "I", "", Then.REGISTER,
          named=_NO_SNI, ca=CASet.C3, here=_DEFAULT, leaf=_NO_DEFAULT,
          says="no SNI, chain sent: registered in the CA's DEFAULT holder, in no SNI_ONLY one; first try dropped"),
    _rule("10b", "C3.none.leaf", "D/I", "as C1.none.leaf", Then.REFUSE,
          named=_NO_SNI, ca=CASet.C3, here=_NONE, leaf=_UNKNOWN,
          says="no SNI and no chain: fails, although one account holds the CA DEFAULT; nothing is created"),
    _rule("10b", "C4.none", "D/I", "", Then.REFUSE, named=_NO_SNI, ca=CASet.C4, here=_NONE, leaf=_UNKNOWN,
          says="no SNI, and every holder of the CA has it SNI_ONLY: fails, nothing is created"),
    _rule("10b", "ca-off.none", "D/I", "as ca-off.sA", Then.REFUSE, named=_NO_SNI, here=_OFF, leaf=_NO_DEFAULT,
          says="no SNI, and the CA's DEFAULT holder has it INACTIVE or without auto-registration: fails, nothing is"
               " created"),
    # §10b: a server name of nobody
    _rule("10b", "junk", "D/I", "the failure D, the stage I", Then.REFUSE, named=_JUNK, leaf=_NO_DEFAULT,
          says="the server name is nobody's endpoint: fails, nothing is created, nothing is logged"),
    # §10c: the certificate is on record in the account that decides
    _rule("10c", "pending", "D+M", "MS1755; JITP runs again: S", Then.REPEAT, named=_EITHER, here=_ON, leaf=_PENDING,
          says="PENDING_ACTIVATION: dropped; the event, or the JITP workflow, is repeated"),
    _rule("10c", "pending.ca-off", "I", "", Then.STAY_PENDING, named=_EITHER, here=_NOT_ON, leaf=_PENDING,
          says="PENDING_ACTIVATION, its CA INACTIVE, without auto-registration or gone: dropped, stays pending"),
    _rule("10c", "active.allowed", "D", "", Then.ADMIT, named=_SNI, here=_NOT_OFF, leaf=_ACTIVE,
          says="ACTIVE, and its policy lets it connect: CONNACK 0"),
    _rule("10c", "active.ca-off", "D", "", Then.ADMIT, named=_SNI, here=_OFF, leaf=_ACTIVE,
          says="ACTIVE, and the CA was deactivated after it was registered: CONNACK 0"),
    _rule("10c", "active.denied", "M/S", "MS1755; MQTT 5: greengrass-nucleus #1754", Then.DENY,
          named=_EITHER, leaf=_DENIED,
          says="ACTIVE, but no attached policy lets it connect: dropped (MQTT 5: CONNACK 0x87)"),
    _rule("10c", "inactive", "D/I", "the reason D, the stage I", Then.REFUSE, named=_EITHER, leaf=(Leaf.INACTIVE,),
          says="INACTIVE: refused, nothing changes"),
    _rule("10c", "revoked", "D/I", "the reason D, the stage I", Then.REFUSE, named=_EITHER, leaf=(Leaf.REVOKED,),
          says="REVOKED: refused, nothing changes"),
    _rule("10c", "pending-transfer", "I", "as INACTIVE", Then.REFUSE, named=_EITHER, leaf=(Leaf.TRANSFER,),
          says="PENDING_TRANSFER: refused, nothing changes"),
    # §10d: the certificate is on record, and the SNI is not (or not only) the account's that holds it
    _rule("10d", "default.none", "D", "BC: DEFAULT need not send SNI", Then.ADMIT, named=_NO_SNI, leaf=_ACTIVE,
          says="no SNI, and the certificate is ACTIVE in DEFAULT mode: CONNACK 0 from the account that holds it so"),
    _rule("10d", "default.none.several", "I", "AWS does not say; the strict reading", Then.REFUSE,
          named=_NO_SNI, leaf=_AT_DEFAULT,
          says="no SNI, and several accounts hold the certificate in DEFAULT mode, none of them the CA: refused"),
    _rule("10d", "default.junk", "D", "an incorrect host_name fails", Then.REFUSE, named=_JUNK, leaf=_AT_DEFAULT,
          says="the server name is nobody's endpoint: fails, although the certificate is on record in DEFAULT mode"),
    _rule("10d", "default.sB.no-ca", "D/I", "the reason D, which one I", Then.REFUSE,
          named=_SNI, here=_NONE, leaf=_AT_DEFAULT,
          says="on record elsewhere in DEFAULT mode, SNI of an account without it and without the CA: dropped"),
    _rule("10d", "default.sB.ca", "I", "follows from C3", Then.REGISTER, named=_SNI, here=_ON, leaf=_AT_DEFAULT,
          says="on record elsewhere in DEFAULT mode, SNI of a holder of the CA: a second record, first try dropped"),
    _rule("10d", "sni-only.none", "D+S", "BC: SNI_ONLY must send SNI; python-v1 #301", Then.REFUSE,
          named=_NO_SNI, here=_NONE, leaf=_AT_SNI_ONLY,
          says="no SNI, and the certificate is on record in SNI_ONLY mode only: TLS succeeds, then dropped"),
    _rule("10d", "sni-only.sB", "I", "", Then.REFUSE, named=_SNI, here=_NONE, leaf=_AT_SNI_ONLY,
          says="on record elsewhere in SNI_ONLY mode, SNI of an account without it and without the CA: dropped"),
    _rule("10d", "other-region", "I", "", Then.REFUSE, named=_OTHER_REGION,
          says="the server name is an account's endpoint in another Region than the one dialled: fails"),
)

# What holds of connections that are no more than a handshake, and of those that live already.
HANDSHAKE_ONLY = _row("10b", "handshake-only", "M", "MS1755",
                      "a handshake without CONNECT, held or closed at once: nothing is created")
DEACTIVATED_LIVE = _row("10c", "active.deactivated", "D", "within minutes",
                        "connected, and the certificate is set to something other than ACTIVE: disconnected")

# What follows when a certificate has been registered on connection, and how server names are read.
JITP = _row("3", "jitp", "D+S", "ATLAS, WS, DEEP",
            "JITP: the first connection always drops, the template provisions in 1 to 3 s, a later CONNECT is accepted")
JITR = _row("2", "jitr", "D+M", "MS1755",
            "JITR: registered PENDING_ACTIVATION, event, drop; once it is activated a later CONNECT is accepted")
JITR_NOBODY = _row("2", "jitr.nobody", "D+M", "MS1755",
                   "JITR that nobody activates: each CONNECT repeats event and drop, the certificate stays pending")
SNI_CASE = _row("4.1", "case", "I", "RFC 6066 compares DNS names without case",
                "the server name is compared without regard to case")
SNI_NOT_A_NAME = _row("4.1", "not-a-name", "I", "RFC 6066 allows none of them",
                      "a server name that is an IP address, ends in a dot or carries a port counts as no SNI")

# What was measured over MQTT 3.1.1 on port 8883 alone.
MQTT5_CLOSE = _row("5", "mqtt5-close", "I", "§11 no. 3",
                   "MQTT 5: whom IoT Core does not authenticate it closes without CONNACK, as in 3.1.1")
JIT_ON_443 = _row("4.3", "jit-443", "I", "§11 no. 13",
                  "a first connection on port 443 with ALPN registers and provisions as one on port 8883")
# fmt: on

DENIED = next(rule.row for rule in RULES if rule.then is Then.DENY)


def rows() -> tuple[Row, ...]:
    """Every row of the oracle, for documentation and for ``devicesim check``."""
    beside = (HANDSHAKE_ONLY, DEACTIVATED_LIVE, JITR, JITR_NOBODY, JITP, SNI_CASE, SNI_NOT_A_NAME)
    return (*(rule.row for rule in RULES), *beside, MQTT5_CLOSE, JIT_ON_443)


# --- from a world to an expectation ---


def expect(
    accounts: Sequence[AccountView],
    *,
    region: str,
    sni: str | None,
    chain_sent: bool,
    mqtt_version: Literal["3.1.1", "5"] = "3.1.1",
) -> Expectation:
    """What a device should see that dials ``region``'s front door and sends ``sni`` (``None``: no SNI extension).

    ``accounts`` are those of every Region that matter, each with its record of this device's certificate. Raises
    ``ValueError`` for a world that AWS does not allow (:func:`contradictions`).
    """
    if wrong := contradictions(accounts):
        raise ValueError(f"accounts contradict each other: {'; '.join(wrong)}")
    name, reading = read_server_name(sni)
    local = [account for account in accounts if account.region == region]
    named, decider = _decide(accounts, local, name, chain_sent)
    situation = Situation(named, _ca_set(local), _here(decider), _leaf(decider, local))
    rule = next(rule for rule in RULES if rule.matches(situation))
    denied: FirstTry = "connack_refused" if mqtt_version == "5" else "closed_before_connack"
    return _expectation(rule, decider, reading, denied)


def contradictions(accounts: Sequence[AccountView]) -> list[str]:
    """What AWS does not allow in these accounts together; each one line, none when all is well."""
    wrong: list[str] = []
    first: dict[tuple[str, str], str] = {}
    for account in accounts:
        claims = {
            ("name", account.name): f"the name {account.name!r}",
            ("place", account.account_id + account.region): f"account {account.account_id} in {account.region}",
            ("endpoint", account.endpoint.lower()): f"the endpoint {account.endpoint!r}",
        }
        if account.ca is not None and account.ca.mode == "DEFAULT":  # at most one a Region: §1.1 [D]
            claims["holder", account.region] = f"the CA in DEFAULT mode in {account.region}"
        for claim, words in claims.items():
            if claim in first:
                wrong.append(f"{words} belongs to {first[claim]!r} and {account.name!r}")
            first.setdefault(claim, account.name)
    return wrong


def read_server_name(sni: str | None) -> tuple[str | None, tuple[Row, ...]]:
    """The server name as IoT Core looks it up, and the rows that this reading rests on. ``None`` counts as no SNI."""
    if sni is None:
        return None, ()
    if not sni or sni.endswith(".") or ":" in sni or _is_address(sni):
        return None, (SNI_NOT_A_NAME,)
    folded = sni.lower()
    return folded, (SNI_CASE,) if folded != sni else ()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _decide(
    accounts: Sequence[AccountView], local: Sequence[AccountView], name: str | None, chain_sent: bool
) -> tuple[Named, AccountView | None]:
    """What the server name names, and the account that decides, if any."""
    if name is None:
        return Named.ABSENT, _decide_without_sni(local, chain_sent)
    for account in local:
        if account.endpoint.lower() == name:
            return Named.ACCOUNT, account
    elsewhere = any(account.endpoint.lower() == name for account in accounts)
    return Named.OTHER_REGION if elsewhere else Named.NOBODY, None


def _decide_without_sni(local: Sequence[AccountView], chain_sent: bool) -> AccountView | None:
    """Only DEFAULT-mode records decide: of the certificate, else (chain sent) of the CA (§10, decision procedure 3)."""
    holder = next((account for account in local if account.ca is not None and account.ca.mode == "DEFAULT"), None)
    records = [account for account in local if account.certificate and account.certificate.mode == "DEFAULT"]
    if records:
        return records[0] if len(records) == 1 else holder if holder in records else None
    if holder is None or holder.certificate is not None:
        return None
    return holder if chain_sent else None


def _ca_set(local: Sequence[AccountView]) -> CASet:
    modes = [account.ca.mode for account in local if account.ca is not None]
    sni_only = modes.count("SNI_ONLY")
    if "DEFAULT" in modes:
        return CASet.C3 if sni_only else CASet.C1
    return (CASet.C0, CASet.C2, CASet.C4)[min(sni_only, 2)]


def _here(decider: AccountView | None) -> Here:
    if decider is None or decider.ca is None:
        return Here.NONE
    if not (decider.ca.active and decider.ca.auto_registration):
        return Here.OFF
    return Here.DEFAULT if decider.ca.mode == "DEFAULT" else Here.SNI_ONLY


_LEAF = {
    "ACTIVE": Leaf.ACTIVE,
    "INACTIVE": Leaf.INACTIVE,
    "REGISTER_INACTIVE": Leaf.INACTIVE,
    "REVOKED": Leaf.REVOKED,
    "PENDING_TRANSFER": Leaf.TRANSFER,
    "PENDING_ACTIVATION": Leaf.PENDING,
}


def _leaf(decider: AccountView | None, local: Sequence[AccountView]) -> Leaf:
    if decider is not None and decider.certificate is not None:
        record = decider.certificate
        return Leaf.DENIED if record.status == "ACTIVE" and not record.policy_allows else _LEAF[record.status]
    modes = {account.certificate.mode for account in local if account.certificate is not None}
    if not modes:
        return Leaf.UNKNOWN
    return Leaf.ELSEWHERE_DEFAULT if "DEFAULT" in modes else Leaf.ELSEWHERE_SNI_ONLY


def _expectation(rule: Rule, decider: AccountView | None, reading: tuple[Row, ...], denied: FirstTry) -> Expectation:
    refused = Expectation(
        outcome=DeviceOutcome.REFUSED,
        account=None,
        mode=None,
        thing=None,
        first_try=denied if rule.then is Then.DENY else "closed_before_connack",
        row=rule.row,
        rests_on=reading,
    )
    if rule.then in (Then.REFUSE, Then.DENY):
        return refused
    assert decider is not None, f"{rule.row.id} has no account to decide"
    if rule.then is Then.REGISTER:
        assert decider.ca is not None, f"{rule.row.id} registers without a CA"
        mode = decider.ca.mode
    else:
        assert decider.certificate is not None, f"{rule.row.id} has no record"
        mode = decider.certificate.mode
    registered_in = decider.name if rule.then is Then.REGISTER else None
    pending = rule.then is Then.STAY_PENDING
    steps = reading
    if rule.then in (Then.REGISTER, Then.REPEAT):
        pending = decider.provisioning == "none"
        steps = ({"JITP": JITP, "JITR": JITR, "none": JITR_NOBODY}[decider.provisioning], *reading)
        if not pending and not decider.policy_allows:
            return replace(refused, rests_on=(steps[0], DENIED, *reading), registered_in=registered_in)
    provisions = rule.then is not Then.ADMIT and not pending
    return Expectation(
        outcome=DeviceOutcome.PENDING if pending else DeviceOutcome.PROVISIONED,
        account=decider.name,
        mode=mode,
        thing=decider.thing if provisions else None,
        first_try="accepted" if rule.then is Then.ADMIT else "closed_before_connack",
        row=rule.row,
        rests_on=steps,
        registered_in=registered_in,
    )
