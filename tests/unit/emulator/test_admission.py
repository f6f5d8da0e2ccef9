"""Admission against the truth table of ``aws-iot-behaviour.md`` §10, row by row; then what is set where it is open.

The rows stand in the test ids: ``10b C3 sB`` is table 10b, CA set C3, SNI sB.
"""

import ssl
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from devicesim.emulator.admission import (
    Check,
    Decision,
    Door,
    Reason,
    Verdict,
    decide,
    read_leaf,
    read_server_name,
)
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import AutoRegistrationStatus, CACertificateStatus, CertificateMode
from devicesim.pki.authority import Authority
from devicesim.pki.identity import certificate_pem
from tests.control_support import odd_certificate
from tests.emulator_support import ALLOW_ALL, EPOCH, A, B, C, World, device, shared_ca, template

NOT_REGISTERED = Reason.DEVICE_CERTIFICATE_NOT_REGISTERED
JUNK = "junk.iot.us-east-1.localhost"
CA_SETS = {
    "C0": {},
    "C1": {A: "DEFAULT"},
    "C2": {A: "SNI_ONLY"},
    "C3": {A: "DEFAULT", B: "SNI_ONLY"},
    "C4": {A: "SNI_ONLY", B: "SNI_ONLY"},
}


def world_with(ca_set: str, settings: Settings | None = None) -> World:
    world = World(settings)
    for account_id in (A, B, C):
        world.account(account_id)
    for account_id, mode in CA_SETS[ca_set].items():
        world.register_ca(world.account(account_id), mode=mode)
    return world


def server_name(world: World, sni: str) -> str | None:
    accounts = {"sA": A, "sB": B, "sX": C}
    if sni in accounts:
        return world.account(accounts[sni]).endpoint
    return {"none": None, "junk": JUNK}[sni]


def decision(world: World, sni: str, *, chain: bool = False, index: int = 0, client_id: str = "c") -> Decision:
    presented = world.present(device(index), server_name(world, sni), chain=chain)
    return decide(world.registry, presented, client_id=client_id, settings=world.settings, now=world.epoch())


@dataclass(frozen=True)
class Row:
    """One row of 10b: who decides, and what."""

    name: str
    ca_set: str
    sni: str
    verdict: Verdict
    account: str | None
    mode: str | None = None
    """Of the record that comes about."""
    reason: Reason | None = None
    logged: bool = True
    chain: bool = False


REGISTERED, REFUSED = Verdict.REGISTERED, Verdict.REFUSED
TABLE_10B = [
    Row("10b C1 sA", "C1", "sA", REGISTERED, A, mode="DEFAULT"),
    Row("10b C1 sB", "C1", "sB", REFUSED, B, reason=NOT_REGISTERED),
    Row("10b C1 none, leaf+CA chain", "C1", "none", REGISTERED, A, mode="DEFAULT", chain=True, logged=False),
    Row("10b C1 none, leaf only", "C1", "none", REFUSED, None, logged=False),
    Row("10b C1 junk", "C1", "junk", REFUSED, None, logged=False),
    Row("10b C2 sA", "C2", "sA", REGISTERED, A, mode="SNI_ONLY"),
    Row("10b C2 sB", "C2", "sB", REFUSED, B, reason=NOT_REGISTERED),
    Row("10b C2 sX", "C2", "sX", REFUSED, C, reason=NOT_REGISTERED),
    Row("10b C2 none", "C2", "none", REFUSED, None, logged=False),
    Row("10b C2 none, chain", "C2", "none", REFUSED, None, logged=False, chain=True),
    Row("10b C2 junk", "C2", "junk", REFUSED, None, logged=False),
    Row("10b C3 sA", "C3", "sA", REGISTERED, A, mode="DEFAULT"),
    Row("10b C3 sB", "C3", "sB", REGISTERED, B, mode="SNI_ONLY"),
    Row("10b C3 none (+chain)", "C3", "none", REGISTERED, A, mode="DEFAULT", chain=True, logged=False),
    Row("10b C3 none, leaf only", "C3", "none", REFUSED, None, logged=False),
    Row("10b C4 sA", "C4", "sA", REGISTERED, A, mode="SNI_ONLY"),
    Row("10b C4 sB", "C4", "sB", REGISTERED, B, mode="SNI_ONLY"),
    Row("10b C4 none", "C4", "none", REFUSED, None, logged=False),
    Row("10b C4 none, chain", "C4", "none", REFUSED, None, logged=False, chain=True),
    Row("10b C0 sA", "C0", "sA", REFUSED, A, reason=NOT_REGISTERED),
    Row("10b C0 none", "C0", "none", REFUSED, None, logged=False),
    Row("10b C0 junk", "C0", "junk", REFUSED, None, logged=False),
]


@pytest.mark.parametrize("row", TABLE_10B, ids=lambda row: row.name)
def test_first_connection_of_an_unknown_leaf(row: Row) -> None:
    world = world_with(row.ca_set)
    found = decision(world, row.sni, chain=row.chain)

    assert found.verdict is row.verdict
    assert (None if found.partition is None else found.partition.account_id) == row.account
    assert found.reason == row.reason
    assert found.logged == row.logged
    if row.verdict is REGISTERED:
        assert found.ca is not None
        assert found.ca.mode == row.mode
        assert found.template is None


def test_10b_c4_sa_and_later_sb_are_independent_records_of_one_certificate_id() -> None:
    world = world_with("C4")
    for sni in ("sA", "sB"):
        world.client(0, server_name(world, sni)).connect()

    records = [world.account(each).certificates[device(0).certificate_id] for each in (A, B)]
    assert [record.status for record in records] == ["PENDING_ACTIVATION"] * 2
    assert records[0].arn != records[1].arn


@pytest.mark.parametrize("ca_set", ["C3", "C4"])
@pytest.mark.parametrize("how", ["INACTIVE", "DISABLE"])
def test_10b_ca_inactive_or_disable_in_the_snis_account_even_if_fine_in_the_other(ca_set: str, how: str) -> None:
    world = world_with(ca_set)
    account = world.account(A)
    ca_id = next(iter(account.cas))
    if how == "INACTIVE":
        world.registry.cas.update(account, ca_id, status=CACertificateStatus.INACTIVE)
    else:
        world.registry.cas.update(account, ca_id, auto_registration=AutoRegistrationStatus.DISABLE)
    found = decision(world, "sA")

    assert (found.verdict, found.reason) == (REFUSED, NOT_REGISTERED)
    assert how in found.detail
    assert decision(world, "sB").verdict is REGISTERED


@pytest.mark.parametrize(
    ("status", "verdict", "reason"),
    [
        ("ACTIVE", Verdict.ADMITTED, None),
        ("INACTIVE", REFUSED, Reason.DEVICE_CERTIFICATE_INACTIVE),
        ("REVOKED", REFUSED, Reason.DEVICE_CERTIFICATE_REVOKED),
    ],
)
def test_10c_leaf_registered_in_the_snis_account(status: str, verdict: Verdict, reason: Reason | None) -> None:
    world = world_with("C2")
    world.register_leaf(world.account(A), device(0), status)
    found = decision(world, "sA")

    assert (found.verdict, found.reason, found.logged) == (verdict, reason, True)


def test_10c_pending_activation_is_told_again() -> None:
    world = world_with("C2")
    world.client(0, server_name(world, "sA")).connect()
    found = decision(world, "sA")

    assert (found.verdict, found.check, found.reason) == (Verdict.PENDING, Check.STATUS, None)
    assert found.certificate is not None


def test_10c_pending_activation_runs_jitp_again() -> None:
    world = World()
    world.register_ca(world.account(A), mode="SNI_ONLY", template_body=template())
    world.client(0, server_name(world, "sA")).connect()

    assert decision(world, "sA").template is not None

    world.settings = Settings(jitp_reruns_while_pending=False)

    assert decision(world, "sA").template is None


def test_10c_pending_transfer_is_refused_as_inactive() -> None:
    world = world_with("C2")
    account = world.account(A)
    record = world.register_leaf(account, device(0))
    account.put_certificate(replace(record, status=type(record.status)("PENDING_TRANSFER")))

    assert decision(world, "sA").reason == Reason.DEVICE_CERTIFICATE_INACTIVE


@pytest.mark.parametrize(
    ("policy", "detail"),
    [
        (None, "no policy is attached"),
        ('{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}', "no policy allows"),
        (
            ALLOW_ALL.replace('"Resource":"*"', '"Resource":"arn:aws:iot:us-east-1:111111111111:client/other"'),
            "client/c",
        ),
    ],
    ids=["no policy", "denied", "another client id"],
)
def test_10c_active_and_no_policy_or_denied(policy: str | None, detail: str) -> None:
    world = world_with("C2")
    world.register_leaf(world.account(A), device(0), policy=policy)
    found = decision(world, "sA")

    assert (found.verdict, found.check, found.reason) == (
        Verdict.DENIED,
        Check.POLICY,
        Reason.AUTHORIZATION_FAILURE,
    )
    assert detail in found.detail


def test_10c_deleted_record_and_enabled_ca_is_an_unknown_leaf() -> None:
    world = world_with("C2")
    account = world.account(A)
    world.register_leaf(account, device(0), "INACTIVE", policy=None)
    world.registry.certificates.delete(account, device(0).certificate_id)

    assert decision(world, "sA").verdict is REGISTERED


def test_10c_ca_deactivated_after_registration() -> None:
    world = world_with("C2")
    account = world.account(A)
    world.register_leaf(account, device(0))
    world.registry.cas.update(account, next(iter(account.cas)), status=CACertificateStatus.INACTIVE)

    assert decision(world, "sA").verdict is Verdict.ADMITTED


class TestLeafRegisteredInAOnly:
    """10d."""

    def test_default_active_none(self) -> None:
        world = world_with("C1")
        world.register_leaf(world.account(A), device(0))
        found = decision(world, "none")

        assert found.verdict is Verdict.ADMITTED
        assert found.partition is world.account(A)

    def test_default_active_junk(self) -> None:
        world = world_with("C1")
        world.register_leaf(world.account(A), device(0))
        found = decision(world, "junk", chain=True)

        assert (found.verdict, found.check, found.logged) == (REFUSED, Check.SERVER_NAME, False)

    def test_default_active_sb_without_ca_in_b(self) -> None:
        world = world_with("C1")
        world.register_leaf(world.account(A), device(0))

        assert decision(world, "sB").reason == Reason.SNI_MISUSED

        world.settings = Settings(sni_misused_for_foreign_default_leaf=False)

        assert decision(world, "sB").reason == NOT_REGISTERED

    def test_default_active_sb_with_the_ca_in_b_is_registered_there_too(self) -> None:
        world = world_with("C3")
        world.register_leaf(world.account(A), device(0))
        found = decision(world, "sB")

        assert found.verdict is REGISTERED
        assert found.partition is world.account(B)

    def test_sni_only_active_none(self) -> None:
        world = world_with("C2")
        world.register_leaf(world.account(A), device(0))
        found = decision(world, "none", chain=True)

        assert (found.verdict, found.check, found.logged) == (REFUSED, Check.SERVER_NAME, False)

    @pytest.mark.parametrize("status", ["ACTIVE", "PENDING_ACTIVATION"])
    def test_sni_only_none_also_where_the_account_holds_the_ca_in_default_mode_by_now(self, status: str) -> None:
        """The mode of a CA is changed by deleting and registering it again; records keep theirs."""
        world = world_with("C2")
        account = world.account(A)
        if status == "ACTIVE":
            world.register_leaf(account, device(0))
        else:
            world.client(0, account.endpoint).connect()
        (ca_id,) = account.cas
        world.registry.cas.update(account, ca_id, status=CACertificateStatus.INACTIVE)
        world.registry.cas.delete(account, ca_id)
        world.register_ca(account, mode="DEFAULT")
        found = decision(world, "none", chain=True)

        assert world.status(account, device(0)) == status
        assert (found.verdict, found.check, found.logged) == (REFUSED, Check.SERVER_NAME, False)

    def test_default_none_where_two_accounts_have_it_and_a_third_holds_the_ca(self) -> None:
        """Whose it is cannot be said, so it is not made a third account's either (I)."""
        world = World()
        for account_id in (A, B, C):
            account = world.account(account_id)
            world.register_ca(account, mode="DEFAULT")
            if account_id != C:
                world.register_leaf(account, device(0))
                (ca_id,) = account.cas
                world.registry.cas.update(account, ca_id, status=CACertificateStatus.INACTIVE)
                world.registry.cas.delete(account, ca_id)
        found = decision(world, "none", chain=True)

        assert (found.verdict, found.check, found.partition) == (REFUSED, Check.SERVER_NAME, None)

    def test_sni_only_active_sb_without_record_or_ca(self) -> None:
        world = world_with("C2")
        world.register_leaf(world.account(A), device(0))

        assert decision(world, "sB").reason == NOT_REGISTERED

    @pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
    def test_active_in_a_and_not_in_b(self, status: str) -> None:
        world = world_with("C4")
        world.register_leaf(world.account(A), device(0))
        world.register_leaf(world.account(B), device(0), status)

        assert decision(world, "sA").verdict is Verdict.ADMITTED
        assert decision(world, "sB").reason == f"DEVICE_CERTIFICATE_{status}"

    def test_pending_in_a_and_active_in_b(self) -> None:
        world = world_with("C4")
        world.client(0, server_name(world, "sA")).connect()
        world.register_leaf(world.account(B), device(0))

        assert decision(world, "sA").verdict is Verdict.PENDING
        assert decision(world, "sB").verdict is Verdict.ADMITTED

    def test_endpoint_of_a_in_another_region(self) -> None:
        world = world_with("C1")
        world.register_leaf(world.account(A), device(0))
        elsewhere = world.account(A, "eu-west-1").endpoint
        presented = world.present(device(0), elsewhere)
        found = decide(world.registry, presented, client_id="c", settings=world.settings, now=world.epoch())

        assert (found.verdict, found.check, found.logged) == (REFUSED, Check.SERVER_NAME, False)

    def test_without_sni_another_regions_records_do_not_count(self) -> None:
        world = World()
        account = world.account(A, "eu-west-1")
        world.register_ca(account, mode="DEFAULT")
        world.register_leaf(account, device(0))

        assert decision(world, "none", chain=True).verdict is REFUSED


class TestServerName:
    """§4.1: the value, its case, and what RFC 6066 forbids."""

    def test_mixed_case_is_the_same_name_unless_set_otherwise(self) -> None:
        world = world_with("C2")
        name = world.account(A).endpoint.upper()
        presented = world.present(device(0), name)

        def verdict(settings: Settings) -> Verdict:
            return decide(world.registry, presented, client_id="c", settings=settings, now=world.epoch()).verdict

        assert verdict(Settings()) is REGISTERED
        assert verdict(Settings(sni_ignores_case=False)) is REFUSED

    @pytest.mark.parametrize("address", [b"127.0.0.1", b"::1", b"[::1]"])
    def test_an_ip_address_counts_as_none(self, address: bytes) -> None:
        assert read_server_name(address, Settings()).kind == "absent"
        assert read_server_name(address, Settings(sni_ip_literal="unresolvable")).kind == "unresolvable"

    def test_a_port_counts_as_none(self) -> None:
        assert read_server_name(b"a.b:8883", Settings()).kind == "absent"
        assert read_server_name(b"a.b:8883", Settings(sni_ip_literal="unresolvable")).kind == "unresolvable"

    def test_a_trailing_dot_counts_as_none(self) -> None:
        assert read_server_name(b"a.b.", Settings()).kind == "absent"
        assert read_server_name(b"a.b.", Settings(sni_trailing_dot="unresolvable")).kind == "unresolvable"

        stripped = read_server_name(b"a.b.", Settings(sni_trailing_dot="stripped"))
        assert (stripped.kind, stripped.text) == ("name", "a.b")

    @pytest.mark.parametrize("raw", [b"\xff\xfe", "gerät".encode(), b"", b"."])
    def test_odd_bytes_are_nobodys_name_and_raise_nothing(self, raw: bytes) -> None:
        settings = Settings(sni_trailing_dot="stripped")

        assert read_server_name(raw, settings).kind == "unresolvable"

        world = world_with("C3")
        presented = world.present(device(0), raw, chain=True)
        found = decide(world.registry, presented, client_id="c", settings=settings, now=world.epoch())

        assert (found.verdict, found.partition) == (REFUSED, None)


class TestDoors:
    """A listener is one Region's front door; the first also serves Regions that have none."""

    def test_the_first_door_serves_regions_without_their_own(self) -> None:
        world = World()
        account = world.account(A, "ap-south-1")
        world.register_ca(account, mode="SNI_ONLY")
        elsewhere = frozenset({"eu-west-1"})
        presented = world.present(device(0), account.endpoint, elsewhere=elsewhere)

        def decided(name: str) -> Decision:
            return decide(
                world.registry,
                replace(presented, server_name=name.encode()),
                client_id="c",
                settings=world.settings,
                now=world.epoch(),
            )

        assert decided(account.endpoint).verdict is REGISTERED
        assert decided(world.account(A, "eu-west-1").endpoint).check is Check.SERVER_NAME

    def test_other_doors_serve_only_their_own(self) -> None:
        assert Door(region="eu-west-1").serves("eu-west-1")
        assert not Door(region="eu-west-1").serves("ap-south-1")


class TestClientCertificate:
    def test_none_is_not_authenticated_where_the_account_is_known(self) -> None:
        world = world_with("C1")
        for sni, logged in (("sA", True), ("none", False)):
            presented = world.present(None, server_name(world, sni))
            found = decide(world.registry, presented, client_id="c", settings=Settings(), now=world.epoch())

            assert (found.verdict, found.reason, found.logged) == (REFUSED, Reason.NOT_AUTHENTICATED, logged)

    def test_one_that_cannot_be_read_is_said_so(self) -> None:
        world = world_with("C1")
        presented = replace(world.present(None, server_name(world, "sA")), certificate_problem="cannot be read: x")
        found = decide(world.registry, presented, client_id="c", settings=Settings(), now=world.epoch())

        assert (found.reason, found.detail) == (Reason.NOT_AUTHENTICATED, "cannot be read: x")

    @pytest.mark.parametrize(
        "der", [b"", b"\x30\x00", b"\xff" * 50, ssl.PEM_cert_to_DER_cert(odd_certificate("version 2"))]
    )
    def test_reading_garbage_is_a_finding(self, der: bytes) -> None:
        leaf, problem = read_leaf(der)

        assert leaf is None
        assert problem

    @pytest.mark.parametrize("years", [-1, 11])
    def test_before_and_after_its_validity_it_is_refused_unless_set_otherwise(self, years: int) -> None:
        world = world_with("C2")
        presented = world.present(device(0), server_name(world, "sA"))
        moment = (EPOCH + timedelta(days=365 * years)).timestamp()

        def found(settings: Settings) -> Decision:
            return decide(world.registry, presented, client_id="c", settings=settings, now=moment)

        assert (found(Settings()).verdict, found(Settings()).reason) == (REFUSED, Reason.NOT_AUTHENTICATED)
        assert found(Settings(leaf_validity_enforced=False)).verdict is REGISTERED

    def test_a_leaf_of_another_ca_with_the_same_name_is_not_registered(self) -> None:
        """The key decides, not the subject."""
        world = world_with("C2")
        stranger = device(0, "Other CA")
        forged = replace(world.present(stranger, server_name(world, "sA")), leaf=_renamed_issuer(stranger.certificate))
        found = decide(world.registry, forged, client_id="c", settings=Settings(), now=world.epoch())

        assert (found.verdict, found.reason) == (REFUSED, NOT_REGISTERED)


def _renamed_issuer(certificate: x509.Certificate) -> x509.Certificate:
    """The same certificate with the shared CA's name as issuer, signed by a stranger's key."""
    key = shared_ca("Other CA").key
    assert key is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(shared_ca().certificate.subject)
        .public_key(certificate.public_key())
        .serial_number(certificate.serial_number)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
    )
    return builder.sign(key, hashes.SHA256())


class TestJITWithoutSNI:
    def test_can_be_switched_off(self) -> None:
        world = world_with("C1", Settings(jit_without_sni=False))

        assert decision(world, "none", chain=True).verdict is REFUSED

    def test_can_do_without_the_chain(self) -> None:
        world = world_with("C3", Settings(jit_without_sni_needs_chain=False))
        found = decision(world, "none")

        assert found.verdict is REGISTERED
        assert found.partition is world.account(A)

        world = world_with("C4", Settings(jit_without_sni_needs_chain=False))

        assert decision(world, "none").verdict is REFUSED

    def test_a_chain_of_somebody_else_does_not_help(self) -> None:
        world = world_with("C1")
        presented = world.present(device(0), None)
        other = world.present(device(0, "Other CA"), None, chain=True).chain
        found = decide(
            world.registry,
            replace(presented, chain=(b"garbage", *other)),
            client_id="c",
            settings=Settings(),
            now=world.epoch(),
        )

        assert found.verdict is REFUSED

    @pytest.mark.parametrize("mode", ["DEFAULT", "SNI_ONLY"])
    def test_a_chain_of_another_ca_of_the_same_account_does_not_help(self, mode: str) -> None:
        """The account holds the leaf's CA too; but that is not what the device sent."""
        world = World()
        world.register_ca(world.account(A), mode=mode)
        world.register_ca(world.account(A), mode="DEFAULT", name="Other CA")
        other = world.present(device(0, "Other CA"), None, chain=True).chain
        presented = replace(world.present(device(0), None), chain=other)
        found = decide(world.registry, presented, client_id="c", settings=Settings(), now=world.epoch())

        assert (found.verdict, found.check, found.partition) == (REFUSED, Check.SERVER_NAME, None)

    def test_a_ca_in_the_chain_that_did_not_sign_the_leaf_leads_nowhere(self) -> None:
        world = world_with("C1")
        stranger = device(0, "Other CA")
        presented = replace(world.present(stranger, None), chain=world.present(device(0), None, chain=True).chain)
        found = decide(world.registry, presented, client_id="c", settings=Settings(), now=world.epoch())

        assert (found.verdict, found.check, found.partition) == (REFUSED, Check.SERVER_NAME, None)

    def test_a_renewed_ca_held_in_sni_only_mode_does_not_stand_in_for_the_default_one(self) -> None:
        """Same subject and key, so both signed the leaf; the DEFAULT one no longer registers devices."""
        world = world_with("C1")
        account = world.account(A)
        renewed = _renewed(shared_ca())
        world.registry.cas.register(
            account,
            certificate_pem(renewed),
            mode=CertificateMode.SNI_ONLY,
            active=True,
            auto_registration=True,
        )
        default = next(iter(account.cas))
        world.registry.cas.update(account, default, auto_registration=AutoRegistrationStatus.DISABLE)
        presented = world.present(device(0), None, chain=True)
        both = (*presented.chain, renewed.public_bytes(serialization.Encoding.DER))

        def found(server_name: str | None) -> Decision:
            shown = replace(presented, chain=both, server_name=server_name.encode() if server_name else None)
            return decide(world.registry, shown, client_id="c", settings=Settings(), now=world.epoch())

        assert found(account.endpoint).verdict is REGISTERED
        assert found(None).verdict is REFUSED


def _renewed(authority: Authority) -> x509.Certificate:
    """Another certificate of the same CA."""
    assert authority.key is not None
    subject = authority.certificate.subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(authority.key.public_key())
        .serial_number(4711)
        .not_valid_before(EPOCH - timedelta(days=1))
        .not_valid_after(EPOCH + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return builder.sign(authority.key, hashes.SHA256())


def test_jitp_is_decided_with_its_template() -> None:
    world = World()
    world.register_ca(world.account(A), mode="SNI_ONLY", template_body=template())
    found = decision(world, "sA")

    assert found.verdict is REGISTERED
    assert found.template is not None
    assert "JITP" in found.detail
