"""Bringing an account to what the fleet file says, against a control plane that answers from a script."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from devicesim.cloud.account import AccountAccess, AccountClient, ControlPlaneError
from devicesim.cloud.setup import AccountPlan, default_policy, default_template, makes_thing, set_up
from devicesim.errors import TargetError
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.profile import KeyType

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ACCESS = AccountAccess(name="a", account_id="111111111111", region="us-east-1", emulated=True)
CODE = "c0de" * 16


class ScriptedAccount:
    """Answers each operation from a table; an answer that is a text is the name of an error."""

    access = ACCESS

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = {"create_policy": {}, "describe_ca_certificate": "ResourceNotFoundException", **answers}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        self.calls.append((operation, parameters))
        answer = self.answers[operation]
        if isinstance(answer, str):
            raise ControlPlaneError(f"{operation} refused", code=answer, fields={})
        return cast("dict[str, Any]", answer)

    def sent(self, operation: str) -> dict[str, Any]:
        return dict(self.calls)[operation]


def client(account: ScriptedAccount) -> AccountClient:
    return cast("AccountClient", account)


def plan(**changes: Any) -> AccountPlan:
    base: dict[str, Any] = {
        "ca_mode": "SNI_ONLY",
        "auto_registration": True,
        "template": None,
        "role_arn": None,
        "policy_name": "p",
        "policy": default_policy(ACCESS),
    }
    return AccountPlan(**{**base, **changes})


@pytest.fixture(scope="module")
def ca() -> Authority:
    return new_shared_authority("CA", KeyType.EC_P256, now=NOW, validity=timedelta(days=10))


def described(ca: Authority, **changes: Any) -> dict[str, Any]:
    description = {
        "certificateId": ca.certificate_id,
        "certificateMode": "SNI_ONLY",
        "status": "ACTIVE",
        "autoRegistrationStatus": "ENABLE",
    }
    return {"certificateDescription": {**description, **changes}}


async def test_sni_only_registers_without_the_cas_key(ca: Authority) -> None:
    account = ScriptedAccount({"register_ca_certificate": {}})
    public = Authority(certificate=ca.certificate, key=None)

    done = await set_up(client(account), plan(), public, NOW)

    request = account.sent("register_ca_certificate")
    assert "verificationCertificate" not in request
    assert (request["certificateMode"], request["setAsActive"], request["allowAutoRegistration"]) == (
        "SNI_ONLY",
        True,
        True,
    )
    assert [each[0] for each in account.calls] == [
        "create_policy",
        "describe_ca_certificate",
        "register_ca_certificate",
    ]
    assert done == ["created policy 'p'", f"registered CA {ca.certificate_id[:8]} in mode SNI_ONLY"]


async def test_default_registers_with_a_verification_certificate_for_the_accounts_code(ca: Authority) -> None:
    account = ScriptedAccount({"register_ca_certificate": {}, "get_registration_code": {"registrationCode": CODE}})

    await set_up(client(account), plan(ca_mode="DEFAULT"), ca, NOW)

    pem = account.sent("register_ca_certificate")["verificationCertificate"]
    certificate = x509.load_pem_x509_certificate(pem.encode())
    certificate.verify_directly_issued_by(ca.certificate)
    assert [each.value for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [CODE]
    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc


async def test_jitp_registers_the_template_with_its_role(ca: Authority) -> None:
    account = ScriptedAccount({"register_ca_certificate": {}})
    template, role = default_template("p"), "arn:aws:iam::111111111111:role/jitp"

    await set_up(client(account), plan(template=template, role_arn=role), ca, NOW)

    assert account.sent("register_ca_certificate")["registrationConfig"] == {"templateBody": template, "roleArn": role}


async def test_jitp_without_a_role_is_refused_before_anything_is_registered(ca: Authority) -> None:
    account = ScriptedAccount({})

    with pytest.raises(TargetError, match="needs a role") as caught:
        await set_up(client(account), plan(template=default_template("p")), ca, NOW)
    assert "AWSIoTThingsRegistration" in caught.value.hint


async def test_an_account_that_is_not_to_hold_the_ca_is_left_alone(ca: Authority) -> None:
    account = ScriptedAccount({})

    assert await set_up(client(account), plan(ca_mode=None), ca, NOW) == []
    assert account.calls == []


async def test_what_is_there_as_planned_is_taken(ca: Authority) -> None:
    policy = {"policyDocument": json.dumps(json.loads(default_policy(ACCESS)), indent=4)}
    account = ScriptedAccount(
        {
            "create_policy": "ResourceAlreadyExistsException",
            "get_policy": policy,
            "describe_ca_certificate": described(ca),
        }
    )

    done = await set_up(client(account), plan(), ca, NOW)

    assert done == [f"found CA {ca.certificate_id[:8]} registered in mode SNI_ONLY"]


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({"certificateMode": "DEFAULT"}, {}, "certificateMode is 'DEFAULT', not 'SNI_ONLY'"),
        ({"status": "INACTIVE"}, {}, "status is 'INACTIVE', not 'ACTIVE'"),
        ({"autoRegistrationStatus": "DISABLE"}, {}, "autoRegistrationStatus is 'DISABLE', not 'ENABLE'"),
        ({}, {"templateBody": "{}"}, "it has a JITP template"),
    ],
)
async def test_a_ca_that_is_there_otherwise_is_never_changed(
    ca: Authority, changes: dict[str, str], config: dict[str, str], message: str
) -> None:
    answer = {**described(ca, **changes), "registrationConfig": config}
    account = ScriptedAccount({"describe_ca_certificate": answer})

    with pytest.raises(TargetError, match=message):
        await set_up(client(account), plan(), ca, NOW)
    assert [each[0] for each in account.calls] == ["create_policy", "describe_ca_certificate"]


async def test_another_template_is_told_apart_from_the_same_one_written_otherwise(ca: Authority) -> None:
    template = default_template("p")
    spaced = json.dumps(json.loads(template), indent=2)
    same = {**described(ca), "registrationConfig": {"templateBody": spaced}}
    other = {**described(ca), "registrationConfig": {"templateBody": default_template("q")}}
    wanted = plan(template=template, role_arn="arn:aws:iam::111111111111:role/r")

    assert await set_up(client(ScriptedAccount({"describe_ca_certificate": same})), wanted, ca, NOW)
    with pytest.raises(TargetError, match="template is another"):
        await set_up(client(ScriptedAccount({"describe_ca_certificate": other})), wanted, ca, NOW)


async def test_a_policy_of_the_same_name_with_another_document_is_refused(ca: Authority) -> None:
    account = ScriptedAccount(
        {"create_policy": "ResourceAlreadyExistsException", "get_policy": {"policyDocument": '{"Version": "x"}'}}
    )

    with pytest.raises(TargetError, match="policy 'p' exists with another document"):
        await set_up(client(account), plan(), ca, NOW)


async def test_any_other_refusal_is_passed_on(ca: Authority) -> None:
    account = ScriptedAccount({"register_ca_certificate": "LimitExceededException"})

    with pytest.raises(ControlPlaneError) as caught:
        await set_up(client(account), plan(), ca, NOW)
    assert caught.value.code == "LimitExceededException"
    assert caught.value.exit_code == 3


def test_the_default_template_makes_a_thing_and_is_small_enough_for_aws() -> None:
    assert makes_thing(default_template("p"))
    assert len(default_template("p" * 128)) <= 10_240


@pytest.mark.parametrize("template", ["{}", '{"Resources": []}', '{"Resources": {"a": 1, "b": {"Type": "other"}}}'])
def test_a_template_without_a_thing_makes_none(template: str) -> None:
    assert not makes_thing(template)


@pytest.mark.parametrize(
    ("region", "partition"), [("us-east-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_arns_carry_the_regions_partition(region: str, partition: str) -> None:
    access = AccountAccess(name="a", account_id="111111111111", region=region)

    assert access.arn("cert/x") == f"arn:{partition}:iot:{region}:111111111111:cert/x"
    assert f"arn:{partition}:iot:" in default_policy(access)
