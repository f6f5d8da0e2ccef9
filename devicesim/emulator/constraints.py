"""The constraints of AWS's service models on a request's parameters, with AWS's words where one is broken. Pure.

The words are those of AWS's common front end, as IoT and its sister services are seen to answer them (S: aws-sdk-java
#666 for maps of IoT; others of lists, enumerations and numbers):

    2 validation errors detected: Value 'a b' at 'thingName' failed to satisfy constraint: Member must satisfy regular
    expression pattern: [a-zA-Z0-9:_-]+; Value '[x]' at 'tagKeys' failed to satisfy constraint: Member must satisfy
    constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]

Items of a list and keys and values of a map are told together: the whole collection, and every constraint of its items.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.model import Shape

from devicesim.emulator.javapattern import compile_pattern

_SHOWN_VALUE = 256
"""Characters of an offending value that are told back; AWS tells all of it, but a whole PEM helps nobody."""
_COLLECTIONS = frozenset({"structure", "list", "map"})


def violations(parameters: Mapping[str, Any], shape: Shape | None) -> list[str]:
    """Every broken constraint in AWS's words: ``Value 'x' at 'y' failed to satisfy constraint: Member must ...``."""
    return [] if shape is None else list(_structure(parameters, shape, ""))


def message(broken: list[str]) -> str:
    """The text of the refusal."""
    count = len(broken)
    return f"{count} validation error{'s' if count != 1 else ''} detected: {'; '.join(broken)}"


def _value(value: Any, shape: Shape, path: str) -> Iterator[str]:
    match shape.type_name:
        case "structure":
            yield from _structure(value, shape, path)
        case "list":
            yield from _told(value, path, _broken_bounds(len(value), shape, "length"))
            yield from _list_items(value, shape.member, path)
        case "map":
            yield from _told(value, path, _broken_bounds(len(value), shape, "length"))
            yield from _map_items(value, shape, path)
        case _:
            yield from _told(value, path, _broken(value, shape))


def _structure(value: Mapping[str, Any], shape: Shape, path: str) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    for name, member in shape.members.items():
        held = value.get(name)
        shown = prefix + name[:1].lower() + name[1:]  # as AWS's Java names it: tags.1.member.key for Key
        if held is not None:
            yield from _value(held, member, shown)
        elif name in shape.required_members:
            yield f"Value null at '{shown}' failed to satisfy constraint: Member must not be null"


def _list_items(items: list[Any], shape: Shape, path: str) -> Iterator[str]:
    if shape.type_name in _COLLECTIONS:
        for number, item in enumerate(items, 1):
            yield from _value(item, shape, f"{path}.{number}.member")
    elif any(_breaks(item, shape) for item in items):
        yield from _told(items, path, [f"Member must satisfy constraint: {_all(shape)}"])


def _map_items(items: Mapping[str, Any], shape: Shape, path: str) -> Iterator[str]:
    if any(_breaks(key, shape.key) for key in items):
        yield from _told(items, path, [f"Map keys must satisfy constraint: {_all(shape.key)}"])
    if shape.value.type_name in _COLLECTIONS:
        for key, item in items.items():
            yield from _value(item, shape.value, f"{path}.{key}.member")
    elif any(_breaks(item, shape.value) for item in items.values()):
        yield from _told(items, path, [f"Map value must satisfy constraint: {_all(shape.value)}"])


def _breaks(value: Any, shape: Shape) -> bool:
    return next(_broken(value, shape), None) is not None


def _broken(value: Any, shape: Shape) -> Iterator[str]:
    """Every constraint of a single value that it breaks."""
    match shape.type_name:
        case "string" if shape.serialization.get("jsonvalue"):
            return  # any JSON value
        case "string":
            yield from _broken_bounds(len(value), shape, "length")
            if shape.enum and value not in shape.enum:
                yield _enumeration(shape)
            pattern = shape.metadata.get("pattern")
            if pattern is not None and not compile_pattern(pattern).fullmatch(value):
                yield _pattern(pattern)
        case "blob":
            yield from _broken_bounds(len(value), shape, "length")
        case "integer" | "long" | "float" | "double":
            yield from _broken_bounds(value, shape, "value")


def _broken_bounds(size: float, shape: Shape, what: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least:
        yield _at_least(least, what)
    if most is not None and size > most:
        yield _at_most(most, what)


def _all(shape: Shape) -> str:
    """Every constraint of an item, broken or not; a greatest length has a least one beside it, which may be 0."""
    told = []
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    what = "length" if shape.type_name in ("string", "blob") else "value"
    if most is not None:
        told.append(_at_most(most, what))
        least = least or 0
    if least is not None:
        told.append(_at_least(least, what))
    if getattr(shape, "enum", None):
        told.append(_enumeration(shape))
    if "pattern" in shape.metadata:
        told.append(_pattern(shape.metadata["pattern"]))
    return f"[{', '.join(told)}]"


def _at_least(least: int, what: str) -> str:
    return f"Member must have {what} greater than or equal to {least}"


def _at_most(most: int, what: str) -> str:
    return f"Member must have {what} less than or equal to {most}"


def _enumeration(shape: Shape) -> str:
    return f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"


def _pattern(pattern: str) -> str:
    return f"Member must satisfy regular expression pattern: {pattern}"


def _told(value: object, path: str, broken: Iterator[str] | list[str]) -> Iterator[str]:
    for must in broken:
        yield f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: {must}"


def _shown(value: object) -> str:
    """As Java writes it: ``[a, b]``, ``{a=b}``; blobs are not told."""
    match value:
        case list():
            text = f"[{', '.join(_shown(item) for item in value[:_SHOWN_VALUE])}]"
        case dict():
            text = "{" + ", ".join(f"{key}={_shown(item)}" for key, item in value.items()) + "}"
        case bool():
            text = "true" if value else "false"
        case bytes():
            text = f"{len(value)} bytes"
        case _:
            text = str(value)
    return text if len(text) <= _SHOWN_VALUE else text[:_SHOWN_VALUE] + "..."
