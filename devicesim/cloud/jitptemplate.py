"""What a JITP template asks of a certificate and of its account (aws-iot-behaviour.md §3). Pure.

Read as leniently as a diagnosis can afford: what is not understood is left out and called a problem only where AWS
would refuse it. Whether AWS takes the template is its own to say, at RegisterCACertificate.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

PREFIX = "AWS::IoT::Certificate::"
SUBJECT_PARAMETERS = {
    "CommonName": NameOID.COMMON_NAME,
    "SerialNumber": NameOID.SERIAL_NUMBER,
    "Organization": NameOID.ORGANIZATION_NAME,
    "OrganizationalUnit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "Country": NameOID.COUNTRY_NAME,
    "StateName": NameOID.STATE_OR_PROVINCE_NAME,
    "DistinguishedNameQualifier": NameOID.DN_QUALIFIER,
}
"""Parameters that are attributes of the subject (§3, D), without :data:`PREFIX`."""
_THING_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_SUBSTITUTION = re.compile(r"\$\{(?!!)([^}]*)\}")
_DEEPEST = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingWanted:
    """The thing that the template makes, or merges with the one that is there."""

    name: str
    type_name: str | None
    attributes: Mapping[str, str] | None
    """``None``: they cannot be told."""
    overridden: frozenset[str]
    """Properties for which OverrideSettings say something else than FAIL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a template needs for one certificate."""

    missing_parameters: tuple[str, ...] = ()
    """Declared without Default, and not in the subject; in full."""
    problems: tuple[str, ...] = ()
    """Why it would fail whatever the account holds."""
    thing: ThingWanted | None = None
    groups: tuple[str, ...] = ()
    billing_group: str | None = None
    policies: tuple[str, ...] = ()
    """Those that it names; one that it has the document of is made."""


def subject_parameters(subject: x509.Name) -> dict[str, str]:
    """What of a subject a template can refer to, without :data:`PREFIX`; of several values the first."""
    found = {name: subject.get_attributes_for_oid(oid) for name, oid in SUBJECT_PARAMETERS.items()}
    return {name: str(values[0].value) for name, values in found.items() if values}


def read(body: str, subject: Mapping[str, str], certificate_id: str) -> Wanted:
    """What the template needs for the certificate with these subject parameters (without :data:`PREFIX`)."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as exc:
        return Wanted(problems=(f"the template is not JSON: {' '.join(str(exc).split())[:100]}",))
    declared, resources = _table(document, "Parameters"), _table(document, "Resources")
    values = {PREFIX + name: value for name, value in subject.items()} | {PREFIX + "Id": certificate_id}
    missing = []
    for name, about in declared.items():
        default = about.get("Default") if isinstance(about, Mapping) else None
        if name not in values and default is None:
            missing.append(name)
        elif name not in values:
            values[name] = str(default)
    if missing:  # whatever refers to them would only be told again
        return Wanted(missing_parameters=tuple(missing))
    reader = _Reader(values, _table(document, "Mappings"))
    return reader.wanted([each for each in resources.values() if isinstance(each, Mapping)])


class _Reader:
    """Fills in references and functions; what cannot be told is ``None``."""

    def __init__(self, values: Mapping[str, str], mappings: Mapping[str, Any]) -> None:
        self._values = values
        self._mappings = mappings
        self._problems: list[str] = []

    def wanted(self, resources: list[Mapping[str, Any]]) -> Wanted:
        thing: ThingWanted | None = None
        groups: tuple[str, ...] = ()
        billing_group = None
        policies = []
        for resource in resources:
            properties = _table(resource, "Properties")
            match resource.get("Type"):
                case "AWS::IoT::Thing":
                    thing = self._thing(properties, _table(resource, "OverrideSettings"))
                    given = self._value(properties.get("ThingGroups"))
                    groups = tuple(each for each in given if isinstance(each, str)) if isinstance(given, list) else ()
                    billing_group = self._text(properties.get("BillingGroup"))
                case "AWS::IoT::Policy":
                    policies.append(self._text(properties.get("PolicyName")))
        return Wanted(
            problems=tuple(dict.fromkeys(self._problems)),
            thing=thing,
            groups=groups,
            billing_group=billing_group,
            policies=tuple(each for each in policies if each is not None),
        )

    def _thing(self, properties: Mapping[str, Any], overrides: Mapping[str, Any]) -> ThingWanted | None:
        name = self._text(properties.get("ThingName"))
        if name is None:
            return None
        if not _THING_NAME.fullmatch(name):
            self._problems.append(f"{name!r} cannot be a thing's name: letters, digits, ':', '_' and '-', at most 128")
        payload = _table(properties, "AttributePayload")
        attributes = self._value(payload)
        known = isinstance(attributes, Mapping) and all(isinstance(each, str) for each in attributes.values())
        return ThingWanted(
            name=name,
            type_name=self._text(properties.get("ThingTypeName")),
            attributes=attributes if known and isinstance(attributes, Mapping) else None,
            overridden=frozenset(name for name, action in overrides.items() if action != "FAIL"),
        )

    def _text(self, value: object) -> str | None:
        found = self._value(value)
        return found if isinstance(found, str) else None

    def _value(self, value: object, depth: int = 0) -> object:
        if depth > _DEEPEST:
            return None
        if isinstance(value, list):
            return [self._value(each, depth + 1) for each in value]
        if not isinstance(value, Mapping):
            return value
        if len(value) == 1:
            name, argument = next(iter(value.items()))
            if name == "Ref":
                return self._referred(str(argument))
            if str(name).startswith("Fn::"):
                return self._function(str(name), argument, depth)
        return {key: self._value(each, depth + 1) for key, each in value.items()}

    def _referred(self, name: str) -> str | None:
        if name not in self._values:
            self._problems.append(f"it refers to {name}, which is no parameter of it and not in the certificate")
        return self._values.get(name)

    def _function(self, name: str, argument: object, depth: int) -> object:
        if name == "Fn::Sub":
            return self._substituted(argument, depth)
        arguments = self._value(argument, depth + 1)
        match name, arguments:
            case "Fn::Join", [str() as between, list() as parts] if all(isinstance(each, str) for each in parts):
                return between.join(parts)
            case "Fn::Split", [str() as between, str() as text] if between:
                return text.split(between)
            case "Fn::Select", [int() | str() as index, list() as items] if str(index).isdecimal():
                return items[int(index)] if int(index) < len(items) else None
            case "Fn::FindInMap", [str() as mapping, str() as key, str() as second]:
                return _table(_table(self._mappings, mapping), key).get(second)
            case _:
                return None

    def _substituted(self, argument: object, depth: int) -> str | None:
        text, own = argument if isinstance(argument, list) and len(argument) == 2 else (argument, {})
        if not isinstance(text, str) or not isinstance(own, Mapping):
            return None
        given = {str(key): self._value(each, depth + 1) for key, each in own.items()}
        values = {name: given[name] if name in given else self._referred(name) for name in _SUBSTITUTION.findall(text)}
        if any(value is None for value in values.values()):
            return None
        return _SUBSTITUTION.sub(lambda found: str(values[found[1]]), text).replace("${!", "${")


def _table(document: object, name: str) -> Mapping[str, Any]:
    found = document.get(name) if isinstance(document, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def collisions(wanted: ThingWanted, type_name: str | None, attributes: Mapping[str, str]) -> Iterator[str]:
    """What of a thing that is there already is in the way, for a template that does not override it (§3, §9 row 5)."""
    if wanted.type_name not in (None, type_name) and "ThingTypeName" not in wanted.overridden:
        held = "no type" if not type_name else f"the type {type_name!r}"
        yield f"the thing {wanted.name!r} exists with {held}, not {wanted.type_name!r}"
    known = wanted.attributes is not None and "AttributePayload" not in wanted.overridden
    if known and dict(wanted.attributes or {}) != dict(attributes):
        yield f"the thing {wanted.name!r} exists with other attributes than the template's"
