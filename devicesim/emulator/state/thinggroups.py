"""Thing types and static thing groups, which provisioning templates refer to. Dynamic groups are not emulated."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from devicesim.emulator.apierrors import (
    invalid_request,
    resource_already_exists,
    resource_not_found,
    version_conflict,
)
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import ThingGroup, ThingType
from devicesim.emulator.state.tags import Tags


class ThingTypes:
    """Thing types of every account and Region."""

    def __init__(self, environment: Environment, tags: Tags) -> None:
        self._environment = environment
        self._tags = tags

    def get(self, partition: Partition, name: str) -> ThingType:
        try:
            return partition.thing_types[name]
        except KeyError:
            raise resource_not_found(f"The thing type {name} does not exist") from None

    def create(
        self,
        partition: Partition,
        name: str,
        *,
        description: str | None = None,
        searchable_attributes: Sequence[str] = (),
        tags: Sequence[tuple[str, str]] = (),
    ) -> ThingType:
        """Create a thing type; asking again for the same one answers it (D)."""
        searchable = tuple(searchable_attributes)
        existing = partition.thing_types.get(name)
        if existing is not None:
            if (description, searchable) == (existing.description, existing.searchable_attributes):
                return existing
            raise resource_already_exists(
                f"The thing type {name} already exists in a different configuration",
                resource_id=existing.thing_type_id,
                resource_arn=existing.arn,
            )
        limit = self._environment.settings.max_searchable_attributes
        if len(searchable) > limit:
            raise invalid_request(f"A thing type has at most {limit} searchable attributes")
        checked_tags = self._tags.checked(tags)
        thing_type = ThingType(
            name=name,
            arn=partition.arn("thingtype", name),
            thing_type_id=self._environment.uuid(),
            sequence=partition.next_sequence(),
            description=description,
            searchable_attributes=searchable,
            creation_date=self._environment.now(),
        )
        partition.thing_types[name] = thing_type
        if checked_tags:
            partition.tags[thing_type.arn] = checked_tags
        return thing_type

    def deprecate(self, partition: Partition, name: str, *, undo: bool = False) -> None:
        thing_type = self.get(partition, name)
        if undo:
            partition.thing_types[name] = replace(thing_type, deprecation_date=None)
        elif thing_type.deprecation_date is None:
            partition.thing_types[name] = replace(thing_type, deprecation_date=self._environment.now())

    def delete(self, partition: Partition, name: str) -> None:
        thing_type = self.get(partition, name)
        if thing_type.deprecation_date is None:
            raise invalid_request(f"The thing type {name} is not deprecated; deprecate it first")
        delay = self._environment.settings.thing_type_deletion_delay
        if self._environment.now() - thing_type.deprecation_date < delay:
            raise invalid_request(f"The thing type {name} can be deleted {delay:g} seconds after its deprecation")
        if partition.things_of_type.get(name):
            raise invalid_request(f"Things of the thing type {name} exist")
        del partition.thing_types[name]
        partition.tags.pop(thing_type.arn, None)


class ThingGroups:
    """Static thing groups of every account and Region."""

    def __init__(self, environment: Environment, tags: Tags) -> None:
        self._environment = environment
        self._tags = tags

    def get(self, partition: Partition, name: str) -> ThingGroup:
        try:
            return partition.thing_groups[name]
        except KeyError:
            raise resource_not_found(f"The thing group {name} does not exist") from None

    def create(
        self,
        partition: Partition,
        name: str,
        *,
        parent: str | None = None,
        description: str | None = None,
        attributes: Mapping[str, str] | None = None,
        tags: Sequence[tuple[str, str]] = (),
    ) -> ThingGroup:
        """Create a group; asking again for the same one answers it (D)."""
        attributes = dict(attributes or {})
        existing = partition.thing_groups.get(name)
        if existing is not None:
            if (parent, description, attributes) == (existing.parent, existing.description, existing.attributes):
                return existing
            raise resource_already_exists(
                f"The thing group {name} already exists in a different configuration",
                resource_id=existing.thing_group_id,
                resource_arn=existing.arn,
            )
        if parent is not None:
            self.get(partition, parent)
        checked_tags = self._tags.checked(tags)
        group = ThingGroup(
            name=name,
            arn=partition.arn("thinggroup", name),
            thing_group_id=self._environment.uuid(),
            sequence=partition.next_sequence(),
            parent=parent,
            description=description,
            attributes=attributes,
            creation_date=self._environment.now(),
        )
        partition.thing_groups[name] = group
        if checked_tags:
            partition.tags[group.arn] = checked_tags
        return group

    def delete(self, partition: Partition, name: str, *, expected_version: int | None = None) -> None:
        """Delete a group without children; its things leave it, its policies are detached. None is no error (D)."""
        group = partition.thing_groups.get(name)
        if group is None:
            return
        if expected_version is not None and expected_version != group.version:
            raise version_conflict(f"The version of the thing group {name} is {group.version}, not {expected_version}")
        if self.children(partition, name):
            raise invalid_request(f"The thing group {name} has child groups; delete them first")
        for thing_name in tuple(partition.things_of_group.get(name, ())):
            partition.leave_group(thing_name, name)
        for policy_name in tuple(partition.policies_of_target.get(group.arn, ())):
            partition.detach_policy(policy_name, group.arn)
        del partition.thing_groups[name]
        partition.tags.pop(group.arn, None)

    def children(self, partition: Partition, name: str) -> list[ThingGroup]:
        return [group for group in partition.thing_groups.values() if group.parent == name]

    def ancestors(self, partition: Partition, group: ThingGroup) -> list[ThingGroup]:
        """The groups above, the root first."""
        above: list[ThingGroup] = []
        parent = group.parent
        while parent is not None:
            held = partition.thing_groups[parent]
            above.append(held)
            parent = held.parent
        return above[::-1]

    def descendants(self, partition: Partition, name: str) -> list[ThingGroup]:
        """Every group below, parents before children."""
        below = self.children(partition, name)
        for group in below:  # grows while it is walked
            below.extend(self.children(partition, group.name))
        return below

    def add_thing(self, partition: Partition, group_name: str, thing_name: str) -> None:
        """Put a thing into a group; one that is in it stays there."""
        group = self.get(partition, group_name)
        if thing_name not in partition.things:
            raise resource_not_found(f"The thing {thing_name} does not exist")
        held = partition.groups_of_thing.get(thing_name, {})
        if group_name in held:
            return
        limit = self._environment.settings.max_groups_per_thing
        if len(held) >= limit:
            raise invalid_request(f"The thing {thing_name} is in {limit} groups, which is the limit")
        root = self._root(partition, group)
        for name in held:
            if root.name == self._root(partition, partition.thing_groups[name]).name:
                # developer guide, "thing groups": not to two groups of one hierarchy (D)
                raise invalid_request(f"The thing {thing_name} is in the group {name} of the same hierarchy")
        partition.join_group(thing_name, group_name)

    def remove_thing(self, partition: Partition, group_name: str, thing_name: str) -> None:
        """Take a thing out of a group; one that is not in it is no error."""
        self.get(partition, group_name)
        if thing_name not in partition.things:
            raise resource_not_found(f"The thing {thing_name} does not exist")
        if group_name in partition.groups_of_thing.get(thing_name, {}):
            partition.leave_group(thing_name, group_name)

    def _root(self, partition: Partition, group: ThingGroup) -> ThingGroup:
        return next(iter(self.ancestors(partition, group)), group)
