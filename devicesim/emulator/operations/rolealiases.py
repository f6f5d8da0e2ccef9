"""Role aliases."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.operations.call import Call, Handler, marker_page
from devicesim.emulator.state.records import RoleAlias
from devicesim.emulator.state.rolealiases import DEFAULT_DURATION


def create_role_alias(call: Call) -> Mapping[str, Any]:
    alias = call.registry.role_aliases.create(
        call.partition,
        call["roleAlias"],
        role_arn=call["roleArn"],
        duration=call.get("credentialDurationSeconds") or DEFAULT_DURATION,
        tags=call.tags,
    )
    return _named(alias)


def describe_role_alias(call: Call) -> Mapping[str, Any]:
    alias = call.registry.role_aliases.get(call.partition, call["roleAlias"])
    return {
        "roleAliasDescription": {
            **_named(alias),
            "roleArn": alias.role_arn,
            "owner": call.partition.account_id,
            "credentialDurationSeconds": alias.credential_duration_seconds,
            "creationDate": alias.creation_date,
            "lastModifiedDate": alias.last_modified_date,
        }
    }


def update_role_alias(call: Call) -> Mapping[str, Any]:
    alias = call.registry.role_aliases.update(
        call.partition,
        call["roleAlias"],
        role_arn=call.get("roleArn"),
        duration=call.get("credentialDurationSeconds"),
    )
    return _named(alias)


def delete_role_alias(call: Call) -> Mapping[str, Any]:
    call.registry.role_aliases.delete(call.partition, call["roleAlias"])
    return {}


def list_role_aliases(call: Call) -> Mapping[str, Any]:
    page, marker = marker_page(
        call, sorted(call.partition.role_aliases), str, ascending=bool(call.get("ascendingOrder"))
    )
    return {"roleAliases": list(page), "nextMarker": marker}


def _named(alias: RoleAlias) -> dict[str, Any]:
    return {"roleAlias": alias.name, "roleAliasArn": alias.arn}


HANDLERS: Mapping[str, Handler] = {
    "CreateRoleAlias": create_role_alias,
    "DescribeRoleAlias": describe_role_alias,
    "UpdateRoleAlias": update_role_alias,
    "DeleteRoleAlias": delete_role_alias,
    "ListRoleAliases": list_role_aliases,
}
