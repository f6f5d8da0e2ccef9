"""Dicts that note what changes in them: every way of changing a dict, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest

from devicesim.emulator.state.journal import ABSENT, Entry, Journal, KeptPartition, shapes
from devicesim.emulator.state.partition import Partition
from tests.control_support import REGION, A


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def partition(journal: Journal) -> KeptPartition:
    """Two tags on one resource, one event type; nothing noted of that any more."""
    made = KeptPartition(journal, A, REGION)
    made.tags["arn"] = {"a": "1", "b": "2"}
    made.event_configurations["THING"] = True
    journal.forget()
    return made


def noted(journal: Journal) -> list[tuple[str, object, object, bool]]:
    return [(entry.field, entry.key, entry.inner, removed) for entry, removed in journal.changes()]


def delete(mapping: dict[str, Any], key: str) -> None:
    del mapping[key]


def update_in_place(mapping: dict[str, Any], other: dict[str, Any]) -> None:
    mapping |= other


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: p.event_configurations.update(JOB=True), [("event_configurations", "JOB", None, False)]),
        (lambda p: p.event_configurations.update({"JOB": True}), [("event_configurations", "JOB", None, False)]),
        (lambda p: p.event_configurations.update([("JOB", True)]), [("event_configurations", "JOB", None, False)]),
        (lambda p: update_in_place(p.event_configurations, {"A": 1}), [("event_configurations", "A", None, False)]),
        (lambda p: p.event_configurations.setdefault("JOB", False), [("event_configurations", "JOB", None, False)]),
        (lambda p: p.event_configurations.setdefault("THING", False), []),
        (lambda p: delete(p.event_configurations, "THING"), [("event_configurations", "THING", None, True)]),
        (lambda p: p.event_configurations.pop("THING"), [("event_configurations", "THING", None, True)]),
        (lambda p: p.event_configurations.pop("NONE", None), []),
        (lambda p: p.event_configurations.popitem(), [("event_configurations", "THING", None, True)]),
        (lambda p: p.event_configurations.clear(), [("event_configurations", "THING", None, True)]),
        (lambda p: p.event_configurations.get("NONE"), []),
        (lambda p: setattr(p, "event_configurations", {"JOB": True}),
         [("event_configurations", "THING", None, True), ("event_configurations", "JOB", None, False)]),
        (lambda p: setattr(p, "event_configurations", p.event_configurations), []),
        (lambda p: p.tags["arn"].update(c="3"), [("tags", "arn", "c", False)]),
        (lambda p: p.tags["arn"].pop("a"), [("tags", "arn", "a", True)]),
        (lambda p: p.tags.pop("arn"), [("tags", "arn", "a", True), ("tags", "arn", "b", True)]),
        (lambda p: delete(p.tags, "arn"), [("tags", "arn", "a", True), ("tags", "arn", "b", True)]),
        (lambda p: p.tags.update(arn={"b": "4"}), [("tags", "arn", "a", True), ("tags", "arn", "b", True)]),
        (lambda p: p.tags.get("arn"), []),
        (lambda p: p.attach_policy("name", "target"), [("policies_of_target", "target", "name", False)]),
        (lambda p: setattr(p, "registration_code", "x"), [("registration_code", None, None, False)]),
        (lambda p: p.next_sequence(), [("_sequence", None, None, False)]),
    ],
)  # fmt: skip
def test_a_change_is_noted_by_its_keys(
    partition: KeptPartition, journal: Journal, change: Callable[[Any], object], expected: list[tuple[object, ...]]
) -> None:
    change(partition)

    assert noted(journal) == expected


def test_what_is_made_again_stands_behind_what_came_before_it(partition: KeptPartition, journal: Journal) -> None:
    partition.event_configurations["JOB"] = True
    del partition.event_configurations["THING"]
    partition.event_configurations["THING"] = False

    assert noted(journal) == [
        ("event_configurations", "JOB", None, False),
        ("event_configurations", "THING", None, True),
    ]
    assert list(partition.event_configurations) == ["JOB", "THING"]


def test_the_current_value_is_what_stands_there_now(partition: KeptPartition) -> None:
    def current(field: str, key: object = None, inner: object = None) -> object:
        return partition.current(Entry(partition, field, key, inner))

    assert current("tags", "arn", "a") == "1"
    assert current("tags", "arn", "none") is ABSENT
    assert current("tags", "none", "a") is ABSENT
    assert current("event_configurations", "THING") is True
    assert current("event_configurations", "NONE") is ABSENT
    assert current("registration_code") is None


def test_reading_what_is_not_there_is_as_in_a_plain_partition(partition: KeptPartition, journal: Journal) -> None:
    plain = Partition(account_id=A, region=REGION)

    for each in (plain, partition):
        with pytest.raises(KeyError):
            each.tags["none"]
        assert each.policies_of_target["none"] == {}
    with pytest.raises(KeyError):
        del partition.event_configurations["NONE"]
    with pytest.raises(KeyError):
        partition.tags.pop("none")
    assert noted(journal) == []


def test_an_inner_dict_that_was_taken_out_is_nobodys(partition: KeptPartition, journal: Journal) -> None:
    held = partition.tags.pop("arn")
    journal.forget()

    held["late"] = "1"

    ((entry, _),) = journal.changes()
    assert partition.current(entry) is ABSENT


@pytest.mark.parametrize("name", sorted(shapes()))
def test_no_kept_field_begins_as_a_plain_dict(partition: KeptPartition, name: str) -> None:
    assert shapes()[name].depth == 0 or type(getattr(partition, name)) is not dict
