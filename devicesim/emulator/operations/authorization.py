"""What policies decide, asked through the API: GetEffectivePolicies and TestAuthorization."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from devicesim.emulator import policy
from devicesim.emulator.apierrors import invalid_request
from devicesim.emulator.operations.call import Call, Handler
from devicesim.emulator.policypattern import Values
from devicesim.emulator.state.records import Policy
from devicesim.emulator.variables import NOTHING_ASKED, Variables

_ACTIONS: Final = {
    "CONNECT": "iot:Connect",
    "PUBLISH": "iot:Publish",
    "RECEIVE": "iot:Receive",
    "SUBSCRIBE": "iot:Subscribe",
}


def get_effective_policies(call: Call) -> Mapping[str, Any]:
    """The policies that decide for a principal, for a thing, or for the thing as it connects with the principal."""
    partition, principal, thing_name = call.partition, call.get("principal"), call.get("thingName")
    if principal is None and thing_name is None and call.get("cognitoIdentityPoolId") is None:
        raise invalid_request("Specify principal, thingName or cognitoIdentityPoolId")
    if thing_name is not None:
        call.registry.things.get(partition, thing_name)
    return {
        "effectivePolicies": [
            {
                "policyName": each.name,
                "policyArn": each.arn,
                "policyDocument": each.default.document,
            }
            for each in _effective(call, principal, thing_name)
        ]
    }


def _effective(call: Call, principal: str | None, thing_name: str | None) -> list[Policy]:
    partition, policies = call.partition, call.registry.policies
    if principal is None:
        return [] if thing_name is None else policies.of_things_groups(partition, thing_name)
    policies.check_target(partition, principal)
    return policies.effective(partition, principal, client_id=thing_name)


def test_authorization(call: Call) -> Mapping[str, Any]:
    """What would be decided for each of up to ten actions, without anybody connecting."""
    policies = _tested(call)
    variables = _variables(call)
    return {"authResults": [_result(each, policies, variables) for each in call["authInfos"]]}


def _tested(call: Call) -> list[Policy]:
    partition, principal = call.partition, call.get("principal")
    if principal is None and call.get("cognitoIdentityPoolId") is None and not call.get("policyNamesToAdd"):
        raise invalid_request("Specify principal, cognitoIdentityPoolId or policyNamesToAdd")
    held = _effective(call, principal, call.get("clientId"))
    for name in call.get("policyNamesToSkip") or ():
        call.registry.policies.get(partition, name)
    added = [call.registry.policies.get(partition, name) for name in call.get("policyNamesToAdd") or ()]
    skipped = set(call.get("policyNamesToSkip") or ())
    return list({each.name: each for each in (*held, *added) if each.name not in skipped}.values())


def _variables(call: Call) -> Values:
    principal = call.get("principal") or ""
    certificate_id = principal.rpartition("/")[2] if ":cert/" in principal else ""
    known = Variables(call.partition, certificate_id, call.get("clientId") or "", "", NOTHING_ASKED)
    unknown = {"aws:SourceIp"} if call.get("clientId") is not None else {"aws:SourceIp", "iot:ClientId"}
    return {name: value for name, value in known.items() if name not in unknown}  # nobody connects from anywhere


def _result(asked: Mapping[str, Any], policies: Sequence[Policy], variables: Values) -> dict[str, Any]:
    action = _ACTIONS[asked["actionType"]] if "actionType" in asked else None
    if action is None:
        raise invalid_request(f"An authInfo has no actionType; it must be one of {', '.join(_ACTIONS)}")
    allowing: dict[str, Policy] = {}
    denying: dict[str, Policy] = {}
    unmet = False
    for resource in asked["resources"]:
        allowed = False
        for each in policies:
            effects = policy.effects(each.default.parsed, action=action, resource=resource, variables=variables)
            if effects.allows:
                allowing[each.name] = each
                allowed = True
            if effects.denies:
                denying[each.name] = each
        unmet = unmet or not allowed
    decision = "EXPLICIT_DENY" if denying else "IMPLICIT_DENY" if unmet else "ALLOWED"
    others = [each for each in policies if each.name not in allowing and each.name not in denying]
    return {
        "authInfo": {"actionType": asked["actionType"], "resources": asked["resources"]},
        "allowed": {"policies": _named(allowing.values())},
        "denied": {
            "implicitDeny": {"policies": _named(others if unmet else ())},
            "explicitDeny": {"policies": _named(denying.values())},
        },
        "authDecision": decision,
        "missingContextValues": _missing(policies, variables),
    }


def _missing(policies: Iterable[Policy], variables: Values) -> list[str]:
    wanted = {name for each in policies for name in policy.variables_of(each.default.parsed)}
    held = {name.lower() for name in variables}
    return sorted(name for name in wanted if name.lower() not in held)


def _named(policies: Iterable[Policy]) -> list[dict[str, str]]:
    return [{"policyName": each.name, "policyArn": each.arn} for each in policies]


HANDLERS: Mapping[str, Handler] = {
    "GetEffectivePolicies": get_effective_policies,
    "TestAuthorization": test_authorization,
}
