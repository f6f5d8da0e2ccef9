"""The control plane through software that nobody here wrote: both major versions of the ``aws`` CLI, curl and openssl.

Each walks through the life of everything that a registry has: created, read, listed, changed, attached, deleted.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import emulator

ACCOUNT, REGION = "111111111111", "eu-west-1"
PREFIX = f"arn:aws:iot:{REGION}:{ACCOUNT}:"
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
OTHER_POLICY = POLICY.replace("iot:*", "iot:Connect")
SECONDS = 60
VERSION_1 = Path(sys.executable).with_name("aws")
VERSION_2 = Path("/usr/bin/aws")
IN_A_ROW = Path(__file__).parents[1] / "aws_in_a_row.py"

pytestmark = pytest.mark.slow


def is_version_2() -> bool:
    """Whether Debian's ``aws`` is there, a Python script, and version 2."""
    if not VERSION_2.exists() or VERSION_2.read_bytes()[:2] != b"#!":
        return False
    done = subprocess.run([VERSION_2, "--version"], env=environment(), capture_output=True, text=True, check=False)
    return done.stdout.startswith("aws-cli/2")


def environment(home: str = "/nonexistent") -> dict[str, str]:
    """Nothing of the venv, so that the system's program finds the system's Python."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": home,
        "LANG": "C.UTF-8",
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_MAX_ATTEMPTS": "3",
        "AWS_PAGER": "",
    }


CLIS = [
    pytest.param(
        VERSION_1,
        id="aws-cli 1",
        marks=pytest.mark.skipif(
            not VERSION_1.exists(), reason=f"no aws CLI beside {sys.executable} (pip install awscli)"
        ),
    ),
    pytest.param(
        VERSION_2,
        id="aws-cli 2",
        marks=pytest.mark.skipif(not is_version_2(), reason="aws CLI 2 is not installed (Debian: apt install awscli)"),
    ),
]


class CommandLine:
    """One of the two, in one account; all its commands in one process (``aws_in_a_row``)."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self._url = url

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["--endpoint-url", self._url, "--output", "json", *words]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        code, output, errors = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(command, code, output, errors)

    def iot(self, *words: str) -> Any:
        """A command that works; what it printed, if it did."""
        done = self.run("iot", *words)
        assert done.returncode == 0, f"{words}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def refused(self, *words: str) -> str:
        done = self.run("iot", *words)
        assert done.returncode in (254, 255), f"{words}\n{done.stdout}{done.stderr}"
        return done.stderr


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with emulator() as ready:
        yield ready["api"]


@pytest.fixture(params=CLIS)
def aws(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> Iterator[CommandLine]:
    program: Path = request.param
    interpreter = program.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
    command = ["timeout", str(SECONDS), interpreter, str(IN_A_ROW)]
    with subprocess.Popen(
        command, env=environment(str(tmp_path)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield CommandLine(process, url)
        process.communicate()


def test_the_program_itself_does_what_its_commands_in_a_row_do(
    aws: CommandLine, url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    program = request.node.callspec.params["aws"]
    words = ("iot", "describe-thing", "--thing-name", "nobody")

    done = subprocess.run(
        [program, "--endpoint-url", url, *words],
        env=environment(str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    in_a_row = aws.run(*words)
    assert "ResourceNotFoundException" in done.stderr
    assert (in_a_row.returncode, in_a_row.stdout, in_a_row.stderr) == (done.returncode, done.stdout, done.stderr)


def names(items: list[dict[str, Any]], key: str) -> set[str]:
    return {item[key] for item in items}


def test_things_groups_and_types(aws: CommandLine, request: pytest.FixtureRequest) -> None:
    tag = request.node.callspec.id[-1]
    kind, group, low, billing, thing = (f"{word}{tag}" for word in ("type", "group", "low", "billing", "thing"))

    created = aws.iot("create-thing-type", "--thing-type-name", kind)
    assert created["thingTypeArn"] == f"{PREFIX}thingtype/{kind}"
    aws.iot(
        "create-thing-group",
        *("--thing-group-name", group),
        *("--thing-group-properties", "thingGroupDescription=robots,attributePayload={attributes={site=b1}}"),
    )
    aws.iot("create-thing-group", "--thing-group-name", low, "--parent-group-name", group)
    aws.iot("create-billing-group", "--billing-group-name", billing, "--tags", "Key=team,Value=robots")
    aws.iot(
        "create-thing",
        *("--thing-name", thing, "--thing-type-name", kind, "--billing-group-name", billing),
        *("--attribute-payload", "attributes={colour=red}"),
    )
    aws.iot("add-thing-to-thing-group", "--thing-name", thing, "--thing-group-name", low)

    described = aws.iot("describe-thing", "--thing-name", thing)
    assert (described["thingTypeName"], described["billingGroupName"]) == (kind, billing)
    assert described["attributes"] == {"colour": "red"}
    listed = aws.iot("list-things", "--attribute-name", "colour", "--attribute-value", "red", "--thing-type-name", kind)
    assert names(listed["things"], "thingName") == {thing}
    assert aws.iot("list-things-in-billing-group", "--billing-group-name", billing)["things"] == [thing]
    inside = aws.iot("list-things-in-thing-group", "--thing-group-name", group, "--recursive")
    assert inside["things"] == [thing]
    changed = aws.iot(
        "update-thing-group",
        *("--thing-group-name", group, "--expected-version", "1"),
        *("--thing-group-properties", '{"attributePayload":{"attributes":{"site":"b2"},"merge":true}}'),
    )
    assert changed == {"version": 2}
    aws.iot("update-thing-groups-for-thing", "--thing-name", thing, "--thing-groups-to-remove", low)
    assert aws.iot("list-thing-groups-for-thing", "--thing-name", thing)["thingGroups"] == []
    aws.iot("update-thing", "--thing-name", thing, "--remove-thing-type", "--expected-version", "1")
    tags = aws.iot("list-tags-for-resource", "--resource-arn", f"{PREFIX}billinggroup/{billing}")["tags"]
    assert tags == [{"Key": "team", "Value": "robots"}]

    refusal = aws.refused("delete-thing-group", "--thing-group-name", group)
    assert "InvalidRequestException" in refusal
    assert "there are still child groups attached to it" in refusal
    assert "VersionConflictException" in aws.refused("delete-thing", "--thing-name", thing, "--expected-version", "9")
    for words in (
        ("delete-thing", "--thing-name", thing),
        ("delete-billing-group", "--billing-group-name", billing),
        ("delete-thing-group", "--thing-group-name", low),
        ("delete-thing-group", "--thing-group-name", group),
        ("deprecate-thing-type", "--thing-type-name", kind),
    ):
        aws.iot(*words)
    assert "Please wait for 5 minutes" in aws.refused("delete-thing-type", "--thing-type-name", kind)
    assert "ResourceNotFoundException" in aws.refused("describe-thing", "--thing-name", thing)


def test_policies_and_what_they_decide(aws: CommandLine, request: pytest.FixtureRequest) -> None:
    tag = request.node.callspec.id[-1]
    policy, group = f"policy{tag}", f"policies{tag}"
    target = f"{PREFIX}thinggroup/{group}"
    aws.iot("create-thing-group", "--thing-group-name", group)
    aws.iot("create-policy", "--policy-name", policy, "--policy-document", POLICY)
    aws.iot("create-policy-version", "--policy-name", policy, "--policy-document", OTHER_POLICY, "--set-as-default")
    aws.iot("attach-policy", "--policy-name", policy, "--target", target)

    versions = aws.iot("list-policy-versions", "--policy-name", policy)["policyVersions"]
    assert {(each["versionId"], each["isDefaultVersion"]) for each in versions} == {("1", False), ("2", True)}
    assert aws.iot("get-policy", "--policy-name", policy)["policyDocument"] == OTHER_POLICY
    assert names(aws.iot("list-attached-policies", "--target", target)["policies"], "policyName") == {policy}
    decided = aws.iot(
        "test-authorization",
        *("--policy-names-to-add", policy, "--client-id", "c"),
        *("--auth-infos", f"actionType=CONNECT,resources={PREFIX}client/c"),
    )["authResults"][0]
    assert (decided["authDecision"], names(decided["allowed"]["policies"], "policyName")) == ("ALLOWED", {policy})

    assert "DeleteConflictException" in aws.refused("delete-policy", "--policy-name", policy)
    assert "MalformedPolicyException" in aws.refused("create-policy", "--policy-name", "x", "--policy-document", "{}")
    aws.iot("detach-policy", "--policy-name", policy, "--target", target)
    aws.iot("delete-policy-version", "--policy-name", policy, "--policy-version-id", "1")
    aws.iot("delete-policy", "--policy-name", policy)
    aws.iot("delete-thing-group", "--thing-group-name", group)
    assert names(aws.iot("list-policies")["policies"], "policyName").isdisjoint({policy})


def test_pages_are_put_together(aws: CommandLine, request: pytest.FixtureRequest) -> None:
    tag = request.node.callspec.id[-1]
    for number in range(5):
        aws.iot("create-billing-group", "--billing-group-name", f"page{tag}-{number}")

    prefix = ("list-billing-groups", "--name-prefix-filter", f"page{tag}-")
    whole = aws.iot(*prefix, "--page-size", "2")["billingGroups"]
    first = aws.iot(*prefix, "--max-items", "3", "--page-size", "2")
    rest = aws.iot(*prefix, "--starting-token", first["NextToken"])["billingGroups"]

    assert [each["groupName"] for each in whole] == [f"page{tag}-{number}" for number in range(5)]
    assert [*first["billingGroups"], *rest] == whole


def test_events_and_refusals_in_the_words_of_aws(aws: CommandLine) -> None:
    aws.iot("update-event-configurations", "--event-configurations", '{"THING":{"Enabled":true}}')
    configurations = aws.iot("describe-event-configurations")["eventConfigurations"]

    assert (configurations["THING"], configurations["POLICY"]) == ({"Enabled": True}, {"Enabled": False})
    assert (
        "An error occurred (InvalidRequestException) when calling the CreateThing operation: 1 validation error "
        "detected: Value 'a b' at 'thingName' failed to satisfy constraint: Member must satisfy regular expression "
        "pattern: [a-zA-Z0-9:_-]+"
    ) in aws.refused("create-thing", "--thing-name", "a b")
    unknown = aws.refused("create-dynamic-thing-group", "--thing-group-name", "g", "--query-string", "thingName:*")
    assert "NotImplementedException" in unknown
    assert "CreateDynamicThingGroup" in unknown


def test_certificates_and_who_issues_them(aws: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "c.pem"
    made = aws.iot("create-keys-and-certificate", "--set-as-active", "--certificate-pem-outfile", str(file))
    certificate_id, arn = made["certificateId"], made["certificateArn"]
    assert file.read_text() == made["certificatePem"]
    described = aws.iot("describe-certificate", "--certificate-id", certificate_id)["certificateDescription"]
    assert (described["status"], described["certificateMode"]) == ("ACTIVE", "DEFAULT")
    assert names(aws.iot("list-certificates", "--page-size", "1")["certificates"], "certificateId") >= {certificate_id}
    state = aws.refused("delete-certificate", "--certificate-id", certificate_id)
    assert "CertificateStateException" in state
    aws.iot("create-thing", "--thing-name", "holder")
    aws.iot("attach-thing-principal", "--thing-name", "holder", "--principal", arn)
    assert aws.iot("list-thing-principals", "--thing-name", "holder")["principals"] == [arn]
    assert aws.iot("list-principal-things", "--principal", arn)["things"] == ["holder"]
    aws.iot("detach-thing-principal", "--thing-name", "holder", "--principal", arn)
    aws.iot("update-certificate", "--certificate-id", certificate_id, "--new-status", "INACTIVE")
    aws.iot("delete-certificate", "--certificate-id", certificate_id)
    aws.iot("delete-thing", "--thing-name", "holder")
    assert len(aws.iot("get-registration-code")["registrationCode"]) == 64
    assert aws.iot("list-ca-certificates")["certificates"] == []


def test_templates_rules_and_roles(aws: CommandLine, request: pytest.FixtureRequest) -> None:
    tag = request.node.callspec.id[-1]
    template, rule, alias = f"template{tag}", f"rule{tag}", f"alias{tag}"
    role = f"arn:aws:iam::{ACCOUNT}:role/fleet"
    body = {
        "Parameters": {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}}},
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": POLICY}},
        },
    }
    aws.iot(
        "create-provisioning-template",
        *("--template-name", template, "--provisioning-role-arn", role, "--enabled"),
        *("--template-body", json.dumps(body)),
    )
    described = aws.iot("describe-provisioning-template", "--template-name", template)
    assert (json.loads(described["templateBody"]), described["enabled"]) == (body, True)
    claim = aws.iot("create-provisioning-claim", "--template-name", template)
    assert claim["keyPair"]["PrivateKey"].startswith("-----BEGIN")
    aws.iot("delete-provisioning-template", "--template-name", template)

    payload = {
        "sql": "SELECT * FROM '$aws/events/certificates/registered/#'",
        "awsIotSqlVersion": "2016-03-23",
        "actions": [{"republish": {"roleArn": role, "topic": "seen", "qos": 1}}],
    }
    aws.iot("create-topic-rule", "--rule-name", rule, "--topic-rule-payload", json.dumps(payload))
    kept = aws.iot("get-topic-rule", "--rule-name", rule)["rule"]
    assert (kept["sql"], kept["actions"]) == (payload["sql"], payload["actions"])
    aws.iot("disable-topic-rule", "--rule-name", rule)
    assert aws.iot("get-topic-rule", "--rule-name", rule)["rule"]["ruleDisabled"] is True
    broken = json.dumps(payload | {"sql": "SELECT"})
    assert "SqlParseException" in aws.refused("create-topic-rule", "--rule-name", "x", "--topic-rule-payload", broken)
    aws.iot("delete-topic-rule", "--rule-name", rule)

    aws.iot("create-role-alias", "--role-alias", alias, "--role-arn", role, "--credential-duration-seconds", "900")
    assert alias in aws.iot("list-role-aliases")["roleAliases"]
    aws.iot("delete-role-alias", "--role-alias", alias)
    assert aws.iot("describe-endpoint", "--endpoint-type", "iot:Data-ATS")["endpointAddress"].endswith(
        f"-ats.iot.{REGION}.localhost"
    )


def test_shadows_and_the_caller(aws: CommandLine, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    thing = f"shadow{request.node.callspec.id[-1]}"
    answer = tmp_path / "shadow.json"
    payload = tmp_path / "payload.json"
    payload.write_text('{"state":{"desired":{"colour":"red"}}}')
    aws.iot("create-thing", "--thing-name", thing)

    done = aws.run(
        "iot-data", "update-thing-shadow", "--thing-name", thing, "--payload", f"fileb://{payload}", str(answer)
    )
    assert done.returncode == 0, done.stderr
    done = aws.run("iot-data", "get-thing-shadow", "--thing-name", thing, str(answer))
    assert done.returncode == 0, done.stderr
    assert json.loads(answer.read_text())["state"]["desired"] == {"colour": "red"}
    done = aws.run("iot-data", "publish", "--topic", "a/b", "--payload", f"fileb://{payload}", "--qos", "1")
    assert done.returncode == 0, done.stderr
    done = aws.run("iot-data", "get-thing-shadow", "--thing-name", "nobody", str(answer))
    assert "ResourceNotFoundException" in done.stderr

    caller = json.loads(aws.run("sts", "get-caller-identity").stdout)
    assert caller["Account"] == ACCOUNT
    other = "arn:aws:iam::222222222222:role/fleet"
    role = json.loads(aws.run("sts", "assume-role", "--role-arn", other, "--role-session-name", "me").stdout)
    assert role["AssumedRoleUser"]["Arn"] == "arn:aws:sts::222222222222:assumed-role/fleet/me"
    assert set(role["Credentials"]) == {"AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (Debian: apt install curl)")
class TestCurl:
    """Without any SDK: what is on the wire."""

    def curl(self, url: str, *words: str) -> tuple[int, dict[str, str], str]:
        command = [
            *("curl", "--silent", "--show-error", "--max-time", str(SECONDS), "--dump-header", "-"),
            *("--aws-sigv4", f"aws:amz:{REGION}:iot", "--user", f"{ACCOUNT}:secret", *words, url),
        ]
        done = subprocess.run(
            command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False, timeout=SECONDS
        )
        assert done.returncode == 0, done.stderr
        head, _, body = done.stdout.partition("\n\n")
        status, *fields = head.splitlines()
        headers = dict(field.split(": ", 1) for field in fields)
        return int(status.split()[1]), {name.lower(): value for name, value in headers.items()}, body

    def test_a_life_of_a_billing_group(self, url: str) -> None:
        at = f"{url}/billing-groups/curl"
        status, headers, body = self.curl(
            at, "--data", '{"billingGroupProperties":{"billingGroupDescription":"d"}}', "--request", "POST"
        )
        assert (status, headers["content-type"]) == (200, "application/json")
        assert headers["x-amzn-requestid"]
        assert json.loads(body)["billingGroupArn"] == f"{PREFIX}billinggroup/curl"
        status, _, body = self.curl(at)
        assert json.loads(body)["billingGroupProperties"] == {"billingGroupDescription": "d"}
        assert self.curl(f"{at}?expectedVersion=1", "--request", "DELETE")[0] == 200

    def test_refusals(self, url: str) -> None:
        status, headers, body = self.curl(f"{url}/billing-groups/none")
        assert (status, headers["x-amzn-errortype"]) == (404, "ResourceNotFoundException")
        assert json.loads(body) == {"message": "The billing group none does not exist"}
        status, headers, _ = self.curl(f"{url}/nothing")
        assert (status, headers["x-amzn-errortype"]) == (404, "UnknownOperationException")
        status, headers, body = self.curl(f"{url}/things/t", "--data", "{", "--request", "POST")
        assert (status, headers["x-amzn-errortype"]) == (400, "SerializationException")
        status, headers, body = self.curl(f"{url}/jobs/j", "--data", '{"targets":["t"]}', "--request", "PUT")
        assert (status, headers["x-amzn-errortype"]) == (501, "NotImplementedException")
        assert "CreateJob" in body
