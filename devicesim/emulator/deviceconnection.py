"""An MQTT connection with what is known of its device. Pure."""

from collections.abc import Callable

from devicesim.emulator.admission import Presented
from devicesim.emulator.broker import Broker
from devicesim.emulator.connection import Connection, Watcher
from devicesim.emulator.enrichment import user_properties
from devicesim.emulator.httprefusal import HTTPRefusal
from devicesim.emulator.packets import Packet, Publish
from devicesim.emulator.registry import Partition
from devicesim.emulator.settings import Settings
from devicesim.emulator.timers import Timer


class DeviceConnection(Connection):
    """Made by :meth:`~devicesim.emulator.dataplane.DataPlane.open`."""

    __slots__ = (
        "broker",
        "decided",
        "held",
        "http",
        "link",
        "may_send",
        "number",
        "partition",
        "presented",
        "throttled_at",
        "timer",
    )

    def __init__(self, presented: Presented, *, number: int, settings: Settings, watcher: Watcher, now: float) -> None:
        super().__init__(settings=settings, watcher=watcher, now=now)
        self.presented = presented
        """Without leaf and chain once CONNECT has been decided on."""
        self.number = number
        """From 1, never used again: what the quotas count by."""
        self.partition: Partition | None = None
        self.broker: Broker | None = None
        """Of its account and Region, once admitted."""
        self.decided = False
        """Whether the history has a decision on its CONNECT."""
        self.held = False
        """Whether its CONNECT waits to be decided on; what came after it waits, too."""
        self.http: HTTPRefusal | None = None
        """Speaks HTTP with the client, which has chosen no protocol."""
        self.may_send: Callable[[DeviceConnection, Publish], bool] | None = None
        """Asked before each PUBLISH to the client; left out when no quota is to be kept."""
        self.throttled_at = float("-inf")
        """When the history last had an entry of a quota that this connection met."""
        self.timer: Timer | None = None
        """Until CONNECT its deadline, then the keep-alive."""
        self.link: object = None
        """The gateway's own."""

    @property
    def principal(self) -> str | None:
        return self.presented.certificate_id

    def enrichment(self) -> tuple[tuple[str, str], ...]:
        if self.partition is None or self.presented.certificate_id is None:
            return ()
        return user_properties(self.partition, self.presented.certificate_id, self.client_id)

    def next_packet(self, now: float) -> Packet | None:
        """As :meth:`Connection.next_packet`; ``None`` also while CONNECT waits."""
        return None if self.held else super().next_packet(now)

    def send(self, packet: Packet) -> bool:
        """As :meth:`Connection.send`; ``False`` also for a PUBLISH that a quota discards."""
        if self.may_send is not None and isinstance(packet, Publish) and not self.may_send(self, packet):
            return False
        return super().send(packet)
