"""Whatever a server sends, the engine says events or PacketError, and how the bytes are cut up does not matter."""

from contextlib import suppress
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devicesim.net.engine import VERSIONS, Answer, Engine, Event, QoS, Version
from devicesim.net.failures import FOREIGN, PacketError
from devicesim.net.publishing import publish_packet, reason_words
from devicesim.net.splitter import PacketSplitter

QUICK = settings(max_examples=200, deadline=None)
ACCEPT: dict[Version, bytes] = {"3.1.1": b"\x20\x02\x00\x00", "5": b"\x20\x03\x00\x00\x00"}

versions: st.SearchStrategy[Version] = st.sampled_from(["3.1.1", "5"])
bodies = st.binary(max_size=40)


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """A well-framed packet of any type with any body."""
    body = draw(bodies)
    return bytes((draw(st.integers(0, 255)), len(body))) + body


def outcome(version: Version, pieces: list[bytes], *, accepted: bool) -> tuple[list[Event], str | None]:
    """The events, and the error that ended it if one did."""
    engine = Engine("x", version=version)
    engine.connect()
    if accepted:
        engine.feed(ACCEPT[version])
        engine.next_event()
        engine.publish("a", b"", 1, retain=False)
        engine.subscribe("a", 1)
    return told(engine, pieces)


def told(engine: Engine, pieces: list[bytes]) -> tuple[list[Event], str | None]:
    events: list[Event] = []
    for piece in pieces:
        engine.feed(piece)
        try:
            while (event := engine.next_event()) is not None:
                events.append(event)
        except FOREIGN as exc:
            return events, type(exc).__name__
    return events, None


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


@QUICK
@given(versions, st.booleans(), st.one_of(st.binary(max_size=200), st.lists(packets(), max_size=6).map(b"".join)))
def test_garbage_is_told_as_events_or_a_protocol_error_never_otherwise(
    version: Version, accepted: bool, data: bytes
) -> None:
    _events, error = outcome(version, [data], accepted=accepted)

    assert error in {None, "PacketError", "UnicodeDecodeError"}


@QUICK
@given(versions, st.lists(packets(), max_size=6).map(b"".join), st.lists(st.integers(0, 500), max_size=8))
def test_how_the_bytes_are_cut_up_does_not_matter(version: Version, data: bytes, places: list[int]) -> None:
    assert outcome(version, cut(data, places), accepted=True) == outcome(version, [data], accepted=True)


@QUICK
@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 20_000)), max_size=5),
    st.lists(st.integers(0, 100_000), max_size=10),
)
def test_the_splitter_gives_back_the_packets_that_went_in(shapes: list[tuple[int, int]], places: list[int]) -> None:
    sent = []
    for first, size in shapes:
        length, rest = bytearray(), size
        while True:
            rest, low = divmod(rest, 128)
            length.append(low | (0x80 if rest else 0))
            if not rest:
                break
        sent.append(bytes((first,)) + bytes(length) + bytes(size))
    splitter = PacketSplitter()
    got = []
    for piece in cut(b"".join(sent), places):
        splitter.feed(piece)
        while (packet := splitter.next_packet()) is not None:
            got.append(packet)

    assert got == sent
    assert splitter.next_kind() is None


@QUICK
@given(st.lists(st.binary(max_size=50), max_size=8))
def test_the_splitter_takes_anything_or_says_packet_error(pieces: list[bytes]) -> None:
    splitter = PacketSplitter(limit=200)
    total = 0
    try:
        for piece in pieces:
            splitter.feed(piece)
            while (packet := splitter.next_packet()) is not None:
                total += len(packet)
    except PacketError:
        pass

    assert total <= sum(map(len, pieces))


class PahoAlone(paho.Client):
    """paho-mqtt by itself, writing into a buffer."""

    def __init__(self, client_id: str, version: Version, clean_start: bool) -> None:
        clean_session = clean_start if version == "3.1.1" else None
        super().__init__(CallbackAPIVersion.VERSION2, client_id, clean_session, protocol=VERSIONS[version])
        self.written = b""

    def _create_socket(self) -> Any:
        return self

    def send(self, data: bytes) -> int:
        self.written += data
        return len(data)

    def close(self) -> None:
        pass

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        pass


@QUICK
@given(
    st.text(max_size=200),
    versions,
    st.booleans(),
    st.integers(0, 65_535),
    st.one_of(st.just(0), st.integers(1, 0xFFFFFFFF)),
)
def test_connect_is_what_paho_writes_to_the_byte(
    client_id: str, version: Version, clean_start: bool, keep_alive: int, expiry: int
) -> None:
    """For any client id: Hypothesis goes past one length byte, and past ASCII."""
    expiry = expiry if version == "5" else 0
    try:
        engine = Engine(client_id, version=version, clean_start=clean_start)
    except ValueError:
        assert not client_id
        assert not clean_start
        assert version == "3.1.1"
        return
    alone = PahoAlone(client_id, version, clean_start)
    if version == "5":
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho left it untyped
        properties.SessionExpiryInterval = expiry
        alone.connect("x", keepalive=keep_alive, clean_start=clean_start, properties=properties if expiry else None)
    else:
        alone.connect("x", keepalive=keep_alive)

    engine.connect(keep_alive=keep_alive, session_expiry=expiry)

    assert bytes(engine.outbound) == alone.written


@QUICK
@given(versions, st.lists(packets(), max_size=6).map(b"".join), st.booleans(), st.booleans())
def test_whether_paho_is_there_from_the_start_or_made_late_does_not_matter(
    version: Version, data: bytes, ping: bool, leave: bool
) -> None:
    results = []
    for early in (True, False):
        engine = Engine("x", version=version)
        engine.connect()
        engine.feed(ACCEPT[version])
        engine.next_event()
        if early:
            engine._session()
        if ping:
            engine.ping()
        if leave:
            engine.disconnect()
        results.append((told(engine, [data]), bytes(engine.outbound)))

    assert results[0] == results[1]


_small_ids = st.integers(1, 4).map(lambda number: number.to_bytes(2, "big"))


@st.composite
def server_packets(draw: st.DrawFn, version: Version) -> bytes:
    """A packet of a session, its id one that may well be under way."""
    number, empty = draw(_small_ids), b"\x00" if version == "5" else b""
    kind = draw(st.integers(0, 9))
    if kind < 3:
        body = b"\x00\x01t" + (number if kind else b"") + empty + draw(st.binary(max_size=3))
        return bytes((0x30 | kind << 1, len(body))) + body
    if kind == 3:
        return b"\x90" + bytes((3 + len(empty),)) + number + empty + b"\x01"
    if kind == 4:
        return b"\xd0\x00"
    if kind == 5 and version == "5":
        body = number + draw(
            st.sampled_from([b"\x00", b"\x10", b"\x87", b"\x87\x00", b"\x97\x05\x1f\x00\x02no", b"\x03", b"\x87\x09"])
        )
        return bytes((0x40, len(body))) + body
    if kind == 6:
        return b"\x40" + draw(st.sampled_from([b"\x01\x00", b"\x00", b"\x82\x00" + number, b"\x03" + number + b"\x00"]))
    # PUBREC and PUBCOMP are none: they belong to QoS 2, and answer nothing that was sent
    return bytes((draw(st.sampled_from([0x40, 0x40, 0x62])), 2)) + number


@st.composite
def scripts(draw: st.DrawFn) -> tuple[Version, list[tuple[int, str, bytes]]]:
    """What two devices do and are told, by turns."""
    version: Version = draw(versions)
    steps = st.tuples(
        st.integers(0, 1), st.sampled_from(["publish 0", "publish 1", "subscribe", "wrong", "ping"]), st.just(b"")
    )
    told_ = st.tuples(st.integers(0, 1), st.just("told"), server_packets(version))
    return version, draw(st.lists(st.one_of(steps, told_), min_size=10, max_size=40))


class PahoDoesAll(Engine):
    """Its client writes PUBLISH and reads PUBACK too."""

    def __init__(self, client_id: str, *, version: Version) -> None:
        super().__init__(client_id, version=version)
        self.waiting: set[int] = set()

    def publish(self, topic: str, payload: bytes, qos: QoS, retain: bool) -> int:
        session = self._session()
        session.on_publish = _on_publish
        session.use(self.outbound, self._last_id)
        info = session.publish(topic, payload, qos, retain)
        self._last_id = session.last_id
        if qos:
            self.waiting.add(info.mid)
        return info.mid

    def _acknowledged(self, packet: bytes) -> None:
        if self._session().give(packet) != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise PacketError


def _on_publish(
    _client: paho.Client, engine: PahoDoesAll, packet_id: int, reason: ReasonCode, properties: Properties | None
) -> None:
    if packet_id in engine.waiting:
        engine.waiting.remove(packet_id)
        engine._told(Answer(packet_id=packet_id, reason=reason.value, words=reason_words(reason, properties)))


def played(kind: type[Engine], version: Version, steps: list[tuple[int, str, bytes]]) -> list[object]:
    """All that the two engines say and send, step by step."""
    engines = [kind(f"robot-{number}", version=version) for number in range(2)]
    for engine in engines:
        engine.connect()
        told(engine, [ACCEPT[version]])
    over: set[int] = set()
    seen: list[object] = []
    for which, what, data in steps:
        engine = engines[which]
        if which in over:
            continue
        match what:
            case "publish 0" | "publish 1":
                seen.append(engine.publish("a", b"", 1 if what == "publish 1" else 0, retain=False))
            case "subscribe":
                seen.append(engine.subscribe("a", 1))
            case "wrong":
                with suppress(ValueError):
                    engine.publish("#", b"", 1, retain=False)
            case "ping":
                engine.ping()
            case _:
                events, error = told(engine, [data])
                seen += [events, error]
                if error is not None:
                    over.add(which)
        seen += [bytes(each.outbound) for each in engines]
    return seen


@QUICK
@given(scripts())
def test_that_paho_neither_writes_nor_reads_messages_cannot_be_told(
    script: tuple[Version, list[tuple[int, str, bytes]]],
) -> None:
    """Whatever two connections do and are told: as with a client of paho's each that does all."""
    version, steps = script

    assert played(Engine, version, steps) == played(PahoDoesAll, version, steps)


@QUICK
@given(
    st.text(max_size=300).filter(lambda topic: topic and not set(topic) & set("+#") and topic.isprintable()),
    st.binary(max_size=20_000),
    st.sampled_from([0, 1]),
    st.booleans(),
    versions,
)
def test_a_message_is_sent_to_the_byte_as_paho_writes_it(
    topic: str, payload: bytes, qos: QoS, retain: bool, version: Version
) -> None:
    engine, paho_s = Engine("x", version=version), PahoDoesAll("x", version=version)
    for each in (engine, paho_s):
        each.connect()
        told(each, [ACCEPT[version]])
        each.outbound.clear()
        each.publish(topic, payload, qos, retain)

    assert engine.outbound == paho_s.outbound
    assert publish_packet(topic, payload, qos=qos, retain=retain, packet_id=1, version=version) == engine.outbound
