"""``devicesim emulate --state``: shadows and ownership tokens outlive a kill -9."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

SECONDS = 20


@contextmanager
def running(directory: Path) -> Iterator[Any]:
    """An emulator's iot-data client; the emulator is killed at the end."""
    command = [sys.executable, "-m", "devicesim", "emulate", "--accounts", "1", "--state", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            yield boto3.Session().client(
                "iot-data",
                endpoint_url=ready["api"],
                region_name=ready["accounts"][0]["region"],
                aws_access_key_id=ready["accounts"][0]["account_id"],
                aws_secret_access_key="secret",
                config=Config(retries={"total_max_attempts": 1}, read_timeout=SECONDS),
            )
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(SECONDS)


def test_every_acknowledged_change_of_a_shadow_is_there_after_a_kill(tmp_path: Path) -> None:
    update = json.dumps({"state": {"desired": {"städt": [1, {"a": 2}]}, "reported": {"on": True}}})
    with running(tmp_path / "state") as data:
        for name in ("kept", "gone"):
            data.update_thing_shadow(thingName="robot", shadowName=name, payload=update)
        data.update_thing_shadow(thingName="robot", payload=update)
        before = json.loads(data.get_thing_shadow(thingName="robot")["payload"].read())
        data.delete_thing_shadow(thingName="robot", shadowName="gone")

    with running(tmp_path / "state") as data:
        after = json.loads(data.get_thing_shadow(thingName="robot")["payload"].read())
        assert {**after, "timestamp": 0} == {**before, "timestamp": 0}
        assert data.list_named_shadows_for_thing(thingName="robot")["results"] == ["kept"]
        again = data.update_thing_shadow(thingName="robot", shadowName="gone", payload=update)
        assert json.loads(again["payload"].read())["version"] == 3
