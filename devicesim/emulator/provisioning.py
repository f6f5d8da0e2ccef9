"""Just-in-time provisioning: a template run for one certificate, through the same rules as the API. Pure.

What the device sees of it is nothing: its first connection is closed, the run takes place some seconds later, and the
next CONNECT succeeds or not (aws-iot-behaviour.md §3). When the run happens is the data plane's affair.

A run is all or nothing in what it leaves behind: on the first refusal, what it has made is taken back, the certificate
stays PENDING_ACTIVATION, and the outcome says why in AWS's words.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from cryptography import x509
from cryptography.x509.oid import NameOID

from devicesim.emulator import templates
from devicesim.emulator.apierrors import (
    APIError,
    invalid_request,
    resource_not_found,
    resource_registration_failure,
)
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.state.records import CertificateStatus, EffectiveTemplate, Thing

_SUBJECT = {
    "Country": NameOID.COUNTRY_NAME,
    "Organization": NameOID.ORGANIZATION_NAME,
    "OrganizationalUnit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "DistinguishedNameQualifier": NameOID.DN_QUALIFIER,
    "StateName": NameOID.STATE_OR_PROVINCE_NAME,
    "CommonName": NameOID.COMMON_NAME,
    "SerialNumber": NameOID.SERIAL_NUMBER,
}
"""Pseudo parameters and subject attributes. ``SerialNumber`` is the subject's own attribute 2.5.4.5, as documented, and
not the certificate's serial number (§3: sources disagree; §11 no. 10)."""

THING_NAME: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
ATTRIBUTE_NAME: Final = re.compile(r"[a-zA-Z0-9_.,@/:#-]{1,128}")
ATTRIBUTE_VALUE: Final = re.compile(r"[a-zA-Z0-9_.,@/:#=\[\]-]{0,800}")
"""CreateThing's own constraints (botocore, D). At the API the model keeps them; a template fills them in from a
subject, which may hold what no thing can: a space, a backslash (SE272476)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one run."""

    succeeded: bool
    detail: str
    error: str | None = None
    """AWS's exception name; ``None`` when it succeeded."""
    thing_name: str | None = None
    policy_names: tuple[str, ...] = ()


def validate_template(body: str) -> None:
    """Refuse a template that could never provision: what the control plane asks when one is registered."""
    templates.parse(body)


def certificate_parameters(leaf: x509.Certificate, certificate_id: str) -> dict[str, str]:
    """The pseudo parameters that this certificate has; of an attribute with several values the first (I)."""
    values = {templates.PSEUDO_PREFIX + "Id": certificate_id}
    for name, oid in _SUBJECT.items():
        found = leaf.subject.get_attributes_for_oid(oid)
        if found and isinstance(found[0].value, str):
            values[templates.PSEUDO_PREFIX + name] = found[0].value
    return values


def resolve(body: str, leaf: x509.Certificate, certificate_id: str) -> templates.Plan:
    """What the template says for this certificate; ``InvalidRequestException`` when it cannot say it."""
    return templates.parse(body).resolve(certificate_parameters(leaf, certificate_id))


def provision(
    registry: Registry,
    partition: Partition,
    certificate_id: str,
    template: EffectiveTemplate,
    *,
    existing_thing: Literal["FAIL", "DO_NOTHING"] = "FAIL",
) -> Outcome:
    """Run ``template`` for a PENDING_ACTIVATION certificate; ``existing_thing`` is
    :attr:`~devicesim.emulator.settings.Settings.jitp_existing_thing`."""
    record = partition.certificates.get(certificate_id)
    if record is None:
        return Outcome(succeeded=False, error="ResourceNotFoundException", detail="the certificate has been deleted")
    if record.status is not CertificateStatus.PENDING_ACTIVATION:
        return Outcome(
            succeeded=False,
            error="CertificateStateException",
            detail=f"the certificate has become {record.status} in the meantime",
        )
    if not template.enabled:
        return Outcome(
            succeeded=False,
            error="InvalidRequestException",
            detail=f"the provisioning template {template.name} is not enabled",
        )
    undo: list[Callable[[], object]] = []
    try:
        leaf = x509.load_pem_x509_certificate(record.pem.encode("ascii"))
        plan = resolve(template.body, leaf, certificate_id)
        return _run(registry, partition, certificate_id, plan, undo, existing_thing)
    except APIError as refusal:
        for step in reversed(undo):
            step()
        return Outcome(succeeded=False, error=refusal.code, detail=refusal.message)


def _run(
    registry: Registry,
    partition: Partition,
    certificate_id: str,
    plan: templates.Plan,
    undo: list[Callable[[], object]],
    existing_thing: str,
) -> Outcome:
    """The workflow of §3: thing, policies, attachments, and last the status."""
    if plan.certificate_id != certificate_id:
        raise templates.invalid_template(f"The certificateId {plan.certificate_id} is not that of the device.")
    principal = partition.certificate_arn(certificate_id)
    if plan.thing is not None:
        _thing(registry, partition, plan.thing, undo, existing_thing)
    for policy in plan.policies:
        name = policy.name
        if policy.document is None:
            registry.policies.get(partition, name)
        elif name not in partition.policies:
            registry.policies.create(partition, name, policy.document)
            undo.append(partial(registry.policies.delete, partition, name))
    for policy in plan.policies:
        name = policy.name
        if name not in partition.policies_of_target.get(principal, {}):
            registry.policies.attach(partition, name, principal)
            undo.append(partial(registry.policies.detach, partition, name, principal))
    if plan.thing is not None:
        thing_name = plan.thing.name
        if thing_name not in partition.things_of_certificate(certificate_id):
            registry.things.attach_principal(partition, thing_name, principal)
            undo.append(partial(registry.things.detach_principal, partition, thing_name, principal))
    # The template's OverrideSettings for Status do not hold the activation back: the guide's own JITP example has
    # DO_NOTHING there and ends with an ACTIVE certificate (D).
    registry.certificates.update(partition, certificate_id, CertificateStatus(plan.status))
    return Outcome(
        succeeded=True,
        detail=f"the certificate is {plan.status}",
        thing_name=None if plan.thing is None else plan.thing.name,
        policy_names=tuple(policy.name for policy in plan.policies),
    )


def _thing(
    registry: Registry,
    partition: Partition,
    plan: templates.ThingPlan,
    undo: list[Callable[[], object]],
    existing_thing: str,
) -> None:
    _check(THING_NAME, plan.name, "thingName")
    for key, value in plan.attributes.items():
        _check(ATTRIBUTE_NAME, key, "attributePayload.attributes.key")
        _check(ATTRIBUTE_VALUE, value, f"attributePayload.attributes.{key}.value")
    for group in plan.groups:
        registry.thing_groups.get(partition, group)  # groups and types must exist beforehand (§3)
    previous = partition.things.get(plan.name)
    if previous is not None and plan.billing_group not in (None, previous.billing_group_name):
        raise resource_not_found(f"The billing group {plan.billing_group} does not exist")  # as for a new thing
    if previous is None:
        registry.things.create(
            partition,
            plan.name,
            thing_type_name=plan.thing_type_name,
            attributes=plan.attributes,
            billing_group_name=plan.billing_group,
        )
        undo.append(partial(registry.things.delete, partition, plan.name))
        _join(registry, partition, plan.name, plan.groups, undo)
        return
    _override_attributes_and_type(registry, partition, plan, previous, undo, existing_thing)
    _override_groups(registry, partition, plan, undo, existing_thing)


def _check(pattern: re.Pattern[str], value: str, path: str) -> None:
    if not pattern.fullmatch(value):
        raise invalid_request(  # code and text by analogy with CreateThing (I)
            f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint:"
            f" Member must satisfy regular expression pattern: {pattern.pattern}"
        )


def _override_attributes_and_type(
    registry: Registry,
    partition: Partition,
    plan: templates.ThingPlan,
    previous: Thing,
    undo: list[Callable[[], object]],
    existing_thing: str,
) -> None:
    attributes, merge = None, False
    if dict(plan.attributes) != dict(previous.attributes):
        action = plan.overrides.get("AttributePayload", existing_thing)
        _fail_if(action, plan.name, "attributes")
        if action != "DO_NOTHING":
            attributes, merge = plan.attributes, action == "MERGE"
    thing_type = None
    if plan.thing_type_name is not None and plan.thing_type_name != previous.thing_type_name:
        action = plan.overrides.get("ThingTypeName", existing_thing)
        _fail_if(action, plan.name, "thing type")
        if action == "REPLACE":
            thing_type = plan.thing_type_name
    if attributes is not None or thing_type is not None:
        registry.things.update(partition, plan.name, thing_type_name=thing_type, attributes=attributes, merge=merge)
        undo.append(partial(partition.put_thing, previous))


def _override_groups(
    registry: Registry,
    partition: Partition,
    plan: templates.ThingPlan,
    undo: list[Callable[[], object]],
    existing_thing: str,
) -> None:
    held = tuple(partition.groups_of_thing.get(plan.name, {}))
    if not plan.groups or set(plan.groups) == set(held):
        return
    action = plan.overrides.get("ThingGroups", existing_thing)
    _fail_if(action, plan.name, "thing groups")
    if action == "DO_NOTHING":
        return
    if action == "REPLACE":
        for group in held:
            if group not in plan.groups:
                registry.thing_groups.remove_thing(partition, group, plan.name)
                undo.append(partial(partition.join_group, plan.name, group))
    _join(registry, partition, plan.name, tuple(group for group in plan.groups if group not in held), undo)


def _join(
    registry: Registry,
    partition: Partition,
    thing_name: str,
    groups: tuple[str, ...],
    undo: list[Callable[[], object]],
) -> None:
    for group in groups:
        registry.thing_groups.add_thing(partition, group, thing_name)
        undo.append(partial(registry.thing_groups.remove_thing, partition, group, thing_name))


def _fail_if(action: str, thing_name: str, what: str) -> None:
    if action == "FAIL":
        # D names ResourceConflictsException for the override FAIL; RegisterThing has no such error in its model
        raise resource_registration_failure(
            f"ResourceConflictsException: the thing {thing_name} exists with other {what}"
        )
