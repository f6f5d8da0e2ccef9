"""The service's own messages."""

import json

from devicesim.emulator.events import certificate_registered
from tests.emulator_support import World, device


def test_registration_timestamp_is_null_first_and_then_a_string_of_milliseconds() -> None:
    """§2: null M, string S."""
    world = World()
    account = world.account()
    record = world.registry.auto_register(account, device(0).certificate, world.register_ca(account, mode="SNI_ONLY"))

    def body(*, first: bool) -> dict[str, object]:
        message = certificate_registered(
            record, account_id=account.account_id, source_ip="192.0.2.1", now=1_730_000_000.1234, first=first
        )
        assert (message.qos, message.retain, message.publisher) == (1, False, None)
        loaded = json.loads(message.payload)
        assert isinstance(loaded, dict)
        return loaded

    assert body(first=True)["certificateRegistrationTimestamp"] is None
    assert body(first=False)["certificateRegistrationTimestamp"] == str(round(record.creation_date * 1000))
    assert body(first=True)["timestamp"] == 1_730_000_000_123
