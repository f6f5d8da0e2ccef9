"""CBOR (RFC 8949), as far as JSON's values go: what small devices speak to fleet provisioning. Pure.

``cbor2`` reads and writes; here stands what is not taken: values that JSON does not have (tags, ``undefined``, numbers
that are not finite) and keys that are not text. Byte strings are read, because some encoders send text so.
"""

import io
import math
from collections.abc import Mapping
from typing import Any, Final

import cbor2

MAX_DEPTH: Final = 32
"""Of arrays and maps in each other; our own limit."""


class CBORError(ValueError):
    """The bytes are not CBOR, or not of the kind that is read here."""


def encode(value: object) -> bytes:
    """``value`` of JSON's types, or bytes; ``TypeError`` for any other, ``ValueError`` for an integer of more
    than 64 bits."""
    return cbor2.dumps(_checked(value, TypeError))


def decode(data: bytes) -> Any:
    """The one value that ``data`` is; :class:`CBORError` when it is not one."""
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(
            stream, tag_hook=_no_tag, semantic_decoders=_NO_TAGS, max_depth=MAX_DEPTH, strict_hashable_types=True
        ).decode()
    except cbor2.CBORDecodeError as exc:
        raise CBORError(str(exc)) from None
    left = len(data) - stream.tell()
    if left:
        raise CBORError(f"{left} bytes follow the value")
    return _checked(value, CBORError)


def _no_tag(*_: object) -> Any:
    raise CBORError("tags are not read")


_BUILT_IN: Final = (*range(6), *range(25, 31), 35, 36, 37, 43000, 100, 256, 258, 260, 261, 1004, 55799)
_NO_TAGS: Final = dict.fromkeys(_BUILT_IN, _no_tag)
"""Tags that ``cbor2`` would read by itself."""


def _checked(value: object, error: type[Exception]) -> Any:
    match value:
        case int() if not -(1 << 64) <= value < 1 << 64:
            raise ValueError(f"{value} does not fit into 64 bits")
        case None | bool() | int() | str() | bytes():
            return value
        case float():
            if error is CBORError and not math.isfinite(value):
                raise error(f"{value} is not of JSON's values")
            return value
        case Mapping():
            return {_key(key, error): _checked(each, error) for key, each in value.items()}
        case list() | tuple():
            return [_checked(each, error) for each in value]
    raise error(f"{type(value).__name__} is not of JSON's values")


def _key(key: object, error: type[Exception]) -> str:
    try:
        name = key.decode("utf-8") if isinstance(key, bytes) else key
    except UnicodeDecodeError:
        raise error(f"key {key!r} is not text") from None
    if not isinstance(name, str):
        raise error(f"key {key!r} is not text")
    return name
