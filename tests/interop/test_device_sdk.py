"""The AWS IoT Device SDK v2 for Python (``awsiotsdk``), as devices have it, provisioned just in time by the gateway.

The SDK's event loops are threads of C code; it is driven here from threads, and its proxy option takes the endpoint's
name and AWS's ports to this machine. On 443 the SDK sends the ALPN name ``x-amzn-mqtt-ca`` by itself.
"""

import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, Queue

import pytest
import trio

from tests.emulator_support import template
from tests.foreign_support import Emulator, Files, open_emulator
from tests.gateway_support import until

awscrt = pytest.importorskip("awscrt", reason="the package awsiotsdk is not installed")

from awscrt import http, mqtt, mqtt5  # type: ignore[import-untyped]  # noqa: E402 - only where it is installed
from awsiot import mqtt5_client_builder, mqtt_connection_builder  # type: ignore[import-untyped]  # noqa: E402

SECONDS = 10


@dataclass
class Device:
    """One device's files, as the SDK takes them."""

    emulator: Emulator
    files: Files
    endpoint: str
    port: int

    @property
    def options(self) -> dict[str, object]:
        certificate, key = self.files
        return {
            "endpoint": self.endpoint,
            "port": self.port,
            "cert_filepath": str(certificate),
            "pri_key_filepath": str(key),
            "ca_filepath": str(self.emulator.ca_file),
            "http_proxy_options": http.HttpProxyOptions(
                "127.0.0.1", self.emulator.http_proxy, connection_type=http.HttpProxyConnectionType.Tunneling
            ),
        }


def device(emulator: Emulator, index: int, port: int = 8883) -> Device:
    _, files = emulator.device(index)
    return Device(emulator, files, emulator.account().endpoint, port)


async def in_thread(call: Callable[[], object]) -> object:
    return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


def done(future: "Future[object]") -> object:
    return future.result(SECONDS)


class TestMQTT311:
    """``mqtt_connection_builder``: MQTT 3.1.1."""

    def connect(self, device: Device, client_id: str, received: "Queue[tuple[str, bytes]]") -> mqtt.Connection:
        connection = mqtt_connection_builder.mtls_from_path(client_id=client_id, **device.options)
        connection.on_message(lambda topic, payload, dup, qos, retain, **_: received.put((topic, payload)))
        return connection

    @pytest.mark.parametrize("port", [8883, 443])
    async def test_it_is_provisioned_by_its_first_connection_and_works_after_that(
        self, tmp_path: Path, port: int
    ) -> None:
        async with open_emulator(tmp_path, seconds=40) as emulator:
            account = emulator.account()
            emulator.register_ca(account, template_body=template())
            mine = device(emulator, 1, port)
            identity, _ = emulator.device(1)
            name = identity.certificate.subject.rfc4514_string().removeprefix("CN=").partition(",")[0]
            received: Queue[tuple[str, bytes]] = Queue()
            first = self.connect(mine, name, received)

            with pytest.raises(awscrt.exceptions.AwsCrtError) as refused:
                await in_thread(lambda: done(first.connect()))
            assert refused.value.name == "AWS_ERROR_MQTT_UNEXPECTED_HANGUP"  # §3 "what the device sees", S

            await until(lambda: account.certificates[identity.certificate_id].status == "ACTIVE")
            assert name in account.things
            second = self.connect(mine, name, received)
            answer = await in_thread(lambda: done(second.connect()))
            assert answer == {"session_present": False}

            def talk() -> None:
                subscribed, _ = second.subscribe(f"robots/{name}/+", mqtt.QoS.AT_LEAST_ONCE)
                done(subscribed)
                published, _ = second.publish(f"robots/{name}/state", '{"on": true}', mqtt.QoS.AT_LEAST_ONCE)
                done(published)

            await in_thread(talk)
            assert await in_thread(partial(received.get, timeout=SECONDS)) == (f"robots/{name}/state", b'{"on": true}')
            await in_thread(lambda: done(second.disconnect()))
            await until(lambda: emulator.plane.load(account).connections == 0)
            assert emulator.history.select(verdict="disconnected")[-1].reason == "CLIENT_INITIATED_DISCONNECT"


@dataclass
class Client5:
    """An MQTT 5 client and what it was told."""

    client: mqtt5.Client
    connected: "Queue[mqtt5.LifecycleConnectSuccessData]"
    failed: "Queue[mqtt5.LifecycleConnectFailureData]"
    received: "Queue[mqtt5.PublishPacket]"


class TestMQTT5:
    """``mqtt5_client_builder``: MQTT 5, which connects again by itself."""

    def client(self, device: Device, client_id: str) -> Client5:
        connected: Queue[mqtt5.LifecycleConnectSuccessData] = Queue()
        failed: Queue[mqtt5.LifecycleConnectFailureData] = Queue()
        received: Queue[mqtt5.PublishPacket] = Queue()
        client = mqtt5_client_builder.mtls_from_path(
            client_id=client_id,
            on_lifecycle_connection_success=connected.put,
            on_lifecycle_connection_failure=failed.put,
            on_publish_received=lambda data: received.put(data.publish_packet),
            min_reconnect_delay_ms=100,
            max_reconnect_delay_ms=500,
            **device.options,
        )
        return Client5(client, connected, failed, received)

    async def test_it_connects_by_itself_once_it_has_been_provisioned(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path, seconds=40) as emulator:
            account = emulator.account()
            emulator.register_ca(account, template_body=template())
            mine = self.client(device(emulator, 2, 443), "robot")
            mine.client.start()
            success = await in_thread(partial(mine.connected.get, timeout=SECONDS))
            assert isinstance(success, mqtt5.LifecycleConnectSuccessData)

            assert mine.failed.qsize() >= 1
            settings = success.negotiated_settings
            assert settings.maximum_qos == mqtt5.QoS.AT_LEAST_ONCE
            assert settings.maximum_packet_size_to_server == 149_504
            assert settings.shared_subscriptions_available
            assert not settings.subscription_identifiers_available

            def talk() -> object:
                wanted = [mqtt5.Subscription("$share/group/t/#", mqtt5.QoS.AT_LEAST_ONCE)]
                granted = done(mine.client.subscribe(mqtt5.SubscribePacket(wanted)))
                published = mine.client.publish(
                    mqtt5.PublishPacket(
                        topic="t/1",
                        payload=b"{}",
                        qos=mqtt5.QoS.AT_LEAST_ONCE,
                        content_type="application/json",
                        user_properties=[mqtt5.UserProperty("a", "1")],
                    )
                )
                done(published)
                return granted

            granted = await in_thread(talk)
            assert isinstance(granted, mqtt5.SubackPacket)
            assert granted.reason_codes == [mqtt5.SubackReasonCode.GRANTED_QOS_1]
            message = await in_thread(partial(mine.received.get, timeout=SECONDS))
            assert isinstance(message, mqtt5.PublishPacket)
            assert (message.topic, message.payload, message.content_type) == ("t/1", b"{}", "application/json")
            assert message.user_properties is not None
            assert [(each.name, each.value) for each in message.user_properties] == [("a", "1")]
            mine.client.stop()
            await until(lambda: emulator.plane.load(account).connections == 0)

    async def test_a_policy_that_denies_is_told_with_the_words_of_aws(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path, seconds=40) as emulator:
            account = emulator.account()
            nothing = json.dumps({"Version": "2012-10-17", "Statement": [deny()]})
            emulator.register_ca(account, template_body=template(policy={"PolicyDocument": nothing}))
            mine = self.client(device(emulator, 3), "robot")
            mine.client.start()
            code, reason = None, None
            for _ in range(20):
                failure = await in_thread(partial(mine.failed.get, timeout=SECONDS))
                assert isinstance(failure, mqtt5.LifecycleConnectFailureData)
                if failure.connack_packet is not None:
                    code, reason = failure.connack_packet.reason_code, failure.connack_packet.reason_string
                    break
            mine.client.stop()

            assert code is mqtt5.ConnectReasonCode.NOT_AUTHORIZED
            assert reason is not None
            assert reason.startswith("CONNACK:Client is not authenticated/authorized to send the message:")
            with pytest.raises(Empty):
                mine.connected.get_nowait()


def deny() -> dict[str, str]:
    return {"Effect": "Deny", "Action": "iot:*", "Resource": "*"}
