"""How fields say what ``--state`` is to make of them: metadata for :func:`dataclasses.field`. Pure.

A field without any is kept as it is. Of a record: ``parsed: Document = field(metadata=rebuilt("document", parse))`` is
not written, and computed from the field named when the record is read. Of a partition: ``DERIVED`` is not written
either, and made again by :meth:`Partition.rebuild_indexes`; ``inverse_of("field")`` is the other direction of a field
with two keys, and filled while that one is read.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field
from typing import Any, Final

_REBUILT: Final = "devicesim rebuilt from"
_DERIVED: Final = "devicesim derived"
_INVERSE: Final = "devicesim inverse of"

DERIVED: Final[Mapping[str, object]] = {_DERIVED: True}


def rebuilt(source: str, make: Callable[[Any], object]) -> Mapping[str, object]:
    """Of a record's field that is ``make(value of the field source)``."""
    return {_REBUILT: (source, make)}


def inverse_of(field_name: str) -> Mapping[str, object]:
    """Of a partition's field that holds ``[b][a]`` where the field named holds ``[a][b]``."""
    return {_DERIVED: True, _INVERSE: field_name}


def rebuilt_from(each: "Field[Any]") -> tuple[str, Callable[[Any], object]] | None:
    source: tuple[str, Callable[[Any], object]] | None = each.metadata.get(_REBUILT)
    return source


def is_derived(each: "Field[Any]") -> bool:
    return bool(each.metadata.get(_DERIVED))


def inverted(each: "Field[Any]") -> str | None:
    name: str | None = each.metadata.get(_INVERSE)
    return name
