"""What the tests of the oracle against the emulator share: devices, what they show, how a decision is compared."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import Final

from cryptography.hazmat.primitives import serialization

from devicesim import rules
from devicesim.emulator import admission
from devicesim.emulator.admission import Decision, Presented, Verdict
from devicesim.emulator.state.records import RegistrationConfig
from devicesim.outcome import DeviceOutcome
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem
from devicesim.pki.profile import KeyType, Profile, Subject
from tests.emulator_support import ALLOW_ALL, EPOCH, ROLE, A, B, C, World, template
from tests.property import oracle_model as model
from tests.property.oracle_model import Place

# --- what is compared ---

SPELLINGS: Final[Mapping[str, Callable[[str], str]]] = {
    "": str,
    "upper": str.upper,
    "dot": lambda name: name + ".",
    "port": lambda name: name + ":8883",
}
_DENIED_ROW = "10c.active.denied"
_PENDING_ROWS = ("10c.pending", "10c.pending.ca-off")
_NOT_REGISTERED = frozenset({"DEVICE_CERTIFICATE_NOT_REGISTERED"})
REASONS: Final[Mapping[str, frozenset[str]]] = {
    "10c.inactive": frozenset({"DEVICE_CERTIFICATE_INACTIVE"}),
    "10c.pending-transfer": frozenset({"DEVICE_CERTIFICATE_INACTIVE"}),  # as INACTIVE (§10c)
    "10c.revoked": frozenset({"DEVICE_CERTIFICATE_REVOKED"}),
    _DENIED_ROW: frozenset({"AUTHORIZATION_FAILURE"}),
    **dict.fromkeys(("10b.C0.any", "10b.C1.sB", "10b.C2.sB", "10b.C3.sX", "10b.C4.sX"), _NOT_REGISTERED),
    "10d.sni-only.sB": _NOT_REGISTERED,
    "10d.default.sB.no-ca": _NOT_REGISTERED | {"SNI_MISUSED"},
    "10b.ca-off.sA": _NOT_REGISTERED | {"SNI_MISUSED"},
}
"""AWS's words for a refusal (§8), by the oracle's row, where there is one; which of two, AWS leaves open."""


class Disagreement(AssertionError):  # noqa: N818  # it is what is found, and no error of a program's
    """The emulator does not do what the oracle, or the model of the control plane, says."""


def same(what: str, expected: object, seen: object) -> None:
    if expected != seen:
        raise Disagreement(f"{what}: expected {expected!r}, seen {seen!r}")


def compare(expected: rules.Expectation, decision: Decision, decider: str | None) -> None:
    """Fail unless the decision is what the oracle expects; ``decider`` names the account that took it."""
    if not _agree(expected, decision, decider):
        reason = f"{decision.reason}: {decision.detail}"
        raise Disagreement(f"{expected}, but {decision.verdict} by {decider} ({reason})")


def _agree(expected: rules.Expectation, decision: Decision, decider: str | None) -> bool:
    first, ends = expected.first_try == "accepted", (expected.account, expected.registered_in)
    runs = rules.JITP not in expected.rests_on or decision.template is not None
    match decision.verdict:
        case Verdict.ADMITTED:
            assert decision.certificate is not None
            provisioned = first and expected.outcome is DeviceOutcome.PROVISIONED
            return provisioned and ends == (decider, None) and expected.mode == decision.certificate.mode
        case Verdict.REGISTERED:
            assert decision.ca is not None
            # where what is attached then will not let it connect, the expectation is a refusal and has no mode
            mode = None if expected.account is None else decision.ca.mode
            return not first and runs and expected.registered_in == decider and expected.mode == mode
        case Verdict.PENDING:
            # whether it can still come to something hangs on the CA, not on the admission
            pending = not first and expected.row.id in _PENDING_ROWS and expected.registered_in is None
            return pending and runs and expected.account in (decider, None)
        case Verdict.DENIED | Verdict.REFUSED:
            denied = decision.verdict is Verdict.DENIED
            refused = expected.outcome is DeviceOutcome.REFUSED and ends == (None, None)
            reasons = REASONS.get(expected.row.id) if decision.logged else None
            told = reasons is None or decision.reason in reasons
            return (
                refused and told and (expected.row.id == _DENIED_ROW) == denied and expected.row.id not in _PENDING_ROWS
            )


# --- accounts, CAs and devices ---

REGIONS: Final = ("us-east-1", "eu-west-1")
ACCOUNTS: Final = (A, B, C)
PLACES: Final = tuple(Place(account, region) for region in REGIONS for account in ACCOUNTS)
SIGNERS: Final = (0, 0, 1)
"""Number of the CA that signed each device's certificate."""
LEAVES: Final = range(len(SIGNERS))
CHAINS: Final = ("none", "own", "other")
"""What a device sends after its certificate: nothing, the CA that signed it, the other CA."""
POLICIES: Final[Mapping[str, str]] = {
    model.ALLOW: ALLOW_ALL,
    model.OTHER: ALLOW_ALL.replace("iot:*", "iot:Publish"),
    model.DENY: ALLOW_ALL.replace("Allow", "Deny").replace("iot:*", "iot:Connect"),
}
_GOOD = template(policy={"PolicyName": model.ALLOW})
CONFIGS: Final[Mapping[str, RegistrationConfig]] = {
    name: RegistrationConfig(template_body=body, role_arn=ROLE)
    for name, body in (
        (model.GOOD, _GOOD),
        (model.BARRED, template(policy={"PolicyName": model.OTHER})),
        (
            model.BROKEN,
            template(parameters=("CommonName", "Id", "Country"), policy={"PolicyName": model.ALLOW}),
        ),
    )
} | {name: RegistrationConfig(template_name=name) for name in (model.NAMED, model.DISABLED)}
CONFIG_NAMES: Final = {config: name for name, config in CONFIGS.items()}
PROVISIONING_TEMPLATES: Final[Mapping[str, tuple[str, bool]]] = {
    model.NAMED: (_GOOD, True),
    model.DISABLED: (_GOOD, False),
}
"""Body, and whether it is enabled."""


@cache
def authority(number: int, *, one_subject: bool) -> Authority:
    """The CAs; ``one_subject``: with different keys and the same name."""
    name = "Shared CA" if one_subject or number == 0 else "Other CA"
    # RSA: its signatures are verified four times as fast
    return new_shared_authority(name, KeyType.RSA_2048, now=EPOCH, validity=timedelta(days=3650))


@cache
def identity(leaf: int, *, one_subject: bool) -> Identity:
    ca = authority(SIGNERS[leaf], one_subject=one_subject)
    return ca.mint(leaf, secret=b"s" * 32, profile=Profile(subject=Subject(common_name="robot-{index:06d}")))


def thing_name(leaf: int) -> str:
    """As the templates name it."""
    return f"robot-{leaf:06d}"


@cache
def verification(ca: Authority, code: str) -> str:
    made = ca.verification_certificate(code, not_before=EPOCH, not_after=EPOCH + timedelta(days=1))
    return certificate_pem(made.certificate)


@cache
def presented(leaf: int, name: str | None, chain: str, region: str, *, one_subject: bool) -> Presented:
    """What a handshake shows of a device."""
    device = identity(leaf, one_subject=one_subject)
    signer = SIGNERS[leaf]
    sent = {"none": (), "own": (signer,), "other": (1 - signer,)}[chain]
    issuers = (authority(number, one_subject=one_subject).certificate for number in sent)
    return Presented(
        door=admission.Door(region=region),
        server_name=None if name is None else name.encode(),
        leaf=device.certificate,
        certificate_id=device.certificate_id,
        chain=tuple(each.public_bytes(serialization.Encoding.DER) for each in issuers),
        tls_version="TLSv1.3",
        source_ip="203.0.113.7",
    )


@cache
def endpoint(at: Place) -> str:
    """What DescribeEndpoint answers there: a function of the account and the Region alone."""
    return World().account(*at).endpoint


ENDPOINTS: Final = tuple(endpoint(at) for at in PLACES)
ODD_NAMES: Final = (
    *(spell(endpoint(at)) for how, spell in SPELLINGS.items() if how for at in PLACES),
    "nobody-ats.iot.us-east-1.localhost",
    "nöbody-ats.iot.us-east-1.localhost",
    endpoint(PLACES[0]).replace("-ats", ""),
    "us-east-1",
    "127.0.0.1",
    "::1",
)
