"""As much of DER as certificates out of one that has been built need. Pure.

Each element is a tag, a length and its content (X.690, 8.1); all tags here are of one byte.
"""

from collections.abc import Iterator
from functools import lru_cache

INTEGER, BIT_STRING, SEQUENCE = 0x02, 0x03, 0x30


@lru_cache(maxsize=1024)
def head(tag: int, length: int) -> bytes:
    """Tag and length of an element with so many bytes of content."""
    if length < 0x80:
        return bytes((tag, length))
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big")


def span(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at ``at`` begins, and where it ends."""
    length, start = data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    return start, start + length


def content(element: bytes) -> bytes:
    return element[span(element, 0)[0] :]


def elements(content: bytes) -> Iterator[bytes]:
    """The elements that stand one after the other."""
    at = 0
    while at < len(content):
        end = span(content, at)[1]
        yield content[at:end]
        at = end
