"""The tree of subscriptions against a matcher that compares one filter with one topic."""

from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.emulator.topics import SubscriptionTree, filter_problem, topic_problem

levels = st.sampled_from(["a", "b", "", "$x"])
topics = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
filters = st.builds(
    lambda head, tail: "/".join([*head, *tail]),
    st.lists(st.sampled_from(["a", "b", "", "$x", "+"]), max_size=3),
    st.sampled_from([["#"], ["a"], ["+"], []]),
).filter(bool)
keys = st.sampled_from("klm")


def matches(topic_filter: str, topic: str) -> bool:
    """One filter, one topic: the rules in words."""
    wanted, given_levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return len(given_levels) > index  # AWS: not the parent itself
        if index >= len(given_levels) or level not in ("+", given_levels[index]):
            return False
    return len(wanted) == len(given_levels)


@settings(max_examples=400, deadline=None)
@given(
    added=st.lists(st.tuples(filters, keys), max_size=12),
    removed=st.lists(st.tuples(filters, keys), max_size=6),
    topic=topics,
)
def test_the_tree_finds_what_a_scan_finds(
    added: list[tuple[str, str]], removed: list[tuple[str, str]], topic: str
) -> None:
    tree: SubscriptionTree[str, str] = SubscriptionTree()
    held: dict[tuple[str, str], None] = {}
    for topic_filter, key in added:
        assert tree.add(topic_filter, key, topic_filter) == ((topic_filter, key) not in held)
        held[topic_filter, key] = None
    for topic_filter, key in removed:
        assert tree.remove(topic_filter, key) == ((topic_filter, key) in held)
        held.pop((topic_filter, key), None)

    expected = sorted((key, topic_filter) for topic_filter, key in held if matches(topic_filter, topic))
    assert sorted(tree.match(topic)) == expected
    assert len(tree) == len(held)

    for topic_filter, key in tuple(held):
        tree.remove(topic_filter, key)
    assert tree._root.children == {}


@settings(max_examples=300, deadline=None)
@given(st.text("a/+#$", max_size=12))
def test_a_topic_that_may_be_published_to_may_be_subscribed_to(text: str) -> None:
    if topic_problem(text, max_bytes=256, max_slashes=7) is None:
        assert filter_problem(text, max_bytes=256, max_slashes=7) is None
