"""The emulator as a whole: ready line, control plane and data plane together, and nothing left behind."""

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import trio
from botocore.exceptions import ClientError

from devicesim.emulator.packets import ConnAck, Publish, SubAck, Subscribe, Subscription
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.service import AccountConfig, EmulatorConfig, Ready, serve
from devicesim.emulator.settings import Settings
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem, load_certificates
from devicesim.pki.profile import KeyType, Profile
from tests.emulator_support import ALLOW_ALL, ROLE, template
from tests.gateway_support import open_client, open_tcp

ACCOUNTS = (
    AccountConfig(name="dev", account_id="111111111111", region="us-east-1"),
    AccountConfig(name="prod", account_id="222222222222", region="us-east-1"),
    AccountConfig(name="eu", account_id="333333333333", region="eu-west-1"),
)
CONFIG = EmulatorConfig(accounts=ACCOUNTS, settings=Settings(jitp_delay=(0.05, 0.1), quotas=Quotas.lifted()), seed=7)


def shared_ca() -> Authority:
    return new_shared_authority("Shared CA", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=9))


def mint(ca: Authority, index: int) -> Identity:
    return ca.mint(index, secret=b"s" * 32, profile=Profile(names={"fleet": "robot"}))


def iot(ready: Ready, account: int) -> Any:
    chosen = ready.accounts[account]
    return boto3.client(
        "iot",
        endpoint_url=ready.api,
        region_name=chosen.region,
        aws_access_key_id=chosen.account_id,
        aws_secret_access_key="x",
    )


def admin(ready: Ready, path: str) -> Any:
    with urllib.request.urlopen(ready.admin + path, timeout=5) as response:
        return json.load(response)


async def off(call: Any, **parameters: object) -> Any:
    """boto3 waits: not in our loop, in which the emulator runs, too."""
    return await trio.to_thread.run_sync(lambda: call(**parameters))


async def test_the_walk_of_one_ca_and_two_accounts() -> None:
    """Account 1 holds the CA in DEFAULT mode with JITR, account 2 in SNI_ONLY mode with JITP."""
    ca = shared_ca()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            ready = await nursery.start(lambda *, task_status: serve(CONFIG, task_status=task_status))
            first, second = iot(ready, 0), iot(ready, 1)
            code = (await off(first.get_registration_code))["registrationCode"]
            now = datetime.now(UTC)
            proof = ca.verification_certificate(code, not_before=now - timedelta(hours=1), not_after=now + timedelta(1))
            pem = certificate_pem(ca.certificate)
            switches = {"setAsActive": True, "allowAutoRegistration": True}
            verification = certificate_pem(proof.certificate)
            await off(
                first.register_ca_certificate, caCertificate=pem, verificationCertificate=verification, **switches
            )
            await off(
                second.register_ca_certificate,
                caCertificate=pem,
                certificateMode="SNI_ONLY",
                registrationConfig={"templateBody": template(), "roleArn": ROLE},
                **switches,
            )

            jitr, jitp = mint(ca, 1), mint(ca, 2)
            one, two = ready.accounts[0], ready.accounts[1]

            # JITR, activated by who watches the event
            async with open_client(one.mqtt_port, jitr, one.endpoint) as client:
                assert await client.connect() is None
            described = await off(first.describe_certificate, certificateId=jitr.certificate_id)
            assert described["certificateDescription"]["status"] == "PENDING_ACTIVATION"
            assert described["certificateDescription"]["certificateMode"] == "DEFAULT"
            await off(first.create_policy, policyName="p", policyDocument=ALLOW_ALL)
            arn = described["certificateDescription"]["certificateArn"]
            await off(first.attach_policy, policyName="p", target=arn)
            await off(first.update_certificate, certificateId=jitr.certificate_id, newStatus="ACTIVE")
            for server_name in (one.endpoint, None):
                async with open_client(one.mqtt_port, jitr, server_name) as client:
                    assert await client.connect() == ConnAck()

            # JITP
            async with open_client(two.mqtt_port, jitp, two.endpoint) as client:
                assert await client.connect() is None
            provisioned = f"/history?account={two.account_id}&verdict=provisioned"
            while not (  # noqa: ASYNC110 - asked over HTTP
                await trio.to_thread.run_sync(admin, ready, provisioned)
            )["entries"]:
                await trio.sleep(0.01)
            async with open_client(two.mqtt_port, jitp, two.endpoint) as client:
                assert await client.connect() == ConnAck()
            async with open_client(two.mqtt_port, jitp, None) as client:
                assert await client.connect() is None
            principals = await off(second.list_thing_principals, thingName="robot-000002")
            assert [each.rpartition("/")[2] for each in principals["principals"]] == [jitp.certificate_id]

            # the same leaf in the other account, too: an independent record of the same id
            async with open_client(two.mqtt_port, jitr, two.endpoint) as client:
                assert await client.connect() is None
            described = await off(second.describe_certificate, certificateId=jitr.certificate_id)
            assert described["certificateDescription"]["certificateMode"] == "SNI_ONLY"

            # deactivating by the API disconnects
            async with open_client(one.mqtt_port, jitr, one.endpoint) as client:
                await client.connected()
                await off(first.update_certificate, certificateId=jitr.certificate_id, newStatus="INACTIVE")
                assert await client.receive() is None
            nursery.cancel_scope.cancel()


async def test_a_template_that_cannot_be_is_refused_when_it_is_registered() -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            ready = await nursery.start(lambda *, task_status: serve(CONFIG, task_status=task_status))
            with pytest.raises(ClientError, match="Neither policyName nor policyDocument is present") as caught:
                await off(
                    iot(ready, 0).register_ca_certificate,
                    caCertificate=certificate_pem(shared_ca().certificate),
                    certificateMode="SNI_ONLY",
                    registrationConfig={"templateBody": template(policy={"PolicyName": ""}), "roleArn": ROLE},
                )
            assert caught.value.response["Error"]["Code"] == "InvalidRequestException"
            nursery.cancel_scope.cancel()


async def test_the_ready_line_and_what_it_names() -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            ready: Ready = await nursery.start(lambda *, task_status: serve(CONFIG, task_status=task_status))
            line = ready.to_json()
            assert list(line) == ["ready", "api", "admin", "mqtt", "mqtt_alpn", "ca_file", "accounts"]
            assert line["ready"] is True
            assert line["mqtt"] == {"host": "127.0.0.1", "port": ready.mqtt_port}
            accounts = line["accounts"]
            assert isinstance(accounts, list)
            assert [each["name"] for each in accounts] == ["dev", "prod", "eu"]
            assert accounts[0]["mqtt"] == accounts[1]["mqtt"] == line["mqtt"]
            assert accounts[2]["mqtt"] != line["mqtt"]
            assert line["mqtt_alpn"] == {"host": "127.0.0.1", "port": ready.mqtt_alpn_port}
            assert accounts[0]["mqtt_alpn"] == accounts[1]["mqtt_alpn"] == line["mqtt_alpn"]
            assert len({each[door]["port"] for each in accounts for door in ("mqtt", "mqtt_alpn")}) == 4
            assert accounts[2]["endpoint"].endswith(".iot.eu-west-1.localhost")
            assert json.loads(json.dumps(line)) == line

            # the root is on disk, alone and without its key; it has signed what the door shows
            ca_file = Path(str(line["ca_file"]))
            assert [each.name for each in ca_file.parent.iterdir()] == ["ca.pem"]
            assert b"PRIVATE" not in ca_file.read_bytes()
            (root,) = load_certificates(ca_file.read_bytes(), "ca_file")
            async with open_client(ready.mqtt_port, None, None) as client:
                shown = client.tls.get_peer_certificate(as_cryptography=True)
                assert shown is not None
                shown.verify_directly_issued_by(root)

            # the endpoint of the API is the one announced
            described = await off(iot(ready, 2).describe_endpoint, endpointType="iot:Data-ATS")
            assert described["endpointAddress"] == accounts[2]["endpoint"]

            assert (await trio.to_thread.run_sync(admin, ready, "/health"))["status"] == "ok"
            with pytest.raises(urllib.error.HTTPError) as caught:
                await trio.to_thread.run_sync(admin, ready, "/nothing")
            assert caught.value.code == 404
            caught.value.close()
            nursery.cancel_scope.cancel()

    assert not ca_file.parent.exists()
    for port in (ready.mqtt_port, ready.accounts[2].mqtt_port):
        with pytest.raises(ConnectionRefusedError):
            async with open_tcp(port):
                pass


async def test_events_reach_an_mqtt_client_of_the_account_and_no_other() -> None:
    ca = shared_ca()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            ready: Ready = await nursery.start(lambda *, task_status: serve(CONFIG, task_status=task_status))
            watcher = mint(ca, 99)
            for account in (0, 1):
                api = iot(ready, account)
                await off(
                    api.register_ca_certificate,
                    caCertificate=certificate_pem(ca.certificate),
                    certificateMode="SNI_ONLY",
                    setAsActive=True,
                    allowAutoRegistration=True,
                )
                pem = certificate_pem(watcher.certificate)
                made = await off(api.register_certificate, certificatePem=pem, status="ACTIVE")
                await off(api.create_policy, policyName="p", policyDocument=ALLOW_ALL)
                await off(api.attach_policy, policyName="p", target=made["certificateArn"])
            port = ready.mqtt_port
            filters = (Subscription(topic_filter="$aws/events/certificates/registered/+", qos=1),)
            async with (
                open_client(port, watcher, ready.accounts[0].endpoint) as here,
                open_client(port, watcher, ready.accounts[1].endpoint) as there,
            ):
                for client in (here, there):
                    await client.connected("activator")
                    await client.send(Subscribe(packet_id=1, subscriptions=filters))
                    assert await client.receive() == SubAck(packet_id=1, reason_codes=(1,))
                async with open_client(port, mint(ca, 1), ready.accounts[1].endpoint) as device:
                    assert await device.connect() is None
                event = await there.receive()
                assert isinstance(event, Publish)
                assert json.loads(event.payload)["awsAccountId"] == "222222222222"
                with trio.move_on_after(0.1) as waiting:
                    await here.receive()
                assert waiting.cancelled_caught
            nursery.cancel_scope.cancel()


async def test_the_same_seed_gives_the_same_ids() -> None:
    codes = []
    for _ in range(2):
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                ready = await nursery.start(lambda *, task_status: serve(CONFIG, task_status=task_status))
                codes.append((await off(iot(ready, 0).get_registration_code))["registrationCode"])
                nursery.cancel_scope.cancel()

    assert codes[0] == codes[1]


@pytest.mark.parametrize("which", ["mqtt_port", "api_port", "admin_port"])
async def test_a_port_that_is_taken_is_an_oserror(which: str) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            ready = await nursery.start(lambda *, task_status: serve(CONFIG, task_status=task_status))
            taken = EmulatorConfig(accounts=ACCOUNTS, **{which: ready.mqtt_port})
            with pytest.raises(OSError, match="in use"):
                await serve(taken)
            nursery.cancel_scope.cancel()


async def test_without_accounts_the_first_door_serves_who_the_api_brings() -> None:
    ca = shared_ca()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            config = EmulatorConfig(accounts=())
            ready: Ready = await nursery.start(lambda *, task_status: serve(config, task_status=task_status))
            api = boto3.client(
                "iot",
                endpoint_url=ready.api,
                region_name="ap-south-1",
                aws_access_key_id="999999999999",
                aws_secret_access_key="x",
            )
            await off(
                api.register_ca_certificate,
                caCertificate=certificate_pem(ca.certificate),
                certificateMode="SNI_ONLY",
                setAsActive=True,
                allowAutoRegistration=True,
            )
            endpoint = (await off(api.describe_endpoint, endpointType="iot:Data-ATS"))["endpointAddress"]
            async with open_client(ready.mqtt_port, mint(ca, 1), endpoint) as client:
                assert await client.connect() is None
            listed = await off(api.list_certificates)
            assert [each["status"] for each in listed["certificates"]] == ["PENDING_ACTIVATION"]
            nursery.cancel_scope.cancel()
