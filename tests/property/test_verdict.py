"""Oracle and verdict fit together: a target that does what the oracle says always agrees, and one that strays never."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from devicesim.outcome import Attempt, DeviceOutcome, Failure, FailureKind, Holding, Stage
from devicesim.record.verdict import DeviceFacts, judge
from devicesim.rules import STATUSES, AccountView, CARegistration, CertificateView, Expectation, contradictions, expect

REGION = "eu-central-1"
CERTIFICATE = "ab" * 32

modes = st.sampled_from(["DEFAULT", "SNI_ONLY"])
certificates = st.builds(CertificateView, status=st.sampled_from(STATUSES), mode=modes, policy_allows=st.booleans())


@st.composite
def worlds(draw: st.DrawFn) -> list[AccountView]:
    """Three accounts of one Region, at most one of which holds CA and certificate in DEFAULT mode."""
    default = draw(st.integers(0, 3))
    world = []
    for number, name in enumerate(["prod", "staging", "dev"]):
        mode = st.just("DEFAULT" if number == default else "SNI_ONLY")
        registration = st.builds(CARegistration, mode=mode, active=st.booleans(), auto_registration=st.booleans())
        certificate = draw(st.none() | certificates)
        if certificate is not None and number != default:  # two DEFAULT records of a certificate: not simulated here
            certificate = replace(certificate, mode="SNI_ONLY")
        # Nor a pending record that is activated and then denied: that refusal names no account to change.
        pending = certificate is not None and certificate.status == "PENDING_ACTIVATION"
        account = AccountView(
            name=name,
            account_id=f"{number:012}",
            region=REGION,
            endpoint=f"{name}.example",
            ca=draw(st.none() | registration),
            provisioning=draw(st.sampled_from(["JITP", "JITR", "none"])),
            thing=draw(st.booleans()),
            policy_allows=pending or draw(st.booleans()),
            certificate=certificate,
        )
        world.append(account)
    assert not contradictions(world)
    return world


def attempt(number: int, sni: str | None, failure: Failure | None) -> Attempt:
    return Attempt(
        device=0,
        number=number,
        account=None,
        sni=sni,
        intended_start=4.0 * number,
        start=4.0 * number,
        end=4.0 * number + 1,
        reached={} if failure else {Stage.CONNACK: 0.5},
        failure=failure,
        tls_version=None,
        cipher=None,
        alert=None,
        connack_code=None if failure else 0,
    )


def as_the_oracle_says(
    world: Sequence[AccountView], expectation: Expectation, sni: str | None
) -> tuple[list[Attempt], list[Holding], list[Holding]]:
    """What a device and the accounts see of a target that does what the oracle says: tries, before, after."""
    refused = (
        Failure(kind=FailureKind(expectation.first_try), stage=Stage.CONNACK)
        if (expectation.first_try != "accepted")
        else None
    )
    attempts = [attempt(1, sni, refused)]
    if refused is not None:
        last = None if expectation.outcome is DeviceOutcome.PROVISIONED else refused
        attempts.append(attempt(2, sni, last))
    before = {
        account.name: Holding(
            account=account.name,
            certificate_id=CERTIFICATE,
            status=account.certificate.status,
            mode=account.certificate.mode,
        )
        for account in world
        if account.certificate is not None
    }
    after = dict(before)
    if place := expectation.account or expectation.registered_in:
        ca = next(account.ca for account in world if account.name == place)
        mode = after[place].mode if place in after else ca.mode if ca else None
        after[place] = Holding(
            account=place,
            certificate_id=CERTIFICATE,
            status="PENDING_ACTIVATION" if expectation.outcome is DeviceOutcome.PENDING else "ACTIVE",
            mode=mode,
            things=("robot",) if expectation.thing else (),
        )
    return attempts, list(before.values()), list(after.values())


def facts(world: Sequence[AccountView], sni: str | None) -> DeviceFacts:
    addressed = next((account.name for account in world if account.endpoint == sni), None)
    return DeviceFacts(device=0, certificate_id=CERTIFICATE, addressed=addressed)


names = st.sampled_from([None, "prod.example", "staging.example", "dev.example", "nobody.example", "127.0.0.1"])


@given(worlds(), names, st.booleans(), st.sampled_from(["3.1.1", "5"]))
def test_target_that_does_what_the_oracle_says_agrees(
    world: list[AccountView], sni: str | None, chain: bool, version: str
) -> None:
    expectation = expect(
        world, region=REGION, sni=sni, chain_sent=chain, mqtt_version="5" if version == "5" else "3.1.1"
    )
    attempts, before, after = as_the_oracle_says(world, expectation, sni)

    verdict = judge(facts(world, sni), attempts, after, expectation, before=before)

    assert verdict.reason == ""
    assert (verdict.outcome, verdict.account) == (expectation.outcome, expectation.account)


@given(worlds(), names, st.booleans())
def test_target_that_does_so_agrees_also_when_the_control_plane_is_out_of_reach(
    world: list[AccountView], sni: str | None, chain: bool
) -> None:
    expectation = expect(world, region=REGION, sni=sni, chain_sent=chain)
    attempts, _, _ = as_the_oracle_says(world, expectation, sni)

    verdict = judge(facts(world, sni), attempts, None, expectation)

    assert verdict.agrees
    assert verdict.account is None


@given(worlds(), names, st.booleans(), st.sampled_from(["prod", "staging", "dev"]))
def test_target_that_registers_the_certificate_somewhere_else_never_agrees(
    world: list[AccountView], sni: str | None, chain: bool, elsewhere: str
) -> None:
    expectation = expect(world, region=REGION, sni=sni, chain_sent=chain)
    attempts, before, after = as_the_oracle_says(world, expectation, sni)
    if elsewhere in {each.account for each in after}:
        return
    stray = Holding(account=elsewhere, certificate_id=CERTIFICATE, status="PENDING_ACTIVATION", mode="DEFAULT")

    verdict = judge(facts(world, sni), attempts, [*after, stray], expectation, before=before)

    assert not verdict.agrees
    assert elsewhere in verdict.reason


failures = st.builds(Failure, kind=st.sampled_from(FailureKind), stage=st.sampled_from(Stage))


@given(worlds(), names, st.lists(st.none() | failures, max_size=4), st.booleans())
def test_whatever_is_seen_has_a_verdict_and_a_reason_exactly_when_it_disagrees(
    world: list[AccountView], sni: str | None, seen: list[Failure | None], asked: bool
) -> None:
    expectation = expect(world, region=REGION, sni=sni, chain_sent=True)
    _, before, after = as_the_oracle_says(world, expectation, sni)
    attempts = [attempt(number, sni, failure) for number, failure in enumerate(seen, 1)]

    verdict = judge(
        facts(world, sni),
        attempts,
        after if asked else None,
        expectation,
        before=before if asked else None,
    )

    assert verdict.agrees == (verdict.reason == "")
    assert (verdict.outcome is DeviceOutcome.NOT_STARTED) == (not attempts)
    assert (verdict.time_to_provision is not None) == (verdict.outcome is DeviceOutcome.PROVISIONED)
    if asked and verdict.agrees:
        assert verdict.outcome is expectation.outcome
