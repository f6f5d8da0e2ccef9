"""The emulator's settings: the published limits, and every choice where AWS's behaviour is not known.

Each field says where it comes from: a section of ``aws-iot-behaviour.md`` with its mark (D documented, M measured by
someone on AWS, S sample code or issue thread, I inferred). A measurement on a real account corrects one line here.
Where the evidence leaves a choice, the default is the stricter one: the emulator must never be kinder than AWS.

The control plane's own are in :class:`devicesim.emulator.state.environment.ControlSettings`, held as ``control``.
"""

from dataclasses import dataclass, field
from typing import Literal

from devicesim.emulator.state.environment import ControlSettings
from devicesim.pki.profile import KeyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What :mod:`~devicesim.emulator.service` is told beyond accounts and ports."""

    control: ControlSettings = field(default_factory=ControlSettings)

    # --- server name indication (§4.1) ---

    sni_ignores_case: bool = True
    """Whether the server name is compared without regard to case (§4.1: RFC 6066 says so, AWS does not; I)."""
    sni_ip_literal: Literal["absent", "unresolvable"] = "absent"
    """An IP address as server name, or a name with a port (``endpoint:8883``), neither of which RFC 6066 allows: as if
    none had been sent, or as a name of nobody's (§4.1, I)."""
    sni_trailing_dot: Literal["absent", "unresolvable", "stripped"] = "absent"
    """A server name that ends in a dot, which RFC 6066 forbids (§4.1, I)."""

    # --- authentication (§4.2, §10) ---

    client_certificate_required: bool = False
    """Whether a handshake without client certificate fails with an alert. Otherwise it succeeds and CONNECT is refused
    (§4.2: not measured; I)."""
    leaf_validity_enforced: bool = True
    """Whether a certificate before or after its validity is refused (§9 row 13 and §11 no. 7; I)."""
    sni_misused_for_foreign_default_leaf: bool = True
    """Whether a leaf that the account named by SNI does not know, and that another account of the Region holds in
    DEFAULT mode, is logged as SNI_MISUSED instead of DEVICE_CERTIFICATE_NOT_REGISTERED (§10d, §11 no. 5; codes D,
    choice I)."""
    pending_reason: str | None = None
    """The AuthNError reason logged for a PENDING_ACTIVATION certificate; ``None`` is none (§11 no. 8; I)."""
    refusal_v5: Literal["close", "connack"] = "close"
    """What an MQTT 5 client sees when its certificate is unknown, pending, inactive or revoked: a close without CONNACK
    as in 3.1.1, or CONNACK 0x87 (§2 step 5 and §11 no. 3: not measured; I)."""
    handshake_timeout: float = 10.0
    """Seconds from accept to the end of the TLS handshake (I)."""
    connect_timeout: float = 10.0
    """Seconds from the end of the handshake to a whole CONNECT (I; §2: idle for 4 s creates nothing, M)."""

    # --- just-in-time registration and provisioning (§2, §3) ---

    jit_without_sni: bool = True
    """Whether a first connection without SNI is registered in the account that holds the CA in DEFAULT mode
    (§10b row "C1 none, leaf+CA chain": old D, today I)."""
    jit_without_sni_needs_chain: bool = True
    """Whether that takes the CA certificate in the device's chain (§3 "client chain", §10b; D, stage I)."""
    jitp_delay: tuple[float, float] = (1.0, 3.0)
    """Seconds from the first connection to the end of its JITP, drawn uniformly (§3: 1 to 3 s, S)."""
    jitp_reruns_while_pending: bool = True
    """Whether each CONNECT of a PENDING_ACTIVATION certificate runs the template again, when no run is under way
    (§10c, S)."""
    jitp_existing_thing: Literal["FAIL", "DO_NOTHING"] = "FAIL"
    """What a template without OverrideSettings does to a thing that exists in another configuration (§9 row 5
    "colliding CN": stays pending, S; default I)."""
    registered_event_for_jitp: bool = True
    """Whether ``$aws/events/certificates/registered/<caId>`` is published where a template runs, too (§3 and §11
    no. 11: likely, not measured; I)."""

    # --- MQTT (§5) ---

    keep_alive_minimum: int = 30
    """Seconds (§5, D)."""
    keep_alive_maximum: int = 1200
    """Seconds, also for a client that asks for none (§5, D)."""
    keep_alive_factor: float = 1.5
    """A client that is silent for this many keep-alive intervals is disconnected (§5, D)."""
    max_client_id_bytes: int = 128
    """§5, D."""
    max_topic_bytes: int = 256
    """§5, D."""
    max_topic_slashes: int = 7
    """§5, D."""
    max_payload_bytes: int = 128 * 1024
    """§5, D."""
    max_packet_bytes: int = 146 * 1024
    """Of a whole packet: told as Maximum Packet Size in CONNACK (payload limit D; room for headers I)."""
    max_filters_per_subscribe: int = 8
    """§5, D."""
    max_subscriptions_per_connection: int = 50
    """§5, D; the excess is refused in SUBACK (shamblett/mqtt_client #368, S)."""
    max_inflight: int = 100
    """QoS 1 messages not yet acknowledged, each way (§6, D): Receive Maximum in CONNACK."""
    max_topic_alias: int = 8
    """Topic Alias Maximum in CONNACK (aws-crt-java #618, M)."""
    persistent_session_seconds: int = 3600
    """How long the session of a 3.1.1 client with clean session 0 outlives its connection (§5, D)."""
    max_session_expiry_seconds: int = 7 * 24 * 3600
    """Longest Session Expiry Interval; a longer one is shortened and CONNACK says so (§5, D)."""
    max_stored_messages: int = 1000
    """QoS 1 messages that wait for one session, beyond those in flight. Excess is dropped while the client is away (D,
    developer guide "persistent sessions") and disconnects one that is connected and does not acknowledge (I). The
    number is ours: AWS's is per account."""
    max_outbound_bytes: int = 1024 * 1024
    """Bytes that wait for a client that does not read before it is disconnected. Ours: AWS says nothing."""
    max_retained_messages: int = 5000
    """Per account and Region (service quota, D)."""
    empty_client_id_v311: Literal["close", "assign"] = "close"
    """CONNECT of a 3.1.1 client without client id. MQTT 5 clients are assigned one (awscrt documentation, D); what
    3.1.1 clients see is not known (I)."""
    packets_before_connack: Literal["close", "accept"] = "close"
    """A client that sends more before it has seen CONNACK. §5: it must wait (D); what happens otherwise is not known
    (I). Seen only where the packets arrive together with CONNECT."""
    subscribe_denied_v311: Literal["close", "suback"] = "close"
    """A 3.1.1 SUBSCRIBE that no policy allows: the connection is closed, or SUBACK 0x80 (§5, S)."""
    publish_denied_v5: Literal["puback", "disconnect"] = "puback"
    """A QoS 1 PUBLISH of MQTT 5 that no policy allows: PUBACK 0x87, or DISCONNECT 0x87 (§5: both codes exist, D; which
    one I). QoS 0 has no PUBACK and is always DISCONNECT; 3.1.1 is always closed."""
    subscribe_qos_2_v5: Literal["disconnect", "grant_1"] = "disconnect"
    """SUBSCRIBE with QoS 2 in MQTT 5: DISCONNECT 0x9B, or QoS 1 granted as the standard allows. AWS "does not send
    SUBACK when QoS 2 is requested" (developer guide, D, of 3.1.1), which always closes (I)."""

    # --- this program ---

    server_key_types: tuple[KeyType, ...] = (KeyType.EC_P256,)
    """Keys of the server certificates; AWS shows an RSA or an ECC one depending on the client (§4.3, D). With RSA the
    start takes about 0.2 s longer."""
    history_size: int = 50_000
    """Entries kept in the history; the oldest go first."""
