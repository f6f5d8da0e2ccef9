"""The device shadow service: requests on reserved topics in, answers on others out. Pure.

    $aws/things/<thing>/shadow[/name/<shadow>]/{get,update,delete}
    …/{get,update,delete}/{accepted,rejected}    …/update/{delta,documents}

The answers are ordinary messages of the account: whoever may subscribe to them gets them, topic rules see them. A
request is such a message, too, before it is answered (developer guide "reserved topics", D: clients may subscribe to
request topics). A change made over HTTP is told as one over MQTT is, and its refusal is not (D).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from devicesim.emulator import shadows
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.dataplane import DataPlane
from devicesim.emulator.deviceconnection import DeviceConnection
from devicesim.emulator.packets import Publish
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.session import Message, client_message
from devicesim.emulator.shadows import Content

_TOPIC: Final = re.compile(
    r"\$aws/things/(?P<thing>[a-zA-Z0-9:_-]{1,128})/shadow(?:/name/(?P<name>[$a-zA-Z0-9:_-]{1,64}))?"
    r"/(?P<operation>get|update|delete)"
)
_CODES: Final[Mapping[str, int]] = {
    "InvalidRequestException": 400,
    "ResourceNotFoundException": 404,
    "ConflictException": 409,
    "RequestEntityTooLargeException": 413,
    "UnsupportedDocumentEncodingException": 415,
    "ThrottlingException": 429,
    "ServiceUnavailableException": 503,
}
"""Of the rejected document (developer guide "device shadow error messages", D): the HTTP status of the exception."""
_OPERATIONS: Final = {"get": "GetThingShadow", "update": "UpdateThingShadow", "delete": "DeleteThingShadow"}
"""The operations of the API that requests are: quotas and faults hit both."""
_QOS: Final = 1
"""Of the answers; the subscription decides whether they go out so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    thing_name: str
    name: str | None
    operation: str

    @property
    def prefix(self) -> str:
        named = "" if self.name is None else f"/name/{self.name}"
        return f"$aws/things/{self.thing_name}/shadow{named}/"


class ShadowService:
    """One for the whole emulator; takes its topics from the data plane."""

    def __init__(self, registry: Registry, plane: DataPlane) -> None:
        self._registry = registry
        self._plane = plane
        plane.reserved.append(self._published_by_device)

    # --- MQTT ---

    def _published_by_device(self, connection: DeviceConnection, packet: Publish, now: float) -> bool:
        assert connection.partition is not None  # it publishes, so it was admitted
        message = client_message(packet, connection.client_id, connection.principal, now, connection.settings)
        return self.published(connection.partition, message, now)

    def published(self, partition: Partition, message: Message, now: float) -> bool:
        """Answer a request, after it has gone to its subscribers; ``False`` when the topic is none of a request."""
        found = _TOPIC.fullmatch(message.topic)
        if found is None:
            return False
        request = _Request(thing_name=found["thing"], name=found["name"], operation=found["operation"])
        self._plane.publish(partition, message, now)
        try:
            self._plane.guard.call(partition, "iot-data", _OPERATIONS[request.operation])
            self._serve(partition, request, message.payload, now)
        except APIError as refusal:
            document = shadows.rejected_document(
                _CODES.get(refusal.code, 400), refusal.message, shadows.client_token_of(message.payload)
            )
            self._tell(partition, f"{request.prefix}{request.operation}/rejected", document, now)
        return True

    def _serve(self, partition: Partition, request: _Request, payload: bytes, now: float) -> None:
        thing_name, name = request.thing_name, request.name
        match request.operation:
            case "get":
                token = shadows.read_request(payload)
                document = shadows.current_document(self.get(partition, thing_name, name), self._wall(), token)
                self._tell(partition, f"{request.prefix}get/accepted", document, now)
            case "update":
                self.update(partition, thing_name, name, payload, now)
            case _:
                # "the content of the message is ignored" (D), but for the token that clients wait for
                self.delete(partition, thing_name, name, now, client_token=shadows.client_token_of(payload))

    # --- for the API, too ---

    def get(self, partition: Partition, thing_name: str, name: str | None) -> Content:
        """``ResourceNotFoundException`` when there is none."""
        return self._registry.shadows.get(partition, thing_name, name)

    def document(self, partition: Partition, thing_name: str, name: str | None) -> bytes:
        """What GetThingShadow answers."""
        return shadows.current_document(self.get(partition, thing_name, name), self._wall())

    def update(self, partition: Partition, thing_name: str, name: str | None, payload: bytes, now: float) -> bytes:
        """Do it, tell everybody, and answer the accepted document."""
        done = self._registry.shadows.update(partition, thing_name, name, payload)
        prefix = _Request(thing_name=thing_name, name=name, operation="update").prefix + "update/"
        token = done.request.client_token
        accepted = shadows.accepted_document(done.request, done.current.version, done.now)
        self._tell(partition, prefix + "accepted", accepted, now)
        difference = shadows.delta_document(done.current, done.now, token)
        if difference is not None:
            self._tell(partition, prefix + "delta", difference, now)
        documents = shadows.documents_document(done.previous, done.current, done.now, token)
        self._tell(partition, prefix + "documents", documents, now)
        return accepted

    def delete(
        self, partition: Partition, thing_name: str, name: str | None, now: float, *, client_token: str | None = None
    ) -> bytes:
        """Do it, tell everybody (also of one over HTTP: aws-iot-device-sdk-embedded-C #12, S), and answer the same."""
        version = self._registry.shadows.delete(partition, thing_name, name)
        document = shadows.deleted_document(version, self._wall(), client_token)
        prefix = _Request(thing_name=thing_name, name=name, operation="delete").prefix
        self._tell(partition, f"{prefix}delete/accepted", document, now)
        return document

    def _tell(self, partition: Partition, topic: str, document: bytes, now: float) -> None:
        self._plane.publish(partition, Message(topic=topic, payload=document, qos=_QOS), now)

    def _wall(self) -> float:
        return self._registry.environment.now()
