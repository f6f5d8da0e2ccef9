"""Topic names and filters: what may be one, and which filter matches which name.

AWS differs from the MQTT standard in one rule (developer guide, "AWS IoT differences from MQTT specifications", D):
``sensor/#`` matches ``sensor/`` and everything below it, but **not** its parent ``sensor``.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def topic_problem(topic: str, *, max_bytes: int, max_slashes: int) -> str | None:
    """Why ``topic`` cannot be published to; ``None`` when it can."""
    if not topic:
        return "topic is empty"
    if "+" in topic or "#" in topic:
        return f"topic {topic!r} has a wildcard"
    return _size_problem("topic", topic, max_bytes, max_slashes)


def filter_problem(topic_filter: str, *, max_bytes: int, max_slashes: int) -> str | None:
    """Why ``topic_filter`` cannot be subscribed to; ``None`` when it can."""
    if not topic_filter:
        return "topic filter is empty"
    levels = topic_filter.split("/")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            return f"topic filter {topic_filter!r} has '#' elsewhere than as its whole last level"
        if "+" in level and level != "+":
            return f"topic filter {topic_filter!r} has '+' beside other characters in a level"
    return _size_problem("topic filter", topic_filter, max_bytes, max_slashes)


def _size_problem(what: str, text: str, max_bytes: int, max_slashes: int) -> str | None:
    size = len(text.encode("utf-8"))
    if size > max_bytes:
        return f"{what} has {size} bytes, must be at most {max_bytes}"
    slashes = text.count("/")
    if slashes > max_slashes:
        return f"{what} {text!r} has {slashes} slashes, must be at most {max_slashes}"
    return None


def has_wildcard(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter


class _Node(Generic[Key, Value]):
    __slots__ = ("children", "entries")

    def __init__(self) -> None:
        self.children: dict[str, _Node[Key, Value]] = {}
        self.entries: dict[Key, Value] = {}
        """Who subscribed with the filter that ends here."""


class SubscriptionTree(Generic[Key, Value]):
    """Filters by level, so that a message visits only the branches that can match, not every session."""

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        self._root: _Node[Key, Value] = _Node()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, topic_filter: str, key: Key, value: Value) -> bool:
        """Subscribe, replacing what ``key`` had under this very filter; ``True`` when it had nothing."""
        node = self._root
        for level in topic_filter.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        new = key not in node.entries
        node.entries[key] = value
        self._size += new
        return new

    def remove(self, topic_filter: str, key: Key) -> bool:
        """Unsubscribe; ``False`` when there was nothing. Empty branches go."""
        path: list[tuple[_Node[Key, Value], str]] = []
        node = self._root
        for level in topic_filter.split("/"):
            path.append((node, level))
            child = node.children.get(level)
            if child is None:
                return False
            node = child
        if key not in node.entries:
            return False
        del node.entries[key]
        self._size -= 1
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.entries or child.children:
                break
            del parent.children[level]
        return True

    def match(self, topic: str) -> Iterator[tuple[Key, Value]]:
        """Every entry whose filter matches; a key once for each of its filters."""
        levels = topic.split("/")
        # Wildcards at the first level do not match topics that begin with $ (MQTT-4.7.2-1).
        yield from self._match(self._root, levels, 0, wildcards=not topic.startswith("$"))

    def _match(
        self, node: _Node[Key, Value], levels: list[str], depth: int, *, wildcards: bool
    ) -> Iterator[tuple[Key, Value]]:
        if depth == len(levels):
            yield from node.entries.items()
            return
        children = node.children
        if wildcards:
            rest = children.get("#")
            if rest is not None:  # at least one level is left: the parent itself is not matched (AWS)
                yield from rest.entries.items()
            one = children.get("+")
            if one is not None:
                yield from self._match(one, levels, depth + 1, wildcards=True)
        exact = children.get(levels[depth])
        if exact is not None:
            yield from self._match(exact, levels, depth + 1, wildcards=True)
