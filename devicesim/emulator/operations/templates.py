"""Provisioning templates and their versions."""

from collections.abc import Mapping
from typing import Any

from devicesim.emulator.operations.call import Call, Handler, token_page
from devicesim.emulator.state.records import TemplateType


def create_provisioning_template(call: Call) -> Mapping[str, Any]:
    template = call.registry.templates.create(
        call.partition,
        call["templateName"],
        body=call["templateBody"],
        role_arn=call["provisioningRoleArn"],
        type=TemplateType(call.get("type") or TemplateType.FLEET_PROVISIONING),
        description=call.get("description"),
        enabled=bool(call.get("enabled")),
        pre_provisioning_hook=call.get("preProvisioningHook"),
        tags=call.tags,
    )
    return {
        "templateArn": template.arn,
        "templateName": template.name,
        "defaultVersionId": template.default_version_id,
    }


def describe_provisioning_template(call: Call) -> Mapping[str, Any]:
    template = call.registry.templates.get(call.partition, call["templateName"])
    return {
        "templateArn": template.arn,
        "templateName": template.name,
        "description": template.description,
        "creationDate": template.creation_date,
        "lastModifiedDate": template.last_modified_date,
        "defaultVersionId": template.default_version_id,
        "templateBody": template.body,
        "enabled": template.enabled,
        "provisioningRoleArn": template.role_arn,
        "preProvisioningHook": template.pre_provisioning_hook,
        "type": template.type,
    }


def update_provisioning_template(call: Call) -> Mapping[str, Any]:
    call.registry.templates.update(
        call.partition,
        call["templateName"],
        description=call.get("description"),
        enabled=call.get("enabled"),
        default_version_id=call.get("defaultVersionId"),
        role_arn=call.get("provisioningRoleArn"),
        pre_provisioning_hook=call.get("preProvisioningHook"),
        remove_pre_provisioning_hook=bool(call.get("removePreProvisioningHook")),
    )
    return {}


def delete_provisioning_template(call: Call) -> Mapping[str, Any]:
    call.registry.templates.delete(call.partition, call["templateName"])
    return {}


def list_provisioning_templates(call: Call) -> Mapping[str, Any]:
    page, token = token_page(call, list(call.partition.templates.values()), lambda template: template.sequence)
    return {
        "templates": [
            {
                "templateArn": template.arn,
                "templateName": template.name,
                "description": template.description,
                "creationDate": template.creation_date,
                "lastModifiedDate": template.last_modified_date,
                "enabled": template.enabled,
                "type": template.type,
            }
            for template in page
        ],
        "nextToken": token,
    }


def create_provisioning_template_version(call: Call) -> Mapping[str, Any]:
    name = call["templateName"]
    version = call.registry.templates.create_version(
        call.partition, name, call["templateBody"], set_as_default=bool(call.get("setAsDefault"))
    )
    template = call.registry.templates.get(call.partition, name)
    return {
        "templateArn": template.arn,
        "templateName": name,
        "versionId": version.version_id,
        "isDefaultVersion": version.version_id == template.default_version_id,
    }


def describe_provisioning_template_version(call: Call) -> Mapping[str, Any]:
    version = call.registry.templates.version(call.partition, call["templateName"], call["versionId"])
    template = call.registry.templates.get(call.partition, call["templateName"])
    return {
        "versionId": version.version_id,
        "creationDate": version.creation_date,
        "templateBody": version.body,
        "isDefaultVersion": version.version_id == template.default_version_id,
    }


def list_provisioning_template_versions(call: Call) -> Mapping[str, Any]:
    template = call.registry.templates.get(call.partition, call["templateName"])
    page, token = token_page(call, list(template.versions.values()), lambda version: version.version_id)
    return {
        "versions": [
            {
                "versionId": version.version_id,
                "creationDate": version.creation_date,
                "isDefaultVersion": version.version_id == template.default_version_id,
            }
            for version in page
        ],
        "nextToken": token,
    }


def delete_provisioning_template_version(call: Call) -> Mapping[str, Any]:
    call.registry.templates.delete_version(call.partition, call["templateName"], call["versionId"])
    return {}


HANDLERS: Mapping[str, Handler] = {
    "CreateProvisioningTemplate": create_provisioning_template,
    "DescribeProvisioningTemplate": describe_provisioning_template,
    "UpdateProvisioningTemplate": update_provisioning_template,
    "DeleteProvisioningTemplate": delete_provisioning_template,
    "ListProvisioningTemplates": list_provisioning_templates,
    "CreateProvisioningTemplateVersion": create_provisioning_template_version,
    "DescribeProvisioningTemplateVersion": describe_provisioning_template_version,
    "ListProvisioningTemplateVersions": list_provisioning_template_versions,
    "DeleteProvisioningTemplateVersion": delete_provisioning_template_version,
}
