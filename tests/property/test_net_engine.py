"""Whatever a server sends, the engine says events or PacketError, and how the bytes are cut up does not matter."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.net.engine import Engine, Event, PacketSplitter, Version
from devicesim.net.failures import FOREIGN, PacketError

QUICK = settings(max_examples=200, deadline=None)
ACCEPT: dict[Version, bytes] = {"3.1.1": b"\x20\x02\x00\x00", "5": b"\x20\x03\x00\x00\x00"}

versions = st.sampled_from(["3.1.1", "5"])
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
