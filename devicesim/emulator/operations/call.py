"""What a handler is given, and the pages it answers."""

import base64
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, TypeVar

from devicesim.emulator.apierrors import invalid_request
from devicesim.emulator.credentials import Caller
from devicesim.emulator.registry import Registry
from devicesim.emulator.state.partition import Partition

Item = TypeVar("Item")
Key = TypeVar("Key", int, str)

_PAGING: Final = frozenset({"marker", "pageSize", "nextToken", "maxResults", "NextToken", "MaxResults", "limit"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of one operation, its parameters checked."""

    operation: str
    registry: Registry
    partition: Partition
    caller: Caller
    parameters: Mapping[str, Any]
    """By member name of the operation's input; absent members have no key."""

    def get(self, name: str) -> Any:
        """The parameter, or ``None``."""
        return self.parameters.get(name)

    def __getitem__(self, name: str) -> Any:
        """The parameter, which the model requires."""
        return self.parameters[name]

    @property
    def tags(self) -> list[tuple[str, str]]:
        """The parameter ``tags``, empty when absent."""
        return [(tag["Key"], tag.get("Value", "")) for tag in self.parameters.get("tags", ())]


Handler = Callable[[Call], Mapping[str, Any]]


def marker_page(
    call: Call, items: Sequence[Item], key: Callable[[Item], Key], *, ascending: bool = True
) -> tuple[Sequence[Item], str | None]:
    """One page, and the marker of the next, where the operation pages by ``marker`` and ``pageSize``.

    ``items`` ascend by ``key``, which says where the next page begins even when items come and go in between.
    """
    return page(call, items, key, token=call.get("marker"), size=call.get("pageSize"), ascending=ascending)


def token_page(
    call: Call, items: Sequence[Item], key: Callable[[Item], Key], *, default: int | None = None
) -> tuple[Sequence[Item], str | None]:
    """The same, where the operation pages by ``nextToken`` and ``maxResults`` (or, in one of them, ``pageSize``)."""
    size = call.get("maxResults") or call.get("pageSize") or default
    return page(call, items, key, token=call.get("nextToken"), size=size, ascending=True)


def page(
    call: Call,
    items: Sequence[Item],
    key: Callable[[Item], Key],
    *,
    token: str | None,
    size: int | None,
    ascending: bool,
) -> tuple[Sequence[Item], str | None]:
    """One page, and the token of the next, whatever the operation calls them."""
    size = size or call.registry.environment.settings.default_page_size
    listing = _listing(call)
    after = _after(token, listing, key(items[0]) if items else None) if token else None
    if ascending:
        start = bisect_right(items, after, key=key) if after is not None else 0
        shown = items[start : start + size]
        more = start + size < len(items)
    else:
        end = bisect_left(items, after, key=key) if after is not None else len(items)
        shown = items[max(end - size, 0) : end][::-1]
        more = end > size
    return shown, _token(listing, key(shown[-1])) if more else None


def _listing(call: Call) -> str:
    """What is being listed, so that a token of one listing is refused by another."""
    rest = {name: value for name, value in call.parameters.items() if name not in _PAGING}
    listing = [call.operation, call.partition.account_id, call.partition.region, rest]
    return sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()[:16]


def _token(listing: str, key: int | str) -> str:
    """Base64, which is all the model allows in a marker."""
    return base64.b64encode(json.dumps([listing, key]).encode()).decode()


def _after(token: str, listing: str, like: int | str | None) -> Any:
    """The key that a token says the page begins after; ``like`` is a key of the listing, where it has any."""
    try:
        decoded = json.loads(base64.b64decode(token, validate=True))
    except (ValueError, RecursionError):
        decoded = None
    match decoded:
        case [str(of), int() | str() as key] if of == listing and (like is None or isinstance(like, type(key))):
            return key
    raise invalid_request("The marker or token is not one of this listing")
