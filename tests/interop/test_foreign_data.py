"""Shadows, the data API and fleet provisioning against programs that nobody here wrote: AWS's own device SDK, both aws
command lines and curl, each against the program ``devicesim emulate`` as a user starts it.

A test is skipped, with its reason, only where a program is not installed.
"""

import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SECONDS = 20
REGION = "us-east-1"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
TEMPLATE = {
    "Parameters": {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {"ThingName": {"Fn::Join": ["", ["robot-", {"Ref": "SerialNumber"}]]}},
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": json.dumps(POLICY)}},
    },
    "DeviceConfiguration": {"Url": "https://example.com"},
}
ROLE = "arn:aws:iam::000000000000:role/provisioning"
V1 = Path(sys.executable).with_name("aws")
V2 = Path("/usr/bin/aws")

awscrt = pytest.importorskip("awscrt", reason="the AWS IoT Device SDK v2 (awsiotsdk) is not installed")
from awscrt import http, mqtt5, mqtt_request_response  # type: ignore[import-untyped]  # noqa: E402 - only where it is
from awsiot import iotidentity, iotshadow, mqtt5_client_builder  # type: ignore[import-untyped]  # noqa: E402


@dataclass
class Emulator:
    """A running ``devicesim emulate``, and an account of it."""

    api: str
    account_id: str
    endpoint: str
    port: int
    ca_file: Path
    proxy: int
    directory: Path

    def client(self, service: str) -> Any:
        return boto3.Session().client(
            service,
            endpoint_url=self.api,
            region_name=REGION,
            aws_access_key_id=self.account_id,
            aws_secret_access_key="secret",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=SECONDS),
        )

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "AWS_ACCESS_KEY_ID": self.account_id,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_PAGER": "",
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONWARNINGS": "",
        }

    def make_certificate(self, name: str = "claim") -> tuple[Path, Path]:
        """Files of an ACTIVE certificate that may do everything, and of its key."""
        iot = self.client("iot")
        made = iot.create_keys_and_certificate(setAsActive=True)
        with suppress(iot.exceptions.ResourceAlreadyExistsException):
            iot.create_policy(policyName="all", policyDocument=json.dumps(POLICY))
        iot.attach_policy(policyName="all", target=made["certificateArn"])
        return self.write(name, made["certificatePem"], made["keyPair"]["PrivateKey"])

    def write(self, name: str, certificate: str, key: str) -> tuple[Path, Path]:
        files = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        files[0].write_text(certificate)
        files[1].write_text(key)
        return files


@contextmanager
def relay(port: int) -> Iterator[int]:
    """An HTTP proxy that takes every name for 127.0.0.1:``port``: ``*.localhost`` does not resolve everywhere."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pipe(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                request = b""
                while b"\r\n\r\n" not in request:
                    request += client.recv(4096)
                assert request.startswith(b"CONNECT ")
                server = socket.create_connection(("127.0.0.1", port))
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=pipe, args=pair, daemon=True).start()
                sockets.extend((client, server))

    sockets = [listener]
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    command = [sys.executable, "-m", "devicesim", "emulate", "--accounts", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            (account,) = ready["accounts"]
            with relay(account["mqtt"]["port"]) as proxy:
                yield Emulator(
                    api=ready["api"],
                    account_id=account["account_id"],
                    endpoint=account["endpoint"],
                    port=account["mqtt"]["port"],
                    ca_file=Path(ready["ca_file"]),
                    proxy=proxy,
                    directory=tmp_path_factory.mktemp("devices"),
                )
        finally:
            process.terminate()
            process.wait(SECONDS)


# --- the AWS IoT Device SDK v2 ---


@contextmanager
def sdk_connection(emulator: Emulator, files: tuple[Path, Path], client_id: str) -> Iterator[mqtt5.Client]:
    outcomes: queue.Queue[Exception | None] = queue.Queue()
    stopped = threading.Event()
    client = mqtt5_client_builder.mtls_from_path(
        endpoint=emulator.endpoint,
        port=emulator.port,
        cert_filepath=str(files[0]),
        pri_key_filepath=str(files[1]),
        ca_filepath=str(emulator.ca_file),
        client_id=client_id,
        http_proxy_options=http.HttpProxyOptions("127.0.0.1", emulator.proxy),
        on_lifecycle_connection_success=lambda _: outcomes.put(None),
        on_lifecycle_connection_failure=lambda data: outcomes.put(data.exception),
        on_lifecycle_stopped=lambda _: stopped.set(),
    )
    client.start()
    try:
        failure = outcomes.get(timeout=SECONDS)
        if failure is not None:
            raise failure
        yield client
    finally:
        client.stop()
        assert stopped.wait(SECONDS)


def options() -> mqtt_request_response.ClientOptions:
    made = mqtt_request_response.ClientOptions(max_request_response_subscriptions=4, max_streaming_subscriptions=4)
    made.operation_timeout_in_seconds = SECONDS
    return made


def code_of(error: Exception) -> int:
    modeled = error.modeled_error  # type: ignore[attr-defined]
    return int(getattr(modeled, "code", None) or modeled.status_code)


def test_the_device_sdks_shadow_client_creates_gets_follows_and_deletes(emulator: Emulator) -> None:
    """The course of AWS's own test of it (aws-iot-device-sdk-python-v2, test_shadow.py)."""
    document = {"Color": "Green", "On": True}
    with sdk_connection(emulator, emulator.make_certificate("shadow"), "shadow-test") as connection:
        client = iotshadow.IotShadowClientV2(connection, options())
        name = {"thing_name": "robot-1", "shadow_name": "arm"}

        with pytest.raises(Exception, match="get_named_shadow failure") as refused:
            client.get_named_shadow(iotshadow.GetNamedShadowRequest(**name)).result(SECONDS)
        assert code_of(refused.value) == 404

        state = iotshadow.ShadowState(desired=document, reported=document)
        made = client.update_named_shadow(iotshadow.UpdateNamedShadowRequest(**name, state=state)).result(SECONDS)
        assert (made.state.desired, made.state.reported, made.version) == (document, document, 1)
        got = client.get_named_shadow(iotshadow.GetNamedShadowRequest(**name)).result(SECONDS)
        assert (got.state.desired, got.state.reported) == (document, document)

        differs: queue.Queue[Any] = queue.Queue()
        subscribed: queue.Queue[Any] = queue.Queue()
        stream = client.create_named_shadow_delta_updated_stream(
            iotshadow.NamedShadowDeltaUpdatedSubscriptionRequest(**name),
            iotshadow.awsiot.ServiceStreamOptions(
                subscription_status_listener=subscribed.put, incoming_event_listener=differs.put
            ),
        )
        stream.open()
        assert subscribed.get(timeout=SECONDS).type == (
            mqtt_request_response.SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED
        )
        wanted = iotshadow.ShadowState(desired={"Color": "Red"})
        client.update_named_shadow(iotshadow.UpdateNamedShadowRequest(**name, state=wanted)).result(SECONDS)
        assert differs.get(timeout=SECONDS).state == {"Color": "Red"}

        conflicting = iotshadow.UpdateNamedShadowRequest(**name, state=wanted, version=1)
        with pytest.raises(Exception, match="update_named_shadow failure") as conflict:
            client.update_named_shadow(conflicting).result(SECONDS)
        assert code_of(conflict.value) == 409
        deleted = client.delete_named_shadow(iotshadow.DeleteNamedShadowRequest(**name)).result(SECONDS)
        assert deleted.version == 2


def test_the_device_sdks_shadow_client_sees_what_boto3_changes(emulator: Emulator) -> None:
    data = emulator.client("iot-data")
    with sdk_connection(emulator, emulator.make_certificate("robot-2"), "robot-2") as connection:
        client = iotshadow.IotShadowClientV2(connection, options())
        changed: queue.Queue[Any] = queue.Queue()
        subscribed: queue.Queue[Any] = queue.Queue()
        stream = client.create_shadow_updated_stream(
            iotshadow.ShadowUpdatedSubscriptionRequest(thing_name="robot-2"),
            iotshadow.awsiot.ServiceStreamOptions(
                subscription_status_listener=subscribed.put, incoming_event_listener=changed.put
            ),
        )
        stream.open()
        subscribed.get(timeout=SECONDS)

        data.update_thing_shadow(thingName="robot-2", payload=json.dumps({"state": {"desired": {"speed": 3}}}))

        event = changed.get(timeout=SECONDS)
        assert event.previous is None
        assert event.current.state.desired == {"speed": 3}
        reported = iotshadow.ShadowState(reported={"speed": 3})
        client.update_shadow(iotshadow.UpdateShadowRequest(thing_name="robot-2", state=reported)).result(SECONDS)
        got = json.loads(data.get_thing_shadow(thingName="robot-2")["payload"].read())
        assert got["state"] == {"desired": {"speed": 3}, "reported": {"speed": 3}}


def make_template(emulator: Emulator) -> None:
    iot = emulator.client("iot")
    with suppress(iot.exceptions.ResourceAlreadyExistsException):
        iot.create_provisioning_template(
            templateName="fleet", templateBody=json.dumps(TEMPLATE), provisioningRoleArn=ROLE, enabled=True
        )


def test_the_device_sdk_is_provisioned_by_claim_and_connects_as_itself(emulator: Emulator) -> None:
    make_template(emulator)
    with sdk_connection(emulator, emulator.make_certificate(), "claim") as connection:
        identity = iotidentity.IotIdentityClientV2(connection, options())
        made = identity.create_keys_and_certificate(iotidentity.CreateKeysAndCertificateRequest()).result(SECONDS)
        files = emulator.write("robot-7", made.certificate_pem, made.private_key)
        wrong = iotidentity.RegisterThingRequest(template_name="fleet", certificate_ownership_token="wrong")
        with pytest.raises(Exception, match="register_thing failure") as refused:
            identity.register_thing(wrong).result(SECONDS)
        assert code_of(refused.value) == 400
        request = iotidentity.RegisterThingRequest(
            template_name="fleet",
            certificate_ownership_token=made.certificate_ownership_token,
            parameters={"SerialNumber": "7"},
        )
        provisioned = identity.register_thing(request).result(SECONDS)
        assert provisioned.thing_name == "robot-7"
        assert provisioned.device_configuration == {"Url": "https://example.com"}

    with sdk_connection(emulator, files, "robot-7"):
        pass
    iot = emulator.client("iot")
    assert iot.describe_certificate(certificateId=made.certificate_id)["certificateDescription"]["status"] == "ACTIVE"
    assert len(iot.list_thing_principals(thingName="robot-7")["principals"]) == 1


def test_the_device_sdk_is_provisioned_with_a_temporary_claim_and_its_own_key(emulator: Emulator) -> None:
    make_template(emulator)
    claim = emulator.client("iot").create_provisioning_claim(templateName="fleet")
    files = emulator.write("temporary", claim["certificatePem"], claim["keyPair"]["PrivateKey"])
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "robot-8")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    with sdk_connection(emulator, files, "temporary") as connection:
        identity = iotidentity.IotIdentityClientV2(connection, options())
        pem = csr.public_bytes(serialization.Encoding.PEM).decode()
        made = identity.create_certificate_from_csr(
            iotidentity.CreateCertificateFromCsrRequest(certificate_signing_request=pem)
        ).result(SECONDS)
        request = iotidentity.RegisterThingRequest(
            template_name="fleet",
            certificate_ownership_token=made.certificate_ownership_token,
            parameters={"SerialNumber": "8"},
        )
        assert identity.register_thing(request).result(SECONDS).thing_name == "robot-8"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    with sdk_connection(emulator, emulator.write("robot-8", made.certificate_pem, secret.decode()), "robot-8"):
        pass


# --- command lines ---


@pytest.mark.parametrize(
    ("name", "program", "binary"),
    [
        pytest.param(
            "v1", V1, [], id="v1", marks=pytest.mark.skipif(not V1.exists(), reason="aws CLI v1 is not installed")
        ),
        pytest.param(
            "v2",
            V2,
            ["--cli-binary-format", "raw-in-base64-out"],
            id="v2",
            marks=pytest.mark.skipif(not V2.exists(), reason="aws CLI v2 is not installed"),
        ),
    ],
)
def test_the_aws_command_line_walks_through_a_shadow(
    emulator: Emulator, name: str, program: Path, binary: list[str], tmp_path: Path
) -> None:
    """The developer guide's simulation ("Simulating Device Shadow service communications")."""

    def aws(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, "--endpoint-url", emulator.api, "iot-data", *arguments],
            env=emulator.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=check,
        )

    thing = ["--thing-name", f"thing-{name}", "--shadow-name", "simShadow1"]
    out = tmp_path / "out.json"
    missing = aws("get-thing-shadow", *thing, str(out), check=False)
    assert missing.returncode == 254 if program == V2 else missing.returncode in (254, 255)
    assert "(ResourceNotFoundException)" in missing.stderr
    assert "No shadow exists with name: 'simShadow1'" in missing.stderr

    payload = '{"state":{"desired":{"ColorRGB":[255,255,0]}},"clientToken":"21b21b21"}'
    aws("update-thing-shadow", *thing, *binary, "--payload", payload, str(out))
    assert json.loads(out.read_text())["state"] == {"desired": {"ColorRGB": [255, 255, 0]}}
    aws("get-thing-shadow", *thing, str(out))
    assert json.loads(out.read_text())["state"]["delta"] == {"ColorRGB": [255, 255, 0]}
    listed = json.loads(aws("list-named-shadows-for-thing", *thing[:2]).stdout)
    assert listed["results"] == ["simShadow1"]
    aws("delete-thing-shadow", *thing, str(out))
    assert json.loads(out.read_text())["version"] == 1

    topic = f"cli/{name}"
    aws("publish", "--topic", topic, "--payload", "hello", "--qos", "1", "--retain", *binary)
    retained = emulator.client("iot-data").get_retained_message(topic=topic)
    assert (retained["payload"], retained["qos"]) == (b"hello", 1)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the program curl is not installed")
def test_curl_signs_and_publishes(emulator: Emulator) -> None:
    def curl(*arguments: str) -> str:
        user = f"{emulator.account_id}:secret"
        command = ["curl", "-sS", "--aws-sigv4", f"aws:amz:{REGION}:iotdata", "--user", user, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout

    curl(f"{emulator.api}/topics/curl%2Fa?qos=1&retain=true", "--data-binary", "hello")

    assert emulator.client("iot-data").get_retained_message(topic="curl/a")["payload"] == b"hello"
    shadow = f"{emulator.api}/things/curl/shadow"
    assert json.loads(curl(shadow, "--data-binary", '{"state":{"reported":{"a":1}}}'))["version"] == 1
    assert json.loads(curl(shadow))["state"] == {"reported": {"a": 1}}
    assert json.loads(curl("-X", "DELETE", shadow))["version"] == 1
    assert json.loads(curl(shadow))["message"] == "No shadow exists with name: 'curl'"
