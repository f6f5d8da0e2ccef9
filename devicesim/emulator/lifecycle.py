"""Lifecycle events: what the service publishes about its clients' connections and subscriptions; pure.

Developer guide, "Lifecycle events" (D): they are always on, and a client id with ``#`` or ``+`` has none. One of these
for each account and Region.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from devicesim.emulator.connection import Connection, DisconnectReason, End
from devicesim.emulator.session import Message, Session

_PREFIX: Final = "$aws/events"
_VERSION_KEPT: Final = 3600.0
"""Seconds that a client can be away before its version numbers begin again ("approximately one hour", D)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What the events tell of a client beside its session."""

    principal: str
    """The certificate id."""
    ip_address: str
    thing_name: str | None = None
    """Only of a certificate that belongs to one thing alone (``EXCLUSIVE_THING``)."""


class Lifecycle:
    """See the module."""

    def __init__(
        self,
        *,
        wall: Callable[[], float],
        new_id: Callable[[], str],
        peer_of: Callable[[Connection], Peer],
        publish: Callable[[Message, float], object],
    ) -> None:
        """``wall`` tells the time of the events, ``new_id`` makes session identifiers."""
        self._wall = wall
        self._new_id = new_id
        self._peer_of = peer_of
        self._publish = publish
        self._versions: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Of clients that are away: their last version number, and since when; the longest first."""

    def new_session(self) -> str:
        """A session identifier: globally unique, for the life of the session."""
        return self._new_id()

    def connected(self, connection: Connection, session: Session, now: float, *, resumed: bool) -> None:
        """CONNACK 0 has been queued; gives the session its version number."""
        kept = self._versions.pop(session.client_id, None)
        if resumed:
            session.version += 1
        elif kept is not None and now - kept[1] < _VERSION_KEPT:
            session.version = kept[0] + 1
        else:
            session.version = 0
        peer = self._peer_of(connection)
        fields = {"ipAddress": peer.ip_address, "versionNumber": session.version}
        self._tell("presence/connected", "connected", session.client_id, session.identifier, peer, fields, now)

    def disconnected(self, connection: Connection, session: Session, end: End, now: float) -> None:
        """An admitted connection has ended, for whatever reason."""
        while self._versions:  # a few at a time: each entry goes once
            _, (_, since) = next(iter(self._versions.items()))
            if now - since < _VERSION_KEPT:
                break
            self._versions.popitem(last=False)
        self._versions[session.client_id] = (session.version, now)
        self._versions.move_to_end(session.client_id)
        fields = {
            "clientInitiatedDisconnect": end.reason is DisconnectReason.CLIENT_INITIATED_DISCONNECT,
            "disconnectReason": end.reason.value,
            "versionNumber": session.version,
        }
        peer = self._peer_of(connection)
        self._tell("presence/disconnected", "disconnected", session.client_id, session.identifier, peer, fields, now)

    def connect_failed(self, connection: Connection, now: float) -> None:
        """The certificate is good, and no policy allows the connection, or the publishing of its will."""
        peer = self._peer_of(connection)
        topic, kind, failure = "presence/connect_failed", "connect_failed", "AUTHORIZATION_FAILED"
        fields = {"ipAddress": peer.ip_address}
        self._tell(topic, kind, connection.client_id, self._new_id(), peer, fields, now, failure=failure)

    def subscribed(self, connection: Connection, session: Session, topics: Sequence[str], now: float) -> None:
        self._subscriptions("subscribed", connection, session, topics, now)

    def unsubscribed(self, connection: Connection, session: Session, topics: Sequence[str], now: float) -> None:
        self._subscriptions("unsubscribed", connection, session, topics, now)

    def _subscriptions(
        self, kind: str, connection: Connection, session: Session, topics: Sequence[str], now: float
    ) -> None:
        if topics:
            peer = self._peer_of(connection)
            fields = {"topics": list(topics)}
            self._tell(f"subscriptions/{kind}", kind, session.client_id, session.identifier, peer, fields, now)

    def _tell(
        self,
        topic: str,
        kind: str,
        client_id: str,
        session_identifier: str,
        peer: Peer,
        fields: Mapping[str, object],
        now: float,
        *,
        failure: str | None = None,
    ) -> None:
        """Publish with QoS 0, or 1 for who subscribes so."""
        if "#" in client_id or "+" in client_id:
            return
        body: dict[str, object] = {"clientId": client_id}
        if peer.thing_name is not None:
            body["thingName"] = peer.thing_name
        body |= {"timestamp": round(self._wall() * 1000), "eventType": kind}
        if failure is not None:
            body["connectFailureReason"] = failure
        body |= {"sessionIdentifier": session_identifier, "principalIdentifier": peer.principal, **fields}
        payload = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        self._publish(Message(topic=f"{_PREFIX}/{topic}/{client_id}", payload=payload, qos=1), now)
