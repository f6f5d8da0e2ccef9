"""Thing types and static thing groups, which provisioning templates refer to. Dynamic groups are not emulated."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from devicesim.emulator import registryevents
from devicesim.emulator.apierrors import (
    invalid_request,
    resource_already_exists,
    resource_not_found,
    version_conflict,
)
from devicesim.emulator.registryevents import Operation
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import PropagatingAttribute, ThingGroup, ThingType
from devicesim.emulator.state.tags import Tags

CONNECTION_ATTRIBUTES = ("iot:ClientId", "iot:Thing.ThingName")
"""That a thing type can propagate (CloudFormation reference, ``PropagatingAttribute``, D)."""


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
        propagating_attributes: Sequence[PropagatingAttribute] = (),
        tags: Sequence[tuple[str, str]] = (),
    ) -> ThingType:
        """Create a thing type; asking again for the same one answers it (D)."""
        searchable = tuple(searchable_attributes)
        propagating = tuple(propagating_attributes)
        existing = partition.thing_types.get(name)
        if existing is not None:
            asked = (description, searchable, propagating)
            if asked == (existing.description, existing.searchable_attributes, existing.propagating_attributes):
                return existing
            raise resource_already_exists(
                f"The thing type {name} already exists in a different configuration",
                resource_id=existing.thing_type_id,
                resource_arn=existing.arn,
            )
        limit = self._environment.settings.max_searchable_attributes
        if len(searchable) > limit:
            raise invalid_request(f"A thing type has at most {limit} searchable attributes")
        _check_propagating(propagating)
        checked_tags = self._tags.checked(tags)
        thing_type = ThingType(
            name=name,
            arn=partition.arn("thingtype", name),
            thing_type_id=self._environment.uuid(),
            sequence=partition.next_sequence(),
            description=description,
            searchable_attributes=searchable,
            propagating_attributes=propagating,
            creation_date=self._environment.now(),
        )
        partition.thing_types[name] = thing_type
        if checked_tags:
            partition.tags[thing_type.arn] = checked_tags
        self._environment.happened(partition, registryevents.thing_type(Operation.CREATED, thing_type))
        return thing_type

    def update(self, partition: Partition, name: str, propagating_attributes: Sequence[PropagatingAttribute]) -> None:
        """Change what messages of its things are enriched with, which is all that can be changed (aws-cli #9884, S)."""
        thing_type = self.get(partition, name)
        propagating = tuple(propagating_attributes)
        _check_propagating(propagating)
        self._put(partition, replace(thing_type, propagating_attributes=propagating))

    def deprecate(self, partition: Partition, name: str, *, undo: bool = False) -> None:
        thing_type = self.get(partition, name)
        if undo:
            self._put(partition, replace(thing_type, deprecation_date=None))
        elif thing_type.deprecation_date is None:
            self._put(partition, replace(thing_type, deprecation_date=self._environment.now()))

    def delete(self, partition: Partition, name: str) -> None:
        thing_type = self.get(partition, name)
        if thing_type.deprecation_date is None:
            raise invalid_request(f"The thing type {name} is not deprecated; deprecate it first")
        delay = self._environment.settings.thing_type_deletion_delay
        if self._environment.now() - thing_type.deprecation_date < delay:
            # text: as Terraform waits for it (terraform-provider-aws, thing_type.go, S)
            raise invalid_request(
                f"Cannot delete thing type : {name}. Please wait for {delay / 60:g} minutes after deprecation and then"
                " retry"
            )
        if partition.things_of_type.get(name):
            raise invalid_request(f"Things of the thing type {name} exist")
        del partition.thing_types[name]
        partition.tags.pop(thing_type.arn, None)
        self._environment.happened(partition, registryevents.thing_type(Operation.DELETED, thing_type))

    def _put(self, partition: Partition, changed: ThingType) -> None:
        partition.thing_types[changed.name] = changed
        self._environment.happened(partition, registryevents.thing_type(Operation.UPDATED, changed))


def _check_propagating(attributes: Sequence[PropagatingAttribute]) -> None:
    for attribute in attributes:
        key = attribute.user_property_key
        if (attribute.thing_attribute is None) == (attribute.connection_attribute is None):
            raise invalid_request(
                f"The propagating attribute {key} must have either a thingAttribute or a connectionAttribute"
            )
        if attribute.connection_attribute not in (None, *CONNECTION_ATTRIBUTES):
            raise invalid_request(
                f"The propagating attribute {key} has the connectionAttribute {attribute.connection_attribute};"
                f" it must be one of {', '.join(CONNECTION_ATTRIBUTES)}"
            )


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
        self._check_attributes(name, attributes)
        above = self._above(partition, name, parent)
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
        self._environment.happened(partition, registryevents.thing_group(Operation.CREATED, group, above))
        if above:
            self._environment.happened(partition, registryevents.hierarchy(Operation.ADDED, above[-1], group))
        return group

    def update(
        self,
        partition: Partition,
        name: str,
        *,
        description: str | None = None,
        attributes: Mapping[str, str] | None = None,
        merge: bool = False,
        expected_version: int | None = None,
    ) -> ThingGroup:
        """Change a group's description and attributes; what is left out stays. Its parent can not be changed (D).

        ``attributes`` replace all that it has, or with ``merge`` are laid over them; one with an empty value is removed
        (AttributePayload, D).
        """
        group = self.get(partition, name)
        _check_version(group, expected_version)
        attributes_after = dict(group.attributes)
        if attributes is not None:
            laid = {**group.attributes, **attributes} if merge else attributes
            attributes_after = {key: value for key, value in laid.items() if value != ""}
        self._check_attributes(name, attributes_after)
        changed = replace(
            group,
            description=group.description if description is None else description,
            attributes=attributes_after,
            version=group.version + 1,
        )
        partition.thing_groups[name] = changed
        above = self.ancestors(partition, changed)
        self._environment.happened(partition, registryevents.thing_group(Operation.UPDATED, changed, above))
        return changed

    def delete(self, partition: Partition, name: str, *, expected_version: int | None = None) -> None:
        """Delete a group without children; its things leave it, its policies are detached. None is no error (D)."""
        group = partition.thing_groups.get(name)
        if group is None:
            return
        _check_version(group, expected_version)
        if self.children(partition, name):
            # text: developer guide, "delete a thing group" (D)
            raise invalid_request(
                f"Cannot delete thing group : {name} when there are still child groups attached to it."
            )
        above = self.ancestors(partition, group)
        things = [partition.things[thing_name] for thing_name in partition.things_of_group.get(name, ())]
        for thing in things:
            partition.leave_group(thing.name, name)
        for policy_name in tuple(partition.policies_of_target.get(group.arn, ())):
            partition.detach_policy(policy_name, group.arn)
        del partition.thing_groups[name]
        partition.tags.pop(group.arn, None)
        for thing in things:
            self._environment.tell_of_thing(partition, thing.name)
            self._environment.happened(partition, registryevents.membership(Operation.REMOVED, group, thing))
        if above:
            self._environment.happened(partition, registryevents.hierarchy(Operation.REMOVED, above[-1], group))
        self._environment.happened(partition, registryevents.thing_group(Operation.DELETED, group, above))

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
        self.change_things_groups(partition, thing_name, add=(group_name,))

    def remove_thing(self, partition: Partition, group_name: str, thing_name: str) -> None:
        """Take a thing out of a group; one that is not in it is no error."""
        self.change_things_groups(partition, thing_name, remove=(group_name,))

    def change_things_groups(
        self, partition: Partition, thing_name: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> None:
        """Take a thing out of groups and put it into others, all or nothing (UpdateThingGroupsForThing)."""
        groups = {name: self.get(partition, name) for name in (*remove, *add)}
        thing = partition.things.get(thing_name)
        if thing is None:
            raise resource_not_found(f"The thing {thing_name} does not exist")
        both = next((name for name in add if name in remove), None)
        if both is not None:
            raise invalid_request(f"The thing group {both} can not be added and removed in the same request")
        held = partition.groups_of_thing.get(thing_name, {})
        leaving = [name for name in dict.fromkeys(remove) if name in held]
        joining = [name for name in dict.fromkeys(add) if name not in held]
        staying = [name for name in held if name not in leaving]
        limit = self._environment.settings.max_groups_per_thing
        for name in joining:
            if len(staying) >= limit:
                raise invalid_request(f"The thing {thing_name} is in {limit} groups, which is the limit")
            root = self._root(partition, groups[name])
            for other in staying:
                if root.name == self._root(partition, partition.thing_groups[other]).name:
                    # developer guide, "thing groups": not to two groups of one hierarchy (D)
                    raise invalid_request(f"The thing {thing_name} is in the group {other} of the same hierarchy")
            staying.append(name)
        for name in leaving:
            partition.leave_group(thing_name, name)
        for name in joining:
            partition.join_group(thing_name, name)
        if leaving or joining:
            self._environment.tell_of_thing(partition, thing_name)
        self._environment.happened(
            partition,
            *(registryevents.membership(Operation.REMOVED, groups[name], thing) for name in leaving),
            *(registryevents.membership(Operation.ADDED, groups[name], thing) for name in joining),
        )

    def _root(self, partition: Partition, group: ThingGroup) -> ThingGroup:
        return next(iter(self.ancestors(partition, group)), group)

    def _above(self, partition: Partition, name: str, parent: str | None) -> list[ThingGroup]:
        """The groups that a new one will stand below, the root first."""
        if parent is None:
            return []
        direct = self.get(partition, parent)
        above = [*self.ancestors(partition, direct), direct]
        settings = self._environment.settings
        if len(above) >= settings.max_thing_group_depth:
            raise invalid_request(
                f"The thing group {name} would be on level {len(above) + 1} of its hierarchy, the limit is"
                f" {settings.max_thing_group_depth}"
            )
        if len(self.children(partition, parent)) >= settings.max_child_groups:
            raise invalid_request(f"The thing group {parent} has {settings.max_child_groups} child groups, the limit")
        return above

    def _check_attributes(self, name: str, attributes: Mapping[str, str]) -> None:
        limit = self._environment.settings.max_thing_group_attributes
        if len(attributes) > limit:
            raise invalid_request(f"The thing group {name} has {len(attributes)} attributes, the limit is {limit}")


def _check_version(group: ThingGroup, expected: int | None) -> None:
    if expected is not None and expected != group.version:
        raise version_conflict(f"The version of the thing group {group.name} is {group.version}, not {expected}")
