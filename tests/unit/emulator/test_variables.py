"""Policy variables (developer guide, "policy variables")."""

import ipaddress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devicesim.emulator.variables import Variables, certificate_variables
from tests.control_support import odd_certificate
from tests.emulator_support import EPOCH, World, device

ID = device(0).certificate_id


def variables(world: World, client_id: str = "robot") -> Variables:
    return Variables(world.account(), ID, client_id, "203.0.113.7")


@pytest.fixture
def world() -> World:
    world = World()
    world.ready_account(0)
    return world


def test_of_the_connection(world: World) -> None:
    found = variables(world)

    assert found["iot:ClientId"] == "robot"
    assert found["iot:CertificateId"] == ID
    assert found["aws:SourceIp"] == "203.0.113.7"
    assert found.get("iot:Nothing") is None


def test_of_the_certificate(world: World) -> None:
    found = variables(world)

    assert found["iot:Certificate.Subject.CommonName"] == "robot-000000"
    assert found["iot:Certificate.Subject.SerialNumber"] == "SN0000"
    assert found["iot:Certificate.Subject.State"] == "Bavaria"
    assert found["iot:Certificate.Issuer.CommonName"] == "Shared CA"
    assert found["iot:Certificate.SerialNumber"] == str(device(0).certificate.serial_number)
    assert "iot:Certificate.Subject.Title" not in found


def test_of_the_thing_only_when_the_certificate_is_attached_to_the_thing_named_as_the_client(world: World) -> None:
    account = world.account()
    prefix = "iot:Connection.Thing."
    world.registry.thing_types.create(account, "type")
    world.registry.things.create(account, "robot", thing_type_name="type", attributes={"site": "b1"})

    assert variables(world)[prefix + "IsAttached"] == "false"
    assert prefix + "ThingName" not in variables(world)

    world.registry.things.attach_principal(account, "robot", account.certificate_arn(ID))
    found = variables(world)

    assert found[prefix + "IsAttached"] == "true"
    assert found[prefix + "ThingName"] == "robot"
    assert found[prefix + "ThingTypeName"] == "type"
    assert found[prefix + "Attributes[site]"] == "b1"
    assert prefix + "ThingName" not in variables(world, "somebody")


def test_they_are_a_mapping(world: World) -> None:
    found = variables(world)

    assert len(found) == len(dict(found))
    assert {"iot:ClientId", "iot:CertificateId", "iot:Certificate.Subject.CommonName"} <= set(found)


def test_a_certificate_that_has_been_deleted_has_none(world: World) -> None:
    found = Variables(world.account(), "0" * 64, "robot", "")

    assert found.get("iot:Certificate.Subject.CommonName") is None


def test_several_values_have_an_index_and_five_at_most() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"u{number}") for number in range(7)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(units))
        .issuer_name(x509.Name(units))
        .public_key(key.public_key())
        .serial_number(12345)
        .not_valid_before(EPOCH)
        .not_valid_after(EPOCH + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName("a.example"),
                    x509.DNSName("b.example"),
                    x509.RFC822Name("x@example"),
                    x509.UniformResourceIdentifier("urn:x"),
                    x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
                    x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "d")])),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.IssuerAlternativeName([x509.DNSName("ca.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    values = certificate_variables(certificate)
    unit = "iot:Certificate.Subject.OrganizationalUnit"
    alternative = "iot:Certificate.Subject.AlternativeName."

    assert [values.get(unit), values.get(f"{unit}.0"), values.get(f"{unit}.4"), values.get(f"{unit}.5")] == [
        "u0",
        "u0",
        "u4",
        None,
    ]
    assert values["iot:Certificate.SerialNumber"] == "12345"
    assert values[alternative + "DNSName"] == "a.example"
    assert values[alternative + "DNSName.1"] == "b.example"
    assert values[alternative + "RFC822Name"] == "x@example"
    assert values[alternative + "UniformResourceIdentifier"] == "urn:x"
    assert values[alternative + "IPAddress"] == "192.0.2.1"
    assert values[alternative + "DirectoryName"] == "CN=d"
    assert values["iot:Certificate.Issuer.AlternativeName.DNSName"] == "ca.example"


def test_lists_and_the_names_of_what_there_is() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"unit{number}") for number in range(7)]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cn"), *units])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE")]))
        .public_key(key.public_key())
        .serial_number(77)
        .not_valid_before(EPOCH)
        .not_valid_after(EPOCH + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a"), x509.DNSName("b")]), critical=False)
        .sign(key, hashes.SHA256())
    )

    found = certificate_variables(certificate)

    # five at most (developer guide, "limitations")
    assert found["iot:Certificate.Subject.OrganizationalUnit.List"] == tuple(f"unit{number}" for number in range(5))
    assert found["iot:Certificate.Subject.OrganizationalUnit.1"] == "unit1"
    assert found["iot:Certificate.Subject.AlternativeName.DNSName.List"] == ("a", "b")
    assert found["iot:Certificate.Issuer.Country.List"] == ("DE",)
    available = found["iot:Certificate.AvailableKeys"]
    assert "iot:Certificate.Subject.CommonName" in available
    assert "iot:Certificate.SerialNumber" in available
    assert "iot:Certificate.Subject.Title" not in available
    assert "iot:Certificate.Subject.Title.List" not in found


@pytest.mark.parametrize("kind", ["x400Address", "ediPartyName"])
def test_alternative_names_that_cannot_be_read_are_none(kind: str) -> None:
    found = certificate_variables(x509.load_pem_x509_certificate(odd_certificate(kind).encode()))

    assert found["iot:Certificate.Subject.CommonName"] == "odd"
    assert not any("AlternativeName" in name for name in found)
