"""Records as JSON and back, by the types of their fields. Pure.

    codec = codec_of(DeviceCertificate)
    codec.decode(codec.encode(record)) == record

Taken are ``str``, ``int``, ``float``, ``bool``, ``None``, ``bytes``, enumerations of strings, certificates, dataclasses
of these, and mappings, tuples and unions of all that. A dataclass that grew a field with a default still reads what was
written before; a field that it does not have, or one without a default that is missing, is an error: what cannot be
understood whole is not half read.
"""

import base64
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from devicesim.emulator.state.keeping import rebuilt_from
from devicesim.emulator.state.records import load_certificate

_PLAIN = (str, int, bool, type(None), None, Any, object)
"""What JSON has itself; ``Any`` and ``object`` are taken at their word to be JSON."""
_KIND = "$"
"""Names the class where several could stand."""


@dataclass(frozen=True, slots=True)
class Codec:
    """The two directions for one type. ``decode`` raises ``ValueError`` for JSON that is no value of it."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    identity: bool = False
    """Both directions answer what they are given."""


def _same(value: Any) -> Any:
    return value


_IDENTITY = Codec(_same, _same, identity=True)


@cache
def codec_of(kind: Any) -> Codec:
    """The codec of a type; ``TypeError`` for one that cannot be kept."""
    if kind in _PLAIN or get_origin(kind) is Literal:
        return _IDENTITY
    if kind is float:
        return Codec(_same, float)
    if kind is bytes:
        return Codec(lambda value: base64.b64encode(value).decode("ascii"), base64.b64decode)
    if kind is x509.Certificate:
        return Codec(lambda value: value.public_bytes(Encoding.PEM).decode("ascii"), load_certificate)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return Codec(lambda value: value.value, kind)
    if is_dataclass(kind):
        return _of_dataclass(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _of_union(kind, arguments)
    if origin is tuple:
        return _of_tuple(arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _of_mapping(*arguments)
    if origin is frozenset:
        item = codec_of(arguments[0])
        return Codec(lambda value: sorted(map(item.encode, value)), lambda value: frozenset(map(item.decode, value)))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        item = codec_of(arguments[0])
        return Codec(lambda value: list(map(item.encode, value)), lambda value: tuple(map(item.decode, value)))
    raise TypeError(f"{kind!r} cannot be kept, must be a scalar, a dataclass, or a mapping, tuple or union of them")


def _of_tuple(arguments: tuple[Any, ...]) -> Codec:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        item = codec_of(arguments[0])
        return Codec(lambda value: list(map(item.encode, value)), lambda value: tuple(map(item.decode, value)))
    items = [codec_of(each) for each in arguments]

    def decode(value: Any) -> tuple[Any, ...]:
        return tuple(item.decode(each) for item, each in zip(items, value, strict=True))

    return Codec(lambda value: [item.encode(each) for item, each in zip(items, value, strict=True)], decode)


def _of_mapping(key_kind: Any, value_kind: Any) -> Codec:
    key, value = codec_of(key_kind), codec_of(value_kind)
    if key_kind is str:
        if value.identity:
            return Codec(dict, _same)
        return Codec(
            lambda given: {name: value.encode(each) for name, each in given.items()},
            lambda given: {name: value.decode(each) for name, each in given.items()},
        )
    return Codec(
        lambda given: [[key.encode(name), value.encode(each)] for name, each in given.items()],
        lambda given: {key.decode(name): value.decode(each) for name, each in given},
    )


def _of_union(kind: Any, arguments: tuple[Any, ...]) -> Codec:
    parts = [each for each in arguments if each is not type(None)]
    optional = len(parts) < len(arguments)
    if len(parts) == 1:
        only = codec_of(parts[0])
        if only.identity:
            return _IDENTITY
        return Codec(
            lambda value: None if value is None else only.encode(value),
            lambda value: None if value is None else only.decode(value),
        )
    if all(codec_of(each).identity or each is float for each in parts):
        return _IDENTITY
    if not all(is_dataclass(each) for each in parts):
        raise TypeError(f"{kind!r} cannot be kept: what stands in JSON would not tell which of them it is")
    by_name = {each.__name__: codec_of(each) for each in parts}

    def encode(value: Any) -> Any:
        if value is None:
            return None
        name = type(value).__name__
        return {_KIND: name, **by_name[name].encode(value)}

    def decode(value: Any) -> Any:
        if value is None and optional:
            return None
        name = value.get(_KIND)
        if name not in by_name:
            raise ValueError(f"{name!r} is none of {', '.join(by_name)}")
        return by_name[name].decode({key: each for key, each in value.items() if key != _KIND})

    return Codec(encode, decode)


def _of_dataclass(kind: Any) -> Codec:
    hints = get_type_hints(kind)
    own: list[Field[Any]] = [each for each in fields(kind) if each.init]
    if len(own) < len(fields(kind)):
        raise TypeError(f"{kind.__name__} cannot be kept: it has fields that its constructor does not take")
    made = {each.name: found for each in own if (found := rebuilt_from(each)) is not None}
    # A record that holds itself (a tree) would never end here; none does.
    codecs = {each.name: codec_of(hints[each.name]) for each in own if each.name not in made}
    plain = [name for name, codec in codecs.items() if codec.identity]
    others = [(name, codec.encode) for name, codec in codecs.items() if not codec.identity]
    decoders = [(name, codec.decode) for name, codec in codecs.items() if not codec.identity]
    required = {
        each.name
        for each in own
        if each.name not in made and each.default is MISSING and each.default_factory is MISSING
    }
    names = frozenset(codecs)

    def encode(value: Any) -> Any:
        encoded = {name: getattr(value, name) for name in plain}
        for name, encode_one in others:
            encoded[name] = encode_one(getattr(value, name))
        return encoded

    def decode(value: Any) -> Any:
        if value.keys() != names:
            if unknown := value.keys() - names:
                raise ValueError(f"{kind.__name__} has no field {min(unknown)!r}")
            if missing := required - value.keys():
                raise ValueError(f"{kind.__name__} lacks the field {min(missing)!r}")
        values = dict(value)
        for name, decode_one in decoders:
            if name in values:
                values[name] = decode_one(values[name])
        for name, (source, make) in made.items():
            values[name] = make(values[source])
        return kind(**values)

    return Codec(encode, decode)
