"""Policies, their versions, and what they are attached to (aws-iot-behaviour.md §1.5)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from devicesim.emulator import policy
from devicesim.emulator.apierrors import (
    delete_conflict,
    invalid_request,
    limit_exceeded,
    malformed_policy,
    resource_already_exists,
    resource_not_found,
    versions_limit_exceeded,
)
from devicesim.emulator.state import claims
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import Policy, PolicyVersion, ThingPrincipalType
from devicesim.emulator.state.tags import Tags

COGNITO_IDENTITY = re.compile(r"[a-z]{2}(-[a-z]+)+-\d:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Policies:
    """Policies of every account and Region."""

    def __init__(self, environment: Environment, tags: Tags) -> None:
        self._environment = environment
        self._tags = tags

    def get(self, partition: Partition, name: str) -> Policy:
        try:
            return partition.policies[name]
        except KeyError:
            raise resource_not_found(f"The policy {name} does not exist") from None

    def version(self, partition: Partition, name: str, version_id: int) -> PolicyVersion:
        try:
            return self.get(partition, name).versions[version_id]
        except KeyError:
            raise resource_not_found(f"Version {version_id} of policy {name} does not exist") from None

    def create(self, partition: Partition, name: str, document: str, *, tags: Sequence[tuple[str, str]] = ()) -> Policy:
        arn = partition.arn("policy", name)
        if name in partition.policies:
            raise resource_already_exists(f"The policy {name} already exists", resource_id=name, resource_arn=arn)
        now = self._environment.now()
        first = PolicyVersion(version_id=1, document=document, parsed=self._checked(document), creation_date=now)
        checked_tags = self._tags.checked(tags)
        created = Policy(
            name=name,
            arn=arn,
            sequence=partition.next_sequence(),
            versions={1: first},
            default_version_id=1,
            next_version_id=2,
            creation_date=now,
            last_modified_date=now,
            generation_id=self._environment.hex(16),
        )
        partition.policies[name] = created
        if checked_tags:
            partition.tags[arn] = checked_tags
        return created

    def create_version(
        self, partition: Partition, name: str, document: str, *, set_as_default: bool = False
    ) -> PolicyVersion:
        held = self.get(partition, name)
        limit = self._environment.settings.max_policy_versions
        if len(held.versions) >= limit:
            raise versions_limit_exceeded(f"The policy {name} already has {limit} versions")
        now = self._environment.now()
        version = PolicyVersion(
            version_id=held.next_version_id, document=document, parsed=self._checked(document), creation_date=now
        )
        partition.policies[name] = replace(
            held,
            versions={**held.versions, version.version_id: version},
            default_version_id=version.version_id if set_as_default else held.default_version_id,
            next_version_id=version.version_id + 1,
            last_modified_date=now,
        )
        if set_as_default:
            self._default_changed(partition, name)
        return version

    def set_default_version(self, partition: Partition, name: str, version_id: int) -> None:
        self.version(partition, name, version_id)
        partition.policies[name] = replace(
            partition.policies[name], default_version_id=version_id, last_modified_date=self._environment.now()
        )
        self._default_changed(partition, name)

    def delete_version(self, partition: Partition, name: str, version_id: int) -> None:
        self.version(partition, name, version_id)
        held = partition.policies[name]
        if version_id == held.default_version_id:
            raise delete_conflict(f"Version {version_id} is the default version of policy {name}")
        versions = {key: version for key, version in held.versions.items() if key != version_id}
        partition.policies[name] = replace(held, versions=versions, last_modified_date=self._environment.now())

    def delete(self, partition: Partition, name: str) -> None:
        held = self.get(partition, name)
        if partition.targets_of_policy.get(name):
            raise delete_conflict(f"The policy {name} is attached; detach it first")
        if len(held.versions) > 1:
            raise delete_conflict(f"The policy {name} has versions besides the default one; delete them first")
        del partition.policies[name]
        partition.tags.pop(held.arn, None)

    def attach(self, partition: Partition, name: str, target: str) -> None:
        """Attach to a certificate or thing group (by ARN) or a Cognito identity; attaching again changes nothing."""
        self.get(partition, name)
        self.check_target(partition, target)
        attached = partition.policies_of_target.get(target, {})
        if name in attached:
            return
        settings = self._environment.settings
        is_group = ":thinggroup/" in target
        limit = settings.max_policies_per_thing_group if is_group else settings.max_policies_per_principal
        if len(attached) >= limit:
            raise limit_exceeded(f"The limit of {limit} policies attached to {target} is reached")
        partition.attach_policy(name, target)
        self._environment.tell_of_target(partition, target)

    def detach(self, partition: Partition, name: str, target: str) -> None:
        """Detach; what comes of detaching what is not attached is a setting."""
        self.get(partition, name)
        self.check_target(partition, target)
        if name in partition.policies_of_target.get(target, {}):
            partition.detach_policy(name, target)
            self._environment.tell_of_target(partition, target)
        elif self._environment.settings.detach_policy_not_attached == "refuse":
            raise resource_not_found(f"The policy {name} is not attached to {target}")

    def check_target(self, partition: Partition, target: str) -> None:
        """Refuse what no policy can be attached to."""
        if COGNITO_IDENTITY.fullmatch(target):
            return
        kind, _, name = target.rpartition(":")[2].partition("/")
        holder: Mapping[str, object] | None = None
        if kind == "cert":
            holder = partition.certificates
        elif kind == "thinggroup":
            holder = partition.thing_groups
        if holder is None:
            raise invalid_request(f"The target {target} is neither a certificate, a thing group nor a Cognito identity")
        if name not in holder or partition.arn(kind, name) != target:
            raise resource_not_found(f"The target {target} does not exist")

    def documents(
        self, partition: Partition, certificate_id: str, *, client_id: str | None = None
    ) -> Iterator[policy.Document]:
        """The documents that decide what a device with this certificate may do.

        Those attached to the certificate and those of the groups of the connection's thing, and of the groups above
        (developer guide, "thing groups": a group's policies hold for its things, D); and what a temporary claim may do.
        """
        arn = partition.certificate_arn(certificate_id)
        documents = (each.default.parsed for each in self.effective(partition, arn, client_id=client_id))
        implicit = claims.implicit_policy(partition, certificate_id)
        return documents if implicit is None else chain((implicit,), documents)

    def effective(self, partition: Partition, principal: str, *, client_id: str | None = None) -> list[Policy]:
        """The policies behind :meth:`documents`, of any principal (an ARN or a Cognito identity)."""
        names = dict(partition.policies_of_target.get(principal, {}))
        thing_name = thing_of_connection(partition, principal, client_id)
        found = [partition.policies[name] for name in names]
        if thing_name is not None:
            found += [each for each in self.of_things_groups(partition, thing_name) if each.name not in names]
        return found

    def of_things_groups(self, partition: Partition, thing_name: str) -> list[Policy]:
        """The policies of a thing's groups, and of the groups above them."""
        names: dict[str, None] = {}
        for group_name in partition.groups_of_thing.get(thing_name, ()):
            for name in group_and_ancestors(partition, group_name):
                names |= partition.policies_of_target.get(partition.arn("thinggroup", name), {})
        return [partition.policies[name] for name in names]

    def _default_changed(self, partition: Partition, name: str) -> None:
        """Whoever has the policy has other rights now."""
        for target in tuple(partition.targets_of_policy.get(name, ())):
            self._environment.tell_of_target(partition, target)

    def _checked(self, document: str) -> policy.Document:
        limit = self._environment.settings.max_policy_characters
        if len("".join(document.split())) > limit:
            raise malformed_policy(f"The policy document is longer than {limit} characters without white space")
        return policy.parse(document)


def thing_of_connection(partition: Partition, principal: str, client_id: str | None) -> str | None:
    """The name of the thing that a connection is associated with (developer guide, "associating a thing to an MQTT
    client connection", D): the one that its principal is attached to exclusively, else the one that its client id names
    and that the principal is attached to."""
    things = partition.things_of_principal.get(principal)
    if not things:
        return None
    if len(things) == 1:
        name, kind = next(iter(things.items()))
        if kind is ThingPrincipalType.EXCLUSIVE_THING:
            return name
    return client_id if client_id in things else None


def group_and_ancestors(partition: Partition, group_name: str) -> list[str]:
    """Names of a group and of those above it, up to the root."""
    names: list[str] = []
    name: str | None = group_name
    while name is not None:
        names.append(name)
        name = partition.thing_groups[name].parent
    return names
