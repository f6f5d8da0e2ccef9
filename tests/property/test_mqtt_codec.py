"""The MQTT codec under random packets and random bytes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.emulator.decode import Decoder
from devicesim.emulator.encode import encode
from devicesim.emulator.packets import (
    NO_PROPERTIES,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PacketError,
    PacketType,
    PingReq,
    PingResp,
    Properties,
    ProtocolVersion,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
)
from devicesim.emulator.wire import PROPERTIES, REASON_CODES, SUBACK_V311, WILL, Kind

V311, V5 = ProtocolVersion.V311, ProtocolVersion.V5
MAX = 149_504

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
topics = text.filter(bool)
blobs = st.binary(max_size=12)
ids = st.integers(1, 0xFFFF)
VALUES: dict[Kind, st.SearchStrategy[object]] = {
    Kind.FLAG: st.integers(0, 1),
    Kind.U16: st.integers(1, 0xFFFF),
    Kind.U32: st.integers(1, 0xFFFF_FFFF),
    Kind.STRING: text,
    Kind.BINARY: blobs,
}


def properties(owner: int) -> st.SearchStrategy[Properties]:
    """Any properties that may stand in a packet of type ``owner``."""
    fields: dict[str, st.SearchStrategy[object]] = {}
    for _, name, kind, owners in PROPERTIES:
        if owner not in owners:
            continue
        if kind is Kind.PAIR:
            fields[name] = st.lists(st.tuples(text, text), max_size=2).map(tuple)
        elif kind is Kind.VARINT:
            size = 2 if owner == PacketType.PUBLISH else 1
            fields[name] = st.lists(st.integers(1, 268_435_455), max_size=size).map(tuple)
        else:
            fields[name] = st.none() | VALUES[kind]

    def build(values: dict[str, object]) -> Properties:
        if values.get("authentication_data") is not None and values.get("authentication_method") is None:
            values["authentication_data"] = None
        return Properties(**values)  # type: ignore[arg-type]  # drawn per field from the table

    return st.just(NO_PROPERTIES) | st.fixed_dictionaries(fields).map(build)


def codes(packet_type: PacketType) -> st.SearchStrategy[int]:
    return st.sampled_from(sorted(REASON_CODES[packet_type]))


def packets(version: ProtocolVersion) -> st.SearchStrategy[Packet]:
    """Every packet that may exist in ``version``."""
    v5 = version is V5

    def p(owner: int) -> st.SearchStrategy[Properties]:
        return properties(owner) if v5 else st.just(NO_PROPERTIES)

    def reason(packet_type: PacketType) -> st.SearchStrategy[int]:
        return codes(packet_type) if v5 else st.just(0)

    def publish(values: tuple[str, bytes, int, bool, bool, int, Properties]) -> Publish:
        topic, payload, qos, retain, dup, number, props = values
        return Publish(
            topic=topic,
            payload=payload,
            qos=qos,
            retain=retain,
            dup=dup and qos > 0,
            packet_id=number if qos else None,
            properties=props,
        )

    will = st.builds(Will, topic=text, payload=blobs, qos=st.integers(0, 2), retain=st.booleans(), properties=p(WILL))
    credentials = st.tuples(st.none() | text, st.none() | blobs).filter(
        lambda pair: v5 or pair[0] is not None or pair[1] is None
    )
    subscription = (
        st.builds(
            Subscription,
            topic_filter=text,
            qos=st.integers(0, 2),
            no_local=st.booleans(),
            retain_as_published=st.booleans(),
            retain_handling=st.integers(0, 2),
        )
        if v5
        else st.builds(Subscription, topic_filter=text, qos=st.integers(0, 2))
    )
    connect = st.tuples(
        text, st.booleans(), st.integers(0, 0xFFFF), credentials, st.none() | will, p(PacketType.CONNECT)
    ).map(
        lambda v: Connect(
            client_id=v[0],
            version=version,
            clean_start=v[1],
            keep_alive=v[2],
            username=v[3][0],
            password=v[3][1],
            will=v[4],
            properties=v[5],
        )
    )
    suback_codes = codes(PacketType.SUBACK) if v5 else st.sampled_from(sorted(SUBACK_V311))
    unsuback_codes = st.lists(codes(PacketType.UNSUBACK), min_size=1, max_size=3).map(tuple) if v5 else st.just(())
    options: list[st.SearchStrategy[Packet]] = [
        connect,
        st.builds(
            ConnAck,
            session_present=st.booleans(),
            reason_code=codes(PacketType.CONNACK) if v5 else st.integers(0, 5),
            properties=p(PacketType.CONNACK),
        ),
        st.tuples(topics, blobs, st.integers(0, 2), st.booleans(), st.booleans(), ids, p(PacketType.PUBLISH)).map(
            publish
        ),
        st.builds(PubAck, packet_id=ids, reason_code=reason(PacketType.PUBACK), properties=p(PacketType.PUBACK)),
        st.builds(PubRec, packet_id=ids, reason_code=reason(PacketType.PUBREC), properties=p(PacketType.PUBREC)),
        st.builds(PubRel, packet_id=ids, reason_code=reason(PacketType.PUBREL), properties=p(PacketType.PUBREL)),
        st.builds(PubComp, packet_id=ids, reason_code=reason(PacketType.PUBCOMP), properties=p(PacketType.PUBCOMP)),
        st.builds(
            Subscribe,
            packet_id=ids,
            subscriptions=st.lists(subscription, min_size=1, max_size=3).map(tuple),
            properties=p(PacketType.SUBSCRIBE),
        ),
        st.builds(
            SubAck,
            packet_id=ids,
            reason_codes=st.lists(suback_codes, min_size=1, max_size=3).map(tuple),
            properties=p(PacketType.SUBACK),
        ),
        st.builds(
            Unsubscribe,
            packet_id=ids,
            topic_filters=st.lists(text, min_size=1, max_size=3).map(tuple),
            properties=p(PacketType.UNSUBSCRIBE),
        ),
        st.builds(UnsubAck, packet_id=ids, reason_codes=unsuback_codes, properties=p(PacketType.UNSUBACK)),
        st.just(PingReq()),
        st.just(PingResp()),
        st.builds(Disconnect, reason_code=reason(PacketType.DISCONNECT), properties=p(PacketType.DISCONNECT)),
    ]
    if v5:
        options.append(st.builds(Auth, reason_code=codes(PacketType.AUTH), properties=p(PacketType.AUTH)))
    return st.one_of(options)


PACKETS = {version: packets(version) for version in (V311, V5)}  # built once: building costs more than drawing
versioned = st.sampled_from([V311, V5]).flatmap(lambda v: st.tuples(st.just(v), PACKETS[v]))
streams = st.sampled_from([V311, V5]).flatmap(lambda v: st.tuples(st.just(v), st.lists(PACKETS[v], max_size=4)))


@settings(max_examples=400, deadline=None)
@given(versioned)
def test_what_is_encoded_is_decoded_the_same(case: tuple[ProtocolVersion, Packet]) -> None:
    version, packet = case
    machine = Decoder(max_packet_size=MAX, version=version)
    machine.feed(encode(packet, version))

    assert machine.next_packet() == packet
    assert machine.buffered == 0


@settings(max_examples=150, deadline=None)
@given(streams, st.data())
def test_how_a_stream_is_cut_does_not_matter(case: tuple[ProtocolVersion, list[Packet]], data: st.DataObject) -> None:
    version, expected = case
    stream = b"".join(encode(packet, version) for packet in expected)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    machine = Decoder(max_packet_size=MAX, version=version)
    decoded = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        machine.feed(stream[start:stop])
        while (packet := machine.next_packet()) is not None:
            decoded.append(packet)

    assert decoded == expected


def run(machine: Decoder, data: bytes) -> list[Packet]:
    packets_seen = []
    machine.feed(data)
    try:
        while (packet := machine.next_packet()) is not None:
            packets_seen.append(packet)
    except PacketError:
        assert machine.buffered == 0
    return packets_seen


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([None, V311, V5]), st.binary(max_size=80))
def test_noise_is_decoded_or_waits_or_raises_packet_error(version: ProtocolVersion | None, noise: bytes) -> None:
    """The one sentence: never any other exception."""
    run(Decoder(max_packet_size=MAX, version=version), noise)


@settings(max_examples=500, deadline=None)
@given(versioned, st.data())
def test_mutated_packets_keep_the_invariant_and_are_read_as_they_would_be_written(
    case: tuple[ProtocolVersion, Packet], data: st.DataObject
) -> None:
    version, packet = case
    raw = bytearray(encode(packet, version))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for survivor in run(Decoder(max_packet_size=MAX, version=version), bytes(raw)):
        again = Decoder(max_packet_size=MAX, version=version)
        written = survivor.version if isinstance(survivor, Connect) else version
        again.feed(encode(survivor, written))

        assert again.next_packet() == survivor
