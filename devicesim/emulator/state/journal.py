"""Which entries of the accounts changed since somebody last asked: what ``--state`` writes. Pure.

A :class:`KeptPartition` is a partition whose dicts note the keys that are set and removed. The rules of the families do
not know of it: they change ``partition.things[name]`` as ever. So a change costs one note however much there is, and
nothing is searched for changes. Without ``--state`` partitions are plain ones and note nothing.

An entry is named by its partition, field and keys: one key in a dict, two in a dict of dicts, none for a scalar. A dict
of dicts is noted by its inner keys; an inner dict that is empty is as good as absent.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Final, NamedTuple, cast, get_args, get_origin, get_type_hints

from devicesim.emulator.state.keeping import inverted, is_derived
from devicesim.emulator.state.partition import Partition

ABSENT: Final = object()
"""Stands for a value that is not there; ``None`` is one."""


class Entry(NamedTuple):
    """The name of one entry. Keys that do not apply are ``None``."""

    partition: "KeptPartition"
    field: str
    key: Hashable
    inner: Hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a partition's field holds."""

    name: str
    depth: int
    """Keys to an entry: 0 for a scalar, 1 for a dict, 2 for a dict of dicts."""
    keys: tuple[Any, ...]
    """The keys' types, outermost first."""
    value: Any
    """The type of what is kept."""
    inverse: str | None
    """The derived field that holds the same with its keys exchanged."""


class Journal:
    """Changed entries in the order in which they came about."""

    def __init__(self) -> None:
        self._changed: dict[Entry, bool] = {}

    def __len__(self) -> int:
        return len(self._changed)

    def set(self, entry: Entry) -> None:
        self._changed.setdefault(entry, False)

    def removed(self, entry: Entry) -> None:
        # taken out and put at the end: an entry that is made anew stands behind all others, as in its dict
        self._changed.pop(entry, None)
        self._changed[entry] = True

    def changes(self) -> list[tuple[Entry, bool]]:
        """Entries that may have changed, and whether each was removed in between. They stay until :meth:`forget`."""
        return list(self._changed.items())

    def forget(self) -> None:
        self._changed.clear()


class _Inner(dict[Any, Any]):
    """A dict that notes its keys: one of one key, or one inside another dict."""

    __slots__ = ("_field", "_key", "_partition")

    def __init__(self, partition: "KeptPartition", field: str, key: Hashable = ABSENT) -> None:
        super().__init__()
        self._partition = partition
        self._field = field
        self._key = key

    def _entry(self, key: Hashable) -> Entry:
        if self._key is ABSENT:
            return Entry(self._partition, self._field, key, None)
        return Entry(self._partition, self._field, self._key, key)

    def _put(self, key: Hashable, value: Any) -> None:
        dict.__setitem__(self, key, value)
        self._partition.journal.set(self._entry(key))

    def _dropped(self, key: Hashable, _value: Any) -> None:
        self._partition.journal.removed(self._entry(key))

    def __setitem__(self, key: Hashable, value: Any) -> None:
        self._put(key, value)

    def __delitem__(self, key: Hashable) -> None:
        value = dict.__getitem__(self, key) if key in self else ABSENT
        dict.__delitem__(self, key)  # KeyError for a key that is not there
        self._dropped(key, value)

    def pop(self, key: Hashable, *default: Any) -> Any:
        if key not in self:
            return dict.pop(self, key, *default)
        value = dict.pop(self, key)
        self._dropped(key, value)
        return value

    def popitem(self) -> tuple[Any, Any]:
        key, value = dict.popitem(self)
        self._dropped(key, value)
        return key, value

    def setdefault(self, key: Hashable, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return dict.__getitem__(self, key)

    def update(self, *others: Any, **named: Any) -> None:
        for key, value in dict(*others, **named).items():
            self[key] = value

    def __ior__(self, other: Any) -> "_Inner":  # type: ignore[misc]  # dict's is generic in its argument
        self.update(other)
        return self

    def clear(self) -> None:
        for key in list(self):
            del self[key]


class _Outer(_Inner):
    """A dict of dicts: what is put in is taken over into a dict that notes."""

    __slots__ = ("_default",)

    def __init__(self, partition: "KeptPartition", field: str, *, default: bool) -> None:
        super().__init__(partition, field)
        self._default = default

    def __missing__(self, key: Hashable) -> _Inner:
        if not self._default:
            raise KeyError(key)
        return self.open(key)

    def open(self, key: Hashable) -> _Inner:
        """The inner dict under ``key``, made when it is not there; an empty one is nothing to note."""
        inner = self.get(key)
        if inner is None:
            inner = _Inner(self._partition, self._field, key)
            dict.__setitem__(self, key, inner)
        return cast("_Inner", inner)

    def _put(self, key: Hashable, value: Any) -> None:
        given = dict(value)
        if key in self:
            for each in dict.__getitem__(self, key):
                self._partition.journal.removed(Entry(self._partition, self._field, key, each))
        inner = _Inner(self._partition, self._field, key)
        dict.__setitem__(self, key, inner)
        inner.update(given)

    def _dropped(self, key: Hashable, value: Any) -> None:
        for each in value:
            self._partition.journal.removed(Entry(self._partition, self._field, key, each))


class KeptPartition(Partition):
    """A partition whose changes are noted in a journal."""

    __slots__ = ("_noting", "journal")
    journal: Journal
    _noting: bool

    def __init__(self, journal: Journal, account_id: str, region: str) -> None:
        object.__setattr__(self, "_noting", False)
        object.__setattr__(self, "journal", journal)
        super().__init__(account_id=account_id, region=region)
        for shape in shapes().values():
            if shape.depth:
                self._adopt(shape, getattr(self, shape.name))
        object.__setattr__(self, "_noting", True)

    def __setattr__(self, name: str, value: object) -> None:
        shape = shapes().get(name)
        if not self._noting or shape is None:
            object.__setattr__(self, name, value)
        elif shape.depth == 0:
            object.__setattr__(self, name, value)
            self.journal.set(Entry(self, name, None, None))
        elif value is not getattr(self, name):
            getattr(self, name).clear()
            self._adopt(shape, cast("Mapping[Any, Any]", value))

    def _adopt(self, shape: Shape, given: Mapping[Any, Any]) -> None:
        if shape.depth == 1:
            noting = _Inner(self, shape.name)
        else:
            noting = _Outer(self, shape.name, default=isinstance(given, defaultdict | _Outer))
        object.__setattr__(self, shape.name, noting)
        noting.update(given)

    def current(self, entry: Entry) -> Any:
        """What stands under the entry's name now; :data:`ABSENT` when nothing does."""
        held = getattr(self, entry.field)
        depth = shapes()[entry.field].depth
        if depth == 0:
            return held
        if depth == 1:
            return held.get(entry.key, ABSENT)
        inner = held.get(entry.key)
        return ABSENT if inner is None else inner.get(entry.inner, ABSENT)

    def restore(self, shape: Shape, key: Hashable, inner: Hashable, value: Any) -> None:
        """Put in what was kept, unnoted, and its inverse."""
        if shape.depth == 0:
            object.__setattr__(self, shape.name, value)
            return
        held = getattr(self, shape.name)
        if shape.depth == 1:
            dict.__setitem__(held, key, value)
            return
        dict.__setitem__(held.open(key), inner, value)
        if shape.inverse is not None:
            getattr(self, shape.inverse)[inner][key] = value


@cache
def shapes() -> Mapping[str, Shape]:
    """The fields of a partition that are kept, by name.

    Raises ``TypeError`` for a field whose changes could not be noted: one that is neither scalar nor dict.
    """
    hints = get_type_hints(Partition)
    inverses = {source: each.name for each in fields(Partition) if (source := inverted(each)) is not None}
    found = {}
    for each in fields(Partition):
        if each.name in ("account_id", "region") or is_derived(each):
            continue
        keys: tuple[Any, ...] = ()
        value = hints[each.name]
        while get_origin(value) is dict:
            key, value = get_args(value)
            keys = (*keys, key)
        if len(keys) > 2:
            raise TypeError(f"Partition.{each.name} cannot be kept: dicts stand {len(keys)} deep, at most 2 are noted")
        if not keys and not _is_scalar(value):
            raise TypeError(f"Partition.{each.name} cannot be kept: it is neither a scalar nor a dict")
        found[each.name] = Shape(
            name=each.name, depth=len(keys), keys=keys, value=value, inverse=inverses.get(each.name)
        )
    return found


def _is_scalar(kind: Any) -> bool:
    return all(part in (str, int, float, bool, type(None)) for part in get_args(kind) or (kind,))
