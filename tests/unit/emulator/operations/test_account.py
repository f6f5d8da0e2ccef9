"""Endpoints of an account as of old, which is a setting (aws-iot-behaviour.md §4.3)."""

import pytest

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.credentials import Caller
from devicesim.emulator.operations.account import describe_endpoint
from devicesim.emulator.operations.call import Call
from devicesim.emulator.state.environment import ControlSettings
from tests.control_support import REGION, A, make_registry


def endpoint(endpoint_type: str | None, *, plain: bool) -> str:
    registry = make_registry(settings=ControlSettings(plain_data_endpoint=plain))
    call = Call(
        operation="DescribeEndpoint",
        registry=registry,
        partition=registry.partition(A, REGION),
        caller=Caller(access_key_id=A, account_id=A, region=REGION, service="iot"),
        parameters={} if endpoint_type is None else {"endpointType": endpoint_type},
    )
    return str(describe_endpoint(call)["endpointAddress"])


@pytest.mark.parametrize("plain", [False, True])
def test_ats_and_credentials_are_answered_always(plain: bool) -> None:
    assert endpoint("iot:Data-ATS", plain=plain) == "an3wlb2ite113n-ats.iot.us-east-1.localhost"
    assert endpoint("iot:CredentialProvider", plain=plain) == "an3wlb2ite113n.credentials.iot.us-east-1.localhost"


@pytest.mark.parametrize(
    ("endpoint_type", "name"),
    [
        (None, "an3wlb2ite113n.iot.us-east-1.localhost"),
        ("iot:Data", "an3wlb2ite113n.iot.us-east-1.localhost"),
        ("iot:Jobs", "an3wlb2ite113n.jobs.iot.us-east-1.localhost"),
    ],
)
def test_older_types_are_refused_unless_the_setting_says_otherwise(endpoint_type: str | None, name: str) -> None:
    with pytest.raises(APIError, match="use iot:Data-ATS") as caught:
        endpoint(endpoint_type, plain=False)

    assert caught.value.code == "InvalidRequestException"
    assert endpoint(endpoint_type, plain=True) == name


def test_unknown_type_is_refused() -> None:
    with pytest.raises(APIError, match="iot:Nothing is not supported"):
        endpoint("iot:Nothing", plain=True)
