"""boto3 without sockets: the control plane of a test's world is handed what would be sent."""

from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config

from devicesim.emulator.httpmessage import HTTPRequest
from tests.emulator_support import A, World


class _Body:
    """What botocore reads of urllib3's response."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self._data

    def read(self, *_: object, **__: object) -> bytes:
        data, self._data = self._data, b""
        return data


@cache
def session() -> boto3.Session:
    return boto3.Session()


def make_client(world: World, account: str = A, service: str = "iot-data") -> Any:
    """A client of ``service`` whose requests the world's control plane answers."""
    control_plane = world.core.control_plane()
    client = session().client(
        service,
        endpoint_url="http://127.0.0.1:1",
        region_name="us-east-1",
        aws_access_key_id=account,
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
    )

    def send(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        url = urlsplit(request.url)
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else bytes(body)
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
        }
        asked = HTTPRequest(method=request.method, path=url.path, query=url.query, headers=headers, body=body)
        answer = control_plane.handle(asked, "request-1")
        return AWSResponse(request.url, answer.status, dict(answer.headers), _Body(answer.body))

    client.meta.events.register(f"before-send.{service}", send)
    return client
