"""Topic names, filters, and the tree of subscriptions."""

import pytest

from devicesim.emulator.topics import SubscriptionTree, filter_problem, topic_problem

LIMITS = {"max_bytes": 256, "max_slashes": 7}

MATCHES = [
    # (filter, topic, whether it matches)
    ("sport/tennis", "sport/tennis", True),
    ("sport/tennis", "sport/Tennis", False),  # 4.7.3: case matters
    ("sport/tennis", "sport/tennis/", False),
    ("sport/tennis/#", "sport/tennis/player1", True),
    ("sport/tennis/#", "sport/tennis/player1/ranking", True),
    ("sport/#", "sport/", True),
    ("sport/#", "sport", False),  # AWS: the parent is not matched (the standard's 4.7.1.2 says it is)
    ("#", "sport/tennis", True),
    ("#", "/", True),
    ("+", "finance", True),
    ("+", "/finance", False),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+/tennis/#", "sport/tennis/x", True),
    ("+/tennis/#", "sport/tennis", False),
    ("sport/+/player1", "sport/tennis/player1", True),
    ("sport/+/player1", "sport/a/b/player1", False),
    ("sport/+", "sport/", True),
    ("sport/+", "sport", False),
    ("#", "$aws/events/x", False),  # MQTT-4.7.2-1
    ("+/events/x", "$aws/events/x", False),
    ("$aws/#", "$aws/events/x", True),
    ("$aws/+/x", "$aws/events/x", True),
    ("$aws/events/x", "$aws/events/x", True),
    ("a/#", "a/$b", True),  # only the first level is special
    ("a/+", "a/$b", True),
]


@pytest.mark.parametrize(("topic_filter", "topic", "matches"), MATCHES)
def test_filter_matches(topic_filter: str, topic: str, matches: bool) -> None:
    tree: SubscriptionTree[str, int] = SubscriptionTree()
    tree.add(topic_filter, "key", 1)

    assert list(tree.match(topic)) == ([("key", 1)] if matches else [])


@pytest.mark.parametrize(
    ("topic", "problem"),
    [
        ("a/b/c/d/e/f/g/h", None),
        ("a/b/c/d/e/f/g/h/i", "8 slashes"),
        ("x" * 256, None),
        ("x" * 257, "257 bytes"),
        ("ü" * 129, "258 bytes"),
        ("", "empty"),
        ("a/+", "wildcard"),
        ("a#", "wildcard"),
        ("/", None),
        (" ", None),
    ],
)
def test_topic_problem(topic: str, problem: str | None) -> None:
    found = topic_problem(topic, **LIMITS)

    assert found is None if problem is None else problem in (found or "")


@pytest.mark.parametrize(
    ("topic_filter", "problem"),
    [
        ("#", None),
        ("+", None),
        ("a/+/#", None),
        ("/#", None),
        ("a/#/b", "'#'"),
        ("a#", "'#'"),
        ("a/b#", "'#'"),
        ("a+", "'+'"),
        ("+a/b", "'+'"),
        ("", "empty"),
        ("a/b/c/d/e/f/g/h/#", "8 slashes"),
        ("x" * 257, "257 bytes"),
    ],
)
def test_filter_problem(topic_filter: str, problem: str | None) -> None:
    found = filter_problem(topic_filter, **LIMITS)

    assert found is None if problem is None else problem in (found or "")


def test_a_key_is_found_once_for_each_of_its_filters_and_a_filter_is_replaced() -> None:
    tree: SubscriptionTree[str, int] = SubscriptionTree()

    assert tree.add("a/b", "k", 1)
    assert tree.add("a/+", "k", 2)
    assert not tree.add("a/b", "k", 3)
    assert len(tree) == 2
    assert sorted(tree.match("a/b")) == [("k", 2), ("k", 3)]


def test_removing_leaves_no_branches_behind() -> None:
    tree: SubscriptionTree[str, int] = SubscriptionTree()
    tree.add("a/b/c", "k", 1)
    tree.add("a/b", "other", 2)

    assert not tree.remove("a/b/c", "nobody")
    assert not tree.remove("a/x", "k")
    assert tree.remove("a/b/c", "k")
    assert not tree.remove("a/b/c", "k")
    assert list(tree.match("a/b")) == [("other", 2)]
    assert tree.remove("a/b", "other")
    assert len(tree) == 0
    assert tree._root.children == {}
