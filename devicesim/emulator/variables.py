"""Policy variables of one connection (aws-iot-behaviour.md §5; developer guide, "policy variables", D). Pure.

Looked up only when a policy asks: most policies name none, and parsing a subject costs more than the rest of a check.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from devicesim.emulator.registry import Partition
from devicesim.emulator.state.policies import thing_of_connection
from devicesim.emulator.state.x509rules import UNREADABLE

ATTRIBUTES: Final = {
    "DistinguishedNameQualifier": NameOID.DN_QUALIFIER,
    "Country": NameOID.COUNTRY_NAME,
    "Organization": NameOID.ORGANIZATION_NAME,
    "OrganizationalUnit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "State": NameOID.STATE_OR_PROVINCE_NAME,
    "CommonName": NameOID.COMMON_NAME,
    "SerialNumber": NameOID.SERIAL_NUMBER,
    "Title": NameOID.TITLE,
    "Surname": NameOID.SURNAME,
    "GivenName": NameOID.GIVEN_NAME,
    "Initials": NameOID.INITIALS,
    "Pseudonym": NameOID.PSEUDONYM,
    "GenerationQualifier": NameOID.GENERATION_QUALIFIER,
}
_MAX_VALUES: Final = 5
"""Of a multi-valued attribute; more are ignored (same page, "limitations", D)."""
_THING: Final = "iot:Connection.Thing."
_CERTIFICATE: Final = "iot:Certificate."


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a CONNECT asks for, as policies see it (developer guide, "connect policy examples", D)."""

    attributes: tuple[str, ...] = ()
    """``iot:ConnectAttributes``: ``PersistentConnect``, ``LastWill``."""
    last_will_topic: str | None = None
    """Behind ``iot:LastWillTopic``, which is the ARN of the topic."""


NOTHING_ASKED: Final = Asked()
PERSISTENT_CONNECT: Final = "PersistentConnect"
LAST_WILL: Final = "LastWill"


class Variables(Mapping[str, str | tuple[str, ...]]):
    """The variables of a connection with this certificate and client id, as the registry stands when asked."""

    __slots__ = ("_asked", "_certificate_id", "_client_id", "_of_certificate", "_partition", "_source_ip")

    def __init__(
        self, partition: Partition, certificate_id: str, client_id: str, source_ip: str, asked: Asked = NOTHING_ASKED
    ) -> None:
        self._asked = asked
        self._partition = partition
        self._certificate_id = certificate_id
        self._client_id = client_id
        self._source_ip = source_ip
        self._of_certificate: dict[str, str | tuple[str, ...]] | None = None

    def __getitem__(self, name: str) -> str | tuple[str, ...]:
        if name == "iot:ClientId":
            return self._client_id
        if name.startswith(_THING):
            return self._of_thing()[name]
        if name.startswith(_CERTIFICATE):
            return self._certificate()[name]
        return self._others()[name]

    def __iter__(self) -> Iterator[str]:
        yield "iot:ClientId"
        yield from self._others()
        yield from self._of_thing()
        yield from self._certificate()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _others(self) -> dict[str, str | tuple[str, ...]]:
        values: dict[str, str | tuple[str, ...]] = {
            "iot:CertificateId": self._certificate_id,
            "aws:SourceIp": self._source_ip,
            "iot:ConnectAttributes": self._asked.attributes,
        }
        if self._asked.last_will_topic is not None:
            values["iot:LastWillTopic"] = self._partition.arn("topic", self._asked.last_will_topic)
        return values

    def _of_thing(self) -> dict[str, str]:
        """Only of the thing that the connection is associated with (§5)."""
        principal = self._partition.certificate_arn(self._certificate_id)
        name = thing_of_connection(self._partition, principal, self._client_id)
        thing = None if name is None else self._partition.things.get(name)
        if thing is None:
            return {f"{_THING}IsAttached": "false"}
        values = {f"{_THING}ThingName": thing.name, f"{_THING}IsAttached": "true"}
        if thing.thing_type_name is not None:
            values[f"{_THING}ThingTypeName"] = thing.thing_type_name
        for key, value in thing.attributes.items():
            values[f"{_THING}Attributes[{key}]"] = value
        return values

    def _certificate(self) -> dict[str, str | tuple[str, ...]]:
        if self._of_certificate is None:
            record = self._partition.certificates.get(self._certificate_id)
            if record is None:
                return {}
            self._of_certificate = certificate_variables(x509.load_pem_x509_certificate(record.pem.encode()))
        return self._of_certificate


def certificate_variables(certificate: x509.Certificate) -> dict[str, str | tuple[str, ...]]:
    """``iot:Certificate.*``: the first value under the plain name, each under its index, all under ``.List``; and the
    names of all that have values under ``AvailableKeys`` (that they stand there as they are written in policies: I)."""
    values: dict[str, str | tuple[str, ...]] = {f"{_CERTIFICATE}SerialNumber": str(certificate.serial_number)}
    for whose, name in (("Subject", certificate.subject), ("Issuer", certificate.issuer)):
        for attribute, oid in ATTRIBUTES.items():
            found = [str(each.value) for each in name.get_attributes_for_oid(oid)]
            _put(values, f"{_CERTIFICATE}{whose}.{attribute}", found)
    for whose, alternative in _alternative_names(certificate):
        prefix = f"{_CERTIFICATE}{whose}.AlternativeName."
        _put(values, prefix + "RFC822Name", alternative.get_values_for_type(x509.RFC822Name))
        _put(values, prefix + "DNSName", alternative.get_values_for_type(x509.DNSName))
        uris = alternative.get_values_for_type(x509.UniformResourceIdentifier)
        _put(values, prefix + "UniformResourceIdentifier", uris)
        directories = alternative.get_values_for_type(x509.DirectoryName)
        _put(values, prefix + "DirectoryName", [each.rfc4514_string() for each in directories])
        addresses = alternative.get_values_for_type(x509.IPAddress)
        _put(values, prefix + "IPAddress", [str(each) for each in addresses])
    values[f"{_CERTIFICATE}AvailableKeys"] = tuple(name for name, value in values.items() if isinstance(value, str))
    return values


def _alternative_names(
    certificate: x509.Certificate,
) -> Iterator[tuple[str, x509.SubjectAlternativeName | x509.IssuerAlternativeName]]:
    try:
        extensions = certificate.extensions
    except UNREADABLE:  # an extension that cannot be parsed: the certificate may still be registered
        return
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            yield "Subject", extension.value
        elif isinstance(extension.value, x509.IssuerAlternativeName):
            yield "Issuer", extension.value


def _put(values: dict[str, str | tuple[str, ...]], name: str, found: list[str]) -> None:
    if found:
        values[f"{name}.List"] = tuple(found[:_MAX_VALUES])
    for index, value in enumerate(found[:_MAX_VALUES]):
        if index == 0:
            values[name] = value
        values[f"{name}.{index}"] = value
