"""Provisioning templates, their versions, and what stands in their way (aws-iot-behaviour.md §1.5)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from devicesim.emulator.apierrors import (
    conflicting_resource_update,
    delete_conflict,
    invalid_request,
    resource_already_exists,
    resource_not_found,
    versions_limit_exceeded,
)
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import ProvisioningTemplate, TemplateType, TemplateVersion
from devicesim.emulator.state.tags import Tags


class Templates:
    """Provisioning templates of every account and Region."""

    def __init__(self, environment: Environment, tags: Tags) -> None:
        self._environment = environment
        self._tags = tags

    def get(self, partition: Partition, name: str) -> ProvisioningTemplate:
        try:
            return partition.templates[name]
        except KeyError:
            raise resource_not_found(f"The provisioning template {name} does not exist") from None

    def version(self, partition: Partition, name: str, version_id: int) -> TemplateVersion:
        try:
            return self.get(partition, name).versions[version_id]
        except KeyError:
            raise resource_not_found(f"Version {version_id} of provisioning template {name} does not exist") from None

    def create(
        self,
        partition: Partition,
        name: str,
        *,
        body: str,
        role_arn: str,
        type: TemplateType = TemplateType.FLEET_PROVISIONING,  # noqa: A002 - AWS's own word for it
        description: str | None = None,
        enabled: bool = False,
        pre_provisioning_hook: Mapping[str, str] | None = None,
        tags: Sequence[tuple[str, str]] = (),
    ) -> ProvisioningTemplate:
        arn = partition.arn("provisioningtemplate", name)
        if name in partition.templates:
            raise resource_already_exists(
                f"The provisioning template {name} already exists", resource_id=name, resource_arn=arn
            )
        if type is TemplateType.JITP and pre_provisioning_hook is not None:
            raise invalid_request("A template of type JITP can not have a preProvisioningHook")  # rule D (§1.5)
        self._environment.validate_template(body)
        checked_tags = self._tags.checked(tags)
        now = self._environment.now()
        template = ProvisioningTemplate(
            name=name,
            arn=arn,
            sequence=partition.next_sequence(),
            type=type,
            description=description,
            enabled=enabled,
            role_arn=role_arn,
            pre_provisioning_hook=pre_provisioning_hook,
            versions={1: TemplateVersion(version_id=1, body=body, creation_date=now)},
            default_version_id=1,
            next_version_id=2,
            creation_date=now,
            last_modified_date=now,
        )
        partition.templates[name] = template
        if checked_tags:
            partition.tags[arn] = checked_tags
        return template

    def update(
        self,
        partition: Partition,
        name: str,
        *,
        description: str | None = None,
        enabled: bool | None = None,
        default_version_id: int | None = None,
        role_arn: str | None = None,
        pre_provisioning_hook: Mapping[str, str] | None = None,
        remove_pre_provisioning_hook: bool = False,
    ) -> ProvisioningTemplate:
        """Change a template; its type never, its body only by another version."""
        template = self.get(partition, name)
        if default_version_id is not None:
            self.version(partition, name, default_version_id)
        if pre_provisioning_hook is not None:
            if template.type is TemplateType.JITP:
                raise invalid_request("A template of type JITP can not have a preProvisioningHook")
            if remove_pre_provisioning_hook:
                raise invalid_request("The preProvisioningHook can not be set and removed in the same request")
        hook = None if remove_pre_provisioning_hook else pre_provisioning_hook or template.pre_provisioning_hook
        changed = replace(
            template,
            description=template.description if description is None else description,
            enabled=template.enabled if enabled is None else enabled,
            default_version_id=default_version_id or template.default_version_id,
            role_arn=role_arn or template.role_arn,
            pre_provisioning_hook=hook,
            last_modified_date=self._environment.now(),
        )
        partition.templates[name] = changed
        return changed

    def create_version(
        self, partition: Partition, name: str, body: str, *, set_as_default: bool = False
    ) -> TemplateVersion:
        template = self.get(partition, name)
        limit = self._environment.settings.max_template_versions
        if len(template.versions) >= limit:
            raise versions_limit_exceeded(f"The provisioning template {name} already has {limit} versions")
        self._environment.validate_template(body)
        now = self._environment.now()
        version = TemplateVersion(version_id=template.next_version_id, body=body, creation_date=now)
        partition.templates[name] = replace(
            template,
            versions={**template.versions, version.version_id: version},
            default_version_id=version.version_id if set_as_default else template.default_version_id,
            next_version_id=version.version_id + 1,
            last_modified_date=now,
        )
        return version

    def delete_version(self, partition: Partition, name: str, version_id: int) -> None:
        template = self.get(partition, name)
        self.version(partition, name, version_id)
        if version_id == template.default_version_id:
            raise delete_conflict(f"Version {version_id} is the default version of provisioning template {name}")
        versions = {key: version for key, version in template.versions.items() if key != version_id}
        partition.templates[name] = replace(template, versions=versions)

    def delete(self, partition: Partition, name: str) -> None:
        template = self.get(partition, name)
        users = [
            ca.certificate_id
            for ca in partition.cas.values()
            if ca.registration_config is not None and ca.registration_config.template_name == name
        ]
        if users and self._environment.settings.template_named_by_ca_stays:
            raise delete_conflict(f"The provisioning template {name} is used by the CA certificate {users[0]}")
        if len(template.versions) > 1:
            raise conflicting_resource_update(
                f"The provisioning template {name} has versions besides the default one; delete them first"
            )
        del partition.templates[name]
        partition.tags.pop(template.arn, None)
