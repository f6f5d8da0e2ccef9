"""What a client's packets may ask, whoever sends them: AWS's limits on CONNECT, PUBLISH and SUBSCRIBE; pure.

A problem is a reason code for MQTT 5 and a detail for the history; what it does to the connection is
:mod:`~devicesim.emulator.broker`'s to decide. What policies allow is not asked here.
"""

from devicesim.emulator import topics
from devicesim.emulator.packets import Connect, ProtocolVersion, Publish, ReasonCode
from devicesim.emulator.settings import Settings
from devicesim.emulator.shared import SharedFilter, name_problem

Problem = tuple[ReasonCode, str]


def connect_problem(packet: Connect, settings: Settings) -> Problem | None:
    """Why a CONNECT cannot be taken in."""
    is_v5 = packet.version is ProtocolVersion.V5
    size = len(packet.client_id.encode("utf-8"))
    if size > settings.max_client_id_bytes:
        detail = f"client id has {size} bytes, must be at most {settings.max_client_id_bytes}"
        return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, detail
    if not packet.client_id and not is_v5 and settings.empty_client_id_v311 == "close":
        return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "client id is empty"
    if not packet.client_id and not is_v5 and not packet.clean_start:
        return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "client id is empty in a persistent session"  # MQTT-3.1.3-8
    if packet.properties.authentication_method is not None:
        # AWS's list of CONNACK codes (§5) has no 0x8C
        return ReasonCode.UNSPECIFIED_ERROR, "enhanced authentication is not supported"
    will = packet.will
    if will is None:
        return None
    if will.qos > 1:
        return ReasonCode.QOS_NOT_SUPPORTED, "will has QoS 2"
    # Developer guide, "device shadow service": a will to a shadow's topic is delivered, and ignored by the service (D)
    problem = topic_problem(will.topic, settings, reserved=will.topic.startswith("$aws/things/"))
    if problem is None and will.retain and will.topic.startswith("$"):
        problem = f"topic {will.topic!r} is the service's own, and nothing is retained there"
    if problem is not None:
        return ReasonCode.TOPIC_NAME_INVALID, f"will: {problem}"
    if will.properties.response_topic is not None and topics.has_wildcard(will.properties.response_topic):
        return ReasonCode.TOPIC_NAME_INVALID, "will: response topic has a wildcard"  # MQTT-3.3.2-14
    if len(will.payload) > settings.max_payload_bytes:
        detail = f"will has {len(will.payload)} bytes, must be at most {settings.max_payload_bytes}"
        return ReasonCode.QUOTA_EXCEEDED, detail
    return None


def topic_problem(topic: str, settings: Settings, *, reserved: bool = False) -> str | None:
    """Why a device cannot publish to ``topic``; ``reserved`` says that it may be one of the service's own."""
    if topic.startswith("$") and not reserved:
        return f"topic {topic!r} is the service's own"  # §2: devices cannot forge $aws/..., M; §5: disconnect
    return topics.topic_problem(topic, max_bytes=settings.max_topic_bytes, max_slashes=settings.max_topic_slashes)


def publish_problem(packet: Publish, topic: str, settings: Settings, *, reserved: bool) -> Problem | None:
    """Why a PUBLISH, whose alias stands for ``topic``, cannot be taken in: the client is disconnected."""
    problem = topic_problem(topic, settings, reserved=reserved)
    if problem is not None:
        return ReasonCode.TOPIC_NAME_INVALID, problem
    if len(packet.payload) > settings.max_payload_bytes:
        detail = f"payload has {len(packet.payload)} bytes, must be at most {settings.max_payload_bytes}"
        return ReasonCode.QUOTA_EXCEEDED, detail  # AWS's codes of DISCONNECT (§5) have no 0x95
    properties = packet.properties
    if properties.subscription_identifiers:  # MQTT-3.3.4-6
        return ReasonCode.PROTOCOL_ERROR, "PUBLISH of a client with a subscription identifier"
    if properties.response_topic is not None and topics.has_wildcard(properties.response_topic):
        return ReasonCode.TOPIC_NAME_INVALID, "response topic has a wildcard"  # MQTT-3.3.2-14
    return None


def filter_problem(topic_filter: str, shared: SharedFilter | None, settings: Settings) -> str | None:
    """Why there can be no subscription to ``topic_filter``, of which ``shared`` are the halves. AWS counts neither the
    share name nor the two slashes around it (developer guide "shared subscriptions", D)."""
    plain = topic_filter
    if shared is not None:
        problem = name_problem(shared.name, max_characters=settings.max_share_name_characters)
        if problem is not None:
            return problem
        plain = shared.topic_filter
    if plain.startswith("$") and not plain.startswith("$aws/") and settings.reserved_filters == "refuse":
        return f"topic filter {plain!r} begins with '$' and not with '$aws/'"
    return topics.filter_problem(plain, max_bytes=settings.max_topic_bytes, max_slashes=settings.max_topic_slashes)


def keep_alive(asked: int, settings: Settings) -> int:
    """Seconds. §5: 0 or more than 1200 is 1200, less than 30 is 30."""
    if asked == 0:
        return settings.keep_alive_maximum
    return min(max(asked, settings.keep_alive_minimum), settings.keep_alive_maximum)


def session_expiry(packet: Connect, settings: Settings) -> int:
    """Seconds that the session outlives its connection."""
    if packet.version is ProtocolVersion.V5:
        return min(packet.properties.session_expiry_interval or 0, settings.max_session_expiry_seconds)
    return 0 if packet.clean_start else settings.persistent_session_seconds
