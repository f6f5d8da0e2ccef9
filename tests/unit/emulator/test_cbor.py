"""CBOR against the examples of RFC 8949, appendix A, and itself."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicesim.emulator import cbor
from devicesim.emulator.cbor import CBORError

EXAMPLES: list[tuple[str, Any]] = [
    ("00", 0),
    ("17", 23),
    ("1818", 24),
    ("1903e8", 1000),
    ("1a000f4240", 1_000_000),
    ("1b000000e8d4a51000", 1_000_000_000_000),
    ("1bffffffffffffffff", 18446744073709551615),
    ("20", -1),
    ("3903e7", -1000),
    ("3bffffffffffffffff", -18446744073709551616),
    ("fb3ff199999999999a", 1.1),
    ("f4", False),
    ("f5", True),
    ("f6", None),
    ("40", b""),
    ("4401020304", b"\x01\x02\x03\x04"),
    ("60", ""),
    ("6449455446", "IETF"),
    ("62225c", '"\\'),
    ("62c3bc", "ü"),
    ("64f0908591", "𐅑"),
    ("80", []),
    ("83010203", [1, 2, 3]),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("a0", {}),
    ("a26161016162820203", {"a": 1, "b": [2, 3]}),
    ("826161a161626163", ["a", {"b": "c"}]),
]


@pytest.mark.parametrize(("data", "value"), EXAMPLES)
def test_the_examples_of_the_rfc_both_ways(data: str, value: Any) -> None:
    assert cbor.decode(bytes.fromhex(data)) == value
    assert cbor.encode(value) == bytes.fromhex(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("f90000", 0.0),
        ("f93c00", 1.0),
        ("f97bff", 65504.0),
        ("fa47c35000", 100000.0),
        ("5f42010243030405ff", b"\x01\x02\x03\x04\x05"),
        ("7f657374726561646d696e67ff", "streaming"),
        ("9fff", []),
        ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]),
        ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}),
        ("a1416101", {"a": 1}),
        ("1800", 0),
    ],
)
def test_what_is_read_and_not_written(data: str, value: Any) -> None:
    assert cbor.decode(bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    "data",
    [
        "",
        "18",
        "1c",
        "61",
        "62ff41",
        "81",
        "ff",
        "81ff",
        "a161",
        "a10102",
        "bf6161ff",
        "c074",
        "f7",
        "f97e00",
        "f97c00",
        "0000",
        "1f",
        "5f01ff",
        "7f4161ff",
        "9bffffffffffffffff",
        "5bffffffffffffffff",
        "81" * 40 + "00",
        "c24101",
        "d81c00",
        "d9d9f700",
        "e0",
        "9f" * 2000,
    ],
)
def test_what_is_no_cbor_or_none_of_ours_is_refused(data: str) -> None:
    with pytest.raises(CBORError):
        cbor.decode(bytes.fromhex(data))


def test_a_value_without_form_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="set is not of JSON's values"):
        cbor.encode({1})
    with pytest.raises(ValueError, match="64 bits"):
        cbor.encode(1 << 64)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert cbor.decode(cbor.encode(value)) == value


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(CBORError):
        cbor.decode(data)
