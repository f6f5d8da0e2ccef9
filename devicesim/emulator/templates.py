"""The language of provisioning templates (aws-iot-behaviour.md §3; developer guide, "Provisioning templates", D). Pure.

A template is checked twice. :func:`parse` reads it when it is registered and refuses what could never be provisioned,
as AWS does at RegisterCACertificate (§1.2, S). :meth:`Template.resolve` fills in one certificate's parameters.

Texts marked S are AWS's own as far as somebody has shown them; all begin with "Invalid registration template."
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NoReturn, TypeGuard

from devicesim.emulator.apierrors import APIError, invalid_request

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
_SUBSTITUTION = re.compile(r"\$\{(!?)([^}]*)\}")
_MAX_DEPTH: Final = 32
"""Nesting that is followed; a template is 10 kB at most, and Python's stack is not the place to find that out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingPlan:
    """The thing to make, or to find."""

    name: str
    attributes: Mapping[str, str]
    thing_type_name: str | None
    groups: tuple[str, ...]
    billing_group: str | None
    overrides: Mapping[str, str]
    """By property; absent where the template does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPlan:
    """A policy to find by ``name``, or to make from ``document`` when nobody has."""

    name: str
    document: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a template says for one certificate."""

    certificate_id: str
    status: str
    """ACTIVE or INACTIVE."""
    thing: ThingPlan | None
    policies: tuple[PolicyPlan, ...]


def invalid_template(detail: str) -> APIError:
    return invalid_request(f"Invalid registration template. {detail}")


def _refuse(detail: str) -> NoReturn:
    raise invalid_template(detail)


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

    def resolve(self, values: Mapping[str, str]) -> Plan:
        """Fill in ``values`` (pseudo parameters of a certificate, or RegisterThing's parameters).

        Raises ``InvalidRequestException`` when one that is declared has neither value nor default: every declared
        parameter must exist, used or not (§3, D).
        """
        filled: dict[str, str] = {name: value for name, value in values.items() if name in PSEUDO_PARAMETERS}
        for name, default in self.parameters.items():
            value = values.get(name, default)
            if value is None:
                _refuse(f"Cannot resolve reference value: {{Ref={name}}}")  # text: M (§3, SE272476)
            filled[name] = value
        evaluate = _Evaluator(parameters=filled, mappings=self.mappings)
        thing: ThingPlan | None = None
        certificate: tuple[str, str] | None = None
        policies = []
        for resource in self.resources:
            properties = {key: evaluate.value(value) for key, value in resource.properties.items()}
            if resource.type == THING:
                thing = _thing(resource, properties)
            elif resource.type == CERTIFICATE:
                certificate = _certificate(resource, properties)
            else:
                policies.append(_policy(resource, properties))
        if certificate is None:  # parse() has seen to it
            _refuse("No certificate resource is present in the Template.")
        return Plan(certificate_id=certificate[0], status=certificate[1], thing=thing, policies=tuple(policies))


# --- reading --------------------------------------------------------------------------------------------------------


def parse(body: str) -> Template:
    """Read a template, or raise ``InvalidRequestException`` as AWS does when it is registered."""
    try:
        document = json.loads(body, object_pairs_hook=_unique)
    except json.JSONDecodeError as exc:
        # text: S (boto3 #2903), without the source that AWS repeats there
        _refuse(
            f"Template format error: JSON not well-formed with location of [line: {exc.lineno}, column: {exc.colno}]"
        )
    except RecursionError:
        _refuse("Template format error: JSON is nested too deeply")
    root = _object(document, "The template")
    parameters = _read_parameters(root.get("Parameters", {}))
    mappings = _read_mappings(root.get("Mappings", {}))
    resources = _read_resources(_object(root.get("Resources"), "Resources"))
    check = _Checker(names=PSEUDO_PARAMETERS.union(parameters), mappings=mappings)
    for resource in resources:
        for key, value in resource.properties.items():
            check.value(value, f"{resource.name}.{key}")
    return Template(parameters=parameters, mappings=mappings, resources=resources)


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) != len(pairs):
        _refuse("Template format error: an object has the same key twice")
    return out


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        _refuse(f"Template format error: {where} must be a JSON object")
    return value


def _read_parameters(section: object) -> Mapping[str, str | None]:
    parameters: dict[str, str | None] = {}
    for name, declared in _object(section, "Parameters").items():
        declaration = _object(declared, f"Parameters.{name}")
        if declaration.get("Type") != "String":
            _refuse(f"Parameter {name} must have Type String")
        default = declaration.get("Default")
        if default is not None and not isinstance(default, str):
            _refuse(f"The Default of parameter {name} must be a string")
        unknown = declaration.keys() - {"Type", "Default", "Description"}
        if unknown:
            _refuse(f"Parameter {name} has unknown members {sorted(unknown)}")
        if name.startswith(PSEUDO_PREFIX) and name not in PSEUDO_PARAMETERS:
            _refuse(f"Parameter {name} is not one that a certificate has")
        parameters[name] = default
    return parameters


def _read_mappings(section: object) -> Mapping[str, Mapping[str, Mapping[str, object]]]:
    mappings: dict[str, dict[str, Mapping[str, object]]] = {}
    for name, first in _object(section, "Mappings").items():
        levels = {}
        for key, second in _object(first, f"Mappings.{name}").items():
            entry = _object(second, f"Mappings.{name}.{key}")
            for last, value in entry.items():
                if not isinstance(value, str) and not _is_strings(value):
                    # no parameters and no functions here (D)
                    _refuse(f"Mappings.{name}.{key}.{last} must be a string or a list of strings")
            levels[key] = entry
        mappings[name] = levels
    return mappings


def _read_resources(section: Mapping[str, object]) -> tuple[_Resource, ...]:
    resources = []
    for name, value in section.items():
        declaration = _object(value, f"Resources.{name}")
        kind = declaration.get("Type")
        if not isinstance(kind, str) or kind not in _PROPERTIES:
            _refuse(f"Resource {name} has Type {kind}, must be one of {', '.join(_PROPERTIES)}")
        unknown = declaration.keys() - {"Type", "Properties", "OverrideSettings"}
        if unknown:
            _refuse(f"Resource {name} has unknown members {sorted(unknown)}")
        properties = _object(declaration.get("Properties", {}), f"Resources.{name}.Properties")
        unknown = properties.keys() - _PROPERTIES[kind]
        if unknown:
            _refuse(f"Resource {name} has unknown properties {sorted(unknown)}")
        overrides = _read_overrides(name, kind, declaration.get("OverrideSettings", {}))
        resource = _Resource(name=name, type=kind, properties=properties, overrides=overrides)
        _check_resource(resource)
        resources.append(resource)
    for kind, at_least in ((THING, 0), (CERTIFICATE, 1)):
        count = sum(resource.type == kind for resource in resources)
        if count > 1:
            _refuse(f"More than one resource of type {kind} is present in the Template.")
        if count < at_least:
            _refuse("No certificate resource is present in the Template.")
    return tuple(resources)


def _read_overrides(name: str, kind: str, section: object) -> Mapping[str, str]:
    overrides: dict[str, str] = {}
    for key, value in _object(section, f"Resources.{name}.OverrideSettings").items():
        allowed = _OVERRIDES[kind].get(key)
        if allowed is None or not isinstance(value, str) or value not in allowed:
            _refuse(f"Resource {name} has OverrideSettings {key} {value}, which is not supported for {kind}")
        overrides[key] = value
    return overrides


def _check_resource(resource: _Resource) -> None:
    properties = resource.properties
    if resource.type == POLICY:
        given = [key for key in ("PolicyName", "PolicyDocument") if properties.get(key) not in (None, "", {})]
        if not given:
            _refuse("Neither policyName nor policyDocument is present in the Template.")  # text: S (§1.2, WS #1)
        if len(given) > 1:
            _refuse("Both policyName and policyDocument are present in the Template.")  # rule D, text I
    elif resource.type == THING:
        if properties.get("ThingName") in (None, ""):
            _refuse("ThingName is not present in the Template.")
    else:
        sources = {"CertificateId", "CertificatePem", "CertificateSigningRequest"} & properties.keys()
        if len(sources) != 1:
            # D: "use only one of these methods"
            _refuse("Exactly one of certificateId, certificatePem and certificateSigningRequest must be present.")


def _is_strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# --- functions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checker:
    """The form of references and functions, as far as it does not depend on values."""

    names: frozenset[str]
    mappings: Mapping[str, object]

    def value(self, value: object, where: str, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            _refuse(f"{where} is nested too deeply")
        if isinstance(value, list):
            for item in value:
                self.value(item, where, depth + 1)
            return
        if not isinstance(value, dict):
            return
        call = _function(value)
        if call is None:
            for item in value.values():
                self.value(item, where, depth + 1)
            return
        name, argument = call
        if name == "Ref":
            if not isinstance(argument, str) or argument not in self.names:
                _refuse(f"Cannot resolve reference value: {{Ref={argument}}}")
            return
        shape = _SHAPES.get(name)
        if shape is None:
            _refuse(f"{where} calls {name}, must be one of {', '.join(('Ref', *_SHAPES))}")
        if not shape(argument):
            _refuse(f"{where} calls {name} with arguments of the wrong form")
        if name == "Fn::Sub":
            text, own = _sub_arguments(argument)
            for literal, variable in _SUBSTITUTION.findall(text):
                if not literal and variable not in self.names and variable not in own:
                    _refuse(f"Cannot resolve reference value: {{Ref={variable}}}")
            argument = list(own.values())
        if name == "Fn::FindInMap":
            self._check_mapping(argument, where)
        self.value(argument, where, depth + 1)

    def _check_mapping(self, argument: object, where: str) -> None:
        mapping = argument[0] if isinstance(argument, list) else None
        if isinstance(mapping, str) and mapping not in self.mappings:
            _refuse(f"{where} looks into the mapping {mapping}, which does not exist")


def _function(value: Mapping[str, object]) -> tuple[str, object] | None:
    """(name, argument) when this object is a call: its one key is Ref or begins with ``Fn::``."""
    if len(value) == 1:
        name, argument = next(iter(value.items()))
        if name == "Ref" or name.startswith("Fn::"):
            return name, argument
    return None


def _is_list(argument: object, length: int) -> TypeGuard[list[object]]:
    return isinstance(argument, list) and len(argument) == length


def _is_sub(argument: object) -> bool:
    if isinstance(argument, str):
        return True
    return _is_list(argument, 2) and isinstance(argument[0], str) and isinstance(argument[1], dict)


def _sub_arguments(argument: object) -> tuple[str, Mapping[str, object]]:
    if isinstance(argument, str):
        return argument, {}
    assert isinstance(argument, list)  # _is_sub has seen to it
    text, own = argument
    return text, own


_SHAPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "Fn::Join": lambda argument: _is_list(argument, 2) and isinstance(argument[0], str),
    "Fn::Select": lambda argument: _is_list(argument, 2),
    "Fn::Sub": _is_sub,
    "Fn::Split": lambda argument: _is_list(argument, 2) and isinstance(argument[0], str) and argument[0] != "",
    "Fn::FindInMap": lambda argument: _is_list(argument, 3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluator:
    """Functions with their values. The form has been checked."""

    parameters: Mapping[str, str]
    mappings: Mapping[str, Mapping[str, Mapping[str, object]]] = field(default_factory=dict)

    def value(self, value: object) -> object:
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if not isinstance(value, dict):
            return value
        call = _function(value)
        if call is None:
            return {key: self.value(item) for key, item in value.items()}
        name, argument = call
        match name:
            case "Ref":
                return self.parameter(str(argument))
            case "Fn::Sub":
                return self._sub(argument)
        arguments = self.value(argument)
        assert isinstance(arguments, list)  # its form has been checked
        match name:
            case "Fn::Join":
                return _join(*arguments)
            case "Fn::Select":
                return _select(*arguments)
            case "Fn::Split":
                return _split(*arguments)
            case _:
                return self._find(*arguments)

    def parameter(self, name: str) -> str:
        value = self.parameters.get(name)
        if value is None:
            _refuse(f"Cannot resolve reference value: {{Ref={name}}}")  # text: M (§3)
        return value

    def _sub(self, argument: object) -> str:
        text, own = _sub_arguments(argument)
        local = {key: self.value(value) for key, value in own.items()}

        def replace(match: re.Match[str]) -> str:
            literal, variable = match.groups()
            if literal:
                return f"${{{variable}}}"
            value = local[variable] if variable in local else self.parameter(variable)
            if not isinstance(value, str):
                _refuse(f"Fn::Sub replaces {variable} by something that is not a string")
            return value

        return _SUBSTITUTION.sub(replace, text)

    def _find(self, *keys: object) -> object:
        value: object = self.mappings
        for key in keys:
            if not isinstance(key, str) or not isinstance(value, Mapping) or key not in value:
                _refuse(f"Fn::FindInMap does not find {'.'.join(map(str, keys))}")
            value = value[key]
        return value


def _join(delimiter: object, values: object) -> str:
    if not isinstance(delimiter, str) or not _is_strings(values):
        _refuse("Fn::Join needs a delimiter and a list of strings")
    return delimiter.join(values)


def _select(index: object, values: object) -> object:
    if isinstance(index, str) and index.isascii() and index.isdigit():
        index = int(index)
    if not isinstance(index, int) or isinstance(index, bool) or not isinstance(values, list):
        _refuse("Fn::Select needs an index and a list")
    if not 0 <= index < len(values) or values[index] is None:
        # D: "does not check for null values or if the index is out of bounds; both result in a provisioning error"
        _refuse(f"Fn::Select has index {index} for a list of {len(values)}")
    return values[index]


def _split(delimiter: object, text: object) -> list[str]:
    if not isinstance(delimiter, str) or not isinstance(text, str):
        _refuse("Fn::Split needs a delimiter and a string")
    return text.split(delimiter)


# --- resources ------------------------------------------------------------------------------------------------------


def _string(properties: Mapping[str, object], key: str, resource: _Resource) -> str | None:
    value = properties.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        _refuse(f"{key} of resource {resource.name} must be a string")
    return value


def _thing(resource: _Resource, properties: Mapping[str, object]) -> ThingPlan:
    name = _string(properties, "ThingName", resource)
    if not name:
        _refuse("ThingName is not present in the Template.")
    attributes = properties.get("AttributePayload") or {}
    if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
        _refuse(f"AttributePayload of resource {resource.name} must be an object of strings")
    groups = properties.get("ThingGroups") or []
    if not _is_strings(groups):
        _refuse(f"ThingGroups of resource {resource.name} must be a list of strings")
    return ThingPlan(
        name=name,
        attributes=attributes,
        thing_type_name=_string(properties, "ThingTypeName", resource),
        groups=tuple(dict.fromkeys(groups)),
        billing_group=_string(properties, "BillingGroup", resource),
        overrides=resource.overrides,
    )


def _certificate(resource: _Resource, properties: Mapping[str, object]) -> tuple[str, str]:
    """(certificate id, status): the only form that JITP takes (D: "You must use CertificateId")."""
    certificate_id = _string(properties, "CertificateId", resource)
    if certificate_id is None:
        _refuse("certificateId is not present in the Template; just-in-time provisioning needs it.")
    status = (_string(properties, "Status", resource) or "ACTIVE").upper()  # the guide itself writes "Active"
    if status not in _STATUSES:
        _refuse(f"Status of resource {resource.name} must be ACTIVE or INACTIVE")
    return certificate_id, status


def _policy(resource: _Resource, properties: Mapping[str, object]) -> PolicyPlan:
    name = _string(properties, "PolicyName", resource)
    if name:
        return PolicyPlan(name=name, document=None)
    document = properties.get("PolicyDocument")
    if isinstance(document, dict):
        document = json.dumps(document, separators=(",", ":"))
    if not isinstance(document, str) or not document:
        _refuse("Neither policyName nor policyDocument is present in the Template.")
    # D: the name "defaults to a hash of the policy document", so that identical documents share one; which hash, I
    return PolicyPlan(name=sha256(document.encode()).hexdigest(), document=document)
