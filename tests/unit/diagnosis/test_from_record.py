"""Evidence from a record alone: what it says, and nothing that it does not."""

from dataclasses import replace

from devicesim.diagnosis.evidence import FleetEvidence
from devicesim.diagnosis.from_record import Rates, device_evidence
from devicesim.diagnosis.rank import diagnose
from devicesim.outcome import Holding
from devicesim.record.facts import AccountRecord, DeviceRecord, GroupRecord
from devicesim.rules import AccountView, CARegistration, expect
from tests.diagnosis_support import CERTIFICATE, DEV_NAME, DROP, PROD_NAME, REGION, START, attempts

DEV = AccountRecord(
    name="dev", account_id="444455556666", region=REGION, endpoint=DEV_NAME, ca_mode="SNI_ONLY", provisioning="JITP"
)
PROD = replace(DEV, name="prod", account_id="111122223333", endpoint=PROD_NAME, ca_mode=None, provisioning="none")
VIEW = AccountView(
    name="dev",
    account_id="444455556666",
    region=REGION,
    endpoint=DEV_NAME,
    ca=CARegistration(mode="SNI_ONLY"),
    provisioning="JITP",
    thing=True,
)
GROUP = GroupRecord(
    name="robots",
    count=4,
    account="dev",
    sni_setting="endpoint",
    sni=DEV_NAME,
    chain_sent=True,
    expectation=expect([VIEW], region=REGION, sni=DEV_NAME, chain_sent=True),
)
DEVICE = DeviceRecord(number=7, index=7, group="robots", client_id="robot-000007", certificate_id=CERTIFICATE)
PENDING = Holding(account="dev", certificate_id=CERTIFICATE, status="PENDING_ACTIVATION", mode="SNI_ONLY")


def test_accounts_are_as_setup_left_them_with_what_they_held_after_the_run() -> None:
    others = replace(PENDING, certificate_id="cd" * 32)
    evidence = device_evidence(
        DEVICE, GROUP, [DEV, PROD], attempts([DROP]), [others, PENDING], {"dev"}, now=START + 60, gave_up=True
    )
    dev, prod = evidence.accounts

    assert dev.cas is not None
    assert [(ca.mode, ca.active, ca.auto_registration, ca.template is not None) for ca in dev.cas] == [
        ("SNI_ONLY", True, True, True)
    ]
    assert dev.record is not None
    assert (dev.record_asked, dev.record.status) == (True, "PENDING_ACTIVATION")
    assert (prod.cas, prod.record_asked, prod.planned_mode) == ((), False, None)


def test_what_a_record_does_not_say_is_not_known() -> None:
    evidence = device_evidence(DEVICE, GROUP, [DEV], attempts([DROP]), [], {"dev"}, now=START + 60, gave_up=True)
    (dev,) = evidence.accounts

    assert (evidence.leaf, evidence.wire.address, evidence.wire.assumed) == (None, None, True)
    assert (dev.provisioning, dev.logs, dev.clock_offset) == (None, None, None)
    assert evidence.held_open is None


def test_device_that_gave_up_had_no_try_left() -> None:
    given_up = device_evidence(DEVICE, GROUP, [DEV], attempts([DROP]), [], {"dev"}, now=START + 60, gave_up=True)
    cut_short = device_evidence(DEVICE, GROUP, [DEV], attempts([DROP]), [], {"dev"}, now=START + 60, gave_up=False)

    assert given_up.wire.tries_allowed == 1
    assert cut_short.wire.tries_allowed == 2


def test_commands_of_a_ca_whose_id_is_not_known_have_a_place_for_it() -> None:
    off = replace(DEV, provisioning="none")
    evidence = device_evidence(DEVICE, GROUP, [off], attempts([DROP] * 5), [], {"dev"}, now=START + 60, gave_up=True)

    (first, *_) = diagnose(evidence).findings
    assert first.cause.id == "ca"
    assert first.supporting[0].text == "the CA is without automatic registration (DISABLE) in dev"
    assert "--certificate-id CA_CERTIFICATE_ID --new-auto-registration-status ENABLE" in first.fixes[0].commands[0]


def test_fleet_evidence_is_taken_as_it_is() -> None:
    fleet = FleetEvidence(peers=3, peers_accepted=2)
    evidence = device_evidence(DEVICE, GROUP, [DEV], [], [], (), now=START, gave_up=False, fleet=fleet)

    assert evidence.fleet is fleet
    assert evidence.name == "device 7 (robot-000007)"


def test_rates_are_the_most_of_one_second_by_account() -> None:
    rates = Rates()
    for _ in range(3):
        rates.add("dev", attempts([DROP, DROP], gap=0.2))
    rates.add("prod", attempts([DROP, DROP], gap=30))

    assert (rates.first("dev"), rates.all("dev")) == (3.0, 6.0)
    assert (rates.first("prod"), rates.all("prod")) == (1.0, 1.0)
    assert (rates.first("nobody"), rates.all("nobody")) == (None, None)
