"""Asking an account about a device: what is refused is told, and nothing ends the diagnosis."""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from devicesim.cloud.account import AccountAccess, AccountClient, ControlPlaneError
from devicesim.cloud.asking import Asker, reason
from devicesim.cloud.inspect import Inspector, Question
from devicesim.cloud.inspecttemplate import template_evidence
from devicesim.cloud.inspecttrail import Trail, log_events
from devicesim.emulator.embedded import Account, Emulator, emulator_in_a_thread, quick
from devicesim.errors import TargetError
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem
from devicesim.pki.profile import KeyType, Profile, Subject
from tests.emulator_support import ROLE, device, template

NOW = 1_790_000_000.0


class FakeClient:
    """An account whose answers a test says: by operation, an answer, an error, or what makes one."""

    def __init__(self, *, emulated: bool = False, **answers: Any) -> None:
        self.access = AccountAccess(name="a", account_id="111111111111", region="us-east-1", emulated=emulated)
        self.answers = answers
        self.asked: list[str] = []

    async def ask(self, service: str, operation: str, /, **parameters: Any) -> Any:
        self.asked.append(operation)
        answer = self.answers.get(operation)
        if answer is None:
            raise refused(f"{service}: {operation}", "AccessDeniedException")
        if isinstance(answer, Callable):  # type: ignore[arg-type]  # a special form, which isinstance takes
            return answer(**parameters)
        if isinstance(answer, Exception):
            raise answer
        return answer


def refused(what: str, code: str) -> ControlPlaneError:
    where = "account 'a' (111111111111, us-east-1)"
    return ControlPlaneError(f"{where}: {what} refused: {code}: no", code=code, fields={})


def asker(**answers: Any) -> Asker:
    return Asker(FakeClient(**answers))  # type: ignore[arg-type]  # as far as it is used


# --- asking ---


async def test_an_answer_is_asked_for_once_and_each_asker_notes_its_own_refusals() -> None:
    first = asker(describe_thing={"thingName": "t"}, get_policy=refused("get_policy", "ResourceNotFoundException"))
    second = first.another()

    for each in (first, second):
        assert (await each.ask("describe_thing", thingName="t")).found == {"thingName": "t"}
        assert (await each.ask("get_policy", policyName="p")).absent
        assert not (await each.ask("describe_thing_group", thingGroupName="g")).absent

    assert first.client.asked == ["describe_thing", "get_policy", "describe_thing_group"]  # type: ignore[attr-defined]
    told = ["iot: describe_thing_group refused: AccessDeniedException: no"]
    assert list(first.refused) == list(second.refused) == told


# --- the role ---


def trust(service: str | list[str], effect: str = "Allow") -> dict[str, Any]:
    document = {"Statement": [{"Effect": effect, "Principal": {"Service": service}, "Action": "sts:AssumeRole"}]}
    return {"Role": {"AssumeRolePolicyDocument": document}}


@pytest.mark.parametrize(
    ("answer", "asked", "problem"),
    [
        (trust("iot.amazonaws.com"), True, None),
        (trust(["x.amazonaws.com", "iot.amazonaws.com"]), True, None),
        (trust("lambda.amazonaws.com"), True, "the trust policy of role 'provisioning' does not let iot.amazonaws.com"),
        (trust("iot.amazonaws.com", "Deny"), True, "the trust policy of role 'provisioning' does not let"),
        ({"Role": {"AssumeRolePolicyDocument": "%7B%22Statement%22%3A%5B%5D%7D"}}, True, "the trust policy of role"),
        (refused("get_role", "NoSuchEntity"), True, "there is no role 'provisioning'"),
        (refused("get_role", "AccessDenied"), False, None),
    ],
)
async def test_the_role_is_looked_up_where_iam_may_be_asked(answer: Any, asked: bool, problem: str | None) -> None:
    config = {"templateBody": template(), "roleArn": ROLE}

    found = await template_evidence(asker(get_role=answer), config, device().certificate, "0" * 64, run=False)

    assert found is not None
    assert found.role_asked is asked
    assert (found.role_problem or "").startswith(problem or "")
    assert bool(found.role_problem) is (problem is not None)


@pytest.mark.parametrize(
    ("arn", "problem"),
    [
        ("arn:aws:iam::222222222222:role/x", "the role is of account 222222222222, and must be of 111111111111"),
        ("arn:aws:iam::111111111111:user/x", "'arn:aws:iam::111111111111:user/x' is no role"),
    ],
)
async def test_a_role_that_cannot_be_one_needs_no_asking(arn: str, problem: str) -> None:
    config = {"templateBody": template(), "roleArn": arn}

    found = await template_evidence(asker(), config, device().certificate, "0" * 64, run=False)

    assert found is not None
    assert (found.role_asked, found.role_problem) == (True, problem)


# --- named templates ---


async def test_a_named_template_is_read_and_told_when_it_is_off_or_gone() -> None:
    named = {"templateName": "t"}
    body = template(parameters=("CommonName", "Locality", "Id"))
    off = {"templateBody": body, "provisioningRoleArn": ROLE, "enabled": False}
    leaf = device().certificate

    disabled = await template_evidence(asker(describe_provisioning_template=off), named, leaf, "0" * 64, run=False)
    gone = refused("describe_provisioning_template", "ResourceNotFoundException")
    missing = await template_evidence(asker(describe_provisioning_template=gone), named, leaf, "0" * 64, run=False)
    unknown = await template_evidence(asker(), named, leaf, "0" * 64, run=False)

    assert disabled is not None
    assert disabled.problems == ("the provisioning template 't' is not enabled",)
    assert disabled.missing_parameters == ("AWS::IoT::Certificate::Locality",)
    assert missing is not None
    assert missing.problems == ("the provisioning template 't' does not exist",)
    assert unknown is not None
    assert (unknown.name, unknown.problems, unknown.role_arn) == ("t", (), None)
    assert await template_evidence(asker(), {}, leaf, "0" * 64, run=True) is None


# --- CloudTrail ---


def event(certificate_id: str | None, name: str, at: str, error: str | None = None) -> dict[str, Any]:
    parameters = {"AWS::IoT::Certificate::CommonName": name}
    if certificate_id is not None:
        parameters["AWS::IoT::Certificate::Id"] = certificate_id
    record: dict[str, Any] = {"eventTime": at, "requestParameters": {"parameters": parameters}}
    if error is not None:
        record |= {"errorCode": error, "errorMessage": "no"}
    return {"CloudTrailEvent": json.dumps(record)}


def pages(*events: dict[str, Any]) -> Callable[..., Mapping[str, Any]]:
    """LookupEvents with one event on a page, newest first."""

    def lookup(NextToken: str = "0", **_: Any) -> Mapping[str, Any]:  # noqa: N803  # as AWS names it
        number = int(NextToken)
        more = {"NextToken": str(number + 1)} if number + 1 < len(events) else {}
        return {"Events": list(events[number : number + 1]), **more}

    return lookup


async def test_the_trail_is_read_to_its_end_once_and_told_oldest_first() -> None:
    lookup = pages(
        event("a", "one", "2026-01-01T00:00:03Z", "AccessDenied"),
        event("b", "two", "2026-01-01T00:00:02Z"),
        event(None, "one", "2026-01-01T00:00:01Z"),
    )
    trail, asking = Trail(since=0, until=NOW, clock=lambda: NOW), asker(lookup_events=lookup)

    about_a = await trail.about(asking, "a", "one", ())
    about_b = await trail.about(asking.another(), "b", "two", ())

    assert about_a is not None
    assert [(each.error, each.message) for each in about_a] == [(None, ""), ("AccessDenied", "no")]
    assert about_a[0].time == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC).timestamp()
    assert about_b is not None
    assert len(about_b) == 1
    assert asking.client.asked == ["lookup_events"] * 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(("emulated", "ago", "found"), [(False, 60.0, None), (False, 3600.0, ()), (True, 60.0, ())])
async def test_that_cloudtrail_has_nothing_yet_is_no_answer(emulated: bool, ago: float, found: object) -> None:
    """It tells within some minutes; the emulator's at once."""
    asking = asker(emulated=emulated, lookup_events={"Events": []})

    told = await Trail(since=0, until=NOW, clock=lambda: NOW).about(asking, "a", "one", ((NOW - ago - 1, NOW - ago),))

    assert told == found
    assert any("15 minutes" in line for line in asking.refused) is (found is None)


async def test_a_trail_without_end_is_not_taken_for_one_that_has_nothing() -> None:
    endless = {"Events": [event("a", "one", "2026-01-01T00:00:03Z")], "NextToken": "x"}
    trail, asking = Trail(since=0, until=NOW, clock=lambda: NOW), asker(lookup_events=endless)

    assert await trail.about(asking, "a", "one", ()) is not None
    assert await trail.about(asking, "b", "two", ()) is None
    assert list(asking.refused) == ["lookup_events: there were more than 20 Events; the others were not looked at"]


async def test_a_trail_that_may_not_be_read_is_told_for_every_device() -> None:
    trail, first = Trail(since=0, until=NOW, clock=lambda: NOW), asker()
    second = first.another()

    assert await trail.about(first, "a", None, ()) is None
    assert await trail.about(second, "b", None, ()) is None

    assert (
        list(first.refused) == list(second.refused) == ["cloudtrail: lookup_events refused: AccessDeniedException: no"]
    )


# --- the log ---


def line(at: float, **members: Any) -> dict[str, Any]:
    return {"timestamp": int(at * 1000), "message": json.dumps(members)}


async def told_of(*lines: dict[str, Any]) -> tuple[list[tuple[str, str]] | None, list[str]]:
    asking = asker(filter_log_events={"events": list(lines)})
    tries = ((NOW, NOW + 1), (NOW + 60, NOW + 61))
    found = await log_events(asking, "cert", "me", "Name.example", tries)
    seen = None if found is None else [(each.event_type, each.reason) for each in found]
    return seen, list(asking.refused)


async def test_the_log_is_told_by_certificate_client_and_server_name() -> None:
    error = {"eventType": "Connection.AuthNError", "reason": "SNI_MISUSED"}
    seen, told = await told_of(
        line(NOW + 60.5, **error, serverNameIndication="name.example"),
        line(NOW, eventType="Connect", principalId="cert", reason="AUTHORIZATION_FAILURE"),
        line(NOW, eventType="Connect", principalId="other", clientId="other"),
        line(NOW + 1, eventType="Disconnect", clientId="me", reason="x", disconnectReason="DUPLICATE_CLIENT_ID"),
        line(NOW + 30, **error, serverNameIndication="name.example"),  # between the tries: another device's
        line(NOW + 60.5, **error, serverNameIndication="another.example"),
        {"timestamp": 1, "message": "not JSON"},
        {"timestamp": 1, "message": "[]"},
    )

    assert seen == [
        ("Connect", "AUTHORIZATION_FAILURE"),
        ("Disconnect", "DUPLICATE_CLIENT_ID"),
        ("Connection.AuthNError", "SNI_MISUSED"),
    ]
    assert told == []


async def test_more_authentication_errors_than_tries_are_nobodys() -> None:
    error = line(NOW, eventType="Connection.AuthNError", serverNameIndication="name.example", reason="SNI_MISUSED")

    seen, told = await told_of(error, error, error)

    assert seen == []
    assert told == ["filter_log_events: 3 Connection.AuthNError during 2 tries: whose they are is not told"]


async def test_a_log_group_that_is_not_there_is_no_log_and_no_refusal() -> None:
    asking = asker(filter_log_events=refused("filter_log_events", "ResourceNotFoundException"))

    assert await log_events(asking, "cert", "me", None, ((NOW, NOW + 1),)) is None
    assert list(asking.refused) == []
    assert await log_events(asking, "cert", "me", None, ()) == ()


# --- a whole account, on the emulator ---


@pytest.fixture(scope="module")
def emulator() -> Any:
    with emulator_in_a_thread(2, settings=quick()) as emulator:
        yield emulator


@pytest.fixture
def account(emulator: Emulator) -> Account:
    emulator.reset()
    return emulator.accounts[0]


def shared_ca(name: str = "Shared CA") -> Authority:
    return new_shared_authority(name, KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=9))


def mint(ca: Authority) -> Identity:
    return ca.mint(0, secret=b"s" * 32, profile=Profile(subject=Subject(common_name="robot"), names={"fleet": "f"}))


def register(account: Account, ca: Authority, **more: Any) -> None:
    account.client("iot").register_ca_certificate(
        caCertificate=certificate_pem(ca.certificate),
        certificateMode="SNI_ONLY",
        **{"setAsActive": True, "allowAutoRegistration": True, **more},
    )


def access(account: Account, **more: Any) -> AccountAccess:
    given = {"account_id": account.account_id, "endpoint_url": account.api, "emulated": True, **more}
    return AccountAccess(name="a", region=account.region, **given)


async def inspected(account: Account, ca: Authority, question: Question, **more: Any) -> Any:
    client = AccountClient(access(account, **more))
    try:
        with trio.fail_after(20):
            inspector = Inspector(
                client,
                ca_id=ca.certificate_id,
                since=time.time() - 60,
                until=time.time(),
                clock=time.time,
            )
            return await inspector.inspect(question)
    finally:
        client.close()


def question(leaf: Identity | None, ca: Authority, certificate_id: str | None = None) -> Question:
    return Question(
        certificate_id=certificate_id or (leaf.certificate_id if leaf else "0" * 64),
        client_id="robot",
        leaf=None if leaf is None else leaf.certificate,
        issuer=ca.certificate,
    )


async def test_the_issuer_is_told_from_its_namesake_and_from_others(account: Account) -> None:
    ca, namesake, other = shared_ca(), shared_ca(), shared_ca("Another")
    for each in (ca, namesake, other):
        register(account, each, setAsActive=each is not namesake)
    leaf = mint(ca)

    for asked in (question(leaf, ca), question(None, ca)):
        evidence = await inspected(account, ca, asked)

        told = {each.certificate_id: (each.signed_leaf, each.same_subject, each.active) for each in evidence.cas}
        assert told == {
            ca.certificate_id: (True, True, True),
            namesake.certificate_id: (False, True, False),
        }
        assert (evidence.record_asked, evidence.record) == (True, None)
        assert evidence.endpoint == account.endpoint
        assert abs(evidence.clock_offset) < 5


async def test_the_record_is_told_with_its_policies_things_and_what_they_allow(account: Account) -> None:
    ca = shared_ca()
    leaf = mint(ca)
    register(account, ca)
    iot = account.client("iot")
    arn = iot.register_certificate(certificatePem=certificate_pem(leaf.certificate), status="ACTIVE")["certificateArn"]

    def attached(name: str, resource: str) -> None:
        statement = {"Effect": "Allow", "Action": "iot:Connect", "Resource": resource}
        iot.create_policy(policyName=name, policyDocument=json.dumps({"Version": "2012-10-17", "Statement": statement}))
        iot.attach_policy(policyName=name, target=arn)

    bare = (await inspected(account, ca, question(leaf, ca))).record
    attached("other", "arn:aws:iot:us-east-1:111111111111:client/somebody")
    wrong = (await inspected(account, ca, question(leaf, ca))).record
    attached("by-thing", "arn:aws:iot:us-east-1:111111111111:client/${iot:Connection.Thing.ThingName}")
    nameless = (await inspected(account, ca, question(leaf, ca))).record
    iot.create_thing(thingName="robot")
    iot.attach_thing_principal(thingName="robot", principal=arn)
    right = (await inspected(account, ca, question(leaf, ca))).record

    assert (bare.status, bare.mode, bare.ca_certificate_id) == ("ACTIVE", "SNI_ONLY", ca.certificate_id)
    assert (bare.policies, bare.connect_allowed) == ((), False)
    assert bare.connect_reason == "no policy is attached to the certificate"
    assert (wrong.policies, wrong.connect_allowed) == (("other",), False)
    assert "not as client 'robot'" in wrong.connect_reason
    assert nameless.connect_allowed is False
    assert "'robot' is not (things: none)" in nameless.connect_reason
    assert (right.things, right.connect_allowed, right.connect_reason) == (("robot",), True, "")


async def test_what_the_template_lacks_in_the_account_is_told(account: Account) -> None:
    ca = shared_ca()
    thing = {
        "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
        "ThingTypeName": "kind",
        "ThingGroups": ["here", "gone"],
        "BillingGroup": "nobody",
        "AttributePayload": {"a": "1"},
    }
    body = template(thing=thing, policy={"PolicyName": "nothing"})
    register(account, ca, registrationConfig={"templateBody": body, "roleArn": ROLE})
    iot = account.client("iot")
    iot.create_thing_group(thingGroupName="here")
    iot.create_thing(thingName="robot", attributePayload={"attributes": {"a": "2"}})

    evidence = await inspected(account, ca, question(mint(ca), ca))

    found = evidence.cas[0].template
    assert found.missing_things == (
        "thing type 'kind'",
        "thing group 'gone'",
        "billing group 'nobody'",
        "policy 'nothing'",
    )
    assert found.problems == (
        "the thing 'robot' exists with no type, not 'kind'",
        "the thing 'robot' exists with other attributes than the template's",
    )
    assert (found.role_arn, found.role_asked) == (ROLE, False)


async def test_a_certificate_that_is_not_at_hand_is_had_from_the_account(account: Account) -> None:
    ca = shared_ca()
    leaf = mint(ca)
    register(account, ca)
    account.client("iot").register_certificate(certificatePem=certificate_pem(leaf.certificate), status="INACTIVE")
    client = AccountClient(access(account))

    with trio.fail_after(20):
        inspector = Inspector(client, ca_id=None, since=0, until=time.time(), clock=time.time)
        found = await inspector.leaf(leaf.certificate_id)
        nothing = await inspector.leaf("0" * 64)
    client.close()

    assert found == leaf.certificate
    assert nothing is None


async def test_an_account_without_credentials_is_told_in_one_line(account: Account) -> None:
    ca = shared_ca()

    nobody = await inspected(account, ca, question(mint(ca), ca), endpoint_url="http://127.0.0.1:1")

    assert (nobody.cas, nobody.record_asked, nobody.endpoint) == (None, False, None)
    assert len(nobody.not_asked) == 1
    assert nobody.not_asked[0].startswith("nothing could be asked: get_caller_identity failed: ")


async def test_credentials_of_another_account_are_not_used(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they say would be of another account's things."""
    ca = shared_ca()
    for name, value in account.environment.items():
        monkeypatch.setenv(name, value)

    told = await inspected(account, ca, question(mint(ca), ca), account_id="999999999999", emulated=False)

    assert told.cas is None
    (line,) = told.not_asked
    assert line.startswith("nothing could be asked: the credentials are for account 111111111111, ")


async def test_what_one_call_is_refused_is_told_and_the_rest_asked(emulator: Emulator, account: Account) -> None:
    ca = shared_ca()
    register(account, ca)

    def break_calls() -> None:
        for number, operation in enumerate(("ListCACertificates", "DescribeCertificate")):
            emulator.inject(kind="api_unavailable", operation=operation, name=f"fault {number}")

    await trio.to_thread.run_sync(break_calls)
    try:
        evidence = await inspected(account, ca, question(mint(ca), ca))
    finally:
        await trio.to_thread.run_sync(emulator.clear_faults)

    assert [each.certificate_id for each in evidence.cas] == [ca.certificate_id]
    assert evidence.record_asked is False
    assert any(each.startswith("list_ca_certificates refused: ServiceUn") for each in evidence.not_asked)
    assert any(each.startswith("describe_certificate refused: ServiceUnavailable") for each in evidence.not_asked)


def test_errors_are_told_without_the_account_that_is_known() -> None:
    assert reason(refused("get_policy", "X")) == "get_policy refused: X: no"
    assert reason(TargetError("account 'a': endpoint URL 'x' cannot be used")) == "endpoint URL 'x' cannot be used"
    assert reason(TargetError("something else: (a): b")) == "something else: (a): b"
