"""The ClientHello, read off OpenSSL's own bytes."""

import pytest
from OpenSSL import SSL

from devicesim.net.clienthello import ClientHello, read_client_hello
from devicesim.net.tls import TLSContext, TLSSettings
from tests.net_support import ENDPOINT, parse_client_hello


def first_flight(settings: TLSSettings, server_name: str | None) -> bytes:
    connection = SSL.Connection(TLSContext(settings)._context, None)
    connection.set_connect_state()
    if server_name is not None:
        connection.set_tlsext_host_name(server_name.encode())
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(65_536)


def test_what_was_offered_is_read_back() -> None:
    flight = first_flight(TLSSettings(roots=(), alpn=("x-amzn-mqtt-ca", "mqtt")), ENDPOINT)

    hello = read_client_hello(flight)

    assert hello is not None
    assert hello.server_name == ENDPOINT
    assert hello.alpn == ("x-amzn-mqtt-ca", "mqtt")
    assert hello.versions == ("TLSv1.3", "TLSv1.2")
    assert hello.groups == ("secp256r1",)
    # against a reader that we wrote for the tests, apart from this one
    assert hello.cipher_suites == len(parse_client_hello(flight[5:]).cipher_suites)


def test_what_was_not_offered_is_not_there() -> None:
    hello = read_client_hello(first_flight(TLSSettings(roots=(), maximum_version="TLSv1.2", group="P-384"), None))

    assert hello is not None
    assert (hello.server_name, hello.alpn, hello.versions) == (None, (), ("TLSv1.2",))
    assert hello.groups == ("secp384r1",)


def test_openssls_own_groups_have_their_names() -> None:
    hello = read_client_hello(first_flight(TLSSettings(roots=(), group="any"), ENDPOINT))

    assert hello is not None
    assert hello.groups[0] == "X25519MLKEM768"
    assert not [each for each in hello.groups if each.startswith("0x")]


def test_it_is_none_until_it_is_whole_and_may_come_in_many_records() -> None:
    flight = first_flight(TLSSettings(roots=()), ENDPOINT)
    whole = read_client_hello(flight)
    message = flight[5:]
    in_records = b"".join(
        flight[:3] + len(piece).to_bytes(2, "big") + piece
        for piece in (message[at : at + 7] for at in range(0, len(message), 7))
    )

    assert isinstance(whole, ClientHello)
    assert [read_client_hello(flight[:end]) for end in range(len(flight))] == [None] * len(flight)
    assert read_client_hello(in_records) == whole


def test_an_unknown_number_is_shown_as_one() -> None:
    flight = first_flight(TLSSettings(roots=(), group="P-256"), ENDPOINT)
    groups = bytes.fromhex("000a00040002" + "0017")

    hello = read_client_hello(flight.replace(groups, groups[:-2] + b"\x7a\x7a"))

    assert hello is not None
    assert hello.groups == ("0x7a7a",)


@pytest.mark.parametrize(
    ("flight", "message"),
    [
        (b"\x10\x10\x00\x04MQTT", "TLS record of type 16"),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "handshake message of type 2"),
        (b"\x16\x03\x01\x00\x08\x01\x00\x00\x04\x03\x03ab", "ends 30 bytes too soon"),
    ],
)
def test_what_is_no_client_hello_is_refused(flight: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_client_hello(flight)
