"""CBOR (RFC 8949), as far as JSON's values go: what small devices speak to fleet provisioning. Pure.

Read: definite and indefinite lengths, floats of every size, byte strings (for text, as some encoders send it). Tags,
``undefined`` and keys that are not text are refused. Written: definite lengths, each number in its shortest form.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

MAX_DEPTH: Final = 32
"""Of arrays and maps in each other; our own limit."""
_BREAK: Final = object()
_INDEFINITE: Final = 31
_SIMPLE: Final[Mapping[int, bool | None]] = {20: False, 21: True, 22: None}


class CBORError(ValueError):
    """The bytes are not CBOR, or not of the kind that is read here."""


def encode(value: object) -> bytes:
    """``value`` of JSON's types, or bytes; ``TypeError`` for any other."""
    match value:
        case None:
            return b"\xf6"
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return _head(0, value) if value >= 0 else _head(1, -1 - value)
        case float():
            return b"\xfb" + struct.pack(">d", value)
        case str():
            text = value.encode("utf-8")
            return _head(3, len(text)) + text
        case bytes():
            return _head(2, len(value)) + value
        case Mapping():
            return _head(5, len(value)) + b"".join(encode(key) + encode(each) for key, each in value.items())
        case Sequence():
            return _head(4, len(value)) + b"".join(encode(each) for each in value)
        case _:
            raise TypeError(f"{type(value).__name__} has no CBOR form here")


def _head(major: int, argument: int) -> bytes:
    first = major << 5
    if argument < 24:
        return bytes((first | argument,))
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            return bytes((first | code,)) + argument.to_bytes(size, "big")
    raise ValueError(f"{argument} does not fit into 64 bits")


def decode(data: bytes) -> Any:
    """The one value that ``data`` is; :class:`CBORError` when it is not one."""
    reader = _Reader(data)
    value = reader.value(0)
    if value is _BREAK:
        raise CBORError("break outside of an indefinite length")
    if reader.position != len(data):
        raise CBORError(f"{len(data) - reader.position} bytes follow the value")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self._data):
            raise CBORError(f"ends {end - len(self._data)} bytes too early")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def value(self, depth: int) -> Any:
        """The next value; ``_BREAK`` for a break."""
        if depth > MAX_DEPTH:
            raise CBORError(f"nested deeper than {MAX_DEPTH}")
        first = self._take(1)[0]
        major, info = first >> 5, first & 31
        if major == 7:
            return self._special(info)
        if info == _INDEFINITE:
            return self._indefinite(major, depth)
        argument = self._argument(info)
        match major:
            case 0:
                return argument
            case 1:
                return -1 - argument
            case 2:
                return self._take(argument)
            case 3:
                return self._text(self._take(argument))
            case 4:
                return [self._item(depth) for _ in range(argument)]
            case 5:
                return dict(self._pair(self._item(depth), depth) for _ in range(argument))
        raise CBORError(f"tag {argument}: tags are not read")

    def _argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise CBORError(f"additional information {info} is reserved")
        return int.from_bytes(self._take(1 << (info - 24)), "big")

    def _special(self, info: int) -> Any:
        if info in _SIMPLE:
            return _SIMPLE[info]
        match info:
            case 25:
                number = struct.unpack(">e", self._take(2))[0]
            case 26:
                number = struct.unpack(">f", self._take(4))[0]
            case 27:
                number = struct.unpack(">d", self._take(8))[0]
            case 31:
                return _BREAK
            case _:
                raise CBORError(f"simple value {info} is not read")
        if not math.isfinite(number):
            raise CBORError(f"{number} is not of JSON's values")
        return number

    def _indefinite(self, major: int, depth: int) -> Any:
        match major:
            case 2 | 3:
                whole: Any = b"" if major == 2 else ""
                chunks = []
                while (chunk := self.value(depth + 1)) is not _BREAK:
                    if not isinstance(chunk, type(whole)):
                        raise CBORError("a string has a chunk of another kind")
                    chunks.append(chunk)
                return whole.join(chunks)
            case 4:
                items = []
                while (item := self.value(depth + 1)) is not _BREAK:
                    items.append(item)
                return items
            case 5:
                pairs = {}
                while (key := self.value(depth + 1)) is not _BREAK:
                    name, value = self._pair(key, depth)
                    pairs[name] = value
                return pairs
        raise CBORError(f"major type {major} has no indefinite length")

    def _item(self, depth: int) -> Any:
        value = self.value(depth + 1)
        if value is _BREAK:
            raise CBORError("break inside of a definite length")
        return value

    def _pair(self, key: object, depth: int) -> tuple[str, Any]:
        if isinstance(key, bytes):
            key = self._text(key)
        if not isinstance(key, str):
            raise CBORError(f"key {key!r} is not text")
        return key, self._item(depth)

    def _text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise CBORError("text is not UTF-8") from None
