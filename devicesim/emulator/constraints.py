"""The constraints of AWS's service models on a request's parameters, with AWS's words where one is broken. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.model import Shape

from devicesim.emulator.javapattern import compile_pattern

_SHOWN_VALUE = 256
"""Characters of an offending value that are told back; AWS tells all of it, but a whole PEM helps nobody."""


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
            yield from _length(value, shape, path)
            for number, item in enumerate(value, 1):
                yield from _value(item, shape.member, f"{path}.{number}.member")
        case "map":
            yield from _length(value, shape, path)
            for key, item in value.items():
                yield from _value(key, shape.key, f"{path}.key")
                yield from _value(item, shape.value, f"{path}.{key}.value")
        case "string":
            yield from _string(value, shape, path)
        case "blob":
            yield from _length(value, shape, path)
        case "integer" | "long" | "float" | "double":
            yield from _range(value, shape, path)


def _structure(value: Mapping[str, Any], shape: Shape, path: str) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    for name, member in shape.members.items():
        held = value.get(name)
        if held is not None:
            yield from _value(held, member, prefix + name)
        elif name in shape.required_members:
            yield f"Value null at '{prefix}{name}' failed to satisfy constraint: Member must not be null"


def _string(value: str, shape: Shape, path: str) -> Iterator[str]:
    yield from _length(value, shape, path)
    if shape.enum and value not in shape.enum:
        yield _broken(value, path, f"satisfy enum value set: [{', '.join(shape.enum)}]")
    pattern = shape.metadata.get("pattern")
    if pattern is not None and not compile_pattern(pattern).fullmatch(value):
        yield _broken(value, path, f"satisfy regular expression pattern: {pattern}")


def _length(value: Any, shape: Shape, path: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and len(value) < least:
        yield _broken(value, path, f"have length greater than or equal to {least}")
    if most is not None and len(value) > most:
        yield _broken(value, path, f"have length less than or equal to {most}")


def _range(value: float, shape: Shape, path: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and value < least:
        yield _broken(value, path, f"have value greater than or equal to {least}")
    if most is not None and value > most:
        yield _broken(value, path, f"have value less than or equal to {most}")


def _broken(value: object, path: str, must: str) -> str:
    shown = str(value)
    if len(shown) > _SHOWN_VALUE:
        shown = shown[:_SHOWN_VALUE] + "..."
    return f"Value '{shown}' at '{path}' failed to satisfy constraint: Member must {must}"
