"""The language of provisioning templates (aws-iot-behaviour.md §3; developer guide, "Provisioning templates", D). Pure.

A template is checked twice. :func:`parse` reads it when it is registered and refuses what could never be provisioned,
as AWS does at RegisterCACertificate (§1.2, S). :meth:`Template.resolve` fills in one device's parameters. Functions
stand in :mod:`~devicesim.emulator.templatefunctions`.

Texts marked S are AWS's own as far as somebody has shown them; all begin with "Invalid registration template."
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha1
from typing import Final, NoReturn

from devicesim.emulator.templatefunctions import Checker, Evaluator, is_call, is_strings, refuse

PSEUDO_PREFIX: Final = "AWS::IoT::Certificate::"
PSEUDO_PARAMETERS: Final = frozenset(
    PSEUDO_PREFIX + name
    for name in (
        "Country",
        "Organization",
        "OrganizationalUnit",
        "DistinguishedNameQualifier",
        "StateName",
        "CommonName",
        "SerialNumber",
        "Id",
    )
)
"""What can be taken from a certificate (§3, D): its subject, and its id. No locality, e-mail or alternative name."""

THING: Final = "AWS::IoT::Thing"
CERTIFICATE: Final = "AWS::IoT::Certificate"
POLICY: Final = "AWS::IoT::Policy"
_PROPERTIES: Final[Mapping[str, frozenset[str]]] = {
    THING: frozenset({"ThingName", "AttributePayload", "ThingTypeName", "ThingGroups", "BillingGroup"}),
    CERTIFICATE: frozenset(
        {"CertificateId", "CertificatePem", "CACertificatePem", "CertificateSigningRequest", "Status"}
    ),
    POLICY: frozenset({"PolicyName", "PolicyDocument"}),
}
_OVERRIDES: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    THING: {
        "AttributePayload": frozenset({"DO_NOTHING", "REPLACE", "FAIL", "MERGE"}),
        "ThingTypeName": frozenset({"DO_NOTHING", "REPLACE", "FAIL"}),
        "ThingGroups": frozenset({"DO_NOTHING", "REPLACE", "FAIL", "MERGE"}),
    },
    CERTIFICATE: {"Status": frozenset({"DO_NOTHING", "REPLACE", "FAIL"})},
    POLICY: {},
}
_STATUSES: Final = frozenset({"ACTIVE", "INACTIVE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingPlan:
    """The thing to make, or to find."""

    logical_name: str
    name: str
    attributes: Mapping[str, str]
    thing_type_name: str | None
    groups: tuple[str, ...]
    billing_group: str | None
    overrides: Mapping[str, str]
    """By property; absent where the template does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePlan:
    """The certificate, by exactly one of its id, its PEM text (with its CA's, where there are several) and a CSR."""

    logical_name: str
    certificate_id: str | None = None
    pem: str | None = None
    ca_pem: str | None = None
    csr: str | None = None
    status: str
    """ACTIVE or INACTIVE."""
    override: str | None = None
    """Of the status, for a certificate that exists: DO_NOTHING, REPLACE or FAIL; ``None`` where nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPlan:
    """A policy to find by ``name``, or to make from ``document`` when nobody has."""

    logical_name: str
    name: str
    document: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a template says for one device."""

    certificate: CertificatePlan
    thing: ThingPlan | None
    policies: tuple[PolicyPlan, ...]
    device_configuration: Mapping[str, object] = field(default_factory=dict)
    """What a fleet provisioning template has for the device itself (D); empty when it has nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resource:
    name: str
    """Logical name."""
    type: str
    properties: Mapping[str, object]
    overrides: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template that has been checked. Made by :func:`parse`."""

    parameters: Mapping[str, str | None]
    """Declared parameters with their defaults."""
    mappings: Mapping[str, Mapping[str, Mapping[str, object]]]
    resources: tuple[_Resource, ...]
    device_configuration: Mapping[str, object]

    def resolve(self, values: Mapping[str, str], *, every_declared: bool = True) -> Plan:
        """Fill in ``values`` (pseudo parameters of a certificate, or RegisterThing's parameters).

        Raises ``InvalidRequestException`` for a reference without value. ``every_declared`` says that a declared
        parameter with neither value nor default is refused also when nothing refers to it: so in JITP, where the
        certificate "must contain values for all of the parameters" (§3, D), and not in RegisterThing, where such a
        parameter "is not replaced with a value" (developer guide, "Provisioning by trusted user", D).
        """
        filled: dict[str, str] = {name: value for name, value in values.items() if name in PSEUDO_PARAMETERS}
        for name, default in self.parameters.items():
            value = values.get(name, default)
            if value is not None:
                filled[name] = value
            elif every_declared:
                refuse(f"Cannot resolve reference value: {{Ref={name}}}")  # text: M (§3, SE272476)
        evaluate = Evaluator(parameters=filled, mappings=self.mappings)
        thing: ThingPlan | None = None
        certificate: CertificatePlan | None = None
        policies = []
        for resource in self.resources:
            properties = {key: evaluate.value(value) for key, value in resource.properties.items()}
            _check_text(properties, resource.name)
            if resource.type == THING:
                thing = _thing(resource, properties)
            elif resource.type == CERTIFICATE:
                certificate = _certificate(resource, properties)
            else:
                policies.append(_policy(resource, properties))
        if certificate is None:  # parse() has seen to it
            refuse("No certificate resource is present in the Template.")
        configuration = evaluate.value(self.device_configuration)
        assert isinstance(configuration, dict)  # an object that is no call stays one
        _check_text(configuration, "DeviceConfiguration")
        return Plan(
            certificate=certificate,
            thing=thing,
            policies=tuple(policies),
            device_configuration=configuration,
        )


# --- reading --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def parse(body: str) -> Template:
    """Read a template, or raise ``InvalidRequestException`` as AWS does when it is registered.

    What has been read is kept: a fleet runs one template thousands of times, and it never changes.
    """
    try:
        document = json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:
        # text: S (boto3 #2903), without the source that AWS repeats there
        refuse(
            f"Template format error: JSON not well-formed with location of [line: {exc.lineno}, column: {exc.colno}]"
        )
    except RecursionError:
        refuse("Template format error: JSON is nested too deeply")
    except ValueError:  # Python's limit of digits
        refuse("Template format error: JSON not well-formed: a number is too long")
    root = _object(document, "The template")
    parameters = _read_parameters(root.get("Parameters", {}))
    mappings = _read_mappings(root.get("Mappings", {}))
    resources = _read_resources(_object(root.get("Resources"), "Resources"))
    check = Checker(names=PSEUDO_PARAMETERS.union(parameters), mappings=mappings)
    for resource in resources:
        for key, value in resource.properties.items():
            check.value(value, f"{resource.name}.{key}")
    configuration = _object(root.get("DeviceConfiguration", {}), "DeviceConfiguration")
    for key, value in configuration.items():
        check.value(value, f"DeviceConfiguration.{key}")
    if is_call(configuration):
        refuse("Template format error: DeviceConfiguration must be a JSON object and not a function")
    return Template(parameters=parameters, mappings=mappings, resources=resources, device_configuration=configuration)


def check_registered(body: str) -> None:
    """What is asked of a template that is registered, for a CA or by its own name: more than of RegisterThing's.

    Its certificate must be given by id ("only certificate IDs can be used with a fleet provisioning template", and so
    in JITP; rule D, that it is asked now and not when it runs I).
    """
    for resource in parse(body).resources:
        if resource.type == CERTIFICATE and "CertificateId" not in resource.properties:
            refuse("certificateId is not present in the Template; a registered template needs it.")


def _no_constant(name: str) -> NoReturn:
    """``NaN`` and the infinities, which Python's parser takes and JSON has not."""
    refuse(f"Template format error: JSON not well-formed: {name} is no value")


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) != len(pairs):
        refuse("Template format error: an object has the same key twice")
    return out


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        refuse(f"Template format error: {where} must be a JSON object")
    return value


def _read_parameters(section: object) -> Mapping[str, str | None]:
    parameters: dict[str, str | None] = {}
    for name, declared in _object(section, "Parameters").items():
        declaration = _object(declared, f"Parameters.{name}")
        if declaration.get("Type") != "String":
            refuse(f"Parameter {name} must have Type String")
        default = declaration.get("Default")
        if default is not None and not isinstance(default, str):
            refuse(f"The Default of parameter {name} must be a string")
        unknown = declaration.keys() - {"Type", "Default", "Description"}
        if unknown:
            refuse(f"Parameter {name} has unknown members {sorted(unknown)}")
        if name.startswith(PSEUDO_PREFIX) and name not in PSEUDO_PARAMETERS:
            refuse(f"Parameter {name} is not one that a certificate has")
        parameters[name] = default
    return parameters


def _read_mappings(section: object) -> Mapping[str, Mapping[str, Mapping[str, object]]]:
    mappings: dict[str, dict[str, Mapping[str, object]]] = {}
    for name, first in _object(section, "Mappings").items():
        levels = {}
        for key, second in _object(first, f"Mappings.{name}").items():
            entry = _object(second, f"Mappings.{name}.{key}")
            for last, value in entry.items():
                if not isinstance(value, str) and not is_strings(value):
                    # no parameters and no functions here (D)
                    refuse(f"Mappings.{name}.{key}.{last} must be a string or a list of strings")
            levels[key] = entry
        mappings[name] = levels
    return mappings


def _read_resources(section: Mapping[str, object]) -> tuple[_Resource, ...]:
    resources = []
    for name, value in section.items():
        declaration = _object(value, f"Resources.{name}")
        kind = declaration.get("Type")
        if not isinstance(kind, str) or kind not in _PROPERTIES:
            refuse(f"Resource {name} has Type {kind}, must be one of {', '.join(_PROPERTIES)}")
        unknown = declaration.keys() - {"Type", "Properties", "OverrideSettings"}
        if unknown:
            refuse(f"Resource {name} has unknown members {sorted(unknown)}")
        properties = _object(declaration.get("Properties", {}), f"Resources.{name}.Properties")
        unknown = properties.keys() - _PROPERTIES[kind]
        if unknown:
            refuse(f"Resource {name} has unknown properties {sorted(unknown)}")
        overrides = _read_overrides(name, kind, declaration.get("OverrideSettings", {}))
        resource = _Resource(name=name, type=kind, properties=properties, overrides=overrides)
        _check_resource(resource)
        resources.append(resource)
    for kind, at_least in ((THING, 0), (CERTIFICATE, 1)):
        count = sum(resource.type == kind for resource in resources)
        if count > 1:
            refuse(f"More than one resource of type {kind} is present in the Template.")
        if count < at_least:
            refuse("No certificate resource is present in the Template.")
    return tuple(resources)


def _read_overrides(name: str, kind: str, section: object) -> Mapping[str, str]:
    overrides: dict[str, str] = {}
    for key, value in _object(section, f"Resources.{name}.OverrideSettings").items():
        allowed = _OVERRIDES[kind].get(key)
        if allowed is None or not isinstance(value, str) or value not in allowed:
            refuse(f"Resource {name} has OverrideSettings {key} {value}, which is not supported for {kind}")
        overrides[key] = value
    return overrides


def _check_resource(resource: _Resource) -> None:
    properties = resource.properties
    if resource.type == POLICY:
        given = [key for key in ("PolicyName", "PolicyDocument") if properties.get(key) not in (None, "", {})]
        if not given:
            refuse("Neither policyName nor policyDocument is present in the Template.")  # text: S (§1.2, WS #1)
        if len(given) > 1:
            refuse("Both policyName and policyDocument are present in the Template.")  # rule D, text I
    elif resource.type == THING:
        if properties.get("ThingName") in (None, ""):
            refuse("ThingName is not present in the Template.")
    else:
        sources = {"CertificateId", "CertificatePem", "CertificateSigningRequest"} & properties.keys()
        if len(sources) != 1:
            # D: "use only one of these methods"
            refuse("Exactly one of certificateId, certificatePem and certificateSigningRequest must be present.")
        if "CACertificatePem" in properties and "CertificatePem" not in properties:
            refuse("caCertificatePem is present in the Template without certificatePem.")
        status = properties.get("Status")
        if isinstance(status, str) and status.upper() not in _STATUSES:
            refuse(f"Status of resource {resource.name} must be ACTIVE or INACTIVE")


# --- resources ------------------------------------------------------------------------------------------------------


def _check_text(values: Mapping[str, object], where: str) -> None:
    """JSON can spell halves of characters, which no name, document or message can hold."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        refuse(f"Template format error: {where} has a text that is not Unicode")


def _string(properties: Mapping[str, object], key: str, resource: _Resource) -> str | None:
    value = properties.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        refuse(f"{key} of resource {resource.name} must be a string")
    return value


def _thing(resource: _Resource, properties: Mapping[str, object]) -> ThingPlan:
    name = _string(properties, "ThingName", resource)
    if not name:
        refuse("ThingName is not present in the Template.")
    attributes = properties.get("AttributePayload") or {}
    if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
        refuse(f"AttributePayload of resource {resource.name} must be an object of strings")
    groups = properties.get("ThingGroups") or []
    if not is_strings(groups):
        refuse(f"ThingGroups of resource {resource.name} must be a list of strings")
    return ThingPlan(
        logical_name=resource.name,
        name=name,
        attributes=attributes,
        thing_type_name=_string(properties, "ThingTypeName", resource),
        groups=tuple(dict.fromkeys(groups)),
        billing_group=_string(properties, "BillingGroup", resource),
        overrides=resource.overrides,
    )


def _certificate(resource: _Resource, properties: Mapping[str, object]) -> CertificatePlan:
    status = (_string(properties, "Status", resource) or "ACTIVE").upper()  # the guide itself writes "Active"
    if status not in _STATUSES:
        refuse(f"Status of resource {resource.name} must be ACTIVE or INACTIVE")
    plan = CertificatePlan(
        logical_name=resource.name,
        certificate_id=_string(properties, "CertificateId", resource),
        pem=_string(properties, "CertificatePem", resource),
        ca_pem=_string(properties, "CACertificatePem", resource),
        csr=_string(properties, "CertificateSigningRequest", resource),
        status=status,
        override=resource.overrides.get("Status"),
    )
    if not (plan.certificate_id or plan.pem or plan.csr):
        refuse("certificateId is not present in the Template.")
    return plan


def _policy(resource: _Resource, properties: Mapping[str, object]) -> PolicyPlan:
    name = _string(properties, "PolicyName", resource)
    if name:
        return PolicyPlan(logical_name=resource.name, name=name, document=None)
    document = properties.get("PolicyDocument")
    if isinstance(document, dict):
        document = json.dumps(document, separators=(",", ":"))
    if not isinstance(document, str) or not document:
        refuse("Neither policyName nor policyDocument is present in the Template.")
    # D: the name "defaults to a hash of the policy document", so that identical documents share one. The guide's own
    # example is forty upper-case hexadecimal digits (D), as SHA-1 has them; that it is SHA-1, and of what, is I.
    digest = sha1(document.encode(), usedforsecurity=False).hexdigest().upper()
    return PolicyPlan(logical_name=resource.name, name=digest, document=document)
