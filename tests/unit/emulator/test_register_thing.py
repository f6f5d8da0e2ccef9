"""RegisterThing: a template run with a caller's parameters; what it makes, answers, and takes back."""

import json
from collections.abc import Mapping
from typing import Any

import botocore.session
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devicesim.emulator import provisioning
from devicesim.emulator.provisioning import Outcome, register_thing
from devicesim.emulator.registry import Partition
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.records import CertificateMode
from devicesim.pki.identity import certificate_id, certificate_pem
from tests.emulator_support import ALLOW_ALL, World, device, shared_ca, template

ID = device(0).certificate_id
PEM = certificate_pem(device(0).certificate)


def ref(name: str) -> dict[str, str]:
    return {"Ref": name}


def body(
    certificate: Mapping[str, object],
    *,
    parameters: tuple[str, ...] = (),
    override: str | None = None,
    **sections: Any,
) -> str:
    """A template of RegisterThing: the thing's name is a parameter."""
    declared = {name: {"Type": "String"} for name in ("ThingName", *parameters)}
    made = json.loads(
        template(thing={"ThingName": ref("ThingName")}, certificate=certificate, Parameters=declared, **sections)
    )
    if override is not None:
        made["Resources"]["certificate"]["OverrideSettings"] = {"Status": override}
    return json.dumps(made)


BY_ID = body({"CertificateId": ref("CertificateId")}, parameters=("CertificateId",))
BY_PEM = body({"CertificatePem": ref("Pem")}, parameters=("Pem",))
BY_CSR = body({"CertificateSigningRequest": ref("CSR")}, parameters=("CSR",))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def account(world: World) -> Partition:
    """The CA is there; no device is."""
    world.register_ca(world.account(), mode="SNI_ONLY")
    return world.account()


def run(world: World, template_body: str, certificate: str | None = None, **parameters: str) -> Outcome:
    return register_thing(
        world.registry, world.account(), template_body, {"ThingName": "t", **parameters}, certificate_id=certificate
    )


def csr(common_name: str = "device") -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_by_id_activates_a_registered_certificate_and_answers_the_arns(world: World, account: Partition) -> None:
    ca = next(iter(account.cas.values()))
    record = world.registry.auto_register(account, device(0).certificate, ca)
    outcome = run(world, BY_ID, CertificateId=ID)

    assert outcome.succeeded, outcome
    assert (outcome.certificate_id, outcome.certificate_pem) == (ID, record.pem)
    (policy,) = account.policies.values()
    assert outcome.resource_arns == {
        "certificate": record.arn,
        "thing": account.things["t"].arn,
        "policy": policy.arn,
    }
    assert world.status(account, device(0)) == "ACTIVE"
    assert list(account.things_of_certificate(ID)) == ["t"]


def test_a_policy_that_the_template_names_is_attached_and_not_among_the_generated_resources(
    world: World, account: Partition
) -> None:
    """The CLI reference's example of register-thing answers certificate and thing (D)."""
    world.registry.policies.create(account, "MyIotPolicy", ALLOW_ALL)
    outcome = run(world, body({"CertificatePem": PEM}, policy={"PolicyName": "MyIotPolicy"}))

    assert outcome.succeeded, outcome
    assert set(outcome.resource_arns) == {"certificate", "thing"}
    assert list(account.policies_of_target[account.certificate_arn(ID)]) == ["MyIotPolicy"]


def test_by_pem_registers_under_the_account_s_ca(world: World, account: Partition) -> None:
    outcome = run(world, BY_PEM, Pem=PEM)

    assert outcome.succeeded, outcome
    record = account.certificates[ID]
    assert (record.status, record.mode) == ("ACTIVE", CertificateMode.SNI_ONLY)
    assert record.ca_certificate_id == next(iter(account.cas))
    world.client(0, account.endpoint).connected()


def test_by_pem_with_the_ca_where_two_could_have_signed(world: World, account: Partition) -> None:
    renewed = shared_ca().certificate
    pems = body({"CertificatePem": ref("Pem"), "CACertificatePem": ref("CA")}, parameters=("Pem", "CA"))

    assert run(world, pems, Pem=PEM, CA=certificate_pem(renewed)).succeeded
    other = certificate_pem(shared_ca("Other CA").certificate)
    refused = run(world, pems, Pem=certificate_pem(device(1).certificate), CA=other)
    assert (refused.error, refused.cause) == ("ResourceRegistrationFailureException", "CertificateValidationException")


def test_by_csr_makes_a_certificate_that_connects(world: World, account: Partition) -> None:
    outcome = run(world, BY_CSR, CSR=csr("from a csr"))

    assert outcome.succeeded, outcome
    assert outcome.certificate_pem is not None
    made = x509.load_pem_x509_certificate(outcome.certificate_pem.encode())
    assert certificate_id(made) == outcome.certificate_id
    record = account.certificates[outcome.certificate_id]
    assert record.status == "ACTIVE"
    assert list(account.principals_of_thing["t"]) == [record.arn]


@pytest.mark.parametrize("text", ["no csr", ""])
def test_a_csr_that_is_none(world: World, account: Partition, text: str) -> None:
    outcome = run(world, BY_CSR, CSR=text)

    assert not outcome.succeeded
    assert account.certificates == {}
    assert account.things == {}


@pytest.mark.parametrize(
    ("override", "succeeds", "status"),
    [
        (None, False, "INACTIVE"),
        ("FAIL", False, "INACTIVE"),
        ("REPLACE", True, "ACTIVE"),
        ("DO_NOTHING", True, "INACTIVE"),
    ],
)
def test_a_certificate_of_another_status_is_what_override_settings_say(
    world: World, account: Partition, override: str | None, succeeds: bool, status: str
) -> None:
    """Developer guide, "Override settings" (D); without any, the setting's default (I)."""
    world.register_leaf(account, device(0), status="INACTIVE", policy=None)
    outcome = run(world, body({"CertificatePem": PEM}, override=override))

    assert outcome.succeeded is succeeds
    assert world.status(account, device(0)) == status
    assert ("t" in account.things) is succeeds
    if not succeeds:
        assert "ResourceConflictsException" in outcome.detail


def test_the_setting_leaves_what_exists_alone_where_the_template_does_not_say() -> None:
    world = World(Settings(control=ControlSettings(register_thing_existing="DO_NOTHING")))
    world.register_ca(world.account(), mode="SNI_ONLY")
    world.register_leaf(world.account(), device(0), status="INACTIVE", policy=None)
    world.registry.things.create(world.account(), "t", attributes={"a": "1"})
    thing = {"ThingName": "t", "AttributePayload": {"a": "2"}}
    outcome = run(world, template(thing=thing, certificate={"CertificateId": ID}))

    assert outcome.succeeded, outcome
    assert world.account().things["t"].attributes == {"a": "1"}
    assert world.status(world.account(), device(0)) == "INACTIVE"


def test_a_revoked_certificate_stays_revoked(world: World, account: Partition) -> None:
    world.register_leaf(account, device(0), status="REVOKED", policy=None)
    outcome = run(world, body({"CertificatePem": PEM}, override="REPLACE"))

    assert (outcome.succeeded, outcome.cause) == (False, "CertificateStateException")
    assert world.status(account, device(0)) == "REVOKED"
    assert account.things == {}


@pytest.mark.parametrize("certificate", [BY_PEM, BY_CSR])
def test_a_refusal_takes_the_certificate_back_too(world: World, account: Partition, certificate: str) -> None:
    made = json.loads(certificate)
    made["Resources"]["policy"]["Properties"] = {"PolicyName": "nobody"}
    outcome = run(world, json.dumps(made), Pem=PEM, CSR=csr())

    assert (outcome.succeeded, outcome.error) == (False, "ResourceRegistrationFailureException")
    assert account.certificates == {}
    assert account.certificates_by_ca == {}
    assert account.things == {}


def test_a_bug_in_the_middle_leaves_nothing_behind(
    world: World, account: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(world.registry.things, "attach_principal", broken)
    with pytest.raises(RuntimeError):
        run(world, BY_PEM, Pem=PEM)

    assert (account.certificates, account.things, account.policies) == ({}, {}, {})


class TestClaim:
    """A device that provisions itself: the ownership token says which certificate is meant."""

    def test_the_token_s_certificate_is_the_pseudo_parameter(self, world: World, account: Partition) -> None:
        ca = next(iter(account.cas.values()))
        world.registry.auto_register(account, device(0).certificate, ca)
        registered = body(
            {"CertificateId": ref("AWS::IoT::Certificate::Id"), "Status": "Active"}, DeviceConfiguration={"Foo": "Bar"}
        )
        outcome = run(world, registered, certificate=ID)

        assert outcome.succeeded, outcome
        assert outcome.device_configuration == {"Foo": "Bar"}
        assert world.status(account, device(0)) == "ACTIVE"

    def test_a_caller_cannot_put_another_certificate_in_its_place(self, world: World, account: Partition) -> None:
        world.register_leaf(account, device(1), status="INACTIVE", policy=None)
        ca = next(iter(account.cas.values()))
        world.registry.auto_register(account, device(0).certificate, ca)
        by_pseudo = body({"CertificateId": ref("AWS::IoT::Certificate::Id")})
        other = device(1).certificate_id
        outcome = run(world, by_pseudo, certificate=ID, **{"AWS::IoT::Certificate::Id": other})

        assert outcome.certificate_id == ID
        assert "not that of the device" in run(world, BY_ID, certificate=ID, CertificateId=other).detail
        assert "certificateId is not present" in run(world, BY_PEM, certificate=ID, Pem=PEM).detail
        assert world.status(account, device(1)) == "INACTIVE"


@pytest.mark.parametrize(
    ("template_body", "parameters", "error", "detail"),
    [
        ("{", {}, "InvalidRequestException", "JSON not well-formed"),
        (BY_ID, {}, "InvalidRequestException", "Cannot resolve reference value: {Ref=CertificateId}"),
        (BY_ID, {"CertificateId": "0" * 64}, "ResourceRegistrationFailureException", "does not exist"),
        (BY_PEM, {"Pem": "x"}, "ResourceRegistrationFailureException", ""),
    ],
)
def test_refusals_are_the_operation_s_own_exceptions(
    world: World, account: Partition, template_body: str, parameters: dict[str, str], error: str, detail: str
) -> None:
    outcome = run(world, template_body, **parameters)

    assert outcome.error == error
    assert detail in outcome.detail


def test_the_exceptions_are_those_of_the_service_model() -> None:
    operation = botocore.session.get_session().get_service_model("iot").operation_model("RegisterThing")

    assert {shape.name for shape in operation.error_shapes} == provisioning.ERRORS
