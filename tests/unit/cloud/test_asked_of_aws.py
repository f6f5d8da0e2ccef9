"""What a diagnosis asks of AWS: requests that botocore's models allow, under the permissions that are named, and in
bounded time. No network: an account is made up of answers in AWS's shapes."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import trio
from botocore import xform_name
from botocore.model import OperationModel, ServiceModel
from botocore.validate import ParamValidator

from devicesim.cloud import asking
from devicesim.cloud.account import AccountAccess, ControlPlaneError
from devicesim.cloud.asking import ACTIONS, Asker
from devicesim.cloud.inspect import Inspector, Question
from devicesim.emulator import constraints
from devicesim.errors import TargetError
from devicesim.pki.identity import certificate_pem
from tests.emulator_support import ROLE, device, shared_ca, template

NOW = 1_790_000_000.0
WHEN = datetime.fromtimestamp(NOW - 60, UTC)
LEAF = device(1)
FULL = template(
    thing={
        "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
        "ThingTypeName": "robot",
        "ThingGroups": ["robots"],
        "BillingGroup": "billed",
    },
    policy={"PolicyName": "devices"},
)


@cache
def model(service: str) -> ServiceModel:
    loaded: ServiceModel = botocore.session.get_session().get_service_model(service)
    return loaded


def operation(service: str, name: str) -> OperationModel:
    """By its boto3 name."""
    found = {xform_name(each): each for each in model(service).operation_names}
    return model(service).operation_model(found[name])


def denied(name: str, code: str = "AccessDeniedException") -> ControlPlaneError:
    where = "account 'a' (111111111111, us-east-1)"
    return ControlPlaneError(f"{where}: {name} refused: {code}: no", code=code, fields={})


class FakeAccount:
    """Answers as it is told, else that it has no such thing; notes every request. ``clock`` is how far it is behind."""

    def __init__(self, answers: Mapping[str, Any], *, clock: float = 0.0) -> None:
        self.access = AccountAccess(name="a", account_id="111111111111", region="us-east-1")
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self._answers = answers
        self._date = datetime.fromtimestamp(NOW - clock, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")

    async def check_identity(self) -> None:
        await self.ask("sts", "get_caller_identity")

    async def call(self, name: str, /, **parameters: Any) -> Any:
        return await self.ask("iot", name, **parameters)

    async def ask(self, service: str, name: str, /, **parameters: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append((service, name, parameters))
        if name == "get_caller_identity":
            return {"Account": "111111111111"}
        if name == "describe_endpoint":
            headers = {"ResponseMetadata": {"HTTPHeaders": {"date": self._date}}}
            return {"endpointAddress": "a1-ats.iot.us-east-1.amazonaws.com", **headers}
        answer = self._answers.get(name)
        if answer is None:
            raise denied(name, "NoSuchEntity" if service == "iam" else "ResourceNotFoundException")
        if isinstance(answer, Exception):
            raise answer
        return answer(**parameters) if callable(answer) else answer


def answers(status: str = "PENDING_ACTIVATION") -> dict[str, Any]:
    """Of an account that holds the CA with a named template, and the certificate."""
    ca = shared_ca()
    described = {
        "certificateDescription": {
            "certificateId": ca.certificate_id,
            "certificatePem": certificate_pem(ca.certificate),
            "status": "ACTIVE",
            "autoRegistrationStatus": "ENABLE",
            "certificateMode": "SNI_ONLY",
        },
        "registrationConfig": {"templateName": "robots"},
    }
    record = {"status": status, "certificateMode": "SNI_ONLY", "caCertificateId": ca.certificate_id}
    log = {"eventType": "Connect", "principalId": LEAF.certificate_id, "reason": "AUTHORIZATION_FAILURE"}
    event = {
        "eventTime": f"{WHEN:%Y-%m-%dT%H:%M:%SZ}",
        "requestParameters": {"parameters": {"AWS::IoT::Certificate::Id": LEAF.certificate_id}},
        "errorCode": "InvalidRequestException",
    }
    return {
        "list_ca_certificates": paged("certificates", "marker", "nextMarker", [{"certificateId": ca.certificate_id}]),
        "describe_ca_certificate": described,
        "describe_certificate": {
            "certificateDescription": {**record, "creationDate": WHEN, "lastModifiedDate": WHEN},
        },
        "list_principal_things": paged("things", "nextToken", "nextToken", ["one", "two"]),
        "get_effective_policies": denied("get_effective_policies"),
        "list_attached_policies": {"policies": [{"policyName": "devices", "policyArn": "x"}]},
        "test_authorization": {"authResults": [{"authDecision": "IMPLICIT_DENY", "missingContextValues": []}]},
        "describe_provisioning_template": {"templateBody": FULL, "provisioningRoleArn": ROLE, "enabled": True},
        "lookup_events": paged("Events", "NextToken", "NextToken", [{"CloudTrailEvent": json.dumps(event)}]),
        "filter_log_events": paged(
            "events",
            "nextToken",
            "nextToken",
            [{"timestamp": int(WHEN.timestamp() * 1000), "message": json.dumps(log)}],
        ),
    }


def paged(key: str, asks_by: str, goes_on_by: str, items: list[Any]) -> Callable[..., Any]:
    """An empty page, which services answer as well, then one for each item."""

    def answer(**parameters: Any) -> Any:
        page = int(parameters.get(asks_by, "0"))
        more = {goes_on_by: str(page + 1)} if page < len(items) else {}
        return {key: items[page - 1 : page] if page else [], **more}

    return answer


async def inspected(account: FakeAccount, client_id: str = "robot-000001") -> Any:
    inspector = Inspector(
        account,  # type: ignore[arg-type]  # as far as it is used
        ca_id=shared_ca().certificate_id,
        since=NOW - 70,
        until=NOW - 50,
        clock=lambda: NOW,
    )
    question = Question(
        certificate_id=LEAF.certificate_id,
        client_id=client_id,
        leaf=LEAF.certificate,
        issuer=shared_ca().certificate,
        server_name="a1-ats.iot.us-east-1.amazonaws.com",
        tries=((NOW - 70, NOW - 69), (NOW - 60, NOW - 50)),
    )
    await inspector.leaf(LEAF.certificate_id)
    return await inspector.inspect(question)


async def test_every_request_is_one_that_the_service_model_allows() -> None:
    account = FakeAccount(answers())

    await inspected(account)

    assert len(account.asked) > len(ACTIONS)
    for service, name, parameters in account.asked:
        shape = operation(service, name).input_shape
        report = ParamValidator().validate(parameters, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
        sent = {key: value for key, value in parameters.items() if not isinstance(value, dict)}
        assert constraints.violations(sent, shape) == [], name


async def test_the_permissions_that_are_named_are_those_that_are_used() -> None:
    account = FakeAccount(answers())

    await inspected(account)

    used = {f"{service}:{operation(service, name).name}" for service, name, _ in account.asked}
    assert used - {"sts:GetCallerIdentity"} == set(ACTIONS)
    assert list(ACTIONS) == sorted(ACTIONS)


async def test_pages_are_read_to_their_end() -> None:
    evidence = await inspected(FakeAccount(answers()))

    assert evidence.record.things == ("one", "two")
    assert [ca.certificate_id for ca in evidence.cas] == [shared_ca().certificate_id]
    assert [each.error for each in evidence.provisioning] == ["InvalidRequestException"]
    assert [each.reason for each in evidence.logs] == ["AUTHORIZATION_FAILURE"]


async def test_times_are_told_and_asked_for_across_clocks_that_differ() -> None:
    """This machine's clock is an hour ahead: what it saw at noon AWS wrote down for eleven."""
    account = FakeAccount(answers(), clock=3600.0)

    evidence = await inspected(account)

    asked = {name: parameters for _, name, parameters in account.asked}
    assert evidence.clock_offset == pytest.approx(3600, abs=1)
    assert evidence.record.created == pytest.approx(NOW - 60 + 3600, abs=1)
    assert asked["lookup_events"]["StartTime"] == pytest.approx(NOW - 70 - 3600, abs=4)
    assert asked["filter_log_events"]["startTime"] == pytest.approx((NOW - 70 - 3600) * 1000, abs=4000)


@pytest.mark.parametrize("client_id", ["a*b", 'a"b', "a\\b", "ä", "", "x" * 300])
async def test_a_client_id_that_a_filter_pattern_cannot_have_is_left_out_of_it(client_id: str) -> None:
    account = FakeAccount(answers())

    await inspected(account, client_id)

    (pattern, *_) = [each["filterPattern"] for _, name, each in account.asked if name == "filter_log_events"]
    assert "clientId" not in pattern
    assert len(pattern) <= 1024


async def test_a_log_without_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = {"events": [], "nextToken": "again"}

    evidence = await inspected(FakeAccount({**answers(), "filter_log_events": endless}))

    assert evidence.logs == ()
    assert "filter_log_events: there were more than 0 events; the others were not looked at" in evidence.not_asked


async def test_a_policy_on_things_that_the_test_cannot_know_is_left_open() -> None:
    """TestAuthorization may not resolve a variable of the thing although the certificate has it attached."""
    result = {"authDecision": "IMPLICIT_DENY", "missingContextValues": ["iot:Connection.Thing.ThingName"]}
    told = {**answers("ACTIVE"), "test_authorization": {"authResults": [result]}}

    of_its_thing = await inspected(FakeAccount(told), "one")
    of_no_thing = await inspected(FakeAccount(told), "three")

    assert of_its_thing.record.connect_allowed is None
    assert of_no_thing.record.connect_allowed is False


# --- who does not answer ---


class MuteAccount(FakeAccount):
    """Answers only for some services, and never for others."""

    def __init__(self, *mute: str) -> None:
        super().__init__(answers())
        self._mute = mute

    async def ask(self, service: str, name: str, /, **parameters: Any) -> Any:
        if service in self._mute:
            self.asked.append((service, name, parameters))
            await trio.sleep_forever()
        return await super().ask(service, name, **parameters)


async def test_an_account_that_does_not_answer_costs_seconds(autojump_clock: object) -> None:
    begin = trio.current_time()

    evidence = await inspected(MuteAccount("sts"))

    assert evidence.not_asked == ("nothing could be asked: get_caller_identity failed: no answer within 15 s",)
    assert trio.current_time() - begin == pytest.approx(asking.ANSWER_SECONDS)


async def test_a_service_that_does_not_answer_is_waited_for_once_and_the_others_asked(autojump_clock: object) -> None:
    begin, account = trio.current_time(), MuteAccount("logs", "cloudtrail", "iam")

    evidence = await inspected(account)

    assert evidence.record.status == "PENDING_ACTIVATION"
    assert (evidence.logs, evidence.provisioning) == (None, None)
    for name in ("get_role", "lookup_events", "filter_log_events"):
        assert f"{name} failed: no answer within 15 s" in evidence.not_asked
    assert trio.current_time() - begin == pytest.approx(3 * asking.ANSWER_SECONDS)

    asker = Asker(account)  # type: ignore[arg-type]  # as far as it is used
    for number in range(3):
        assert (await asker.another().ask("get_role", service="iam", RoleName=f"r{number}")).refusal
    assert list((other := asker.another()).refused) == []
    assert (await other.ask("get_role", service="iam", RoleName="r4")).refusal == (
        "get_role was not asked: iam did not answer before"
    )


async def test_a_service_that_answered_once_is_asked_again_after_a_failure() -> None:
    account = FakeAccount({"describe_thing": TargetError("describe_thing failed: reset"), "get_policy": {"x": 1}})
    asker = Asker(account)  # type: ignore[arg-type]  # as far as it is used

    assert (await asker.ask("get_policy", policyName="p")).found
    assert (await asker.ask("describe_thing", thingName="t")).refusal == "describe_thing failed: reset"
    assert (await asker.ask("get_policy", policyName="q")).found


def test_readme_has_the_policy_that_allows_it() -> None:
    readme = Path(__file__).parents[3] / "README.md"
    blocks = re.findall(r"^```json\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)

    statements = [json.loads(each)["Statement"] for each in blocks if "cloudtrail:LookupEvents" in each]

    assert statements == [[{"Effect": "Allow", "Action": list(ACTIONS), "Resource": "*"}]]
