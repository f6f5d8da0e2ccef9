"""Tags of the resources that can carry them."""

from collections.abc import Iterable, Mapping, Sequence

from devicesim.emulator.apierrors import invalid_request, limit_exceeded, resource_not_found
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition


class Tags:
    """Tags of CAs, policies, templates, thing types, groups of both kinds, rules. Things and device certificates take
    none (D)."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def checked(self, tags: Sequence[tuple[str, str]]) -> dict[str, str]:
        """The tags of a new resource, refused when they can not be."""
        checked = dict(tags)
        if len(checked) != len(tags):
            raise invalid_request("The same tag key was given more than once")
        reserved = next((key for key in checked if key.lower().startswith("aws:")), None)
        if reserved is not None:
            raise invalid_request(f"The tag key {reserved} begins with aws:, which is reserved")
        if len(checked) > self._environment.settings.max_tags:
            raise limit_exceeded(f"A resource has at most {self._environment.settings.max_tags} tags")
        return checked

    def tag(self, partition: Partition, resource_arn: str, tags: Sequence[tuple[str, str]]) -> None:
        self._check_resource(partition, resource_arn)
        checked = {**partition.tags.get(resource_arn, {}), **self.checked(tags)}
        if len(checked) > self._environment.settings.max_tags:
            raise limit_exceeded(f"A resource has at most {self._environment.settings.max_tags} tags")
        partition.tags[resource_arn] = checked

    def untag(self, partition: Partition, resource_arn: str, keys: Iterable[str]) -> None:
        self._check_resource(partition, resource_arn)
        held = partition.tags.get(resource_arn, {})
        for key in keys:
            held.pop(key, None)

    def of(self, partition: Partition, resource_arn: str) -> dict[str, str]:
        self._check_resource(partition, resource_arn)
        return partition.tags.get(resource_arn, {})

    def _check_resource(self, partition: Partition, resource_arn: str) -> None:
        kind, _, name = resource_arn.rpartition(":")[2].partition("/")
        holders: dict[str, Mapping[str, object]] = {
            "cacert": partition.cas,
            "policy": partition.policies,
            "provisioningtemplate": partition.templates,
            "thingtype": partition.thing_types,
            "thinggroup": partition.thing_groups,
            "billinggroup": partition.billing_groups,
            "domainconfiguration": partition.domain_configurations,
            "rolealias": partition.role_aliases,
            "rule": partition.topic_rules,
        }
        holder = holders.get(kind)
        if holder is None:
            raise invalid_request(f"The resource {resource_arn} can not have tags")
        if kind == "domainconfiguration":  # the one kind whose ARN has more than the name
            held = partition.domain_configurations.get(name.partition("/")[0])
            known = held is not None and held.arn == resource_arn
        else:
            known = name in holder and partition.arn(kind, name) == resource_arn
        if not known:
            raise resource_not_found(f"The resource {resource_arn} does not exist")
