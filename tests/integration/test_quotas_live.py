"""Quotas and faults of the API as boto3 and our own control-plane client meet them, over HTTP."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import boto3
import pytest
import trio
from botocore.config import Config
from botocore.exceptions import ClientError

from devicesim.cloud.account import AccountAccess, AccountClient
from devicesim.emulator.faults import Fault, FaultKind
from devicesim.emulator.service import AccountConfig, EmulatorConfig, Ready, serve
from tests.emulator_support import ALLOW_ALL, REGION, A

CONFIG = EmulatorConfig(accounts=(AccountConfig(name="dev", account_id=A, region=REGION),), seed=7)
"""With AWS's quotas."""


@asynccontextmanager
async def emulator() -> AsyncIterator[Ready]:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(lambda *, task_status: serve(CONFIG, task_status=task_status))
            nursery.cancel_scope.cancel()


def client(ready: Ready, service: str = "iot", attempts: int = 1) -> Any:
    return boto3.client(
        service,
        endpoint_url=ready.api,
        region_name=REGION,
        aws_access_key_id=A,
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}, connect_timeout=5, read_timeout=10),
    )


async def test_boto3_sees_a_throttling_exception_and_gets_through_with_its_retries() -> None:
    async with emulator() as ready:

        def calls(attempts: int) -> list[Any]:
            iot = client(ready, attempts=attempts)
            refused = []
            for number in range(15):
                try:
                    iot.create_policy(policyName=f"p{attempts}-{number}", policyDocument=ALLOW_ALL)
                except ClientError as exc:
                    refused.append(exc.response)
            return refused

        refused = await trio.to_thread.run_sync(calls, 1)
        assert refused  # fifteen calls take less than half a second
        assert {each["Error"]["Code"] for each in refused} == {"ThrottlingException"}
        assert {each["Error"]["Message"] for each in refused} == {"Rate exceeded"}
        assert {each["ResponseMetadata"]["HTTPStatusCode"] for each in refused} == {400}
        assert ready.core.quotas.throttled["api.CreatePolicy"] == len(refused)
        held = len(ready.core.registry.partition(A, REGION).policies)
        assert held == 15 - len(refused)

        assert await trio.to_thread.run_sync(calls, 8) == []


@pytest.mark.parametrize("service", ["iot", "iot-data"])
@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        (FaultKind.THROTTLE_API, "ThrottlingException", {400, 429}),
        (FaultKind.API_UNAVAILABLE, "ServiceUnavailableException", {503}),
    ],
)
async def test_a_fault_of_the_api_has_the_model_s_status(
    service: str, kind: FaultKind, code: str, status: set[int]
) -> None:
    async with emulator() as ready:
        ready.core.faults.inject(Fault(kind=kind, count=1), trio.current_time())

        def call() -> Any:
            boto = client(ready, service)
            return boto.list_things() if service == "iot" else boto.get_thing_shadow(thingName="t")

        with pytest.raises(ClientError) as caught:
            await trio.to_thread.run_sync(call)

        assert caught.value.response["Error"]["Code"] == code
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] in status


async def test_our_own_client_waits_for_its_turn() -> None:
    async with emulator() as ready:
        own = AccountClient(
            AccountAccess(name="dev", account_id=A, region=REGION, emulated=True, endpoint_url=ready.api)
        )

        async def create(number: int) -> None:
            await own.call("create_policy", policyName=f"p{number}", policyDocument=ALLOW_ALL)

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(create, number)
        own.close()

        assert len(ready.core.registry.partition(A, REGION).policies) == 30
        assert ready.core.quotas.throttled["api.CreatePolicy"]
        assert trio.current_time() - started > 1.9  # ten at once, and ten a second


@pytest.mark.parametrize(("options", "throttled"), [((), True), (("--quotas", "none"), False)])
def test_the_command_line_lifts_them_all(options: tuple[str, ...], throttled: bool) -> None:
    command = [sys.executable, "-m", "devicesim", "emulate", "--accounts", "1", *options, "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            iot = boto3.client(
                "iot",
                endpoint_url=ready["api"],
                region_name=REGION,
                aws_access_key_id=A,
                aws_secret_access_key="x",
                config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=10),
            )
            refused = 0
            for number in range(40):
                try:
                    iot.create_policy(policyName=f"p{number}", policyDocument=ALLOW_ALL)
                except iot.exceptions.ThrottlingException:
                    refused += 1
        finally:
            process.terminate()

    assert bool(refused) == throttled
