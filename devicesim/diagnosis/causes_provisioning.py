"""Causes that stand in just-in-time provisioning: the template, its role (aws-iot-behaviour.md §9: 5, 6). Pure.

Both leave the certificate PENDING_ACTIVATION, and each further CONNECT repeats the same failure (§3).
"""

import re

from devicesim.diagnosis import catalogue, commands
from devicesim.diagnosis.case import JITP_SECONDS, PROVISIONING_SECONDS, Case
from devicesim.diagnosis.evidence import ProvisioningEvent, TemplateEvidence
from devicesim.diagnosis.findings import Finding
from devicesim.diagnosis.scales import HINT, PROOF, USUAL, Scales

TRAIL_SECONDS = 900.0
"""CloudTrail delivers within some 15 minutes: until then that it has nothing says little."""
_ROLE = re.compile(r"access.?denied|not.?authori[sz]ed|unauthori[sz]ed|forbidden|\bassume|iam:PassRole", re.IGNORECASE)
_THROTTLED = re.compile(r"throttl|rate exceeded|too many requests", re.IGNORECASE)


def is_role_error(event: ProvisioningEvent | None) -> bool:
    return (
        event is not None and event.error is not None and not is_throttled(event) and bool(_ROLE.search(_said(event)))
    )


def is_throttled(event: ProvisioningEvent | None) -> bool:
    return event is not None and event.error is not None and bool(_THROTTLED.search(_said(event)))


def _said(event: ProvisioningEvent) -> str:
    return f"{event.error}: {event.message}"


def template_fails(case: Case) -> Finding | None:
    """5: a parameter that the subject lacks, a missing type, group or policy, a colliding thing name."""
    scales, template, event = Scales(), _template(case), case.last_provisioning
    name = case.place_name
    if template is not None:
        which = f"template {template.name!r}" if template.name else "the template"
        for parameter in template.missing_parameters:
            attribute = parameter.rpartition("::")[2]
            # some take it for the certificate's own serial number, which every certificate has (§3, ambiguous)
            weight = min(case.proof, USUAL) if attribute == "SerialNumber" else case.proof
            says = "" if case.evidence.leaf is None else f": {case.evidence.leaf.subject_text}"
            scales.speaks_for(
                weight, f"{which} of {name} wants {parameter}, which the certificate's subject does not have{says}"
            )
            scales.fix(
                f"issue certificates with {attribute} in their subject, or give the parameter a Default",
                *_new_template(case, template),
            )
        for thing in template.missing_things:
            scales.speaks_for(case.proof, f"{which} refers to {thing}, which {name} does not have")
            scales.fix(f"create {thing} in {name}, or take it out of the template", *_create(case, thing))
        for problem in template.problems:
            scales.speaks_for(case.proof, f"{which} of {name}: {problem}")
            scales.fix("correct the template", *_new_template(case, template))
    if event is not None and event.error is not None and not is_role_error(event) and not is_throttled(event):
        scales.speaks_for(PROOF, f"CloudTrail of {name}: RegisterThing failed: {_said(event)}")
        scales.fix("correct what RegisterThing says; the next connection runs the template again")
    if not scales.supporting and template is not None:
        _pending_long(case, scales)
    if not scales.supporting:
        return None
    _against(case, scales, name)
    if is_role_error(event):
        scales.speaks_against(USUAL, "CloudTrail blames the role")
    if not scales.fixes and case.place is not None:
        scales.fix(
            "read what RegisterThing says",
            "aws cloudtrail lookup-events --lookup-attributes AttributeKey=EventName,AttributeValue=RegisterThing"
            f" --region {case.place.region}",
        )
    return scales.finding(catalogue.TEMPLATE)


def role_fails(case: Case) -> Finding | None:
    """6: AWS IoT cannot assume the role, or the role may not do what the template asks."""
    scales, template, event = Scales(), _template(case), case.last_provisioning
    name = case.place_name
    role = "the role" if template is None or template.role_arn is None else template.role_arn
    if template is not None and template.role_problem is not None:
        scales.speaks_for(case.proof, f"{role}: {template.role_problem}")
    if event is not None and is_role_error(event):
        scales.speaks_for(PROOF, f"CloudTrail of {name}: RegisterThing failed: {_said(event)}")
    if not scales.supporting and template is not None:
        _pending_long(case, scales)
    if not scales.supporting:
        return None
    _against(case, scales, name)
    trusted = template is not None and template.role_asked and template.role_problem is None
    if trusted and not is_role_error(event):
        scales.speaks_against(HINT, f"iot.amazonaws.com may assume {role}; what that may do was not looked at")
    if event is not None and event.error is not None and not is_role_error(event):
        scales.speaks_against(USUAL, "CloudTrail blames something else")
    short_name = role.rpartition("/")[2] if "/" in role else "ROLE_NAME"
    scales.fix(
        "let iot.amazonaws.com assume the role, and attach AWSIoTThingsRegistration to it",
        f"aws iam get-role --role-name {short_name}",
        f"aws iam attach-role-policy --role-name {short_name}"
        " --policy-arn arn:aws:iam::aws:policy/service-role/AWSIoTThingsRegistration",
    )
    return scales.finding(catalogue.ROLE)


_CREATE = {
    "thing type": ("create-thing-type", "thing_type_name"),
    "thing group": ("create-thing-group", "thing_group_name"),
    "billing group": ("create-billing-group", "billing_group_name"),
    "policy": ("create-policy", "policy_name"),
}


def _create(case: Case, thing: str) -> tuple[str, ...]:
    """The command that makes what a template misses, said as ``thing group 'robots'``."""
    kind, _, name = thing.partition(" '")
    if kind not in _CREATE or not name or case.place is None:
        return ()
    operation, option = _CREATE[kind]
    document = "file://policy.json" if kind == "policy" else False
    words = {option: name.removesuffix("'"), "policy_document": document}
    return (commands.aws(operation, case.place.region, **words),)


def _new_template(case: Case, template: TemplateEvidence) -> tuple[str, ...]:
    if case.place is None:
        return ()
    if template.name is not None:
        return (
            commands.aws(
                "create-provisioning-template-version",
                case.place.region,
                template_name=template.name,
                template_body="file://template.json",
                set_as_default=True,
            ),
        )
    ca = case.provisioned_by
    return (
        commands.aws(
            "update-ca-certificate",
            case.place.region,
            certificate_id=ca.certificate_id if ca is not None and ca.certificate_id else "CA_CERTIFICATE_ID",
            registration_config="file://registration-config.json",
        ),
    )


def _template(case: Case) -> TemplateEvidence | None:
    """The template that runs, or would run, for the certificate."""
    ca = case.provisioned_by
    return None if ca is None else ca.template


def _pending_long(case: Case, scales: Scales) -> None:
    pending = case.pending_for
    if pending is None or not case.refused:
        return
    if pending > JITP_SECONDS:
        weight = USUAL if pending >= PROVISIONING_SECONDS and case.tries > 1 else HINT
        scales.speaks_for(weight, f"PENDING_ACTIVATION for {pending:.0f} s, and JITP takes 1 to 3 s")


def _against(case: Case, scales: Scales, name: str) -> None:
    """What speaks against both: the template has run, or never came to run."""
    event, record = case.last_provisioning, case.record
    if record is not None and record.status == "ACTIVE":
        scales.speaks_against(PROOF, f"the certificate is ACTIVE in {name}")
    elif record is not None and record.status != "PENDING_ACTIVATION":
        scales.speaks_against(PROOF, f"the certificate is {record.status} in {name}: no template runs for it")
    elif case.no_record:
        scales.speaks_against(USUAL, f"{name} has no record of the certificate: its template has not run yet")
    if event is not None and event.error is None:
        scales.speaks_against(PROOF, f"CloudTrail of {name}: RegisterThing succeeded")
    elif case.place is not None and case.place.provisioning == () and case.evidence.attempts:
        waited = case.evidence.now - case.evidence.attempts[0].start
        scales.speaks_against(
            USUAL if waited > TRAIL_SECONDS else HINT, f"CloudTrail of {name} has no RegisterThing that failed"
        )
