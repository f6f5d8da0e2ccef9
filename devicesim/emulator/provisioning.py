"""Provisioning: a template run for one device, through the same rules as the API. Pure.

Three ways lead here: just-in-time provisioning (:func:`provision`), the operation RegisterThing, and a device that
provisions itself with a claim (both :func:`register_thing`).

What a device sees of JITP is nothing: its first connection is closed, the run takes place some seconds later, and the
next CONNECT succeeds or not (aws-iot-behaviour.md §3). When the run happens is the data plane's affair.

A run is all or nothing in what it leaves behind: on the first refusal, what it has made is taken back, the certificate
has the status it had, and the outcome says why in AWS's words.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from cryptography import x509
from cryptography.x509.oid import NameOID

from devicesim.emulator import templates
from devicesim.emulator.apierrors import (
    APIError,
    invalid_request,
    resource_registration_failure,
)
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.state import x509rules
from devicesim.emulator.state.records import CertificateStatus, DeviceCertificate, EffectiveTemplate, Thing
from devicesim.emulator.templatefunctions import invalid_template
from devicesim.pki.identity import certificate_id as id_of

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


ERRORS: Final = frozenset(
    {
        "ConflictingResourceUpdateException",
        "InternalFailureException",
        "InvalidRequestException",
        "ResourceRegistrationFailureException",
        "ServiceUnavailableException",
        "ThrottlingException",
        "UnauthorizedException",
    }
)
"""What RegisterThing may answer (botocore, D). Every other refusal that a run meets inside is told as
ResourceRegistrationFailureException, as "Thing type not found" is (§3, S)."""

Existing = Literal["FAIL", "DO_NOTHING"]
"""What is done with what exists in another configuration, where the template does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one run."""

    succeeded: bool
    detail: str
    error: str | None = None
    """AWS's exception name, one of :data:`ERRORS` once the template is run; ``None`` when it succeeded."""
    cause: str | None = None
    """The exception of the rule that was broken, which :attr:`error` may stand for."""
    certificate_id: str | None = None
    certificate_pem: str | None = None
    thing_name: str | None = None
    policy_names: tuple[str, ...] = ()
    resource_arns: Mapping[str, str] = field(default_factory=dict)
    """By logical name: thing, certificate, and policies made from a document. A policy that the template names is not
    among them ("ARNs for the generated resources"; the CLI reference's example of register-thing, D)."""
    device_configuration: Mapping[str, object] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    """With which the template was run."""


def validate_template(body: str) -> None:
    """Refuse a template that could never provision: what the control plane asks when one is registered."""
    templates.check_registered(body)


def certificate_parameters(leaf: x509.Certificate, certificate_id: str) -> dict[str, str]:
    """The pseudo parameters that this certificate has; of an attribute with several values the first (I)."""
    values = {templates.PSEUDO_PREFIX + "Id": certificate_id}
    for name, oid in _SUBJECT.items():
        found = leaf.subject.get_attributes_for_oid(oid)
        if found and isinstance(found[0].value, str):
            values[templates.PSEUDO_PREFIX + name] = found[0].value
    return values


def parameters_of(record: DeviceCertificate) -> dict[str, str]:
    """The pseudo parameters of a registered certificate."""
    leaf = x509.load_pem_x509_certificate(record.pem.encode("ascii"))
    return certificate_parameters(leaf, record.certificate_id)


def resolve(body: str, leaf: x509.Certificate, certificate_id: str) -> templates.Plan:
    """What the template says for this certificate; ``InvalidRequestException`` when it cannot say it."""
    return templates.parse(body).resolve(certificate_parameters(leaf, certificate_id))


def provision(
    registry: Registry,
    partition: Partition,
    certificate_id: str,
    template: EffectiveTemplate,
    *,
    existing_thing: Existing = "FAIL",
) -> Outcome:
    """Run ``template`` for a PENDING_ACTIVATION certificate (JITP); ``existing_thing`` is
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
    parameters = parameters_of(record)
    if not template.enabled:
        return Outcome(
            succeeded=False,
            error="InvalidRequestException",
            detail=f"the provisioning template {template.name} is not enabled",
            parameters=parameters,
        )
    run = _Run(registry, partition, existing_thing, certificate_id)
    return run.outcome(template.body, parameters, every_declared=True)


def register_thing(
    registry: Registry,
    partition: Partition,
    template_body: str,
    parameters: Mapping[str, str],
    *,
    certificate_id: str | None = None,
) -> Outcome:
    """Run a template with a caller's parameters: RegisterThing, or a claim's device.

    ``certificate_id`` is the certificate that a claim's ownership token speaks of: it becomes the pseudo parameter
    ``AWS::IoT::Certificate::Id``, and the template may name no other. Never raises: a refusal is an outcome.
    """
    values = dict(parameters)
    if certificate_id is not None:
        values[templates.PSEUDO_PREFIX + "Id"] = certificate_id
    existing = registry.environment.settings.register_thing_existing
    return _Run(registry, partition, existing, certificate_id).outcome(template_body, values, every_declared=False)


class _Run:
    """One run of one template, and how to take it back."""

    def __init__(
        self, registry: Registry, partition: Partition, existing: Existing, certificate_id: str | None
    ) -> None:
        self._registry = registry
        self._partition = partition
        self._existing: Existing = existing
        self._certificate_id = certificate_id
        """The only one that may be meant; ``None`` where the template may say."""
        self._undo: list[Callable[[], object]] = []
        self._made: str | None = None
        """Id of the certificate that this run has registered."""

    def outcome(self, body: str, parameters: Mapping[str, str], *, every_declared: bool) -> Outcome:
        try:
            plan = templates.parse(body).resolve(parameters, every_declared=every_declared)
            return self._execute(plan, parameters)
        except APIError as refusal:
            self._take_back()
            error = refusal.code if refusal.code in ERRORS else "ResourceRegistrationFailureException"
            return Outcome(
                succeeded=False, error=error, cause=refusal.code, detail=refusal.message, parameters=parameters
            )
        except Exception:  # a bug: whoever reports it must not find half a thing
            self._take_back()
            raise

    def _take_back(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _execute(self, plan: templates.Plan, parameters: Mapping[str, str]) -> Outcome:
        """The workflow of §3: thing, policies, attachments, and last the status."""
        registry, partition, undo = self._registry, self._partition, self._undo
        record = self._certificate(plan.certificate)
        arns = {plan.certificate.logical_name: record.arn}
        if plan.thing is not None:
            _thing(registry, partition, plan.thing, undo, self._existing)
            arns[plan.thing.logical_name] = partition.things[plan.thing.name].arn
        for policy in plan.policies:
            name = policy.name
            if policy.document is None:
                registry.policies.get(partition, name)
                continue
            if name not in partition.policies:
                registry.policies.create(partition, name, policy.document)
                undo.append(partial(registry.policies.delete, partition, name))
            arns[policy.logical_name] = partition.policies[name].arn
        for policy in plan.policies:
            name = policy.name
            if name not in partition.policies_of_target.get(record.arn, {}):
                registry.policies.attach(partition, name, record.arn)
                undo.append(partial(registry.policies.detach, partition, name, record.arn))
        if plan.thing is not None:
            thing_name = plan.thing.name
            if thing_name not in partition.things_of_certificate(record.certificate_id):
                registry.things.attach_principal(partition, thing_name, record.arn)
                undo.append(partial(registry.things.detach_principal, partition, thing_name, record.arn))
        status = self._set_status(plan.certificate, record)
        return Outcome(
            succeeded=True,
            detail=f"the certificate is {status}",
            certificate_id=record.certificate_id,
            certificate_pem=record.pem,
            thing_name=None if plan.thing is None else plan.thing.name,
            policy_names=tuple(policy.name for policy in plan.policies),
            resource_arns=arns,
            device_configuration=plan.device_configuration,
            parameters=parameters,
        )

    def _certificate(self, plan: templates.CertificatePlan) -> DeviceCertificate:
        """The certificate meant; one that is made here is INACTIVE until everything else is done."""
        certificates, partition = self._registry.certificates, self._partition
        if plan.certificate_id is not None:
            if self._certificate_id not in (None, plan.certificate_id):
                raise invalid_template(f"The certificateId {plan.certificate_id} is not that of the device.")
            return certificates.get(partition, plan.certificate_id)
        if self._certificate_id is not None:  # D: "you must use CertificateId"; text I
            raise invalid_template("certificateId is not present in the Template.")
        if plan.pem is not None:
            known = partition.certificates.get(id_of(x509rules.parse(plan.pem, "Certificate")))
            if known is not None:
                return known
            record = certificates.register(partition, plan.pem, ca_pem=plan.ca_pem, status=CertificateStatus.INACTIVE)
        else:
            assert plan.csr is not None  # templates has seen to it
            record = certificates.create_from_csr(partition, plan.csr, active=False)
        self._undo.append(partial(certificates.delete, partition, record.certificate_id, force=True))
        self._made = record.certificate_id
        return record

    def _set_status(self, plan: templates.CertificatePlan, record: DeviceCertificate) -> CertificateStatus:
        """A certificate that waits for activation is activated whatever OverrideSettings say: the guide's own JITP
        example has DO_NOTHING there and ends with an ACTIVE certificate (D)."""
        status = CertificateStatus(plan.status)
        if record.status is status:
            return status
        if record.status is not CertificateStatus.PENDING_ACTIVATION and record.certificate_id != self._made:
            action = plan.override or self._existing
            if action == "FAIL":
                raise resource_registration_failure(
                    f"ResourceConflictsException: the certificate {record.certificate_id} is {record.status}, not"
                    f" {status}, and the template has no OverrideSettings for Status that replace it"
                )
            if action == "DO_NOTHING":
                return record.status
        self._registry.certificates.update(self._partition, record.certificate_id, status)
        return status


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
    if plan.billing_group not in (None, previous.billing_group_name):
        _fail_if(existing_thing, plan.name, "billing group")  # which OverrideSettings do not know (D)


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
