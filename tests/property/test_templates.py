"""Provisioning templates as nobody would write them: refused in AWS's way, or run to one of its outcomes; never a bug,
and never half a thing."""

import json
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.provisioning import register_thing
from devicesim.emulator.templates import PSEUDO_PREFIX, parse
from tests.emulator_support import ALLOW_ALL, World, device, template

ID = device(0).certificate_id
NAMES = st.sampled_from(["A", "B", PSEUDO_PREFIX + "Id", PSEUDO_PREFIX + "CommonName", "thing", "x-1", ""])
TEXT = st.text(st.characters(codec=None), max_size=8)
"""Halves of characters among it, which JSON can spell."""
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), TEXT, NAMES)


def calls(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Functions, with arguments of the right form or of any."""
    arguments = st.one_of(inner, st.lists(inner, max_size=3))
    return st.one_of(
        st.builds(lambda name: {"Ref": name}, NAMES),
        st.builds(
            lambda name, argument: {name: argument},
            st.sampled_from(["Ref", "Fn::Join", "Fn::Select", "Fn::Sub", "Fn::Split", "Fn::FindInMap", "Fn::If"]),
            arguments,
        ),
        st.builds(lambda d, values: {"Fn::Join": [d, values]}, st.text(max_size=2), st.lists(inner, max_size=3)),
        st.builds(lambda i, values: {"Fn::Select": [i, values]}, st.integers(-1, 3), st.lists(inner, max_size=3)),
        st.builds(lambda text: {"Fn::Sub": text}, st.sampled_from(["${A}", "a-${B}-c", "${!A}", "${", "${nobody}"])),
        st.builds(lambda key: {"Fn::FindInMap": ["Map", key, "v"]}, inner),
    )


VALUES = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), calls(inner)), max_leaves=6)
KINDS = st.sampled_from(["AWS::IoT::Thing", "AWS::IoT::Certificate", "AWS::IoT::Policy", "AWS::IoT::Rule", 1])
PROPERTIES = st.sampled_from(
    [
        *("ThingName", "AttributePayload", "ThingTypeName", "ThingGroups", "BillingGroup"),
        *(
            "CertificateId",
            "CertificatePem",
            "CertificateSigningRequest",
            "Status",
            "PolicyName",
            "PolicyDocument",
            "No",
        ),
    ]
)
RESOURCES = st.dictionaries(
    st.text(max_size=3),
    st.one_of(
        VALUES, st.fixed_dictionaries({"Type": KINDS, "Properties": st.dictionaries(PROPERTIES, VALUES, max_size=4)})
    ),
    max_size=3,
)
STRINGS = st.sampled_from(
    ["x-1", "A", "B", {"Ref": "A"}, {"Fn::Join": ["-", [{"Ref": "A"}, "z"]]}, {"Fn::Sub": "${A}_"}]
)
"""What mostly works."""


def mostly(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda number: good if number else bad)


THINGS = st.fixed_dictionaries(
    {"ThingName": mostly(STRINGS)},
    optional={
        "AttributePayload": st.dictionaries(mostly(st.sampled_from("abc"), TEXT), mostly(STRINGS), max_size=2),
        "ThingGroups": mostly(st.lists(mostly(st.sampled_from(["A", {"Ref": "A"}])), max_size=2)),
        "ThingTypeName": mostly(st.just("A")),
        "BillingGroup": mostly(st.just("A")),
    },
)
POLICIES = st.one_of(
    st.none(),
    st.just({"PolicyName": "shared"}),
    st.just({"PolicyName": "nobody"}),
    st.fixed_dictionaries({"PolicyDocument": VALUES}),
)
PARAMETERS = mostly(st.just({"A": "A"}), st.dictionaries(NAMES, TEXT, max_size=4))


@given(text=st.one_of(st.text(max_size=100), st.builds(json.dumps, st.dictionaries(st.text(max_size=9), VALUES))))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    refusal: APIError | None = None
    try:
        parse(text)
    except APIError as error:
        refusal = error
    if refusal is not None:
        assert refusal.code == "InvalidRequestException"
        assert refusal.message.startswith("Invalid registration template. ")


@settings(max_examples=200)
@given(
    thing=THINGS,
    policy=POLICIES,
    more=mostly(st.just({}), RESOURCES),
    configuration=mostly(st.dictionaries(st.text(max_size=3), STRINGS, max_size=2)),
    parameters=PARAMETERS,
)
def test_a_run_does_everything_or_nothing(
    thing: dict[str, object],
    policy: dict[str, object] | None,
    more: dict[str, object],
    configuration: object,
    parameters: dict[str, str],
) -> None:
    world = World()
    account = world.account()
    ca = world.register_ca(account, mode="SNI_ONLY")
    world.registry.auto_register(account, device(0).certificate, ca)
    world.registry.thing_groups.create(account, "A")
    world.registry.thing_types.create(account, "A")
    world.registry.billing_groups.create(account, "A")
    world.registry.policies.create(account, "shared", ALLOW_ALL)
    declared = {name: {"Type": "String"} for name in ("A", "B")}
    body = json.loads(
        template(
            thing=thing,
            policy=policy,
            Parameters=declared,
            Mappings={"Map": {"A": {"v": "1"}, "x-1": {"v": ["p", "q"]}}},
            DeviceConfiguration=configuration,
        )
    )
    body["Resources"] |= more
    outcome = register_thing(world.registry, account, json.dumps(body), parameters, certificate_id=ID)

    status = account.certificates[ID].status
    event(f"{outcome.error} of {outcome.cause}")
    if outcome.succeeded:
        assert status == "ACTIVE"
        assert outcome.thing_name in account.things
        assert list(account.things_of_certificate(ID)) == [outcome.thing_name]
        json.dumps(outcome.device_configuration)
        assert set(outcome.resource_arns) <= set(body["Resources"])
    else:
        assert outcome.error in ("InvalidRequestException", "ResourceRegistrationFailureException")
        assert outcome.detail
        assert status == "PENDING_ACTIVATION"
        assert (account.things, list(account.policies), account.policies_of_target) == ({}, ["shared"], {})
        assert (dict(account.groups_of_thing), dict(account.things_of_principal)) == ({}, {})
