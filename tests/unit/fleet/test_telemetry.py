"""What a device publishes, and when."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicesim.fleet.telemetry import Telemetry


def telemetry(*, every: float = 10.0, size: int = 200) -> Telemetry:
    return Telemetry(topic="d/telemetry", every=every, offset=0.0, qos=1, size=size)


@pytest.mark.parametrize("size", [1, 40, 200, 128 * 1024])
def test_payload_is_json_of_the_size_asked_for_or_what_the_json_takes(size: int) -> None:
    payload = telemetry(size=size).payload(7, 1_760_000_000.12345)

    assert json.loads(payload) == {"message": 7, "at": 1_760_000_000.123}
    assert len(payload) == max(size, len(b'{"message":7,"at":1760000000.123}'))


@pytest.mark.parametrize(
    ("due", "now", "following"),
    [
        (100.0, 100.0, 110.0),
        (100.0, 100.5, 110.0),
        (100.0, 109.9, 110.0),
        (100.0, 110.0, 120.0),
        (100.0, 135.0, 140.0),
        (100.0, 99.0, 110.0),
    ],
)
def test_next_message_keeps_to_the_rhythm_and_leaves_out_those_missed(due: float, now: float, following: float) -> None:
    assert telemetry().next_due(due, now) == following


@given(
    every=st.floats(0.01, 86_400),
    due=st.floats(0, 1e7),
    behind=st.floats(0, 1e6),
)
def test_next_message_is_due_within_one_interval_on_the_same_grid(every: float, due: float, behind: float) -> None:
    now = due + behind

    following = telemetry(every=every).next_due(due, now)

    rounding = 4 * math.ulp(now + every) + every * 1e-9
    assert now - rounding <= following <= now + every + rounding
    steps = (following - due) / every
    assert round(steps) >= 1
    assert abs(steps - round(steps)) * every <= rounding + (following - due) * 1e-9
