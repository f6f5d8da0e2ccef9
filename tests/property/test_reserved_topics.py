"""Whatever a device says to the service's own topics, or to its topic rules: an answer, a refusal or a disconnect,
never a failure of the emulator, and the neighbour goes on."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.emulator.packets import PingReq, PingResp, Publish
from devicesim.emulator.state.records import TemplateType
from tests.emulator_support import ROLE, V5, V311, World, template

TEXT = st.text(st.characters(codec=None), max_size=12)
NUMBERS = st.sampled_from([0, -1, 2**31, 2**64, 10**400, 1.5, 1e308])
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(TEXT, st.sampled_from(["state", "desired", "reported", "version"])), inner, max_size=3
        ),
    ),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    [
        *("state", "version", "clientToken", "certificateSigningRequest", "certificateOwnershipToken", "parameters"),
        *("desired", "reported", "metadata", "payloadFormat"),
    ]
)
PAYLOADS = st.one_of(
    st.binary(max_size=60),
    st.builds(lambda value: json.dumps(value).encode(), st.one_of(JSON, st.dictionaries(MEMBERS, JSON, max_size=4))),
    st.sampled_from(
        [b"", b"1" * 5000, b"[" * 5000, b"NaN", b'{"state":{"desired":{"a":1e999}}}', b'"\\ud800"', b"\xff"]
    ),
)
TOPICS = st.sampled_from(
    [
        "$aws/things/t/shadow/update",
        "$aws/things/t/shadow/get",
        "$aws/things/t/shadow/delete",
        "$aws/things/t/shadow/name/n/update",
        "$aws/things/t/shadow/name/n/get",
        "$aws/things/t/shadow/name//update",
        "$aws/things//shadow/update",
        "$aws/things/t/shadow/update/accepted",
        "$aws/certificates/create/json",
        "$aws/certificates/create/cbor",
        "$aws/certificates/create-from-csr/json",
        "$aws/provisioning-templates/fleet/provision/json",
        "$aws/provisioning-templates/nobody/provision/json",
        "$aws/events/presence/connected/x",
        "$aws/rules/all/x",
        "$nobody/x",
        "rules/a",
        "rules/a/b",
    ]
)
STATEMENT = (
    "SELECT *, topic(2) AS t, state.desired.a.b AS deep, get(*, 0) AS first, encode(*, 'base64') AS raw"
    " FROM 'rules/#' WHERE version >= 0 OR isUndefined(version)"
)


def world_with_everything() -> World:
    world = World()
    account = world.ready_account(0, 1)
    world.registry.templates.create(
        account, "fleet", body=template(), role_arn=ROLE, enabled=True, type=TemplateType.FLEET_PROVISIONING
    )
    republish = {"republish": {"roleArn": ROLE, "topic": "out/${state.desired}", "qos": 1}}
    rule = {"sql": STATEMENT, "awsIotSqlVersion": "2016-03-23", "actions": [republish]}
    world.registry.topic_rules.create(account, "all", rule)
    return world


@settings(max_examples=150)
@given(said=st.lists(st.tuples(TOPICS, PAYLOADS, st.integers(0, 1)), min_size=1, max_size=5), v5=st.booleans())
def test_whatever_is_said_there(said: list[tuple[str, bytes, int]], v5: bool) -> None:
    world = world_with_everything()
    account = world.account()
    neighbour = world.client(1, account.endpoint).connected("neighbour").subscribe("out/#")
    client = world.client(0, account.endpoint, version=V5 if v5 else V311).connected("one")
    client.subscribe("$aws/things/t/shadow/#", "$aws/certificates/#", "$aws/provisioning-templates/#", "rules/#")
    for number, (topic, payload, qos) in enumerate(said, 1):
        if client.closed:
            break
        client.send(Publish(topic=topic, payload=payload, qos=qos, packet_id=number if qos else None))
        client.received()
    neighbour.send(PingReq())

    assert any(isinstance(each, PingResp) for each in neighbour.received())
    assert "failed" not in world.verdicts()
    state: Any = {name: shadow.version for name, shadow in account.shadows.items()}
    json.dumps(state)
