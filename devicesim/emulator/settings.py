"""The emulator's settings: the published limits, and every choice where AWS's behaviour is not known.

Each field says where it comes from: a section of ``aws-iot-behaviour.md`` with its mark (D documented, M measured by
someone on AWS, S sample code or issue thread, I inferred). A measurement on a real account corrects one line here.
Where the evidence leaves a choice, the default is the stricter one: the emulator must never be kinder than AWS.

The control plane's own are in :class:`devicesim.emulator.state.environment.ControlSettings`, held as ``control``.
"""

from dataclasses import dataclass, field
from typing import Literal

from devicesim.emulator import delays
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.state.environment import ControlSettings
from devicesim.pki.profile import KeyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What :mod:`~devicesim.emulator.service` is told beyond accounts and ports."""

    control: ControlSettings = field(default_factory=ControlSettings)
    quotas: Quotas = field(default_factory=Quotas)
    """AWS's own, on unless lifted: ``Quotas.lifted()``."""

    # --- server name indication (§4.1) ---

    sni_ignores_case: bool = True
    """Whether the server name is compared without regard to case (§4.1: RFC 6066 says so, AWS does not; I)."""
    sni_ip_literal: Literal["absent", "unresolvable"] = "absent"
    """An IP address as server name, or a name with a port (``endpoint:8883``), neither of which RFC 6066 allows: as if
    none had been sent, or as a name of nobody's (§4.1, I)."""
    sni_trailing_dot: Literal["absent", "unresolvable", "stripped"] = "absent"
    """A server name that ends in a dot, which RFC 6066 forbids (§4.1, I)."""

    domain_protocol_enforced: bool = True
    """Whether a domain configuration that is for another protocol or authentication than MQTT with a certificate
    refuses devices with DOMAIN_CONFIGURATION_INVALID (§8; code D, choice I)."""

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
    """Seconds from the first connection to the end of its JITP (§3: usually 1 to 3 s, S)."""
    jitp_delay_shape: delays.Shape = "uniform"
    """How they are drawn: anywhere in ``jitp_delay``; ``lognormal``, with nine of ten in it and one of twenty longer;
    or ``exponential``, from its beginning on with one of twenty beyond its end (§3 gives no distribution; I)."""
    jitp_throttled: Literal["wait_for_connect", "queue"] = "wait_for_connect"
    """What becomes of a JITP run for which the RegisterThing quota has no room: it fails, and the device's next CONNECT
    tries again; or it waits for its turn (§3 and §11 no. 9: undocumented; I)."""
    jit_on_alpn: bool = True
    """Whether a first connection on the ALPN port registers and provisions as one on 8883 does (§11 no. 13: measured
    for MQTT CONNECT without the port; the AWS IoT Device SDKs take 443 when they can, S)."""
    jitp_reruns_while_pending: bool = True
    """Whether each CONNECT of a PENDING_ACTIVATION certificate runs the template again, when no run is under way
    (§10c, S)."""
    jitp_existing_thing: Literal["FAIL", "DO_NOTHING"] = "FAIL"
    """What a template without OverrideSettings does to a thing that exists in another configuration (§9 row 5
    "colliding CN": stays pending, S; default I)."""
    registered_event_for_jitp: bool = True
    """Whether ``$aws/events/certificates/registered/<caId>`` is published where a template runs, too (§3 and §11
    no. 11: likely, not measured; I)."""

    # --- fleet provisioning by claim ---

    ownership_token_seconds: float = 3600.0
    """How long a certificate ownership token is valid, and its certificate kept while nothing comes of it (developer
    guide "device provisioning MQTT API": one hour, D)."""
    ownership_token_bound: bool = True
    """Whether only the certificate that asked for a token can use it (I)."""
    ownership_token_reusable: bool = False
    """Whether a token can be used again once its certificate is provisioned (I). After a failure it always can."""
    provisioning_hook: Literal["refuse", "allow"] = "refuse"
    """RegisterThing over MQTT with a template that has a pre-provisioning hook, which this program cannot call:
    rejected, or as if the hook had allowed it without changing parameters. Ours."""

    # --- what a used-up quota looks like (§6; how much each allows is in ``quotas``) ---

    throttled_connect_v5: Literal["close", "connack"] = "connack"
    """What an MQTT 5 client sees of a CONNECT over a quota: CONNACK 0x97, or a close. 3.1.1 is always closed. A
    registration over its quota looks like any unknown certificate: ``refusal_v5`` (§5: the code exists, D; that it is
    this one I)."""
    throttled_publish: Literal["discard", "puback", "disconnect"] = "discard"
    """A PUBLISH over a quota: discarded, so that QoS 1 has no PUBACK and the connection goes on; PUBACK 0x97 where
    MQTT 5 and QoS 1 have one; or the connection ends with THROTTLED ("discarded": general reference, D)."""
    throttled_subscribe: Literal["suback", "disconnect"] = "suback"
    """A SUBSCRIBE over the quota: SUBACK with 0x97 for every filter, 0x80 in 3.1.1; or the connection ends (§5: the
    codes exist, D; that it is them I)."""

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
    max_topic_alias_outbound: int = 8
    """Topic aliases that the service sets towards a client whose Topic Alias Maximum allows them; 0 sets none
    (developer guide: "a default limit of 8 topic aliases", D; that AWS sets any itself I)."""
    max_message_expiry_seconds: int = 7 * 24 * 3600
    """Longest Message Expiry Interval; a longer one is shortened, and 0 counts as 1 (developer guide "message expiry",
    D)."""
    persistent_session_seconds: int = 3600
    """How long the session of a 3.1.1 client with clean session 0 outlives its connection (§5, D)."""
    max_session_expiry_seconds: int = 3600
    """Longest Session Expiry Interval; a longer one is shortened and CONNACK says so (developer guide: "a maximum of 7
    days, with a default maximum of one hour", D)."""
    max_stored_messages: int = 1000
    """QoS 1 messages that wait for one session, beyond those in flight. Excess is dropped while the client is away (D,
    developer guide "persistent sessions") and disconnects one that is connected and does not acknowledge (I). The
    number is ours: AWS's is per account."""
    max_outbound_bytes: int = 20 * 1024 * 1024
    """Bytes that wait for a client that does not read before it is disconnected: more than ``max_inflight`` messages of
    ``max_packet_bytes``, which may be sent at once to a client that reads. Ours: AWS says nothing."""
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
    stored_messages_per_second: int | None = 10
    """Messages stored for a persistent session that are sent in each second after its client is back; ``None`` as fast
    as the window allows (developer guide "persistent sessions", D; that a second's share goes at once, I)."""
    qos1_retry_seconds: float | None = 30.0
    """After how long a QoS 1 message without PUBACK is sent again to a 3.1.1 client; ``None`` only when it is back
    (developer guide: "repeatedly until a PUBACK response is received", D; the interval I). MQTT 5 forbids it."""
    qos1_retry_limit_seconds: float = 3600.0
    """After how long a QoS 1 message without PUBACK is dropped (service quota "maximum retry interval", D)."""
    redelivery_sets_dup: bool = False
    """Whether a QoS 1 message that is sent again has the DUP flag, as the standard demands. "The MQTT DUP flag is not
    supported" (developer guide, D)."""
    reserved_filters: Literal["refuse", "accept"] = "refuse"
    """A topic filter that begins with ``$`` and not with ``$aws/`` or ``$share/``: AWS disconnects a 3.1.1 client that
    subscribes to ``$SYS/#`` (MQTT-Explorer #17, S; others, and SUBACK 0x8F in MQTT 5, I)."""
    max_share_name_characters: int = 128
    """Of the name in ``$share/<name>/<filter>`` (developer guide "shared subscriptions", D)."""
    max_shared_subscribers: int = 100
    """Sessions in one group of shared subscribers; the quota "shared subscriptions per group" exists (D), its number
    is not known here (I)."""
    max_shared_queue: int = 1000
    """QoS 1 messages that wait for one group of shared subscribers; newer ones are dropped (D). The number is ours, as
    that of ``max_stored_messages``."""
    shared_queue_messages_per_second: int = 20
    """Queued messages sent in each second for each member of the group that is online (developer guide, D)."""
    shared_subscription_policy: Literal["both", "share", "topic"] = "both"
    """What policies must allow for a shared subscription: ``topicfilter/$share/<name>/<filter>`` to subscribe and
    ``topic/$share/<name>/<topic>`` to receive (``share``), the same without ``$share/<name>/`` (``topic``), or each of
    them as the policies of the AWS SDK's samples do (S; which of them AWS looks at I)."""
    resumed_session_is_persistent_v5: bool = True
    """Whether a CONNECT of MQTT 5 with Clean Start 0 and no Session Expiry Interval counts as PersistentConnect in
    ``iot:ConnectAttributes`` (that clean session 0 of 3.1.1 does, D; I)."""
    subscribe_qos_2_v5: Literal["disconnect", "grant_1"] = "disconnect"
    """SUBSCRIBE with QoS 2 in MQTT 5: DISCONNECT 0x9B, or QoS 1 granted as the standard allows. AWS "does not send
    SUBACK when QoS 2 is requested" (developer guide, D, of 3.1.1), which always closes (I)."""

    # --- topic rules ---

    rule_undefined_substitution: Literal["fail", "empty"] = "fail"
    """A substitution template whose expression is Undefined: the action fails, or the text is empty there (I)."""
    rule_integer_division: bool = True
    """Whether ``/`` of two Ints is an Int in rule SQL (developer guide "operators", D; the example on its page "SET
    clause" has decimals, so I)."""
    rule_http_unconfirmed: bool = False
    """Whether an HTTP action sends to a URL whose destination is not ENABLED. AWS does not (developer guide, D)."""
    rule_http_targets: Literal["loopback", "any"] = "loopback"
    """Where HTTP actions and confirmation messages go: to this machine alone, or anywhere. Ours."""
    rule_http_timeout: float = 3.0
    """Seconds for an HTTP action with its retries (service quota "request timeout", D)."""
    rule_http_queue: int = 1000
    """HTTP requests of rules that wait to be sent; one more makes its action fail. Ours."""
    max_rule_chain: int = 10
    """Rules that follow from each other, each triggered by the republish action of the one before. AWS has no such
    limit, and bills (developer guide); ours, so that a loop ends."""
    max_rule_firings: int = 1000
    """Rules that one message may set going in all, directly and through republish actions. Ours, as above."""
    rule_history: Literal["all", "problems"] = "all"
    """Whether the history tells of every rule that fired, or only of those with an action that was not done. Ours."""

    # --- this program ---

    server_key_types: tuple[KeyType, ...] = (KeyType.EC_P256,)
    """Keys of the server certificates; AWS shows an RSA or an ECC one depending on the client (§4.3, D). With RSA the
    start takes about 0.2 s longer."""
    history_size: int = 50_000
    """Entries kept in the history; the oldest go first."""

    def __post_init__(self) -> None:
        problem = delays.problem(self.jitp_delay_shape, self.jitp_delay)
        if problem is not None:
            raise ValueError(f"jitp_delay: {problem}")
