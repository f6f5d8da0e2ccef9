"""``devicesim emulate --state DIR`` as a process that is killed: what was acknowledged is there afterwards."""

import json
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from OpenSSL import SSL

from devicesim.emulator.decode import Decoder
from devicesim.emulator.encode import encode
from devicesim.emulator.packets import ConnAck, Connect, ProtocolVersion
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem, load_certificates
from devicesim.pki.profile import KeyType, Profile
from tests.emulator_support import ALLOW_ALL, World, device
from tests.gateway_support import open_client, open_gateway
from tests.support import start

ACCOUNT = "111111111111"
NO_QUOTAS = """
version = 1
name = "state"
[emulator]
quotas = { lifted = true }
[accounts.only]
id = "111111111111"
region = "us-east-1"
ca_mode = "SNI_ONLY"
[groups.robots]
count = 1
account = "only"
"""
"""Without them a refusal could be a throttle, and what a device sees would acknowledge nothing."""


@contextmanager
def killable(directory: Path) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """An emulator that the test ends itself; killed at the latest with the block."""
    fleet = directory.with_suffix(".toml")
    fleet.write_text(NO_QUOTAS)
    process = start("emulate", fleet, "--state", directory)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.communicate(timeout=30)[1]
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate(timeout=30)


def api(ready: dict[str, Any]) -> Any:
    return boto3.client(
        "iot",
        endpoint_url=ready["api"],
        region_name="us-east-1",
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=10, connect_timeout=5),
    )


def register_ca(ready: dict[str, Any], ca: Authority) -> None:
    api(ready).register_ca_certificate(
        caCertificate=certificate_pem(ca.certificate),
        certificateMode="SNI_ONLY",
        setAsActive=True,
        allowAutoRegistration=True,
    )


def shared_ca() -> Authority:
    return new_shared_authority("Shared CA", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=9))


def mint(ca: Authority, index: int) -> Identity:
    return ca.mint(index, secret=b"s" * 32, profile=Profile(names={"fleet": "robot"}))


class Device:
    """A blocking MQTT client, which says what it has seen of its connection."""

    def __init__(self, ready: dict[str, Any], identity: Identity) -> None:
        self._mqtt = ready["mqtt"]["host"], ready["mqtt"]["port"]
        self._endpoint = ready["accounts"][0]["endpoint"]
        self._identity = identity

    def connect(self) -> int | str:
        """CONNACK's code, ``closed`` for an orderly close without one, ``broken`` for anything else."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        with suppress(OSError), socket.create_connection(self._mqtt, timeout=10) as sock:
            sock.settimeout(None)
            tls = SSL.Connection(context, sock)
            tls.use_certificate(self._identity.certificate)
            tls.use_privatekey(self._identity.key)
            tls.set_tlsext_host_name(self._endpoint.encode())
            tls.set_connect_state()
            try:
                tls.do_handshake()
                packet = Connect(client_id=self._identity.certificate_id, version=ProtocolVersion.V311)
                tls.send(encode(packet, ProtocolVersion.V311))
                decoder = Decoder(max_packet_size=1024, version=ProtocolVersion.V311)
                while True:
                    decoder.feed(tls.recv(4096))
                    answer = decoder.next_packet()
                    if answer is not None:
                        assert isinstance(answer, ConnAck)
                        return answer.reason_code
            except SSL.ZeroReturnError:
                return "closed"
            except SSL.Error:
                return "broken"
        return "broken"


def registered(client: Any) -> dict[str, str]:
    """Status by certificate id."""
    pages = client.get_paginator("list_certificates").paginate(PaginationConfig={"PageSize": 250})
    return {each["certificateId"]: each["status"] for page in pages for each in page["certificates"]}


def test_state_outlives_a_clean_end_and_a_start_with_the_same_root(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    ca = shared_ca()
    with killable(directory) as (process, ready):
        register_ca(ready, ca)
        device = Device(ready, mint(ca, 0))
        assert device.connect() == "closed"
        root = Path(ready["ca_file"]).read_bytes()
        assert Path(ready["ca_file"]) == directory / "ca.pem"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 0

    with killable(directory) as (_, ready):
        client = api(ready)
        certificate_id = mint(ca, 0).certificate_id
        assert registered(client) == {certificate_id: "PENDING_ACTIVATION"}
        client.create_policy(policyName="p", policyDocument=ALLOW_ALL)
        arn = client.describe_certificate(certificateId=certificate_id)["certificateDescription"]["certificateArn"]
        client.attach_policy(policyName="p", target=arn)
        client.update_certificate(certificateId=certificate_id, newStatus="ACTIVE")
        assert Device(ready, mint(ca, 0)).connect() == 0
        assert Path(ready["ca_file"]).read_bytes() == root
        assert len(load_certificates(root, "ca.pem")) == 1


class Load:
    """Threads that register by both doors until the emulator is gone, and note what was acknowledged."""

    def __init__(self, ready: dict[str, Any], ca: Authority, first: int) -> None:
        self._ready = ready
        self._ca = ca
        self._first = first
        self.stop = threading.Event()
        self.seen_by_devices: list[str] = []
        """Closed after CONNECT: the device knows that it was registered."""
        self.things: list[str] = []
        """CreateThing was answered."""
        self._threads = [threading.Thread(target=self._devices), threading.Thread(target=self._calls)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _devices(self) -> None:
        number = self._first
        while not self.stop.is_set():
            identity = mint(self._ca, number)
            if Device(self._ready, identity).connect() == "closed":
                self.seen_by_devices.append(identity.certificate_id)
            number += 1

    def _calls(self) -> None:
        client = api(self._ready)
        number = self._first
        while not self.stop.is_set():
            name = f"thing-{number}"
            try:
                client.create_thing(thingName=name)
            except BotoCoreError:
                return  # killed
            self.things.append(name)
            number += 1


@pytest.mark.slow
def test_every_acknowledged_registration_is_there_after_kill_9(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    ca = shared_ca()
    certificates: list[str] = []
    things: list[str] = []
    when = random.Random(7)
    for turn in range(5):
        with killable(directory) as (process, ready):
            client = api(ready)
            if turn == 0:
                register_ca(ready, ca)
            held = registered(client)
            assert set(certificates) <= set(held)
            listed = {
                each["thingName"]
                for page in client.get_paginator("list_things").paginate(PaginationConfig={"PageSize": 250})
                for each in page["things"]
            }
            assert set(things) <= listed
            with Load(ready, ca, 10_000 * turn) as load:
                deadline = time.monotonic() + 20
                while len(load.seen_by_devices) < 3 or len(load.things) < 3:
                    assert time.monotonic() < deadline, "nothing was registered"
                    time.sleep(0.005)
                time.sleep(when.uniform(0, 0.3))
                process.kill()  # in the middle of whatever it is doing
                process.wait(10)
            certificates += load.seen_by_devices
            things += load.things

    with killable(directory) as (_, ready):
        held = registered(api(ready))
        assert set(certificates) <= set(held)
        assert set(held.values()) == {"PENDING_ACTIVATION"}
        assert len(certificates) >= 15


async def test_nothing_is_written_to_a_device_before_what_it_tells_is_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    account = world.account()
    world.register_ca(account, mode="SNI_ONLY")
    kept: set[str] = set()
    broken: list[str] = []
    wrote: list[str] = []
    world.plane.commit = lambda: kept.update(account.certificates)
    async with open_gateway(world) as running, open_client(running.port, device(1), account.endpoint) as client:
        for name in ("send", "shutdown"):
            whole = getattr(SSL.Connection, name)

            def watched(self: SSL.Connection, *arguments: object, whole: Any = whole, name: str = name) -> object:
                if self is not client.tls:
                    wrote.append(name)
                    broken.extend(set(account.certificates) - kept)
                return whole(self, *arguments)

            monkeypatch.setattr(SSL.Connection, name, watched)

        assert await client.connect() is None

    assert "shutdown" in wrote
    assert kept == {device(1).certificate_id}
    assert broken == []


def test_two_emulators_on_one_directory_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    with killable(directory) as (process, _):
        second = start("emulate", "--state", directory)
        out, err = second.communicate(timeout=30)
        assert (second.returncode, out) == (2, "")
        assert f"is in use by another emulator, process {process.pid}" in err
        assert "hint: stop that one, or use another directory" in err


def test_a_file_that_is_not_understood_is_an_error_of_the_user(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    (directory / "state.sqlite3").write_text("not a database, whatever else it is " * 40)

    process = start("emulate", "--state", directory)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (2, "")
    assert "file is not a database" in err
    assert "Traceback" not in err
