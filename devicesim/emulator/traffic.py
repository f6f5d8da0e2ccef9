"""Quotas and faults on the packets of admitted clients (aws-iot-behaviour.md §6). Pure.

Asked before the broker sees a PUBLISH or SUBSCRIBE, and before a PUBLISH is sent to a client.
"""

from devicesim.emulator.connection import DisconnectReason, End
from devicesim.emulator.deviceconnection import DeviceConnection
from devicesim.emulator.faults import FaultKind
from devicesim.emulator.guard import Guard, account_key
from devicesim.emulator.packets import SUBSCRIBE_FAILURE, Packet, PubAck, Publish, ReasonCode, SubAck, Subscribe
from devicesim.emulator.quotas import Throttled
from devicesim.emulator.settings import Settings

_TOLD_EVERY = 1.0
"""Seconds between two entries of one connection in the history: whoever sends too much sends a lot."""


class Traffic:
    """See the module. One for the emulator."""

    def __init__(self, guard: Guard, *, settings: Settings) -> None:
        self._guard = guard
        self._settings = settings

    def admit(self, connection: DeviceConnection) -> None:
        """Watch over what is sent to a client from now on."""
        if self._guard.quotas.limits_outbound:
            connection.may_send = self._may_send

    def may_handle(self, connection: DeviceConnection, packet: Packet, now: float) -> bool:
        """Whether neither a quota nor a fault is against a packet of an admitted client; else it has been refused."""
        if isinstance(packet, Publish):
            return self._may_publish(connection, packet, now)
        if isinstance(packet, Subscribe):
            return self._may_subscribe(connection, packet, now)
        return True

    def _may_publish(self, connection: DeviceConnection, packet: Publish, now: float) -> bool:
        assert connection.partition is not None
        fault = self._guard.connection_fault(FaultKind.DROP_CONNECTION, now, connection, connection.partition)
        if fault is not None:
            detail = f"fault {fault.name}"
            connection.finish(End(reason=DisconnectReason.CONNECTION_LOST, detail=detail, flush=False))
            return False
        throttled = self._guard.quotas.publish(account_key(connection.partition), connection.number, now)
        if throttled is None:
            return True
        self._tell(connection, throttled, now)
        alias = packet.properties.topic_alias
        if alias is not None and packet.topic and 0 < alias <= self._settings.max_topic_alias:
            connection.aliases[alias] = packet.topic  # what is discarded is the message
        if self._settings.throttled_publish == "disconnect":
            connection.fail(ReasonCode.QUOTA_EXCEEDED, throttled.detail, reason=DisconnectReason.THROTTLED)
        elif self._settings.throttled_publish == "puback" and connection.is_v5 and packet.packet_id is not None:
            connection.send(PubAck(packet_id=packet.packet_id, reason_code=ReasonCode.QUOTA_EXCEEDED))
        return False

    def _may_subscribe(self, connection: DeviceConnection, packet: Subscribe, now: float) -> bool:
        assert connection.partition is not None
        filters = len(packet.subscriptions)
        throttled = self._guard.quotas.subscribe(account_key(connection.partition), filters, now)
        if throttled is None:
            return True
        self._tell(connection, throttled, now)
        if self._settings.throttled_subscribe == "disconnect":
            connection.fail(ReasonCode.QUOTA_EXCEEDED, throttled.detail, reason=DisconnectReason.THROTTLED)
        else:
            code = ReasonCode.QUOTA_EXCEEDED if connection.is_v5 else SUBSCRIBE_FAILURE
            connection.send(SubAck(packet_id=packet.packet_id, reason_codes=(code,) * filters))
        return False

    def _may_send(self, connection: DeviceConnection, packet: Publish) -> bool:
        """QoS 1 is counted and sent: it would be sent again until it is acknowledged."""
        assert connection.partition is not None
        now = self._guard.now()
        throttled = self._guard.quotas.outbound(account_key(connection.partition), connection.number, now)
        if throttled is None:
            return True
        if packet.qos == 0:
            self._tell(connection, throttled, now)
        return packet.qos > 0

    def _tell(self, connection: DeviceConnection, throttled: Throttled, now: float) -> None:
        if now >= connection.throttled_at + _TOLD_EVERY:
            connection.throttled_at = now
            assert connection.partition is not None
            self._guard.tell_throttled(connection, connection.partition, throttled, connect=False)
