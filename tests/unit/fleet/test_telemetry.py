"""What a device publishes, and when."""

import json
from itertools import pairwise

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


@given(
    every=st.floats(0.01, 86_400),
    offset=st.floats(0, 1e7),
    count=st.integers(1, 50),
)
def test_messages_are_due_in_their_rhythm_and_none_is_left_out(every: float, offset: float, count: int) -> None:
    made = telemetry(every=every)
    dues = [offset]
    for _ in range(count):
        dues.append(made.next_due(dues[-1]))

    assert dues == pytest.approx([offset + n * every for n in range(count + 1)], abs=1e-6)
    assert all(later > due for due, later in pairwise(dues)), "a device that is late comes to an end of it"
