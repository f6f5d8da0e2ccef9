"""Policy documents: checked when they are stored, evaluated at each action of a device. Pure.

AWS IoT follows the conventions and the evaluation logic of IAM (developer guide, iot-policies, D): everything is denied
that no statement allows, and a statement that denies outweighs every one that allows. Which variables have a value is
the caller's affair (``iot:ClientId``, ``iot:Connection.Thing.ThingName``, ``iot:Certificate.Subject.CommonName``, ...;
see aws-iot-behaviour.md §5).

    document = parse('{"Version": "2012-10-17", "Statement": [...]}')
    evaluate([document], action="iot:Connect", resource="arn:aws:iot:...:client/robot-1", variables={...})
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from devicesim.emulator.apierrors import malformed_policy
from devicesim.emulator.policyconditions import ARN_TESTS, Condition, Operator, Quantifier, parse_operator
from devicesim.emulator.policypattern import ArnPattern, Pattern, Values

VERSION_WITH_VARIABLES = "2012-10-17"
VERSIONS = (VERSION_WITH_VARIABLES, "2008-10-17")
"""A document without a version is of the older one, as in IAM's grammar (D for IAM, I for IoT)."""
_DOCUMENT_KEYS = frozenset({"Version", "Id", "Statement"})
_STATEMENT_KEYS = frozenset({"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"})
"""Principal is no element of IoT policies: they are attached to principals."""
_ACTION = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_VARIABLE_OPENS = re.compile(r"\$\{(?![^}]*\})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    allows: bool
    """Effect is Allow; else Deny."""
    actions: tuple[Pattern, ...]
    not_action: bool
    """``actions`` stood under NotAction: the statement is about all others."""
    resources: tuple[Pattern, ...]
    not_resource: bool
    conditions: tuple[Condition, ...] = ()

    def applies(self, action: str, resource: str, variables: Values) -> bool:
        action_named = any(pattern.matches(action, {}, ignore_case=True) for pattern in self.actions)
        if action_named == self.not_action:
            return False
        resource_named = any(pattern.matches(resource, variables) for pattern in self.resources)
        if resource_named == self.not_resource:
            return False
        return all(condition.holds(variables) for condition in self.conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A policy document that has been checked."""

    statements: tuple[Statement, ...]


def evaluate(documents: Iterable[Document], *, action: str, resource: str, variables: Values) -> bool:
    """Whether the documents together allow ``action`` (``iot:Publish``) on ``resource`` (an ARN).

    ``variables`` holds the values of policy variables and condition keys; one that is absent has no value.
    """
    allowed = False
    for document in documents:
        for statement in document.statements:
            if statement.allows and allowed:
                continue
            if statement.applies(action, resource, variables):
                if not statement.allows:
                    return False
                allowed = True
    return allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What the statements of one document do about one action on one resource."""

    allows: bool
    denies: bool


def effects(document: Document, *, action: str, resource: str, variables: Values) -> Effects:
    """The same as :func:`evaluate`, of one document and both ways: for who wants to know why."""
    applying = [each.allows for each in document.statements if each.applies(action, resource, variables)]
    return Effects(allows=any(applying), denies=not all(applying))


def variables_of(document: Document) -> set[str]:
    """Names of the policy variables and condition keys that a document asks for."""
    names: set[str] = set()
    for statement in document.statements:
        names.update(name for pattern in statement.resources for name in pattern.variables)
        for condition in statement.conditions:
            names.add(condition.key)
            names.update(name for value in condition.values for name in value.variables)
    return names


def parse(text: str) -> Document:
    """Read a document, or raise ``MalformedPolicyException`` saying what is wrong and where."""
    try:
        document = json.loads(text, object_pairs_hook=_object_without_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise _malformed(f"it is not JSON ({exc})") from exc
    if not isinstance(document, dict):
        raise _malformed("it is not a JSON object")
    _check_keys(document, _DOCUMENT_KEYS, "the document")
    version = document.get("Version", VERSIONS[1])
    if version not in VERSIONS:
        raise _malformed(f"Version is {version!r}, expected one of {', '.join(VERSIONS)}")
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise _malformed("Statement is missing or empty")
    expand = version == VERSION_WITH_VARIABLES
    parsed = [_statement(item, f"Statement[{number}]", expand) for number, item in enumerate(statements)]
    sids = [item["Sid"] for item in statements if "Sid" in item]
    duplicate = next((sid for sid in sids if sids.count(sid) > 1), None)
    if duplicate is not None:
        raise _malformed(f"the Sid {duplicate!r} stands more than once")
    return Document(statements=tuple(parsed))


def _statement(item: object, where: str, expand: bool) -> Statement:
    if not isinstance(item, dict):
        raise _malformed(f"{where} is not a JSON object")
    _check_keys(item, _STATEMENT_KEYS, where)
    if not isinstance(item.get("Sid", ""), str):
        raise _malformed(f"{where}.Sid is not a string")
    effect = item.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise _malformed(f"{where}.Effect is {effect!r}, expected Allow or Deny")
    actions, not_action = _one_of(item, "Action", where)
    for action in actions:
        if action != "*" and not _ACTION.fullmatch(action):
            raise _malformed(f"{where} has the action {action!r}, expected *, or service:name as in iot:Connect")
    resources, not_resource = _one_of(item, "Resource", where)
    for resource in resources:
        if resource != "*" and not resource.startswith("arn:"):
            raise _malformed(f"{where} has the resource {resource!r}, expected * or an ARN")
    return Statement(
        allows=effect == "Allow",
        actions=tuple(Pattern(action, expand_variables=False) for action in actions),
        not_action=not_action,
        resources=tuple(_pattern(resource, expand, where) for resource in resources),
        not_resource=not_resource,
        conditions=_conditions(item.get("Condition", {}), f"{where}.Condition", expand),
    )


def _conditions(block: object, where: str, expand: bool) -> tuple[Condition, ...]:
    if not isinstance(block, dict):
        raise _malformed(f"{where} is not a JSON object")
    conditions: list[Condition] = []
    for operator, keys in block.items():
        parsed = parse_operator(operator)
        if parsed is None:
            raise _malformed(f"{where} has the operator {operator!r}, which does not exist")
        if not isinstance(keys, dict) or not keys:
            raise _malformed(f"{where}.{operator} is not a JSON object with keys")
        for key, values in keys.items():
            texts = [_condition_value(value, f"{where}.{operator}.{key}") for value in _listed(values)]
            if not texts and parsed.quantifier is Quantifier.ONE:  # an empty set is one (developer guide, D)
                raise _malformed(f"{where}.{operator}.{key} has no values")
            values_of_key = tuple(_expected(value, parsed, expand, where) for value in texts)
            conditions.append(Condition(operator=parsed, key=key, values=values_of_key))
    return tuple(conditions)


def _condition_value(value: object, where: str) -> str:
    """Numbers and booleans may stand as such; IAM reads them as their text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise _malformed(f"{where} has the value {value!r}, expected a string")


def _expected(text: str, operator: Operator, expand: bool, where: str) -> Pattern | ArnPattern:
    pattern = _pattern(text, expand, where)
    return ArnPattern(text, expand_variables=expand) if operator.test in ARN_TESTS else pattern


def _pattern(text: str, expand: bool, where: str) -> Pattern:
    if expand and _VARIABLE_OPENS.search(text):
        raise _malformed(f"{where} has {text!r}, in which a policy variable is not closed")
    return Pattern(text, expand_variables=expand)


def _one_of(item: Mapping[str, object], name: str, where: str) -> tuple[list[str], bool]:
    """The values under ``name`` or ``Not<name>``, of which exactly one must stand, and whether it was the latter."""
    negated = f"Not{name}"
    if (name in item) == (negated in item):
        raise _malformed(f"{where} must have either {name} or {negated}")
    present = name if name in item else negated
    values = _listed(item[present])
    texts = [value for value in values if isinstance(value, str)]
    if not values or len(texts) != len(values):
        raise _malformed(f"{where}.{present} is neither a string nor a list of strings")
    return texts, present == negated


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _check_keys(item: Mapping[str, object], allowed: frozenset[str], where: str) -> None:
    unknown = [key for key in item if key not in allowed]
    if unknown:
        raise _malformed(f"{where} has the element {unknown[0]!r}, expected one of {', '.join(sorted(allowed))}")


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands more than once")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _malformed(problem: str) -> Exception:
    # "Policy document is Malformed" is AWS's whole text (S); what follows is ours
    return malformed_policy(f"Policy document is Malformed: {problem}")
