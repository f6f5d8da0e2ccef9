"""Programs that nobody here wrote at the port that plays 443, at faulty server certificates and at quotas."""

from dataclasses import replace
from pathlib import Path

import pytest

from devicesim.emulator.faults import Fault, FaultKind
from devicesim.emulator.quotas import Quotas
from tests.foreign_support import Emulator, mosquitto, needs, open_emulator, run

pytestmark = needs("mosquitto_pub")


async def publish(emulator: Emulator, *more: str, index: int = 1, version: str = "mqttv311") -> tuple[int, str]:
    """mosquitto_pub's exit code and what it says; MQTT on the plain door unless ``more`` says otherwise."""
    account = emulator.account()
    identity, files = emulator.device(index)
    if identity.certificate_id not in account.certificates:
        emulator.activate(account, identity)
    words = mosquitto(emulator, "mosquitto_pub", files, account.endpoint, "-V", version, *more)
    done = await run(*words, "-i", f"robot-{index}", "-q", "1", "-t", "t", "-m", "x")
    return done.returncode, done.stderr.decode()


class TestALPN:
    async def test_mosquitto_publishes_with_the_right_protocol(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            emulator.register_ca(emulator.account())

            assert await publish(emulator, "-p", "443", "--tls-alpn", "x-amzn-mqtt-ca") == (0, "")
        assert emulator.history.counts["admitted"] == 1

    async def test_mosquitto_is_sent_away_with_another_and_without(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            emulator.register_ca(emulator.account())

            code, _ = await publish(emulator, "-p", "443", "--tls-alpn", "mqtt")
            assert code != 0
            assert emulator.history.counts["handshake_failed"] == 1
            code, _ = await publish(emulator, "-p", "443")
            assert code != 0
            assert emulator.history.counts["no_connect"] == 1
        assert emulator.history.counts["admitted"] == 0

    @needs("curl")
    async def test_curl_is_forbidden_without_alpn_and_sees_the_alert_with_its_own(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            _, (certificate, key) = emulator.device(1)
            curl = ("curl", "-sS", "-i", "--cacert", emulator.ca_file, "--cert", certificate, "--key", key)
            url = f"https://localhost:{emulator.alpn_port}/topics/t?qos=1"

            answered = await run(*curl, "--no-alpn", "-d", "x", url)
            refused = await run(*curl, url)

        assert answered.returncode == 0
        assert answered.stdout.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert answered.stdout.endswith(b'{"message":"Forbidden"}')
        assert refused.returncode == 35  # the handshake failed
        assert b"no application protocol" in refused.stderr


@pytest.mark.parametrize(
    ("kind", "trusted"),
    [
        (FaultKind.SERVER_CERTIFICATE_EXPIRING, True),
        (FaultKind.SERVER_CERTIFICATE_EXPIRED, False),
        (FaultKind.SERVER_CERTIFICATE_WRONG_NAME, False),
    ],
)
async def test_mosquitto_trusts_only_a_server_certificate_that_is_good(
    tmp_path: Path, kind: FaultKind, trusted: bool
) -> None:
    async with open_emulator(tmp_path) as emulator:
        emulator.register_ca(emulator.account())
        emulator.plane.faults.inject(Fault(kind=kind, count=1), emulator.plane.clock.now())

        code, _ = await publish(emulator)
        again, _ = await publish(emulator)

    assert (code == 0) == trusted
    assert again == 0
    assert [entry.fault for entry in emulator.history.select(verdict="fault_injected")] == [kind.value]


async def test_mosquitto_of_mqtt_5_is_told_of_the_quota(tmp_path: Path) -> None:
    async with open_emulator(tmp_path) as emulator:
        emulator.register_ca(emulator.account())
        emulator.plane.quotas.replace(replace(Quotas.lifted(), connects_per_client_id_per_second=0.01))

        assert await publish(emulator, version="mqttv5") == (0, "")
        code, said = await publish(emulator, version="mqttv5")
        assert (await publish(emulator, version="mqttv5", index=2))[0] == 0

    assert code != 0
    assert "quota exceeded" in said.lower()
