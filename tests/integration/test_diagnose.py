"""``devicesim diagnose`` end to end: each of the fifteen causes of aws-iot-behaviour.md §9 is provoked on the emulator
and must be ranked first, and what is healthy must have none.

The emulator runs in a thread of this process, the command line in this one: nothing is made up but the fault of row 6.
"""

import json
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio

from devicesim.emulator.embedded import Account, Emulator, emulator_in_a_thread, quick
from devicesim.pki import keyfile
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem, private_key_pem
from devicesim.pki.profile import KeyType, Profile, Subject
from tests.emulator_support import ROLE, template
from tests.gateway_support import open_client
from tests.support import Devicesim, Outcome, start

ALLOW_ALL = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
PREFIX = "AWS::IoT::Certificate::"


@dataclass(frozen=True, slots=True)
class Material:
    """The fleet's CA, in files and at hand."""

    directory: Path
    authority: Authority
    secret: bytes

    def leaf(self, index: int = 0, *, name: str = "robot-{index:06d}") -> Identity:
        """What the fleet file's device has."""
        profile = Profile(subject=Subject(common_name=name), names={"fleet": "robots", "group": "g"})
        return self.authority.mint(index, secret=self.secret, profile=profile)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    directory = tmp_path_factory.mktemp("ca")
    authority = new_authority()
    assert authority.key is not None
    keyfile.write_public(directory / "ca.pem", certificate_pem(authority.certificate))
    keyfile.write_private(directory / "ca.key", private_key_pem(authority.key))
    secret = b"s" * keyfile.SECRET_BYTES
    keyfile.write_private(directory / "fleet.secret", keyfile.format_secret(secret))
    return Material(directory, authority, secret)


def new_authority() -> Authority:
    return new_shared_authority("Shared CA", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=9))


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with emulator_in_a_thread(2, settings=quick()) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Emulator:
    running.reset()
    return running


@pytest.fixture
def a(emulator: Emulator) -> Account:
    return emulator.accounts[0]


@pytest.fixture
def b(emulator: Emulator) -> Account:
    return emulator.accounts[1]


@cache
def iot_of(account: Account) -> Any:
    """A client, made once: that takes a fifth of a second."""
    return account.client("iot")


def register(account: Account, ca: Authority, *, mode: str = "SNI_ONLY", body: str | None = None, **more: Any) -> None:
    """Register a CA as an account's owner would; ``body`` is a JITP template."""
    iot = iot_of(account)
    request: dict[str, Any] = {"setAsActive": True, "allowAutoRegistration": True, "certificateMode": mode, **more}
    if mode == "DEFAULT":
        now = datetime.now(UTC)
        proof = ca.verification_certificate(
            iot.get_registration_code()["registrationCode"],
            not_before=now - timedelta(minutes=1),
            not_after=now + timedelta(days=1),
        )
        request["verificationCertificate"] = certificate_pem(proof.certificate)
    if body is not None:
        request["registrationConfig"] = {"templateBody": body, "roleArn": ROLE}
    iot.register_ca_certificate(caCertificate=certificate_pem(ca.certificate), **request)


def register_leaf(account: Account, leaf: Identity, status: str = "ACTIVE", policy: str | None = ALLOW_ALL) -> Any:
    """Register a device's certificate, with a policy."""
    iot = iot_of(account)
    # revoked ones are made so: REVOKED is no status to register with
    first = "ACTIVE" if status == "REVOKED" else status
    arn = iot.register_certificate(certificatePem=certificate_pem(leaf.certificate), status=first)["certificateArn"]
    if status != first:
        iot.update_certificate(certificateId=leaf.certificate_id, newStatus=status)
    if policy is not None:
        iot.create_policy(policyName="devices", policyDocument=policy)
        iot.attach_policy(policyName="devices", target=arn)
    return iot


def connect_policy(resource: str) -> str:
    statement = {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"arn:aws:iot:us-east-1:{'1' * 12}:{resource}"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@dataclass(frozen=True, slots=True)
class Told:
    """What ``diagnose --json`` said."""

    code: int
    document: dict[str, Any]
    err: str

    @property
    def device(self) -> dict[str, Any]:
        """The only one."""
        (device,) = self.document["devices"]
        return dict(device)

    @property
    def causes(self) -> list[int]:
        """Numbers of the only device's causes, the likeliest first."""
        return [each["number"] for each in self.device["findings"]]

    def arguments(self, number: int) -> str:
        """All that speaks for a cause."""
        finding = next(each for each in self.device["findings"] if each["number"] == number)
        return "\n".join(each["text"] for each in finding["supporting"])


@dataclass(slots=True)
class Bench:
    """Writes a fleet file for the running emulator, and diagnoses it there."""

    command: Devicesim
    emulator: Emulator
    material: Material
    directory: Path

    def fleet(
        self,
        *,
        group: str = "",
        a_mode: str = "SNI_ONLY",
        b_mode: str = "SNI_ONLY",
        attempts: int = 2,
        count: int = 1,
        more: str = "",
    ) -> Path:
        ca = self.material.directory
        path = self.directory / "robots.toml"
        first, second = self.emulator.accounts
        path.write_text(
            f"""
version = 1
name = "robots"
[ca]
certificate = "{ca / "ca.pem"}"
key = "{ca / "ca.key"}"
secret = "{ca / "fleet.secret"}"
[accounts.a]
id = "{first.account_id}"
ca_mode = "{a_mode}"
[accounts.b]
id = "{second.account_id}"
ca_mode = "{b_mode}"
[groups.g]
count = {count}
account = "a"
subject = {{ common_name = "robot-{{index:06d}}" }}
{group}
[arrival]
rate = "100/s"
[retry]
first_delay = [0.1, 0.1]
attempts = {attempts}
{more}
""",
            encoding="utf-8",
        )
        return path

    def diagnose(
        self, path: Path, *arguments: str, hold: float = 0.0, port: int | None = None, cacert: Path | None = None
    ) -> Told:
        """Connect the fleet's devices to the running emulator, and ask it why they are not connected."""
        account = self.emulator.accounts[0]
        address = f"127.0.0.1:{port or account.mqtt_port}"
        where = ("--endpoint-url", account.api, "--connect-to", address, "--cacert", str(cacert or account.ca_file))
        outcome = self.command("diagnose", path, *arguments, *where, "--hold", str(hold), "--json")
        assert outcome.out, outcome.err
        return Told(outcome.code, json.loads(outcome.out), outcome.err)


@pytest.fixture
def bench(devicesim: Devicesim, emulator: Emulator, material: Material, tmp_path: Path) -> Bench:
    return Bench(devicesim, emulator, material, tmp_path)


# --- 1: the first drop ---


def test_1_a_device_that_takes_the_first_drop_for_final(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())

    told = bench.diagnose(bench.fleet(attempts=1))

    assert told.causes[0] == 1
    assert "ACTIVE in a" in told.arguments(1)
    assert told.code == 99


# --- 2: the CA does not register ---


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"setAsActive": False}, "is INACTIVE in a"),
        ({"allowAutoRegistration": False}, "without automatic registration (DISABLE) in a"),
        (None, "the CA is not registered in a (111111111111, us-east-1)"),
    ],
)
def test_2_a_ca_that_registers_nobody(
    bench: Bench, a: Account, material: Material, state: dict[str, Any] | None, says: str
) -> None:
    if state is not None:
        register(a, material.authority, body=template(), **state)

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 2
    assert says in told.arguments(2)


def test_2_the_ca_is_registered_in_the_other_account(bench: Bench, b: Account, material: Material) -> None:
    register(b, material.authority, body=template())

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 2
    assert "b in us-east-1 has the CA (SNI_ONLY)" in told.arguments(2)


# --- 3: the server name ---


@pytest.mark.parametrize(
    ("sni", "says"),
    [
        ("none", "no server name is sent"),
        ("other:b", "the server name is the endpoint of b; a is dialled"),
        ("literal:127.0.0.1", "'127.0.0.1' counts as none"),
    ],
)
def test_3_a_server_name_that_leads_elsewhere(
    bench: Bench, a: Account, material: Material, sni: str, says: str
) -> None:
    register(a, material.authority, body=template())

    told = bench.diagnose(bench.fleet(group=f'sni = "{sni}"'))

    assert told.causes[0] == 3
    assert says in told.arguments(3)


# --- 4: the issuer is not found ---


def test_4_neither_chain_nor_server_name_is_sent(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, mode="DEFAULT", body=template())

    told = bench.diagnose(bench.fleet(group='sni = "none"', a_mode="DEFAULT", more="[tls]\nsend_chain = false"))

    assert told.causes[0] == 4
    assert "neither server name nor chain is sent" in told.arguments(4)


def test_4_a_ca_of_the_same_name_with_another_key(bench: Bench, a: Account) -> None:
    register(a, new_authority(), body=template())

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 4
    assert "has the issuer's subject, but another key" in told.arguments(4)


# --- 5: the template ---

THING = {"ThingName": {"Ref": PREFIX + "CommonName"}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (template(parameters=("CommonName", "Country", "Id")), "wants AWS::IoT::Certificate::Country"),
        (template(thing={**THING, "ThingGroups": ["robots"]}), "thing group 'robots'"),
        (template(thing={**THING, "ThingTypeName": "robot"}), "thing type 'robot'"),
        (template(policy={"PolicyName": "nothing"}), "policy 'nothing'"),
        (template(thing={"ThingName": {"Fn::Sub": "a b ${AWS::IoT::Certificate::CommonName}"}}), "'a b robot-000000'"),
    ],
    ids=["parameter", "group", "type", "policy", "name"],
)
def test_5_a_template_that_fails(bench: Bench, a: Account, material: Material, body: str, says: str) -> None:
    register(a, material.authority, body=body)

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 5
    assert says in told.arguments(5)
    assert "CloudTrail of a: RegisterThing failed" in told.arguments(5)


def test_5_a_thing_of_that_name_that_is_another(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())
    iot_of(a).create_thing(thingName="robot-000000", attributePayload={"attributes": {"of": "another"}})

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 5
    assert "the thing 'robot-000000' exists with other attributes" in told.arguments(5)


# --- 6: the role ---


def test_6_a_role_that_cannot_be_assumed(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())
    bench.emulator.inject(kind="fail_provisioning")

    told = bench.diagnose(bench.fleet())
    bench.emulator.clear_faults()

    assert told.causes[0] == 6
    assert "AccessDeniedException" in told.arguments(6)


# --- 7: the policy ---


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (None, "no policy is attached to the certificate in a"),
        (connect_policy("client/somebody"), "not as client 'robot-000000'"),
        (connect_policy("client/${iot:Connection.Thing.ThingName}"), "the name of a thing of the certificate"),
    ],
    ids=["none", "another client id", "thing name"],
)
def test_7_a_policy_that_does_not_let_it_connect(
    bench: Bench, a: Account, material: Material, policy: str | None, says: str
) -> None:
    register(a, material.authority)
    register_leaf(a, material.leaf(), policy=policy)

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 7
    assert says in told.arguments(7)


def test_7_what_aws_logged_is_read(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority)
    iot = register_leaf(a, material.leaf(), policy=None)
    iot.set_v2_logging_options(roleArn=ROLE, defaultLogLevel="ERROR")

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 7
    assert "a logged Connect AUTHORIZATION_FAILURE" in told.arguments(7)


# --- 8: throttled ---


def test_8_a_fleet_far_over_the_quotas(devicesim: Devicesim, material: Material, tmp_path: Path) -> None:
    fleet = tmp_path / "many.toml"
    fleet.write_text(
        """
version = 1
name = "many"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
[groups.g]
count = 60
account = "a"
[arrival]
rate = "200/s"
[retry]
first_delay = [0.5, 0.6]
attempts = 2
[emulator]
jitp_delay = [0.0, 0.1]
""",
        encoding="utf-8",
    )
    ran = devicesim("run", fleet, "--quiet", "--out", tmp_path / "run")
    assert ran.code in (98, 99), ran.out + ran.err  # 98: a busy machine fell behind with the starts

    outcome = devicesim("diagnose", tmp_path / "run", "--json")

    devices = json.loads(outcome.out)["devices"]
    failed = [each for each in devices if not each["connected"]]
    looked_at = [each for each in failed if not each["like"]]
    assert outcome.code == 99
    assert len(devices) == 60
    assert len(failed) > len(looked_at) > 0
    assert {each["findings"][0]["number"] for each in looked_at} == {8}


# --- 9: the root ---


def test_9_a_device_that_trusts_another_root(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())
    own = material.directory / "ca.pem"

    told = bench.diagnose(bench.fleet(more=f'[tls]\nroots = "{own}"'))

    assert told.causes[0] == 9
    assert "it trusts roots that the fleet file names" in told.arguments(9)


# --- 10: registering the CA ---


def test_10_a_default_registration_that_another_account_has_already(
    bench: Bench, b: Account, material: Material
) -> None:
    register(b, material.authority, mode="DEFAULT")
    path, account = bench.fleet(a_mode="DEFAULT"), bench.emulator.accounts[0]

    ran = bench.command(
        *("run", path, "--quiet", "--out", path.parent / "run", "--endpoint-url", account.api),
        *("--connect-to", f"127.0.0.1:{account.mqtt_port}", "--cacert", account.ca_file),
    )
    outcome = bench.command("diagnose", path.parent / "run", "--json")

    assert ran.code == 3, ran.out + ran.err
    assert outcome.code == 99
    told = Told(outcome.code, json.loads(outcome.out), outcome.err)
    assert told.causes[0] == 10
    assert "ResourceAlreadyExistsException" in told.arguments(10)
    assert told.device["seen"].startswith("never started: the run ended before its accounts were set up: account 'a'")
    assert "has no group 'x'" in bench.command("diagnose", path.parent / "run", "--group", "x").err


def test_10_a_default_registration_that_was_never_made(bench: Bench, b: Account, material: Material) -> None:
    register(b, material.authority, mode="DEFAULT")

    told = bench.diagnose(bench.fleet(a_mode="DEFAULT"))

    assert told.causes[0] == 10
    assert "b holds it in DEFAULT mode in us-east-1 already" in told.arguments(10)


def test_10_a_setup_of_an_emulator_of_its_own_that_fails(devicesim: Devicesim, tmp_path: Path) -> None:
    """A CA without basicConstraints, which no account takes."""
    fleet = tmp_path / "bad.toml"
    fleet.write_text(
        """
version = 1
name = "bad"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
template = '{"Resources": {}}'
[groups.g]
count = 1
account = "a"
""",
        encoding="utf-8",
    )

    outcome = devicesim("diagnose", fleet, "--json")

    told = Told(outcome.code, json.loads(outcome.out), outcome.err)
    assert told.code == 99
    assert told.causes[0] == 10
    assert "Invalid registration template" in told.arguments(10)


# --- 11: one client id twice ---


@contextmanager
def rival(account: Account, leaf: Identity, client_id: str) -> Iterator[None]:
    """Another client with the same id, which comes back whenever it is put out."""
    stop = threading.Event()

    async def compete() -> None:
        while not stop.is_set():
            async with open_client(account.mqtt_port, leaf, account.endpoint) as client:
                await client.connect(client_id)
                with trio.move_on_after(0.2):
                    while await client.receive() is not None:
                        pass

    thread = threading.Thread(target=trio.run, args=(compete,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_11_two_devices_with_one_client_id(bench: Bench, a: Account, material: Material, version: str) -> None:
    register(a, material.authority)
    register_leaf(a, material.leaf(0))
    iot = iot_of(a)
    other = material.leaf(1)
    arn = iot.register_certificate(certificatePem=certificate_pem(other.certificate), status="ACTIVE")["certificateArn"]
    iot.attach_policy(policyName="devices", target=arn)

    told = bench.diagnose(
        bench.fleet(group='client_id = "same"', count=2, more=f'[mqtt]\nversion = "{version}"'),
        *("--group", "g"),
        hold=2.0,
    )

    lost = [each for each in told.document["devices"] if not each["connected"]]
    assert lost
    assert {each["findings"][0]["number"] for each in lost} == {11}


def test_11_a_stranger_with_the_same_client_id(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority)
    iot = register_leaf(a, material.leaf(0))
    iot.set_v2_logging_options(roleArn=ROLE, defaultLogLevel="INFO")
    stranger = material.leaf(7)
    arn = iot.register_certificate(certificatePem=certificate_pem(stranger.certificate), status="ACTIVE")[
        "certificateArn"
    ]
    iot.attach_policy(policyName="devices", target=arn)

    # held for as long as a starved machine may keep its rival from coming back: being put out ends it
    with rival(a, stranger, "robot-000000"):
        told = bench.diagnose(bench.fleet(attempts=3), hold=60.0)

    assert told.causes[0] == 11
    assert "DUPLICATE_CLIENT_ID" in told.arguments(11)


# --- 12: ALPN ---


def test_12_port_443_without_alpn(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())

    told = bench.diagnose(bench.fleet(more="[mqtt]\nport = 443"), port=a.mqtt_alpn_port)

    assert told.causes[0] == 12
    assert "it offers no ALPN protocol on port 443" in told.arguments(12)


# --- 13: the certificate ---


@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
def test_13_a_certificate_that_is_not_active(bench: Bench, a: Account, material: Material, status: str) -> None:
    register(a, material.authority)
    iot = register_leaf(a, material.leaf(), status)
    iot.set_v2_logging_options(
        roleArn=ROLE,
        defaultLogLevel="ERROR",
        eventConfigurations=[{"eventType": "Connection.AuthNError", "logLevel": "ERROR"}],
    )

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 13
    assert f"the certificate is {status} in a" in told.arguments(13)
    assert f"a logged DEVICE_CERTIFICATE_{status}" in told.arguments(13)


def test_13_a_certificate_that_has_expired(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())
    yesterday = datetime.now(UTC) - timedelta(days=1)
    begin, end = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (yesterday - timedelta(days=1), yesterday))
    validity = f"[devices]\nnot_before = {begin}\nnot_after = {end}"

    told = bench.diagnose(bench.fleet(more=validity))

    assert told.causes[0] == 13
    assert "the certificate has expired" in told.arguments(13)


# --- 14: the endpoint's name ---


def test_14_a_legacy_endpoint(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())
    legacy = a.endpoint.replace("-ats.", ".")

    told = bench.diagnose(bench.fleet(group=f'sni = "literal:{legacy}"'))

    assert told.causes[0] == 14
    assert "is a legacy name, without -ats" in told.arguments(14)


def test_14_a_name_made_by_hand(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())

    told = bench.diagnose(bench.fleet(group='verify_name = "iot.example.com"'))

    assert told.causes[0] == 14
    assert "the name verified, 'iot.example.com' is no account's endpoint" in told.arguments(14)


# --- 15: the port ---


def test_15_a_port_that_speaks_no_tls(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())

    told = bench.diagnose(bench.fleet(), port=int(a.api.rpartition(":")[2]))

    assert told.causes[0] == 15


def test_15_a_port_on_which_nobody_listens(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))

        told = bench.diagnose(bench.fleet(), port=nobody.getsockname()[1])

    assert told.causes[0] == 15
    assert "nothing listens there" in told.arguments(15)


# --- two faults at once, and one that looks like another: what is to be mended first is told first ---


def switch_off(account: Account) -> None:
    """Make the account's CA INACTIVE."""
    iot = iot_of(account)
    (ca,) = iot.list_ca_certificates()["certificates"]
    iot.update_ca_certificate(certificateId=ca["certificateId"], newStatus="INACTIVE")


def log_refusals(account: Account) -> None:
    """All that AWS IoT logs of them."""
    iot_of(account).set_v2_logging_options(
        roleArn=ROLE,
        defaultLogLevel="ERROR",
        eventConfigurations=[{"eventType": "Connection.AuthNError", "logLevel": "ERROR"}],
    )


def expired() -> str:
    """The section of a fleet file whose certificates ended yesterday."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    begin, end = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (yesterday - timedelta(days=1), yesterday))
    return f"[devices]\nnot_before = {begin}\nnot_after = {end}"


@pytest.mark.parametrize("next_one", ["CA", "certificate"])
def test_wrong_root_and_something_inactive_behind_it(
    bench: Bench, a: Account, material: Material, next_one: str
) -> None:
    register(a, material.authority)
    if next_one == "CA":
        switch_off(a)
    else:
        register_leaf(a, material.leaf(), "INACTIVE")

    told = bench.diagnose(bench.fleet(more=f'[tls]\nroots = "{material.directory / "ca.pem"}"'))

    assert told.causes == [9, 2 if next_one == "CA" else 13]
    assert told.device["oracle"] == ""


def test_no_server_name_and_expired(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())

    told = bench.diagnose(bench.fleet(group='sni = "none"', more=expired()))

    assert told.causes == [3, 13]
    assert told.device["oracle"] == ""  # it has no word for a certificate that is not valid


def test_443_without_alpn_and_no_server_name(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())

    told = bench.diagnose(bench.fleet(group='sni = "none"', more="[mqtt]\nport = 443"), port=a.mqtt_alpn_port)

    assert (told.causes[0], told.causes[-1]) == (12, 3)


def test_the_ca_inactive_and_a_namesake_active(bench: Bench, a: Account, material: Material) -> None:
    register(a, new_authority(), body=template())
    register(a, material.authority, body=template(), setAsActive=False)

    told = bench.diagnose(bench.fleet())

    assert told.causes == [2, 4]
    assert f"CA {material.authority.certificate_id[:8]} is INACTIVE in a" in told.arguments(2)


def test_a_namesake_beside_the_ca_is_no_cause(bench: Bench, a: Account, material: Material) -> None:
    register(a, new_authority(), body=template())
    register(a, material.authority)
    register_leaf(a, material.leaf(), policy=connect_policy("client/somebody"))

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 7
    assert 4 not in told.causes


def test_the_ca_in_another_mode_than_the_devices_count_on(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template())

    told = bench.diagnose(bench.fleet(group='sni = "none"', a_mode="DEFAULT"))

    assert told.causes == [3, 10]
    assert "is SNI_ONLY in a, the fleet file wants DEFAULT" in told.arguments(10)


def test_a_template_that_fails_in_the_account_that_is_named_by_mistake(
    bench: Bench, a: Account, b: Account, material: Material
) -> None:
    register(a, material.authority, body=template())
    register(b, material.authority, body=template(parameters=("CommonName", "Country", "Id")))

    told = bench.diagnose(bench.fleet(group='sni = "other:b"'))

    assert told.causes[:2] == [3, 5]
    assert told.device["oracle"].endswith("(10c.pending [D+M])")


def test_revoked_in_the_account_that_is_named_by_mistake(
    bench: Bench, a: Account, b: Account, material: Material
) -> None:
    register(a, material.authority, body=template())
    register(b, material.authority)
    register_leaf(b, material.leaf(), "REVOKED")
    log_refusals(b)

    told = bench.diagnose(bench.fleet(group='sni = "other:b"'))

    assert told.causes == [3, 13]
    assert "b logged DEVICE_CERTIFICATE_REVOKED" in told.arguments(13)


def test_a_device_that_another_account_takes_says_so(bench: Bench, b: Account, material: Material) -> None:
    register(b, material.authority, body=template())

    told = bench.diagnose(bench.fleet(group='sni = "other:b"', attempts=4))

    assert (told.code, told.causes) == (0, [])
    assert told.device["seen"] == "accepted by b, though a is dialled"


def test_no_policy_and_the_ca_inactive(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority)
    register_leaf(a, material.leaf(), policy=None)
    switch_off(a)

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 7
    assert 2 not in told.causes


def test_denied_and_the_client_id_taken(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority)
    iot = register_leaf(a, material.leaf(0), policy=connect_policy("client/somebody"))
    stranger = material.leaf(7)
    arn = iot.register_certificate(certificatePem=certificate_pem(stranger.certificate), status="ACTIVE")[
        "certificateArn"
    ]
    iot.create_policy(policyName="all", policyDocument=ALLOW_ALL)
    iot.attach_policy(policyName="all", target=arn)

    with rival(a, stranger, "robot-000000"):
        told = bench.diagnose(bench.fleet(), hold=0.2)

    assert told.causes[0] == 7


def test_a_record_deleted_made_again_and_left_without_policy(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority, body=template(), allowAutoRegistration=False)
    fleet, iot, leaf = bench.fleet(), iot_of(a), material.leaf()

    gone = bench.diagnose(fleet)
    iot.register_certificate(certificatePem=certificate_pem(leaf.certificate), status="INACTIVE")
    inactive = bench.diagnose(fleet)
    iot.update_certificate(certificateId=leaf.certificate_id, newStatus="ACTIVE")
    bare = bench.diagnose(fleet)

    assert [each.causes[0] for each in (gone, inactive, bare)] == [2, 13, 7]
    assert [each.device["oracle"].rpartition("(")[2].partition(" ")[0] for each in (gone, inactive, bare)] == [
        "10b.ca-off.sA",
        "10c.inactive",
        "10c.active.denied",
    ]


def test_denied_after_quick_tries_is_not_told_as_a_first_drop(bench: Bench, a: Account, material: Material) -> None:
    denying = json.loads(connect_policy("client/somebody"))
    register(a, material.authority, body=template(policy={"PolicyDocument": denying}))

    told = bench.diagnose(bench.fleet(attempts=4))

    assert told.causes[0] == 7
    assert told.device["oracle"].startswith("as IoT Core should: ACTIVE, but no attached policy lets it connect")


def test_a_template_that_fails_in_a_fleet_that_is_too_fast(devicesim: Devicesim, tmp_path: Path) -> None:
    fleet = tmp_path / "many.toml"
    fleet.write_text(
        f"""
version = 1
name = "many"
[accounts.a]
id = "111111111111"
ca_mode = "SNI_ONLY"
provisioning = "JITP"
template = '{template(parameters=("CommonName", "Country", "Id"))}'
[groups.g]
count = 30
account = "a"
[arrival]
rate = "200/s"
[retry]
first_delay = [0.3, 0.4]
attempts = 2
""",
        encoding="utf-8",
    )

    outcome = devicesim("diagnose", fleet, "--group", "g", "--hold", "0", "--json")

    firsts = {each["findings"][0]["number"] for each in json.loads(outcome.out)["devices"] if not each["like"]}
    assert firsts == {5}


# --- the target is at fault ---


@pytest.fixture
def faulty(emulator: Emulator) -> Iterator[Callable[..., str]]:
    """Injects faults, which end with the test."""
    yield emulator.inject
    emulator.clear_faults()


@pytest.mark.parametrize(
    ("fault", "cause", "says"),
    [
        ("server_certificate_expired", 13, "the server's certificate is expired or not yet valid to it"),
        ("server_certificate_wrong_name", 14, "the server's certificate is not for"),
    ],
)
def test_a_certificate_of_the_server_that_will_not_do(
    bench: Bench, a: Account, material: Material, faulty: Callable[..., str], fault: str, cause: int, says: str
) -> None:
    register(a, material.authority, body=template())
    faulty(kind=fault)

    told = bench.diagnose(bench.fleet())

    assert told.causes == [cause]
    assert says in told.arguments(cause)


def test_jitp_that_takes_eight_seconds(
    bench: Bench, a: Account, material: Material, faulty: Callable[..., str]
) -> None:
    """To the device that gives up it is patience that it lacks; neither template nor role is blamed."""
    register(a, material.authority, body=template())
    faulty(kind="delay_provisioning", seconds=8.0)

    told = bench.diagnose(bench.fleet(attempts=3))

    assert told.causes == [1]
    assert told.device["oracle"].endswith("(10c.pending [D+M])")


def test_a_front_door_whose_clock_is_years_ahead(
    bench: Bench, a: Account, material: Material, faulty: Callable[..., str]
) -> None:
    register(a, material.authority, body=template())
    log_refusals(a)
    faulty(kind="clock_skew", seconds=5 * 365 * 86_400.0)

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 13
    assert "a logged NOT_AUTHENTICATED" in told.arguments(13)


@pytest.mark.parametrize("fault", ["drop_after_handshake", "refuse_connect"])
def test_a_refusal_that_nothing_explains_is_told_as_such(
    bench: Bench, a: Account, material: Material, faulty: Callable[..., str], fault: str
) -> None:
    register(a, material.authority)
    register_leaf(a, material.leaf())
    faulty(kind=fault)

    told = bench.diagnose(bench.fleet())

    assert told.device["oracle"].startswith("not what IoT Core should do: ACTIVE, and its policy lets it connect")
    assert max((each["score"] for each in told.device["findings"]), default=0) < 3
    assert any("AWS IoT's log in a" in each for each in told.device["would_need"])


def test_a_first_drop_that_registers_nothing_is_not_what_should_be(
    bench: Bench, a: Account, material: Material, faulty: Callable[..., str]
) -> None:
    register(a, material.authority, body=template())
    faulty(kind="drop_after_handshake")

    told = bench.diagnose(bench.fleet())

    assert told.device["oracle"].startswith("not what IoT Core should do: SNI of the one account with the CA")
    assert told.device["oracle"].endswith("but a has no record of it")


def test_a_broker_that_accepts_and_then_cuts_the_connection(bench: Bench, a: Account, material: Material) -> None:
    register(a, material.authority)
    iot = register_leaf(a, material.leaf())

    def deactivate() -> None:
        while not bench.emulator.history(verdict="admitted"):
            time.sleep(0.02)
        iot.update_certificate(certificateId=material.leaf().certificate_id, newStatus="INACTIVE")

    cutting = threading.Thread(target=deactivate, daemon=True)
    cutting.start()
    told = bench.diagnose(bench.fleet(attempts=1), hold=3.0)
    cutting.join(10)

    assert told.device["seen"].startswith("closed after CONNACK")
    assert told.causes[0] == 13


def test_an_account_whose_calls_are_throttled_or_fail_is_asked_all_the_same(
    bench: Bench, a: Account, material: Material, faulty: Callable[..., str]
) -> None:
    register(a, material.authority)
    register_leaf(a, material.leaf(), policy=None)
    faulty(kind="throttle_api", operation="DescribeCertificate", count=2)
    faulty(kind="api_unavailable", operation="TestAuthorization")

    told = bench.diagnose(bench.fleet())

    assert told.causes[0] == 7
    assert "no policy is attached to the certificate in a" in told.arguments(7)


# --- healthy ---


@pytest.mark.parametrize(
    ("group", "mode", "more"),
    [
        ("", "SNI_ONLY", ""),
        ("", "DEFAULT", '[mqtt]\nversion = "5"'),
        ('sni = "none"', "DEFAULT", ""),
    ],
    ids=["SNI_ONLY", "DEFAULT with MQTT 5", "DEFAULT without SNI"],
)
def test_a_healthy_device_has_no_cause(
    bench: Bench, a: Account, material: Material, group: str, mode: str, more: str
) -> None:
    register(a, material.authority, mode=mode, body=template())

    told = bench.diagnose(bench.fleet(group=group, a_mode=mode, more=more, attempts=4), hold=0.2)

    assert told.code == 0
    assert (told.device["connected"], told.causes) == (True, [])
    assert "and open for 0 s" in told.device["seen"]


def test_a_healthy_device_under_jitr_has_no_cause(devicesim: Devicesim, tmp_path: Path) -> None:
    """On an emulator of its own, whose accounts are set up as for a run, with somebody who activates."""
    fleet = tmp_path / "jitr.toml"
    fleet.write_text(
        """
version = 1
name = "jitr"
[accounts.a]
id = "111111111111"
ca_mode = "DEFAULT"
provisioning = "JITR"
[groups.g]
count = 2
account = "a"
[retry]
first_delay = [0.4, 0.5]
""",
        encoding="utf-8",
    )

    outcome = devicesim("diagnose", fleet, "--hold", "0.1")

    assert outcome.code == 0, outcome.out + outcome.err
    assert outcome.out.startswith("device 0 (jitr-000000) is connected: accepted, and open for 0 s (try 2).")


# --- what it is asked about ---


@pytest.fixture
def recorded(bench: Bench, a: Account, material: Material) -> Path:
    """A run of three devices, of which the second and third are turned away: the fleet file wants no registration."""
    register(a, material.authority, allowAutoRegistration=False)
    register_leaf(a, material.leaf(0))
    path = bench.fleet(count=3)
    bench.command(
        *("run", path, "--quiet", "--out", path.parent / "run", "--endpoint-url", a.api),
        *("--connect-to", f"127.0.0.1:{a.mqtt_port}", "--cacert", a.ca_file),
    )
    return path.parent / "run"


def names(outcome: Outcome) -> list[str]:
    return [each["device"] for each in json.loads(outcome.out)["devices"]]


def test_a_whole_run_is_told_from_its_record_alone(bench: Bench, recorded: Path) -> None:
    outcome = bench.command("diagnose", recorded, "--json")
    told = bench.command("diagnose", recorded / "run.sqlite")

    document = json.loads(outcome.out)
    assert (outcome.code, told.code) == (99, 99)
    assert names(outcome) == ["device 0 (robot-000000)", "device 1 (robot-000001)", "device 2 (robot-000002)"]
    assert document["connected"] == 1
    assert "no account is asked" in outcome.err
    assert {each["findings"][0]["number"] for each in document["devices"][1:]} == {2}
    assert told.out.startswith("2 devices of group g: device 1 (robot-000001), device 2 (robot-000002): not")
    assert told.out.endswith("1 of 3 devices are connected.\n")


@pytest.mark.parametrize("how", ["number", "client id", "certificate", "prefix"])
def test_a_device_is_named_by_number_client_id_or_certificate(
    bench: Bench, recorded: Path, material: Material, how: str
) -> None:
    leaf = material.leaf(1).certificate_id
    name = {"number": "1", "client id": "robot-000001", "certificate": leaf.upper(), "prefix": leaf[:8]}[how]

    in_run = bench.command("diagnose", recorded, name, "0", "--json", "--no-control-plane")
    live = bench.diagnose(recorded.parent / "robots.toml", name)

    assert names(in_run) == ["device 1 (robot-000001)", "device 0 (robot-000000)"]
    assert in_run.err == ""
    assert live.device["device"] == "device 1 (robot-000001)"


def test_a_group_is_all_of_its_devices_and_a_fleet_the_first_of_each(bench: Bench, recorded: Path) -> None:
    fleet = recorded.parent / "robots.toml"

    assert len(names(bench.command("diagnose", recorded, "--group", "g", "--json"))) == 3
    assert len(bench.diagnose(fleet, "--group", "g").document["devices"]) == 3
    assert bench.diagnose(fleet).device["device"] == "device 0 (robot-000000)"


def test_a_run_is_told_by_what_its_accounts_say_now(bench: Bench, a: Account, recorded: Path) -> None:
    """The CA was ACTIVE when it ran."""
    iot = iot_of(a)
    (ca,) = iot.list_ca_certificates()["certificates"]
    iot.update_ca_certificate(certificateId=ca["certificateId"], newStatus="INACTIVE")

    outcome = bench.command("diagnose", recorded, "2", "--endpoint-url", a.api, "--json")

    told = Told(outcome.code, json.loads(outcome.out), outcome.err)
    assert told.causes[0] == 2
    assert f"CA {ca['certificateId'][:8]} is INACTIVE and without automatic registration" in told.arguments(2)
    assert outcome.err == ""


def test_a_run_that_goes_on_is_told_so_far(bench: Bench, recorded: Path) -> None:
    with closing(sqlite3.connect(recorded / "run.sqlite")) as opened, opened:
        opened.execute("UPDATE run SET status = 'running', ended_at = NULL")

    outcome = bench.command("diagnose", recorded, "--json")

    assert outcome.code == 99
    assert "goes on, or was killed: this is what it has seen so far" in outcome.err


def test_without_control_plane_it_says_what_it_can_and_what_it_would_need(bench: Bench) -> None:
    told = bench.diagnose(bench.fleet(group='sni = "none"'), "--no-control-plane")

    assert told.code == 99
    assert told.causes[0] == 3
    assert "no server name is sent" in told.arguments(3)
    assert any(
        each.startswith("the control plane of a (111111111111, us-east-1)") for each in told.device["would_need"]
    )


def test_accounts_that_do_not_answer_end_no_diagnosis_of_a_run(bench: Bench, recorded: Path) -> None:
    outcome = bench.command("diagnose", recorded, "1", "--endpoint-url", "http://127.0.0.1:1", "--json")

    assert outcome.code == 99, outcome.err
    assert json.loads(outcome.out)["devices"][0]["findings"]
    for name in ("a", "b"):
        told = f"account '{name}' is judged by what was known of it before: nothing could be asked: get_caller_identity"
        assert told in outcome.err


# --- what it refuses ---


def test_what_nobody_is_called_is_told_with_what_there_is(bench: Bench, recorded: Path) -> None:
    fleet = recorded.parent / "robots.toml"
    for asked, says in (
        (("diagnose", recorded, "7"), f"the run {str(recorded)!r} has no device '7'"),
        (("diagnose", recorded, "nobody"), "has no device 'nobody'\n  hint: a number from 0 to 2, a client id, or"),
        (("diagnose", recorded, "--group", "x"), "has no group 'x'\n  hint: its groups: g"),
        (("diagnose", fleet, "deadbeef"), f"{fleet} has no device 'deadbeef'"),
        (("diagnose", fleet, "--group", "x"), "has no group 'x'"),
        (("diagnose", fleet, "1", "--group", "g"), "DEVICE and --group exclude each other"),
        (("diagnose", recorded, "--cacert", "x"), "--connect-to and --cacert are for a FLEET"),
        (("diagnose", fleet, "--hold", "-1"), "is not in the range 0"),
        (("diagnose", fleet, "--hold", "nan"), "'nan' is not a number of seconds"),
        (("diagnose", fleet, "--connect-to", "nowhere"), "'nowhere' is not HOST:PORT"),
        (("diagnose", recorded, "--ca", recorded / "nothing"), "cannot be read: No such file"),
    ):
        outcome = bench.command(*asked)

        assert outcome.code == 2, asked
        assert says in outcome.err


def test_what_is_neither_fleet_nor_run_is_told(devicesim: Devicesim, tmp_path: Path) -> None:
    (tmp_path / "text.toml").write_text("nothing")
    (tmp_path / "other.sqlite").write_bytes(b"SQLite format 3\0 of something else")
    (tmp_path / "empty").mkdir()

    assert devicesim("diagnose", tmp_path / "text.toml").code == 104
    assert devicesim("diagnose", tmp_path / "gone.toml").code == 104
    for record in ("other.sqlite", "empty", "gone.sqlite"):
        outcome = devicesim("diagnose", tmp_path / record)
        assert outcome.code == 2, record
        assert "Traceback" not in outcome.err


def test_a_target_that_is_not_there_exits_3(bench: Bench, a: Account) -> None:
    outcome = bench.command(
        *("diagnose", bench.fleet(), "--endpoint-url", "http://127.0.0.1:1", "--connect-to", "127.0.0.1:1"),
        *("--cacert", a.ca_file),
    )

    assert outcome.code == 3
    assert "get_caller_identity failed" in outcome.err


def test_an_interruption_exits_105_and_leaves_nothing(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an emulator of its own runs, with a record that is thrown away."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    process = start("diagnose", bench.fleet(attempts=100), cwd=tmp_path)
    give_up = time.monotonic() + 30
    while not list((tmp_path / "tmp").glob("devicesim-diagnose-*/run.sqlite")) and time.monotonic() < give_up:
        time.sleep(0.05)

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (105, ""), err
    assert err.endswith("devicesim: interrupted\n")
    assert list((tmp_path / "tmp").glob("devicesim-*")) == []  # nor the emulator's, which it removes when it stops
