"""Shadows against a model of paths and leaves, and any bytes at all against the services on reserved topics."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devicesim.emulator import shadows
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.packets import Publish
from devicesim.emulator.shadows import Content, Limits, Update
from tests.emulator_support import World

LIMITS = Limits(max_bytes=100_000, max_depth=50, keeps_empty_objects=False)
NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.integers(0, 2) | st.booleans() | st.sampled_from(["x", "y"]) | st.lists(st.integers(0, 1), max_size=2)


def tree(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(leaves, lambda below: st.dictionaries(NAMES, below, max_size=3), max_leaves=6)


SECTION = st.none() | st.dictionaries(NAMES, tree(LEAVES | st.none()), max_size=3)
STATE = st.none() | st.fixed_dictionaries({}, optional={"desired": SECTION, "reported": SECTION})

Path = tuple[str, ...]


def flat(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf, and every object that is empty, with its path."""
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from flat(each, (*path, key))
    else:
        yield path, value


def change(leaves: dict[Path, Any], path: Path, value: Any) -> None:
    """The model: the leaf at ``path`` becomes ``value``."""
    is_object = isinstance(value, Mapping)
    for held in list(leaves):
        above = held == path[: len(held)] and len(held) < len(path)  # a leaf where there has to be an object
        below = held[: len(path)] == path
        if above or (below and not is_object) or held == path:
            del leaves[held]
    if value is not None and not is_object:
        leaves[path] = value


@given(st.lists(STATE, max_size=8))
def test_updates_do_what_the_model_does(updates: list[Any]) -> None:
    content: Content | None = None
    model: dict[Path, Any] = {}

    for number, state in enumerate(updates, 1):
        update = Update(state=state, version=None, client_token=None)
        content = shadows.apply(content, update, version=number, now=number, limits=LIMITS)
        for name in ("desired", "reported"):
            if state is None or (name in state and state[name] is None):
                model = {path: value for path, value in model.items() if path[0] != name}
            elif name in state:
                for path, value in flat(state[name], (name,)):
                    if len(path) > 1:
                        change(model, path, value)
        assert dict(flat(content.state)) == (model or {(): {}})


def has_the_form_of(metadata: Any, value: Any) -> bool:
    if isinstance(value, Mapping):
        return metadata.keys() == value.keys() and all(has_the_form_of(metadata[key], value[key]) for key in value)
    if isinstance(value, list):
        return len(metadata) == len(value) and all(map(has_the_form_of, metadata, value))
    return list(metadata) == ["timestamp"]


@given(st.lists(STATE, min_size=1, max_size=8))
def test_metadata_has_the_form_of_the_state_and_the_delta_makes_reported_what_is_desired(updates: list[Any]) -> None:
    content: Content | None = None
    for number, state in enumerate(updates, 1):
        update = Update(state=state, version=None, client_token=None)
        content = shadows.apply(content, update, version=number, now=number, limits=LIMITS)
    assert content is not None
    difference, marks = shadows.delta(content)

    assert has_the_form_of(content.metadata, content.state)
    assert has_the_form_of(marks, difference)
    reported = Update(state={"reported": difference}, version=None, client_token=None)
    after = shadows.apply(content, reported, version=99, now=99, limits=LIMITS)
    assert shadows.delta(after)[0] == {}
    if not difference:
        assert after.state == content.state


@given(STATE)
def test_a_document_is_kept_and_read_as_it_was(state: Any) -> None:
    update = Update(state=state, version=None, client_token=None)
    content = shadows.apply(None, update, version=1, now=1, limits=LIMITS)

    assert json.loads(shadows.dump(content.state)) == content.state


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,ab1 state', max_size=80).map(str.encode))
def test_any_bytes_are_an_update_or_refused(payload: bytes) -> None:
    try:
        update = shadows.read_update(payload, LIMITS)
    except APIError:
        return
    shadows.accepted_document(update, 1, 1.0)


TOPICS = [
    "$aws/things/t/shadow/get",
    "$aws/things/t/shadow/update",
    "$aws/things/t/shadow/name/n/delete",
    "$aws/certificates/create-from-csr/json",
    "$aws/certificates/create-from-csr/cbor",
    "$aws/provisioning-templates/t/provision/json",
    "$aws/provisioning-templates/t/provision/cbor",
]
WORLD = World()
ACCOUNT = WORLD.ready_account(0)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(TOPICS),
    st.binary(max_size=64)
    | st.dictionaries(
        st.sampled_from(["state", "certificateOwnershipToken", "parameters", "certificateSigningRequest", "version"]),
        tree(LEAVES | st.none()),
    ).map(lambda document: json.dumps(document).encode()),
)
def test_whatever_is_sent_to_a_reserved_topic_is_answered_and_disconnects_nobody(topic: str, payload: bytes) -> None:
    client = WORLD.client(0, ACCOUNT.endpoint).connected("c").subscribe(topic + "/+")

    client.send(Publish(topic=topic, payload=payload))

    assert not client.closed
    ((answered, body),) = [each for each in client.messages() if not each[0].endswith(("/delta", "/documents"))]
    assert answered.removeprefix(topic) in ("/accepted", "/rejected")
    assert body
    client.lose()
