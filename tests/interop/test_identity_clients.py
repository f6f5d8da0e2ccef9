"""Who the caller is, with the ``aws`` CLI of both versions; and a device with keys that the emulator made.

Skipped, with the reason, where a program is not installed (Debian: ``apt-get install awscli mosquitto-clients``).
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

from devicesim.emulator.state.records import DomainStatus
from tests.emulator_support import ALLOW_ALL
from tests.foreign_support import mosquitto, needs, open_emulator, run
from tests.support import emulator

A, B = "111111111111", "222222222222"
REGION = "us-east-1"
ROLE = f"arn:aws:iam::{B}:role/Provisioner"
SECRET = "the/secret+of A"
VERSION_1 = Path(sys.executable).with_name("aws")
VERSION_2 = Path("/usr/bin/aws")
SECONDS = 60

pytestmark = pytest.mark.slow


def version_2_is_there() -> bool:
    if not VERSION_2.exists():
        return False
    clean = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}  # the system's program needs the system's Python
    done = subprocess.run([VERSION_2, "--version"], env=clean, capture_output=True, text=True, check=False)
    return done.stdout.startswith("aws-cli/2")


PROGRAMS = [
    pytest.param(
        VERSION_1,
        id="aws-cli 1",
        marks=pytest.mark.skipif(not VERSION_1.exists(), reason="the aws CLI is not in the venv (pip install awscli)"),
    ),
    pytest.param(
        VERSION_2,
        id="aws-cli 2",
        marks=pytest.mark.skipif(not version_2_is_there(), reason="aws CLI 2 is not installed (apt install awscli)"),
    ),
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An emulator that knows one secret."""
    fleet = tmp_path_factory.mktemp("identity") / "fleet.toml"
    fleet.write_text(
        f"""
version = 1
name = "identity"

[accounts.alpha]
id = "{A}"
ca_mode = "SNI_ONLY"
provisioning = "JITR"

[groups.robots]
count = 1
account = "alpha"

[emulator.settings]
secret_access_keys = {{ "{A}" = "{SECRET}" }}
"""
    )
    with emulator(fleet) as ready:
        yield ready["api"]


class Terminal:
    """One CLI with credentials in its environment."""

    def __init__(self, program: Path, api: str, home: Path, **credentials: str) -> None:
        self._program = program
        self._api = api
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_PAGER": "",
            **credentials,
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._program), "--endpoint-url", self._api, "--output", "json", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def type(self, *words: str) -> Any:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None


def keys(access_key_id: str = A, secret: str = SECRET, token: str | None = None) -> dict[str, str]:
    given = {"AWS_ACCESS_KEY_ID": access_key_id, "AWS_SECRET_ACCESS_KEY": secret}
    return given if token is None else {**given, "AWS_SESSION_TOKEN": token}


@pytest.mark.parametrize("program", PROGRAMS)
def test_role_of_another_account_with_signatures_verified(program: Path, api: str, tmp_path: Path) -> None:
    own = Terminal(program, api, tmp_path, **keys())
    assert own.type("sts", "get-caller-identity")["Account"] == A
    answer = own.type("sts", "assume-role", "--role-arn", ROLE, "--role-session-name", "me")
    given = answer["Credentials"]
    other = Terminal(
        program, api, tmp_path, **keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    )

    identity = other.type("sts", "get-caller-identity")
    thing = other.type("iot", "create-thing", "--thing-name", f"robot:{program.parent.name}")
    other.type("iot", "list-things", "--attribute-name", "a/b:c@d", "--attribute-value", "a,b=[c]#")

    assert identity["Arn"] == f"arn:aws:sts::{B}:assumed-role/Provisioner/me"
    assert thing["thingArn"].startswith(f"arn:aws:iot:{REGION}:{B}:thing/robot:")


@pytest.mark.parametrize("program", PROGRAMS)
def test_wrong_secret_and_unknown_key_in_the_words_of_aws(program: Path, api: str, tmp_path: Path) -> None:
    wrong = Terminal(program, api, tmp_path, **keys(secret="wrong"))
    unknown = Terminal(program, api, tmp_path, **keys(B))

    assert "(InvalidSignatureException)" in wrong.run("iot", "list-things").stderr
    assert "(SignatureDoesNotMatch)" in wrong.run("sts", "get-caller-identity").stderr
    assert "(UnrecognizedClientException)" in unknown.run("iot", "list-things").stderr
    assert "(InvalidClientTokenId)" in unknown.run("sts", "get-caller-identity").stderr


@pytest.mark.skipif(not VERSION_1.exists(), reason="the aws CLI is not in the venv (pip install awscli)")
def test_profile_with_a_role(api: str, tmp_path: Path) -> None:
    """Version 1 alone: Debian's version 2 does not know AWS_ENDPOINT_URL, and would ask AWS for the role."""
    config = tmp_path / "config"
    config.write_text(
        f"[profile base]\naws_access_key_id = {A}\naws_secret_access_key = {SECRET}\n"
        f"[profile other]\nrole_arn = {ROLE}\nsource_profile = base\nrole_session_name = me\n"
    )
    terminal = Terminal(
        VERSION_1, api, tmp_path, AWS_CONFIG_FILE=str(config), AWS_ENDPOINT_URL=api, AWS_PROFILE="other"
    )

    assert terminal.type("sts", "get-caller-identity")["Arn"] == f"arn:aws:sts::{B}:assumed-role/Provisioner/me"
    assert terminal.type("iot", "create-thing-type", "--thing-type-name", "t")["thingTypeArn"].split(":")[4] == B


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_signs_as_well(api: str) -> None:
    """libcurl's own implementation of the signature, which is nobody's SDK."""
    command = ["curl", "--silent", "--show-error", "--aws-sigv4", f"aws:amz:{REGION}:iot", "--user", f"{A}:{SECRET}"]
    clean = {"PATH": os.environ["PATH"]}

    def answer(*more: str) -> dict[str, Any]:
        done = subprocess.run([*command, *more], env=clean, capture_output=True, text=True, timeout=SECONDS, check=True)
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    assert len(answer(f"{api}/registrationcode")["registrationCode"]) == 64
    made = answer("-X", "POST", "-H", "Content-Type: application/json", "-d", "{}", f"{api}/things/curl")
    assert made["thingName"] == "curl"
    assert "signature we calculated" in answer("--user", f"{A}:wrong", f"{api}/registrationcode")["message"]


@needs("mosquitto_pub")
async def test_device_with_made_keys_publishes_through_the_endpoint_and_a_domain_of_its_own(tmp_path: Path) -> None:
    async with open_emulator(tmp_path) as running:
        account = running.account()
        record, pair = running.registry.certificates.create_keys(account, active=True)
        running.registry.policies.create(account, "all", ALLOW_ALL)
        running.registry.policies.attach(account, "all", record.arn)
        arn = f"arn:aws:acm:{account.region}:{account.account_id}:certificate/1"
        running.registry.domains.create(
            account, "own", domain_name="iot.example.com", server_certificate_arns=[arn], options={}
        )
        aws_managed = running.registry.domains.create(account, "more", options={}).domain_name
        files = (tmp_path / "made.crt", tmp_path / "made.key")
        for path, text in zip(files, (record.pem, pair.private), strict=True):
            path.write_text(text)

        async def publish(host: str) -> tuple[int, bytes]:
            command = mosquitto(running, "mosquitto_pub", files, host, "-i", "made")
            done = await run(*command, "-q", "1", "-t", "t", "-m", "hello")
            return done.returncode, done.stderr

        for host in (account.endpoint, "iot.example.com", aws_managed):
            assert await publish(host) == (0, b""), host
        running.registry.domains.update(account, "own", status=DomainStatus.DISABLED, options={})
        code, _ = await publish("iot.example.com")

        assert code != 0
        assert running.history.select()[-1].reason == "DOMAIN_CONFIGURATION_DISABLED"
