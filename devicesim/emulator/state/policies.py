"""Policies, their versions, and what they are attached to (aws-iot-behaviour.md §1.5)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

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
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import CertificateChangeKind, Policy, PolicyVersion
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
        return version

    def set_default_version(self, partition: Partition, name: str, version_id: int) -> None:
        self.version(partition, name, version_id)
        partition.policies[name] = replace(
            partition.policies[name], default_version_id=version_id, last_modified_date=self._environment.now()
        )

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
        limit = self._environment.settings.max_policies_per_principal
        if len(attached) >= limit:
            raise limit_exceeded(f"The limit of {limit} policies attached to {target} is reached")
        partition.attach_policy(name, target)
        self._environment.tell_of_principal(partition, target, CertificateChangeKind.POLICIES)

    def detach(self, partition: Partition, name: str, target: str) -> None:
        """Detach; detaching what is not attached changes nothing (I: clean-up repeats it)."""
        self.get(partition, name)
        self.check_target(partition, target)
        if name in partition.policies_of_target.get(target, {}):
            partition.detach_policy(name, target)
            self._environment.tell_of_principal(partition, target, CertificateChangeKind.POLICIES)

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

        Those attached to the certificate and, where ``client_id`` names a thing attached to it, those of the thing's
        groups and of the groups above (developer guide, "thing groups": a group's policies hold for its things, D).
        """
        arn = partition.certificate_arn(certificate_id)
        targets = [arn]
        if client_id is not None and client_id in partition.things_of_principal.get(arn, {}):
            for group_name in partition.groups_of_thing.get(client_id, ()):
                targets += [partition.arn("thinggroup", name) for name in group_and_ancestors(partition, group_name)]
        names = {name: None for target in targets for name in partition.policies_of_target.get(target, {})}
        return (partition.policies[name].default.parsed for name in names)

    def _checked(self, document: str) -> policy.Document:
        limit = self._environment.settings.max_policy_characters
        if len("".join(document.split())) > limit:
            raise malformed_policy(f"The policy document is longer than {limit} characters without white space")
        return policy.parse(document)


def group_and_ancestors(partition: Partition, group_name: str) -> list[str]:
    """Names of a group and of those above it, up to the root."""
    names: list[str] = []
    name: str | None = group_name
    while name is not None:
        names.append(name)
        name = partition.thing_groups[name].parent
    return names
