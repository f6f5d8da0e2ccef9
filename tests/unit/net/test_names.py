"""Names that can be sent and verified, and those that cannot."""

import pytest

from devicesim.net.names import check_server_name, check_verify_name


@pytest.mark.parametrize(
    "name",
    ["a", "A.Example.", "under_score", "xn--bcher-kva.example", "host:8883", "192.0.2.1", "2001:db8::1", "x" * 255],
)
def test_server_names_are_sent_verbatim(name: str) -> None:
    assert check_server_name(name) == name.encode()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "server name '' has 0 characters; 1 to 255 can be sent"),
        ("x" * 256, "has 256 characters"),
        ("bücher.example", "xn-- form"),
        ("tab\there", "not printable ASCII"),
    ],
)
def test_server_names_that_cannot_be_sent_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_server_name(name)

    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["a.example", "localhost", "192.0.2.1", "2001:db8::1", "A_b-c.example."])
def test_names_that_can_be_verified(name: str) -> None:
    check_verify_name(name)


@pytest.mark.parametrize("name", ["", "*.example", "two words", "host:8883", "bücher.example"])
def test_names_that_cannot_be_verified_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="neither a DNS name in ASCII nor an IP address"):
        check_verify_name(name)
