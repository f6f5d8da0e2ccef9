"""Policies, their versions, and what they are attached to."""

from collections.abc import Iterable, Mapping
from typing import Any

from devicesim.emulator.apierrors import invalid_request, resource_not_found
from devicesim.emulator.operations.call import Call, Handler, marker_page
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.policies import group_and_ancestors
from devicesim.emulator.state.records import Policy, PolicyVersion

_VERSION_DIGITS = 18
"""No version has more: the ids are counted."""


def create_policy(call: Call) -> Mapping[str, Any]:
    policy = call.registry.policies.create(call.partition, call["policyName"], call["policyDocument"], tags=call.tags)
    return {
        "policyName": policy.name,
        "policyArn": policy.arn,
        "policyDocument": policy.default.document,
        "policyVersionId": str(policy.default_version_id),
    }


def get_policy(call: Call) -> Mapping[str, Any]:
    policy = call.registry.policies.get(call.partition, call["policyName"])
    return {
        "policyName": policy.name,
        "policyArn": policy.arn,
        "policyDocument": policy.default.document,
        "defaultVersionId": str(policy.default_version_id),
        "creationDate": policy.creation_date,
        "lastModifiedDate": policy.last_modified_date,
        "generationId": policy.generation_id,
    }


def delete_policy(call: Call) -> Mapping[str, Any]:
    call.registry.policies.delete(call.partition, call["policyName"])
    return {}


def list_policies(call: Call) -> Mapping[str, Any]:
    policies = list(call.partition.policies.values())
    page, marker = marker_page(call, policies, _sequence, ascending=bool(call.get("ascendingOrder")))
    return {"policies": _named(page), "nextMarker": marker}


def create_policy_version(call: Call) -> Mapping[str, Any]:
    version = call.registry.policies.create_version(
        call.partition,
        call["policyName"],
        call["policyDocument"],
        set_as_default=bool(call.get("setAsDefault")),
    )
    policy = call.registry.policies.get(call.partition, call["policyName"])
    return {
        "policyArn": policy.arn,
        "policyDocument": version.document,
        "policyVersionId": str(version.version_id),
        "isDefaultVersion": _is_default(policy, version),
    }


def list_policy_versions(call: Call) -> Mapping[str, Any]:
    policy = call.registry.policies.get(call.partition, call["policyName"])
    return {
        "policyVersions": [
            {
                "versionId": str(version.version_id),
                "isDefaultVersion": _is_default(policy, version),
                "createDate": version.creation_date,
            }
            for version in policy.versions.values()
        ]
    }


def get_policy_version(call: Call) -> Mapping[str, Any]:
    version = call.registry.policies.version(call.partition, call["policyName"], _version_id(call))
    policy = call.registry.policies.get(call.partition, call["policyName"])
    return {
        "policyArn": policy.arn,
        "policyName": policy.name,
        "policyDocument": version.document,
        "policyVersionId": str(version.version_id),
        "isDefaultVersion": _is_default(policy, version),
        "creationDate": version.creation_date,
        "lastModifiedDate": version.creation_date,  # a version never changes
        "generationId": policy.generation_id,
    }


def delete_policy_version(call: Call) -> Mapping[str, Any]:
    call.registry.policies.delete_version(call.partition, call["policyName"], _version_id(call))
    return {}


def set_default_policy_version(call: Call) -> Mapping[str, Any]:
    call.registry.policies.set_default_version(call.partition, call["policyName"], _version_id(call))
    return {}


def attach_policy(call: Call) -> Mapping[str, Any]:
    call.registry.policies.attach(call.partition, call["policyName"], call["target"])
    return {}


def detach_policy(call: Call) -> Mapping[str, Any]:
    call.registry.policies.detach(call.partition, call["policyName"], call["target"])
    return {}


def list_attached_policies(call: Call) -> Mapping[str, Any]:
    """The policies of a target; ``recursive`` adds those of the groups above a thing group."""
    partition, target = call.partition, call["target"]
    call.registry.policies.check_target(partition, target)
    targets = [target]
    if call.get("recursive") and ":thinggroup/" in target:
        groups = group_and_ancestors(partition, target.rpartition("/")[2])
        targets = [partition.arn("thinggroup", name) for name in groups]
    names = {name for each in targets for name in partition.policies_of_target.get(each, ())}
    page, marker = marker_page(call, _policies(partition, names), _sequence)
    return {"policies": _named(page), "nextMarker": marker}


def list_targets_for_policy(call: Call) -> Mapping[str, Any]:
    page, marker = marker_page(call, _targets(call), str)
    return {"targets": page, "nextMarker": marker}


def attach_principal_policy(call: Call) -> Mapping[str, Any]:
    """The older form of AttachPolicy: certificates and Cognito identities only."""
    _check_principal(call["principal"])
    call.registry.policies.attach(call.partition, call["policyName"], call["principal"])
    return {}


def detach_principal_policy(call: Call) -> Mapping[str, Any]:
    _check_principal(call["principal"])
    call.registry.policies.detach(call.partition, call["policyName"], call["principal"])
    return {}


def list_principal_policies(call: Call) -> Mapping[str, Any]:
    principal = call["principal"]
    _check_principal(principal)
    call.registry.policies.check_target(call.partition, principal)
    names = call.partition.policies_of_target.get(principal, ())
    page, marker = marker_page(
        call, _policies(call.partition, names), _sequence, ascending=bool(call.get("ascendingOrder"))
    )
    return {"policies": _named(page), "nextMarker": marker}


def list_policy_principals(call: Call) -> Mapping[str, Any]:
    principals = [target for target in _targets(call) if ":thinggroup/" not in target]
    page, marker = marker_page(call, principals, str, ascending=bool(call.get("ascendingOrder")))
    return {"principals": page, "nextMarker": marker}


def _sequence(policy: Policy) -> int:
    return policy.sequence


def _named(policies: Iterable[Policy]) -> list[dict[str, str]]:
    return [{"policyName": policy.name, "policyArn": policy.arn} for policy in policies]


def _policies(partition: Partition, names: Iterable[str]) -> list[Policy]:
    return sorted((partition.policies[name] for name in names), key=_sequence)


def _targets(call: Call) -> list[str]:
    name = call["policyName"]
    call.registry.policies.get(call.partition, name)
    return sorted(call.partition.targets_of_policy.get(name, ()))


def _is_default(policy: Policy, version: PolicyVersion) -> bool:
    return version.version_id == policy.default_version_id


def _version_id(call: Call) -> int:
    text = call["policyVersionId"]  # the model allows digits only, as many as one likes
    if len(text) > _VERSION_DIGITS:
        raise resource_not_found(f"Version {text} of policy {call['policyName']} does not exist")
    return int(text)


def _check_principal(principal: str) -> None:
    if ":thinggroup/" in principal:
        raise invalid_request(f"The principal {principal} is a thing group; use AttachPolicy and its like")


HANDLERS: Mapping[str, Handler] = {
    "CreatePolicy": create_policy,
    "GetPolicy": get_policy,
    "DeletePolicy": delete_policy,
    "ListPolicies": list_policies,
    "CreatePolicyVersion": create_policy_version,
    "ListPolicyVersions": list_policy_versions,
    "GetPolicyVersion": get_policy_version,
    "DeletePolicyVersion": delete_policy_version,
    "SetDefaultPolicyVersion": set_default_policy_version,
    "AttachPolicy": attach_policy,
    "DetachPolicy": detach_policy,
    "ListAttachedPolicies": list_attached_policies,
    "ListTargetsForPolicy": list_targets_for_policy,
    "AttachPrincipalPolicy": attach_principal_policy,
    "DetachPrincipalPolicy": detach_principal_policy,
    "ListPrincipalPolicies": list_principal_policies,
    "ListPolicyPrincipals": list_policy_principals,
}
