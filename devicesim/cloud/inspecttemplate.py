"""A CA's provisioning template, and what its run for one certificate would meet in the account."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from cryptography import x509

from devicesim.cloud.asking import Asker
from devicesim.cloud.jitptemplate import Wanted, collisions, read, subject_parameters
from devicesim.diagnosis.evidence import TemplateEvidence

_SERVICE = "iot.amazonaws.com"


async def template_evidence(
    asker: Asker, config: Mapping[str, Any], leaf: x509.Certificate | None, certificate_id: str, *, run: bool
) -> TemplateEvidence | None:
    """What the ``registrationConfig`` of a CA makes of a certificate; ``None`` for JITR.

    ``run``: the template is still to run for it, so that what it refers to is looked for.
    """
    name, body, role = config.get("templateName"), config.get("templateBody"), config.get("roleArn")
    problems: list[str] = []
    if name is not None:
        answer = await asker.ask("describe_provisioning_template", templateName=name)
        if answer.absent:
            problems.append(f"the provisioning template {name!r} does not exist")
        if answer.found is not None:
            body, role = answer.found.get("templateBody"), answer.found.get("provisioningRoleArn")
            if not answer.found.get("enabled"):
                problems.append(f"the provisioning template {name!r} is not enabled")
    elif body is None:
        return None
    wanted = Wanted() if body is None or leaf is None else read(body, subject_parameters(leaf.subject), certificate_id)
    if body is not None and leaf is None:
        asker.refuse("the template's parameters: the device's certificate is not at hand")
    role_asked, role_problem = await _role(asker, role)
    return TemplateEvidence(
        name=name,
        role_arn=role,
        missing_parameters=wanted.missing_parameters,
        missing_things=await _missing(asker, wanted) if run else (),
        problems=(*problems, *wanted.problems, *(await _colliding(asker, wanted) if run else ())),
        role_problem=role_problem,
        role_asked=role_asked,
    )


async def _missing(asker: Asker, wanted: Wanted) -> tuple[str, ...]:
    """What it names and the account does not have: types, groups and policies must be there beforehand (§3, D)."""
    thing_type = None if wanted.thing is None else wanted.thing.type_name
    looked_for = [
        *[("describe_thing_type", "thingTypeName", "thing type", name) for name in (thing_type,)],
        *[("describe_thing_group", "thingGroupName", "thing group", name) for name in wanted.groups],
        *[("describe_billing_group", "billingGroupName", "billing group", name) for name in (wanted.billing_group,)],
        *[("get_policy", "policyName", "policy", name) for name in wanted.policies],
    ]
    return tuple(
        [
            f"{what} {name!r}"
            for operation, parameter, what, name in looked_for
            if name is not None and (await asker.ask(operation, **{parameter: name})).absent
        ]
    )


async def _colliding(asker: Asker, wanted: Wanted) -> tuple[str, ...]:
    if wanted.thing is None:
        return ()
    held = (await asker.ask("describe_thing", thingName=wanted.thing.name)).found
    if held is None:
        return ()
    return tuple(collisions(wanted.thing, held.get("thingTypeName"), held.get("attributes", {})))


async def _role(asker: Asker, role_arn: str | None) -> tuple[bool, str | None]:
    """Whether IAM could be asked about the role, and what is wrong with it."""
    access = asker.client.access
    if role_arn is None or access.emulated:  # an emulator has no IAM, and assumes any role
        return False, None
    parts = role_arn.split(":", 5)
    if len(parts) != 6 or not parts[5].startswith("role/"):
        return True, f"{role_arn!r} is no role"
    if parts[4] != access.account_id:
        return True, f"the role is of account {parts[4]}, and must be of {access.account_id}"
    name = parts[5].rpartition("/")[2]
    answer = await asker.ask("get_role", service="iam", RoleName=name)
    if answer.refusal is not None:
        return False, None
    if answer.found is None:
        return True, f"there is no role {name!r}"
    trusted = _trusts(answer.found["Role"].get("AssumeRolePolicyDocument"))
    return True, None if trusted else f"the trust policy of role {name!r} does not let {_SERVICE} assume it"


def _trusts(document: object) -> bool:
    """Whether a trust policy names AWS IoT; its conditions are not looked at."""
    if isinstance(document, str):  # boto3 decodes it, other ways to get it do not
        try:
            document = json.loads(unquote(document))
        except ValueError:
            return False
    statements = document.get("Statement", []) if isinstance(document, Mapping) else []
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal", {}) if isinstance(statement, Mapping) else {}
        services = principal.get("Service", []) if isinstance(principal, Mapping) else []
        allowed = isinstance(statement, Mapping) and statement.get("Effect") == "Allow"
        if allowed and _SERVICE in (services if isinstance(services, list) else [services]):
            return True
    return False
