"""The ``iot-data`` service: publish, shadows, retained messages, connections. Answered on the API's own port.

AWS has it at the account's data endpoint; here the access key says whose it is, as for ``iot``. Its exceptions have
their own statuses (ThrottlingException is 429).
"""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from devicesim.emulator import history, topics
from devicesim.emulator.admission import Verdict
from devicesim.emulator.apierrors import APIError, invalid_request, request_entity_too_large, resource_not_found
from devicesim.emulator.dataplane import DataPlane
from devicesim.emulator.history import Entry
from devicesim.emulator.operations.call import Call, Handler, token_page
from devicesim.emulator.packets import NO_PROPERTIES, Properties
from devicesim.emulator.sendable import message_problem
from devicesim.emulator.session import Message
from devicesim.emulator.settings import Settings
from devicesim.emulator.shadowservice import ShadowService
from devicesim.emulator.state.records import ThingPrincipalType

_DISCONNECTED_KNOWN_FOR: Final = 30 * 60.0
"""Seconds (botocore, GetConnection, D)."""
_SUBSCRIPTIONS_A_PAGE: Final = 20
"""Unless the caller says (botocore, ListSubscriptions, D)."""
_FORMATS: Final = {"UNSPECIFIED_BYTES": 0, "UTF8_DATA": 1}


class DataOperations:
    """Handlers that act on the data plane."""

    def __init__(self, plane: DataPlane, shadows: ShadowService, settings: Settings) -> None:
        self._plane = plane
        self._shadows = shadows
        self._settings = settings

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By name of the operation. Not emulated: SendDirectMessage, which would have to wait for a PUBACK."""
        return {
            "Publish": self.publish,
            "GetThingShadow": self.get_thing_shadow,
            "UpdateThingShadow": self.update_thing_shadow,
            "DeleteThingShadow": self.delete_thing_shadow,
            "ListNamedShadowsForThing": self.list_named_shadows_for_thing,
            "GetRetainedMessage": self.get_retained_message,
            "ListRetainedMessages": self.list_retained_messages,
            "DeleteConnection": self.delete_connection,
            "GetConnection": self.get_connection,
            "ListSubscriptions": self.list_subscriptions,
        }

    def publish(self, call: Call) -> Mapping[str, Any]:
        topic: str = call["topic"]
        if topic.startswith("$"):
            raise invalid_request("Topic can't start with $")  # §2, M
        settings = self._settings
        problem = topics.topic_problem(
            topic, max_bytes=settings.max_topic_bytes, max_slashes=settings.max_topic_slashes
        )
        if problem is not None:
            raise invalid_request(f"Invalid topic: {problem}")
        payload: bytes = call.get("payload") or b""
        if len(payload) > settings.max_payload_bytes:
            raise request_entity_too_large(
                f"The payload has {len(payload)} bytes, must be at most {settings.max_payload_bytes}"
            )
        now = self._plane.clock.now()
        expiry = call.get("messageExpiry")
        if expiry is not None:
            if expiry < 0:
                raise invalid_request(f"messageExpiry is {expiry}, must be at least 0")
            expiry = min(max(expiry, 1), settings.max_message_expiry_seconds)
        message = Message(
            topic=topic,
            payload=payload,
            qos=call.get("qos") or 0,
            retain=bool(call.get("retain")),
            properties=self._properties(call),
            expires_at=None if expiry is None else now + expiry,
        )
        problem = message_problem(message)
        if problem is not None:
            raise invalid_request(f"The message cannot be sent: {problem}")
        if not self._plane.has_room(call.partition, message, now):
            # "returns a throttled response" (developer guide, "MQTT retained messages", D)
            raise APIError("ThrottlingException", "The account has the maximum number of retained messages.")
        self._plane.publish(call.partition, message, now)
        return {}

    def _properties(self, call: Call) -> Properties:
        response_topic = call.get("responseTopic")
        if response_topic is not None and topics.has_wildcard(response_topic):
            raise invalid_request("responseTopic must not have wildcards")
        indicator = call.get("payloadFormatIndicator")
        correlation = call.get("correlationData")
        properties = Properties(
            payload_format_indicator=None if indicator is None else _FORMATS[indicator],
            content_type=call.get("contentType"),
            response_topic=response_topic,
            correlation_data=None if correlation is None else _base64(correlation),
            user_properties=_user_properties(call.get("userProperties")),
        )
        return NO_PROPERTIES if properties == NO_PROPERTIES else properties

    def get_thing_shadow(self, call: Call) -> Mapping[str, Any]:
        document = self._shadows.document(call.partition, call["thingName"], call.get("shadowName"))
        return {"payload": document}

    def update_thing_shadow(self, call: Call) -> Mapping[str, Any]:
        now = self._plane.clock.now()
        accepted = self._shadows.update(call.partition, call["thingName"], call.get("shadowName"), call["payload"], now)
        return {"payload": accepted}

    def delete_thing_shadow(self, call: Call) -> Mapping[str, Any]:
        now = self._plane.clock.now()
        return {"payload": self._shadows.delete(call.partition, call["thingName"], call.get("shadowName"), now)}

    def list_named_shadows_for_thing(self, call: Call) -> Mapping[str, Any]:
        names = call.registry.shadows.named(call.partition, call["thingName"])
        page, token = token_page(call, names, lambda name: name)
        return {"results": page, "nextToken": token, "timestamp": int(call.registry.environment.now())}

    def get_retained_message(self, call: Call) -> Mapping[str, Any]:
        found = self._plane.retained(call.partition).get(call["topic"])
        if found is None:
            raise resource_not_found(f"No retained message found for topic: {call['topic']}")
        message, kept = found
        told = [{name: value} for name, value in message.properties.user_properties]
        return {
            "topic": message.topic,
            "payload": message.payload,
            "qos": message.qos,
            "lastModifiedTime": round(kept * 1000),
            "userProperties": json.dumps(told).encode() if told else None,
        }

    def list_retained_messages(self, call: Call) -> Mapping[str, Any]:
        held = self._plane.retained(call.partition)
        page, token = token_page(call, sorted(held), lambda topic: topic)
        summaries = [
            {
                "topic": topic,
                "payloadSize": len(held[topic][0].payload),
                "qos": held[topic][0].qos,
                "lastModifiedTime": round(held[topic][1] * 1000),
            }
            for topic in page
        ]
        return {"retainedTopics": summaries, "nextToken": token}

    def delete_connection(self, call: Call) -> Mapping[str, Any]:
        found = self._plane.delete_connection(
            call.partition,
            call["clientId"],
            clean_session=bool(call.get("cleanSession")),
            prevent_will=bool(call.get("preventWillMessage")),
            now=self._plane.clock.now(),
        )
        if not found:
            raise resource_not_found(f"There is no connection with the client id {call['clientId']}")
        return {}

    def list_subscriptions(self, call: Call) -> Mapping[str, Any]:
        session = self._plane.session(call.partition, call["clientId"])
        if session is None:
            raise resource_not_found(f"There is no session with the client id {call['clientId']}")
        held = session.subscriptions
        page, token = token_page(call, sorted(held), lambda topic_filter: topic_filter, default=_SUBSCRIPTIONS_A_PAGE)
        found = [{"topicFilter": topic_filter, "qos": held[topic_filter].qos} for topic_filter in page]
        return {"subscriptions": found, "nextToken": token}

    def get_connection(self, call: Call) -> Mapping[str, Any]:
        """When it began or ended stands in the history, and is left out when that has forgotten it."""
        client_id = call["clientId"]
        session = self._plane.session(call.partition, client_id)
        connection = None if session is None else session.connection
        if session is not None and connection is not None:
            since = self._latest(call, Verdict.ADMITTED)
            keep_alive = round(connection.keep_alive_timeout / self._settings.keep_alive_factor)
            told: dict[str, Any] = {
                "connected": True,
                "cleanSession": session.expiry == 0,
                "keepAliveDuration": keep_alive,
                "sessionExpiry": round(session.expiry),
                "connectedSince": None if since is None else round(since.time * 1000),
            }
            if since is not None and call.get("includeSocketInformation"):
                told |= {"sourceIp": since.source_ip, "sourcePort": since.source_port}
            things = call.partition.things_of_certificate(connection.principal or "")
            exclusive = [name for name, kind in things.items() if kind is ThingPrincipalType.EXCLUSIVE_THING]
            return {**told, "clientId": client_id, "thingName": exclusive[0] if exclusive else None}
        ended = self._latest(call, history.DISCONNECTED)
        if ended is not None and call.registry.environment.now() - ended.time > _DISCONNECTED_KNOWN_FOR:
            ended = None
        if session is None and ended is None:
            raise resource_not_found(f"There is no connection with the client id {client_id}")
        return {
            "connected": False,
            "clientId": client_id,
            "cleanSession": session is None,
            "sessionExpiry": None if session is None else round(session.expiry),
            "disconnectedSince": None if ended is None else round(ended.time * 1000),
            "disconnectReason": None if ended is None else ended.reason,
        }

    def _latest(self, call: Call, verdict: str) -> Entry | None:
        """The history's latest word of that kind on the client."""
        found = self._plane.history.select(
            account_id=call.partition.account_id, client_id=call["clientId"], verdict=verdict
        )
        return next((each for each in reversed(found) if each.region == call.partition.region), None)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise invalid_request(f"correlationData is {text!r}, expected base64") from None


def _user_properties(value: object) -> tuple[tuple[str, str], ...]:
    """From AWS's form, a list of objects with one member each, or JSON text of one: SDKs that are given text send it as
    a JSON string."""
    if value is None:
        return ()
    pairs: list[tuple[str, str]] = []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _bad_user_properties() from None
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict) or not all(isinstance(held, str) for held in each.values()):
            raise _bad_user_properties()
        pairs += each.items()
    return tuple(pairs)


def _bad_user_properties() -> APIError:
    return invalid_request('userProperties must be a JSON array of objects such as {"deviceName": "alpha"}')
