"""The control plane through boto3, over real sockets: what a user's own program sees."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from devicesim.emulator.registry import Registry
from tests.control_support import NOW, REGION, A, B, Clock, TestCA, make_registry, pem, running_api_in_a_thread

POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
)
OTHER_POLICY = POLICY.replace("iot:*", "iot:Connect")
ROLE = "arn:aws:iam::111111111111:role/JITP"


class Cloud:
    """boto3 clients of a running control plane, one for each account, Region and service."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._clients: dict[tuple[str, str, str], BaseClient] = {}

    def client(self, account: str, region: str = REGION, service: str = "iot") -> Any:
        key = (account, region, service)
        if key not in self._clients:
            self._clients[key] = session().client(
                service,
                endpoint_url=self._url,
                region_name=region,
                aws_access_key_id=account,
                aws_secret_access_key="secret",
                config=Config(retries={"total_max_attempts": 1}, read_timeout=10, connect_timeout=5),
            )
        return self._clients[key]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@cache
def session() -> boto3.Session:
    return boto3.Session()


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def server(clock: Clock) -> Iterator[tuple[Registry, str]]:
    registry = make_registry(clock)
    with running_api_in_a_thread(registry) as running:
        yield registry, running.api


@pytest.fixture
def cloud(server: tuple[Registry, str]) -> Iterator[Cloud]:
    """Clients of an emulator in which nothing has happened yet."""
    registry, url = server
    for attribute in ("_partitions", "_by_endpoint"):
        getattr(registry, attribute).clear()
    registry.cas._default_holders.clear()
    registry.certificates._default_holders.clear()
    clients = Cloud(url)
    yield clients
    clients.close()
