"""Role aliases: names for roles that devices get credentials of. Kept and answered; nothing gives credentials here."""

import re
from collections.abc import Sequence
from dataclasses import replace

from devicesim.emulator.apierrors import invalid_request, resource_already_exists, resource_not_found
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import RoleAlias
from devicesim.emulator.state.tags import Tags

DEFAULT_DURATION = 3600
"""Seconds (botocore, CreateRoleAlias, D)."""
_ROLE_ARN = re.compile(r"arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/-]+")


class RoleAliases:
    """The role aliases of every account and Region."""

    def __init__(self, environment: Environment, tags: Tags) -> None:
        self._environment = environment
        self._tags = tags

    def get(self, partition: Partition, name: str) -> RoleAlias:
        try:
            return partition.role_aliases[name]
        except KeyError:
            raise resource_not_found(f"The role alias {name} does not exist") from None

    def create(
        self,
        partition: Partition,
        name: str,
        *,
        role_arn: str,
        duration: int = DEFAULT_DURATION,
        tags: Sequence[tuple[str, str]] = (),
    ) -> RoleAlias:
        """``duration`` in seconds, checked by the model."""
        arn = partition.arn("rolealias", name)
        if name in partition.role_aliases:
            raise resource_already_exists(f"The role alias {name} already exists", resource_id=name, resource_arn=arn)
        _check_role(role_arn)
        checked_tags = self._tags.checked(tags)
        now = self._environment.now()
        alias = RoleAlias(
            name=name,
            arn=arn,
            role_arn=role_arn,
            credential_duration_seconds=duration,
            creation_date=now,
            last_modified_date=now,
        )
        partition.role_aliases[name] = alias
        if checked_tags:
            partition.tags[arn] = checked_tags
        return alias

    def update(
        self, partition: Partition, name: str, *, role_arn: str | None = None, duration: int | None = None
    ) -> RoleAlias:
        held = self.get(partition, name)
        if role_arn is not None:
            _check_role(role_arn)
        partition.role_aliases[name] = replace(
            held,
            role_arn=role_arn or held.role_arn,
            credential_duration_seconds=duration or held.credential_duration_seconds,
            last_modified_date=self._environment.now(),
        )
        return partition.role_aliases[name]

    def delete(self, partition: Partition, name: str) -> None:
        held = self.get(partition, name)
        del partition.role_aliases[name]
        partition.tags.pop(held.arn, None)


def _check_role(role_arn: str) -> None:
    if not _ROLE_ARN.fullmatch(role_arn):
        raise invalid_request(f"The role ARN {role_arn} is not one: expected arn:aws:iam::<account id>:role/<name>")
