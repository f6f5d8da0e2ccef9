"""Setting up a fleet's account: devices' policy, JITP template, the shared CA in its mode.

Idempotent: what is there already and as the fleet file says is taken; what is there otherwise is an error, never
overwritten, for it may be somebody's production.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from devicesim.cloud.account import AccountAccess, AccountClient, ControlPlaneError
from devicesim.errors import TargetError
from devicesim.pki.authority import Authority
from devicesim.pki.identity import certificate_pem

VERIFICATION_VALIDITY = timedelta(days=1)
"""The verification certificate is looked at once, in the call that carries it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPlan:
    """What one account is to hold."""

    ca_mode: str | None
    """DEFAULT, SNI_ONLY, or ``None``: the CA is not to be registered."""
    auto_registration: bool
    template: str | None
    """JITP template body; ``None`` for JITR."""
    role_arn: str | None
    """The role that JITP assumes; needed with a template."""
    policy_name: str
    policy: str
    """The devices' policy document."""


def default_policy(access: AccountAccess) -> str:
    """Devices may connect with their certificate's CN as client id, and use topics below it."""
    name = "${iot:Certificate.Subject.CommonName}"
    topics = ["iot:Publish", "iot:Receive"]
    return _json(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "iot:Connect", "Resource": access.arn(f"client/{name}")},
                {"Effect": "Allow", "Action": topics, "Resource": access.arn(f"topic/{name}/*")},
                {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": access.arn(f"topicfilter/{name}/*")},
            ],
        }
    )


def default_template(policy_name: str) -> str:
    """Thing named after the certificate's CN, the devices' policy, the certificate ACTIVE."""
    parameter = "AWS::IoT::Certificate::"
    return _json(
        {
            "Parameters": {parameter + "CommonName": {"Type": "String"}, parameter + "Id": {"Type": "String"}},
            "Resources": {
                "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": parameter + "CommonName"}}},
                "certificate": {
                    "Type": "AWS::IoT::Certificate",
                    "Properties": {"CertificateId": {"Ref": parameter + "Id"}, "Status": "ACTIVE"},
                },
                "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": policy_name}},
            },
        }
    )


def makes_thing(template: str) -> bool:
    """Whether a JITP template has a thing among its resources."""
    resources = json.loads(template).get("Resources", {})
    return any(
        isinstance(each, Mapping) and each.get("Type") == "AWS::IoT::Thing"
        for each in (resources.values() if isinstance(resources, Mapping) else ())
    )


async def data_endpoint(client: AccountClient) -> str:
    """The account's Data-ATS endpoint: the host name that is its SNI."""
    answer = await client.call("describe_endpoint", endpointType="iot:Data-ATS")
    # AWS answers a host name; MiniStack puts a port behind it, which is nobody's server name
    return str(answer["endpointAddress"]).partition(":")[0]


async def set_up(client: AccountClient, plan: AccountPlan, authority: Authority, now: datetime) -> list[str]:
    """Bring one account to what ``plan`` says. Returns what was done, one line each, for the record."""
    done: list[str] = []
    if plan.ca_mode is None:
        return done
    if await ensure_policy(client, plan.policy_name, plan.policy):
        done.append(f"created policy {plan.policy_name!r}")
    registered = await _describe_ca(client, authority.certificate_id)
    if registered is None:
        await _register_ca(client, plan, authority, now)
        done.append(f"registered CA {authority.certificate_id[:8]} in mode {plan.ca_mode}")
    else:
        _require_as_planned(client, plan, registered)
        done.append(f"found CA {authority.certificate_id[:8]} registered in mode {plan.ca_mode}")
    return done


async def ensure_policy(client: AccountClient, name: str, document: str) -> bool:
    """Create the policy; whether it was not there before. One of that name with another document is an error."""
    try:
        await client.call("create_policy", policyName=name, policyDocument=document)
    except ControlPlaneError as exc:
        if exc.code != "ResourceAlreadyExistsException":
            raise
    else:
        return True
    present = await client.call("get_policy", policyName=name)
    if json.loads(present["policyDocument"]) != json.loads(document):
        raise TargetError(
            f"account {client.access.name!r}: policy {name!r} exists with another document",
            hint="give accounts.*.policy_name another name, or delete that policy",
        )
    return False


async def _describe_ca(client: AccountClient, ca_id: str) -> dict[str, Any] | None:
    try:
        return await client.call("describe_ca_certificate", certificateId=ca_id)
    except ControlPlaneError as exc:
        if exc.code == "ResourceNotFoundException":
            return None
        raise


async def _register_ca(client: AccountClient, plan: AccountPlan, authority: Authority, now: datetime) -> None:
    request: dict[str, Any] = {
        "caCertificate": certificate_pem(authority.certificate),
        "setAsActive": True,
        "allowAutoRegistration": plan.auto_registration,
        "certificateMode": plan.ca_mode,
    }
    if plan.ca_mode == "DEFAULT":
        # aws-iot-behaviour.md §1.2 [D]: proof of possession, its CN the account's registration code
        code = (await client.call("get_registration_code"))["registrationCode"]
        verification = authority.verification_certificate(
            code, not_before=now - timedelta(minutes=5), not_after=now + VERIFICATION_VALIDITY
        )
        request["verificationCertificate"] = certificate_pem(verification.certificate)
    if plan.template is not None:
        if plan.role_arn is None:
            raise TargetError(
                f"account {client.access.name!r}: JITP needs a role that AWS IoT can assume",
                hint="give accounts.*.role_arn a role with the managed policy AWSIoTThingsRegistration",
            )
        request["registrationConfig"] = {"templateBody": plan.template, "roleArn": plan.role_arn}
    await client.call("register_ca_certificate", **request)


def _require_as_planned(client: AccountClient, plan: AccountPlan, registered: Mapping[str, Any]) -> None:
    """Raise :class:`TargetError` when the CA is registered otherwise than the fleet file says."""
    description = registered["certificateDescription"]
    config = registered.get("registrationConfig", {})
    wanted = {
        "certificateMode": plan.ca_mode,
        "status": "ACTIVE",
        "autoRegistrationStatus": "ENABLE" if plan.auto_registration else "DISABLE",
    }
    different = [
        f"{key} is {description.get(key)!r}, not {value!r}"
        for key, value in wanted.items()
        if description.get(key) != value
    ]
    template = config.get("templateBody")
    if (template is None) != (plan.template is None) and not config.get("templateName"):
        different.append(f"it has {'a' if template else 'no'} JITP template")
    elif template is not None and plan.template is not None and json.loads(template) != json.loads(plan.template):
        different.append("its JITP template is another")
    if different:
        raise TargetError(
            f"account {client.access.name!r}: CA {description['certificateId']} is registered already, but "
            + "; ".join(different),
            hint="a mode is changed by deleting the CA and registering it again; or correct the fleet file",
        )


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))
