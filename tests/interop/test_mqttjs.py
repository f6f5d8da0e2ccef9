"""MQTT.js from npm, in node: another foreign MQTT, over another TLS.

The package is installed once, beside the virtual environment. Skipped, with the reason, where node or npm or the
registry is not there.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.emulator_support import template
from tests.foreign_support import Emulator, open_emulator, run

VERSION = "5.16.0"
PLACE = Path(sys.prefix) / "npm"
SCRIPT = Path(__file__).with_name("mqttjs_device.js")


@pytest.fixture(scope="session")
def mqttjs() -> Path:
    """The package's directory."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"the program {program} is not installed")
    PLACE.mkdir(exist_ok=True)
    with (PLACE / "lock").open("w") as lock:  # of several workers one installs
        fcntl.flock(lock, fcntl.LOCK_EX)
        return install()


def install() -> Path:
    package = PLACE / "node_modules" / "mqtt"
    described = package / "package.json"
    if described.is_file() and json.loads(described.read_text())["version"] == VERSION:
        return package
    command = [
        "npm",
        "install",
        "--prefix",
        str(PLACE),
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--fetch-retries=1",
        "--fetch-timeout=20000",
        f"mqtt@{VERSION}",
    ]
    # node has a list of authorities of its own; a machine behind a proxy has its proxy's in the system's
    trusted = Path("/etc/ssl/certs/ca-certificates.crt")
    environment = ({"NODE_EXTRA_CA_CERTS": str(trusted)} if trusted.is_file() else {}) | os.environ
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not answer: mqtt could not be installed")
    if done.returncode != 0:
        pytest.skip(f"npm could not install mqtt: {done.stderr.strip()[-200:]}")
    return package


async def converse(emulator: Emulator, package: Path, index: int, **asked: object) -> list[Mapping[str, object]]:
    """What a device told of its life."""
    _, (certificate, key) = emulator.device(index)
    told = {
        "endpoint": emulator.account().endpoint,
        "ca": str(emulator.ca_file),
        "cert": str(certificate),
        "key": str(key),
        "clientId": f"js-{index}",
        **asked,
    }
    os.environ["MQTT_JS"] = str(package)
    try:
        done = await run("node", SCRIPT, json.dumps(told))
    finally:
        del os.environ["MQTT_JS"]
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("door", ["plain", "alpn"])
async def test_a_device_is_provisioned_just_in_time_and_talks_to_itself(
    tmp_path: Path, mqttjs: Path, version: int, door: str
) -> None:
    async with open_emulator(tmp_path, seconds=40) as emulator:
        account = emulator.account()
        emulator.register_ca(account, template_body=template())
        where: dict[str, object] = {"port": emulator.port}
        if door == "alpn":
            where = {"port": emulator.alpn_port, "alpn": ["x-amzn-mqtt-ca"]}
        connect, subscribed, *messages, end = await converse(emulator, mqttjs, 1, version=version, **where)

        assert connect["event"] == "connect"
        assert isinstance(connect["closed"], int)
        assert connect["closed"] >= 1  # the first connection is always lost
        assert not connect["sessionPresent"]
        assert subscribed == {"event": "subscribed", "error": None, "granted": [1, 1]}
        assert [(each["topic"], each["payload"], each["qos"]) for each in messages] == [
            ("js/1", "one", 1),
            ("js/1", "two", 1),
            ("shared/x", "three", 1),
        ]
        assert end == {"event": "end"}
        if version == 5:
            properties = connect["properties"]
            assert isinstance(properties, dict)
            assert properties["topicAliasMaximum"] == 8
            assert properties["sharedSubscriptionAvailable"] is True
            assert messages[0]["contentType"] == "text/plain"
            assert messages[1]["userProperties"] == {"a": "1"}  # its topic came as an alias
        assert emulator.history.select(verdict="disconnected")[-1].reason == "CLIENT_INITIATED_DISCONNECT"
