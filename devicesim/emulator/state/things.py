"""Things, and the principals attached to them (aws-iot-behaviour.md §1.5)."""

from collections.abc import Mapping
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
from devicesim.emulator.state.policies import COGNITO_IDENTITY
from devicesim.emulator.state.records import CertificateChangeKind, Thing, ThingPrincipalType


class Things:
    """Things of every account and Region."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def get(self, partition: Partition, name: str) -> Thing:
        try:
            return partition.things[name]
        except KeyError:
            raise resource_not_found(f"The thing {name} does not exist") from None

    def create(
        self,
        partition: Partition,
        name: str,
        *,
        thing_type_name: str | None = None,
        attributes: Mapping[str, str] | None = None,
        billing_group_name: str | None = None,
    ) -> Thing:
        """Create a thing; asking again for the same one answers it (D)."""
        attributes = dict(attributes or {})
        existing = partition.things.get(name)
        if existing is not None:
            same = (thing_type_name, attributes, billing_group_name) == (
                existing.thing_type_name,
                existing.attributes,
                existing.billing_group_name,
            )
            if same:
                return existing
            raise resource_already_exists(
                f"The thing {name} already exists in a different configuration",
                resource_id=existing.thing_id,
                resource_arn=existing.arn,
            )
        self._check_type(partition, thing_type_name)
        self._check_attributes(attributes, thing_type_name)
        self._check_billing_group(partition, billing_group_name)
        thing = Thing(
            name=name,
            arn=partition.arn("thing", name),
            thing_id=self._environment.uuid(),
            sequence=partition.next_sequence(),
            thing_type_name=thing_type_name,
            attributes=attributes,
            billing_group_name=billing_group_name,
        )
        partition.put_thing(thing)
        self._environment.happened(
            partition, registryevents.thing(Operation.CREATED, thing), *_associations(thing, None, thing_type_name)
        )
        return thing

    def update(
        self,
        partition: Partition,
        name: str,
        *,
        thing_type_name: str | None = None,
        remove_thing_type: bool = False,
        attributes: Mapping[str, str] | None = None,
        merge: bool = False,
        expected_version: int | None = None,
    ) -> Thing:
        """Change a thing.

        ``attributes`` replace all of its own, or with ``merge`` are laid over them; one with an empty value is removed
        (UpdateThing, D).
        """
        thing = self.get(partition, name)
        _check_version(f"thing {name}", thing.version, expected_version)
        if remove_thing_type and thing_type_name is not None:
            raise invalid_request("The thing type can not be set and removed in the same request")
        if thing_type_name != thing.thing_type_name:
            self._check_type(partition, thing_type_name)
        type_after = None if remove_thing_type else thing_type_name or thing.thing_type_name
        attributes_after = dict(thing.attributes)
        if attributes is not None:
            laid = {**thing.attributes, **attributes} if merge else attributes
            attributes_after = {key: value for key, value in laid.items() if value != ""}
        self._check_attributes(attributes_after, type_after)
        changed = replace(thing, thing_type_name=type_after, attributes=attributes_after, version=thing.version + 1)
        partition.put_thing(changed)
        self._environment.happened(
            partition,
            registryevents.thing(Operation.UPDATED, changed),
            *_associations(changed, thing.thing_type_name, type_after),
        )
        return changed

    def set_billing_group(self, partition: Partition, name: str, billing_group_name: str | None) -> Thing:
        """Put a thing into a billing group, out of the one that it is in, or with ``None`` into none."""
        thing = self.get(partition, name)
        self._check_billing_group(partition, billing_group_name)
        changed = replace(thing, billing_group_name=billing_group_name)
        partition.put_thing(changed)
        return changed

    def delete(self, partition: Partition, name: str, *, expected_version: int | None = None) -> None:
        """Delete a thing that nothing is attached to; one that does not exist is no error (D)."""
        thing = partition.things.get(name)
        if thing is None:
            return
        _check_version(f"thing {name}", thing.version, expected_version)
        if partition.principals_of_thing.get(name):
            raise invalid_request(f"Principals are attached to the thing {name}; detach them first")
        groups = registryevents.of_thing(partition, name)
        for group in groups:
            partition.leave_group(name, group.name)
        partition.remove_thing(thing)
        self._environment.happened(
            partition,
            *(registryevents.membership(Operation.REMOVED, group, thing) for group in groups),
            *_associations(thing, thing.thing_type_name, None),
            registryevents.thing(Operation.DELETED, thing),
        )

    def attach_principal(
        self,
        partition: Partition,
        thing_name: str,
        principal: str,
        kind: ThingPrincipalType = ThingPrincipalType.NON_EXCLUSIVE_THING,
    ) -> None:
        """Attach a certificate (by ARN) or Cognito identity; attaching again changes nothing."""
        self.get(partition, thing_name)
        self.check_principal(partition, principal)
        things = partition.things_of_principal.get(principal, {})
        others = [name for name in things if name != thing_name]
        exclusive = ThingPrincipalType.EXCLUSIVE_THING
        if others and (kind is exclusive or things[others[0]] is exclusive):
            # rule D ("the only thing that's attached to the principal"); no other exception of the model's fits
            raise invalid_request(
                f"The principal {principal} is attached to the thing {others[0]}, which excludes this"
            )
        if things.get(thing_name) is not kind:
            partition.attach_principal(thing_name, principal, kind)
            self._environment.tell_of_principal(partition, principal, CertificateChangeKind.THINGS)

    def detach_principal(self, partition: Partition, thing_name: str, principal: str) -> None:
        """Detach; a principal that is not attached is not found."""
        self.get(partition, thing_name)
        if thing_name not in partition.things_of_principal.get(principal, {}):
            raise resource_not_found(f"The principal {principal} is not attached to the thing {thing_name}")
        partition.detach_principal(thing_name, principal)
        self._environment.tell_of_principal(partition, principal, CertificateChangeKind.THINGS)

    def check_principal(self, partition: Partition, principal: str) -> None:
        """Refuse what can not be a thing's principal."""
        if COGNITO_IDENTITY.fullmatch(principal):
            return
        kind, _, name = principal.rpartition(":")[2].partition("/")
        if kind != "cert":
            raise invalid_request(f"The principal {principal} is neither a certificate nor a Cognito identity")
        if name not in partition.certificates or partition.certificate_arn(name) != principal:
            raise resource_not_found(f"The principal {principal} does not exist")

    def _check_type(self, partition: Partition, thing_type_name: str | None) -> None:
        if thing_type_name is None:
            return
        thing_type = partition.thing_types.get(thing_type_name)
        if thing_type is None:
            # text: S (§3), as JITP reports it
            raise resource_not_found(f"Thing type not found: {thing_type_name}")
        if thing_type.deprecation_date is not None:
            raise invalid_request(f"The thing type {thing_type_name} is deprecated; no thing can be given it")

    def _check_billing_group(self, partition: Partition, billing_group_name: str | None) -> None:
        if billing_group_name is not None and billing_group_name not in partition.billing_groups:
            raise resource_not_found(f"The billing group {billing_group_name} does not exist")

    def _check_attributes(self, attributes: Mapping[str, str], thing_type_name: str | None) -> None:
        settings = self._environment.settings
        limit = settings.max_thing_attributes_without_type if thing_type_name is None else settings.max_thing_attributes
        if len(attributes) > limit:
            which = "without" if thing_type_name is None else "with"
            raise invalid_request(f"A thing {which} a thing type has at most {limit} attributes")


def _associations(thing: Thing, before: str | None, after: str | None) -> list[registryevents.RegistryEvent]:
    """Events of a thing whose type changes."""
    if before == after:
        return []
    events = [] if before is None else [registryevents.thing_type_association(Operation.DELETED, thing, before)]
    if after is not None:
        events.append(registryevents.thing_type_association(Operation.CREATED, thing, after))
    return events


def _check_version(what: str, version: int, expected: int | None) -> None:
    if expected is not None and expected != version:
        raise version_conflict(f"The version of the {what} is {version}, not {expected}")
