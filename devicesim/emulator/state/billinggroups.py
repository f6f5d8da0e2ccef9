"""Billing groups: labels on things for AWS's bill. A thing is in one at most (developer guide, D)."""

from collections.abc import Sequence
from dataclasses import replace

from devicesim.emulator.apierrors import (
    invalid_request,
    resource_already_exists,
    resource_not_found,
    version_conflict,
)
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import BillingGroup
from devicesim.emulator.state.tags import Tags
from devicesim.emulator.state.things import Things


class BillingGroups:
    """Billing groups of every account and Region."""

    def __init__(self, environment: Environment, tags: Tags, things: Things) -> None:
        self._environment = environment
        self._tags = tags
        self._things = things

    def get(self, partition: Partition, name: str) -> BillingGroup:
        try:
            return partition.billing_groups[name]
        except KeyError:
            raise resource_not_found(f"The billing group {name} does not exist") from None

    def create(
        self,
        partition: Partition,
        name: str,
        *,
        description: str | None = None,
        tags: Sequence[tuple[str, str]] = (),
    ) -> BillingGroup:
        """Create a billing group; asking again for the same one answers it (D)."""
        existing = partition.billing_groups.get(name)
        if existing is not None:
            if description == existing.description:
                return existing
            raise resource_already_exists(
                f"The billing group {name} already exists in a different configuration",
                resource_id=existing.billing_group_id,
                resource_arn=existing.arn,
            )
        checked_tags = self._tags.checked(tags)
        group = BillingGroup(
            name=name,
            arn=partition.arn("billinggroup", name),
            billing_group_id=self._environment.uuid(),
            sequence=partition.next_sequence(),
            description=description,
            creation_date=self._environment.now(),
        )
        partition.billing_groups[name] = group
        if checked_tags:
            partition.tags[group.arn] = checked_tags
        return group

    def update(
        self, partition: Partition, name: str, *, description: str | None, expected_version: int | None = None
    ) -> BillingGroup:
        """Change the description, which is all that a billing group has; left out, it stays."""
        group = self.get(partition, name)
        _check_version(group, expected_version)
        changed = replace(
            group,
            description=group.description if description is None else description,
            version=group.version + 1,
        )
        partition.billing_groups[name] = changed
        return changed

    def delete(self, partition: Partition, name: str, *, expected_version: int | None = None) -> None:
        """Delete a billing group. One that does not exist is no error: the model has no name for it."""
        group = partition.billing_groups.get(name)
        if group is None:
            return
        _check_version(group, expected_version)
        things = tuple(partition.things_of_billing_group.get(name, ()))
        if things and self._environment.settings.billing_group_with_things == "refuse":
            raise invalid_request(f"The billing group {name} has {len(things)} things; remove them first")
        for thing_name in things:
            self._things.set_billing_group(partition, thing_name, None)
        del partition.billing_groups[name]
        partition.tags.pop(group.arn, None)

    def add_thing(self, partition: Partition, name: str, thing_name: str) -> None:
        """Put a thing into a billing group; one that is in it stays there."""
        self.get(partition, name)
        held = self._things.get(partition, thing_name).billing_group_name
        if held not in (None, name) and not self._environment.settings.billing_group_moves:
            raise invalid_request(f"The thing {thing_name} is in the billing group {held}; remove it from there first")
        self._things.set_billing_group(partition, thing_name, name)

    def remove_thing(self, partition: Partition, name: str, thing_name: str) -> None:
        """Take a thing out of a billing group; one that is not in it is no error."""
        self.get(partition, name)
        if self._things.get(partition, thing_name).billing_group_name == name:
            self._things.set_billing_group(partition, thing_name, None)


def _check_version(group: BillingGroup, expected: int | None) -> None:
    if expected is not None and expected != group.version:
        raise version_conflict(f"The version of the billing group {group.name} is {group.version}, not {expected}")
