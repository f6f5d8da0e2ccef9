"""The language of provisioning templates: what is refused when it is registered, and what it says for a certificate."""

import json
import re
from collections.abc import Mapping

import pytest

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.templates import CertificatePlan, Plan, check_registered, parse
from tests.emulator_support import ALLOW_ALL, template

PSEUDO = "AWS::IoT::Certificate::"
VALUES = {PSEUDO + "Id": "id-1", PSEUDO + "CommonName": "robot-1", PSEUDO + "Country": "DE"}


def resolve(body: str, values: Mapping[str, str] = VALUES) -> Plan:
    return parse(body).resolve(values)


def thing_name(value: object, **sections: object) -> str:
    """What a template with this ThingName says."""
    plan = resolve(named(value, **sections))
    assert plan.thing is not None
    return plan.thing.name


def named(value: object, **sections: object) -> str:
    """A template with this ThingName and these sections in place of its own."""
    return json.dumps(json.loads(template(thing={"ThingName": value})) | sections)


def refusal(body: str, values: Mapping[str, str] | None = None) -> str:
    """The message with which the body is refused, when registered or (with ``values``) when run."""

    def attempt() -> object:
        return parse(body) if values is None else parse(body).resolve(values)

    with pytest.raises(APIError) as caught:
        attempt()
    assert caught.value.code == "InvalidRequestException"
    assert caught.value.message.startswith("Invalid registration template. ")
    return caught.value.message.removeprefix("Invalid registration template. ")


def ref(name: str) -> dict[str, str]:
    return {"Ref": PSEUDO + name}


class TestFunctions:
    """Developer guide, "intrinsic functions"."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("fixed", "fixed"),
            (ref("CommonName"), "robot-1"),
            ({"Fn::Join": ["-", ["a", ref("Country"), "z"]]}, "a-DE-z"),
            ({"Fn::Join": ["", []]}, ""),
            ({"Fn::Select": [1, ["a", "b"]]}, "b"),
            ({"Fn::Select": ["0", ["a", "b"]]}, "a"),
            ({"Fn::Select": [1, {"Fn::Split": ["-", ref("CommonName")]}]}, "1"),
            ({"Fn::Join": ["+", {"Fn::Split": ["-", "a-b-c"]}]}, "a+b+c"),
            ({"Fn::Sub": "x-${AWS::IoT::Certificate::CommonName}-y"}, "x-robot-1-y"),
            ({"Fn::Sub": ["${a}/${AWS::IoT::Certificate::Country}", {"a": ref("Id")}]}, "id-1/DE"),
            ({"Fn::Sub": "${!AWS::IoT::Certificate::Country}"}, "${AWS::IoT::Certificate::Country}"),
            ({"Fn::FindInMap": ["Sites", ref("Country"), "name"]}, "Berlin"),
            ({"Fn::Select": [0, {"Fn::FindInMap": ["Sites", "DE", "list"]}]}, "x"),
            ({"Fn::Sub": ["${n}", {"n": {"Fn::FindInMap": ["Sites", ref("Country"), "name"]}}]}, "Berlin"),
        ],
    )
    def test_value(self, value: object, expected: str) -> None:
        mappings = {"Sites": {"DE": {"name": "Berlin", "list": ["x", "y"]}}}
        if expected == "":
            assert refusal(template(thing={"ThingName": value}), VALUES).startswith("ThingName")
        else:
            assert thing_name(value, Mappings=mappings) == expected

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"Ref": "Nobody"}, "Cannot resolve reference value: {Ref=Nobody}"),
            ({"Ref": ["x"]}, "Cannot resolve reference value"),
            ({"Fn::Sub": "${Nobody}"}, "Cannot resolve reference value: {Ref=Nobody}"),
            ({"Fn::Join": ["-"]}, "wrong form"),
            ({"Fn::Join": [ref("Country"), ["a"]]}, "wrong form"),
            ({"Fn::Join": "a"}, "wrong form"),
            ({"Fn::Select": [0]}, "wrong form"),
            ({"Fn::Split": ["", "a"]}, "wrong form"),
            ({"Fn::Sub": ["a", "b"]}, "wrong form"),
            ({"Fn::FindInMap": ["Sites", "DE"]}, "wrong form"),
            ({"Fn::FindInMap": ["Nothing", "DE", "name"]}, "mapping Nothing"),
            ({"Fn::GetAtt": ["a", "b"]}, "calls Fn::GetAtt"),
            ({"Fn::Join": ["-", [{"Ref": "Nobody"}]]}, "Cannot resolve"),
            ({"Fn::Sub": ["${x}", {"x": {"Ref": "Nobody"}}]}, "Cannot resolve"),
        ],
    )
    def test_form_is_checked_at_registration(self, value: object, message: str) -> None:
        assert message in refusal(template(thing={"ThingName": value}, Mappings={"Sites": {"DE": {"name": "x"}}}))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"Fn::Select": [2, ["a", "b"]]}, "index 2"),
            ({"Fn::Select": [-1, ["a", "b"]]}, "index -1"),
            ({"Fn::Select": [0, [None]]}, "index 0"),
            ({"Fn::Select": ["x", ["a"]]}, "an index and a list"),
            ({"Fn::Select": ["1" * 5000, ["a"]]}, "an index and a list"),
            ({"Fn::Select": [True, ["a", "b"]]}, "an index and a list"),
            ({"Fn::Select": [0, "text"]}, "an index and a list"),
            ({"Fn::Join": ["-", "text"]}, "a list of strings"),
            ({"Fn::Split": ["-", ["list"]]}, "a string"),
            ({"Fn::FindInMap": ["Sites", ref("CommonName"), "name"]}, "Sites.robot-1.name"),
            ({"Fn::Sub": ["${x}", {"x": ["list"]}]}, "not a string"),
            (["list"], "ThingName of resource thing must be a string"),
        ],
    )
    def test_values_are_checked_when_it_runs(self, value: object, message: str) -> None:
        body = template(thing={"ThingName": value}, Mappings={"Sites": {"DE": {"name": "x"}}})

        assert message in refusal(body, VALUES)

    def test_deep_nesting_is_refused_and_not_python_s_problem(self) -> None:
        value: object = "x"
        for _ in range(100):
            value = {"Fn::Join": ["", [value]]}

        assert "nested too deeply" in refusal(template(thing={"ThingName": value}))
        assert "nested too deeply" in refusal("[" * 100_000)

    def test_functions_that_multiply_each_other_are_stopped_before_they_have_filled_the_memory(self) -> None:
        value: object = "x" * 20
        for _ in range(15):
            value = {"Fn::Sub": ["${a}" * 40, {"a": value}]}
        body = template(thing={"ThingName": value})

        assert len(body) < 10_240
        assert "more than 524288 characters" in refusal(body, VALUES)


class TestParameters:
    def test_every_declared_parameter_must_have_a_value_used_or_not(self) -> None:
        """§3, D; text M (SE272476)."""
        body = template(parameters=("CommonName", "Country"))
        message = refusal(body, {PSEUDO + "Id": "i", PSEUDO + "CommonName": "n"})

        assert message == "Cannot resolve reference value: {Ref=AWS::IoT::Certificate::Country}"

    def test_a_default_stands_in(self) -> None:
        parameters = {"Place": {"Type": "String", "Default": "here"}}

        assert thing_name({"Ref": "Place"}, Parameters=parameters) == "here"

    def test_the_certificate_s_own_value_goes_before_the_default(self) -> None:
        parameters = {PSEUDO + "Country": {"Type": "String", "Default": "FR"}}

        assert thing_name(ref("Country"), Parameters=parameters) == "DE"

    def test_pseudo_parameters_need_not_be_declared(self) -> None:
        """The guide's own fleet provisioning example refers to ::Id without declaring it."""
        assert thing_name(ref("CommonName"), Parameters={}) == "robot-1"

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"P": {"Type": "Number"}}, "must have Type String"),
            ({"P": {}}, "must have Type String"),
            ({"P": {"Type": "String", "Default": 1}}, "must be a string"),
            ({"P": {"Type": "String", "AllowedValues": []}}, "unknown members"),
            ({"P": "String"}, "must be a JSON object"),
            ([], "Parameters must be a JSON object"),
            ({PSEUDO + "Locality": {"Type": "String"}}, "not one that a certificate has"),
        ],
    )
    def test_declarations_that_are_refused(self, parameters: object, message: str) -> None:
        assert message in refusal(template(Parameters=parameters))


class TestResources:
    def test_the_walk_through_s_template(self) -> None:
        plan = resolve(
            template(
                parameters=("CommonName", "Country", "Id"),
                thing={
                    "ThingName": ref("CommonName"),
                    "AttributePayload": {"version": "v1", "country": ref("Country")},
                    "ThingTypeName": "robot",
                    "ThingGroups": ["g1", ref("Country"), "g1"],
                    "BillingGroup": "b",
                },
                overrides={"AttributePayload": "MERGE", "ThingTypeName": "REPLACE", "ThingGroups": "DO_NOTHING"},
            )
        )

        assert plan.thing is not None
        assert plan.thing.attributes == {"version": "v1", "country": "DE"}
        assert plan.thing.thing_type_name == "robot"
        assert plan.thing.groups == ("g1", "DE")
        assert plan.thing.billing_group == "b"
        assert plan.thing.overrides["ThingTypeName"] == "REPLACE"
        assert (plan.certificate.certificate_id, plan.certificate.status) == ("id-1", "ACTIVE")
        assert [policy.document for policy in plan.policies] == [ALLOW_ALL]

    def test_policies_of_the_same_document_share_a_name(self) -> None:
        """The name defaults to a hash of the document; the guide's example has forty upper-case digits (D)."""
        (one,), (two,) = resolve(template()).policies, resolve(template(thing={"ThingName": "x"})).policies

        assert one == two
        assert re.fullmatch("[0-9A-F]{40}", one.name)

    def test_a_policy_document_may_be_an_object_with_functions(self) -> None:
        document = {"Version": "2012-10-17", "Statement": [{"Resource": {"Fn::Join": ["/", ["client", ref("Id")]]}}]}
        (policy,) = resolve(template(policy={"PolicyDocument": document})).policies

        assert policy.document == '{"Version":"2012-10-17","Statement":[{"Resource":"client/id-1"}]}'

    def test_policy_variables_in_a_document_are_left_alone(self) -> None:
        document = '{"Resource": "client/${iot:ClientId}"}'
        (policy,) = resolve(template(policy={"PolicyDocument": document})).policies

        assert policy.document == document

    @pytest.mark.parametrize(
        ("written", "status"), [("ACTIVE", "ACTIVE"), ("Active", "ACTIVE"), ("inactive", "INACTIVE")]
    )
    def test_status_in_any_case(self, written: str, status: str) -> None:
        """The guide itself writes both."""
        plan = resolve(template(certificate={"CertificateId": ref("Id"), "Status": written}))

        assert plan.certificate.status == status

    def test_thing_and_policy_may_be_left_out(self) -> None:
        body = json.dumps(
            {"Resources": {"c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": ref("Id")}}}}
        )

        certificate = CertificatePlan(logical_name="c", certificate_id="id-1", status="ACTIVE")
        assert resolve(body) == Plan(certificate=certificate, thing=None, policies=())

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("", "JSON not well-formed with location of [line: 1, column: 1]"),
            ("{'Resources': {}}", "JSON not well-formed with location of [line: 1, column: 2]"),
            ("[]", "The template must be a JSON object"),
            ('{"a": ' + "1" * 5000 + "}", "a number is too long"),
            ('{"a": [NaN]}', "NaN is no value"),
            ('{"a": -Infinity}', "-Infinity is no value"),
            ("{}", "Resources must be a JSON object"),
            ('{"Resources": {}}', "No certificate resource"),
            ('{"Resources": {"a": 1}}', "Resources.a must be a JSON object"),
            ('{"Resources": {"a": {"Type": "AWS::IoT::Rule"}}}', "Type AWS::IoT::Rule"),
            ('{"Resources": {"a": {"Type": ["x"]}}}', "must be one of AWS::IoT::Thing"),
            ('{"Resources": {}, "Resources": {}}', "same key twice"),
            (template(thing={"ThingNam": "x"}), "unknown properties ['ThingNam']"),
            (template(thing={"ThingName": ""}), "ThingName is not present"),
            (template(policy={"PolicyName": ""}), "Neither policyName nor policyDocument is present in the Template."),
            (template(policy={"PolicyName": "p", "PolicyDocument": "{}"}), "Both policyName and policyDocument"),
            (template(certificate={"Status": "ACTIVE"}), "Exactly one of certificateId"),
            (template(certificate={"CertificateId": ref("Id"), "Status": "REVOKED"}), "must be ACTIVE or INACTIVE"),
            (template(certificate={"CertificateId": "a", "CACertificatePem": "b"}), "without certificatePem"),
            (template(DeviceConfiguration=["x"]), "DeviceConfiguration must be a JSON object"),
            (template(DeviceConfiguration={"Ref": "AWS::IoT::Certificate::Id"}), "and not a function"),
            (template(DeviceConfiguration={"url": {"Ref": "Nobody"}}), "{Ref=Nobody}"),
            (template(certificate={"CertificateId": "a", "CertificatePem": "b"}), "Exactly one of certificateId"),
            (template(overrides={"AttributePayload": "KEEP"}), "AttributePayload KEEP"),
            (template(overrides={"ThingTypeName": "MERGE"}), "ThingTypeName MERGE"),
            (template(overrides={"Name": "FAIL"}), "Name FAIL"),
            (template(Mappings={"a": {"b": {"c": {"Ref": "d"}}}}), "Mappings.a.b.c must be a string"),
            (template(Mappings={"a": "b"}), "Mappings.a must be a JSON object"),
        ],
    )
    def test_what_is_refused_at_registration(self, body: str, message: str) -> None:
        assert message in refusal(body)

    @pytest.mark.parametrize("kind", ["AWS::IoT::Thing", "AWS::IoT::Certificate"])
    def test_only_one_thing_and_one_certificate(self, kind: str) -> None:
        body = json.loads(template())
        name = {"AWS::IoT::Thing": "thing", "AWS::IoT::Certificate": "certificate"}[kind]
        body["Resources"]["again"] = body["Resources"][name]

        assert f"More than one resource of type {kind}" in refusal(json.dumps(body))

    def test_members_of_a_resource_that_do_not_exist(self) -> None:
        body = json.loads(template())
        body["Resources"]["thing"]["Propertys"] = {}

        assert "unknown members ['Propertys']" in refusal(json.dumps(body))

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (
                template(certificate={"CertificateId": ref("Id"), "Status": ref("Country")}),
                "must be ACTIVE or INACTIVE",
            ),
            (template(thing={"ThingName": "x", "AttributePayload": {"a": 1}}), "an object of strings"),
            (template(thing={"ThingName": "x", "AttributePayload": ["a"]}), "an object of strings"),
            (template(thing={"ThingName": "x", "ThingGroups": "g"}), "a list of strings"),
            (template(thing={"ThingName": "x", "ThingTypeName": 1}), "ThingTypeName of resource thing"),
            (template(policy={"PolicyDocument": ["x"]}), "Neither policyName nor policyDocument"),
            (template(policy={"PolicyDocument": "\ud800"}), "policy has a text that is not Unicode"),
            (template(DeviceConfiguration={"a": ["\udfff"]}), "DeviceConfiguration has a text that is not Unicode"),
        ],
    )
    def test_what_is_refused_when_it_runs(self, body: str, message: str) -> None:
        assert message in refusal(body, VALUES)

    @pytest.mark.parametrize("source", ["CertificateSigningRequest", "CertificatePem"])
    def test_only_a_certificate_id_can_stand_in_a_registered_template(self, source: str) -> None:
        """Rule D (developer guide, "Certificate resources"); RegisterThing takes all three."""
        body = template(certificate={source: ref("Id")})

        assert parse(body).resolve(VALUES).certificate.certificate_id is None
        with pytest.raises(APIError, match="certificateId is not present"):
            check_registered(body)
        check_registered(template())

    def test_the_certificate_by_pem_with_its_ca(self) -> None:
        properties = {"CertificatePem": "leaf", "CACertificatePem": "ca", "Status": "INACTIVE"}
        body = json.loads(template(certificate=properties))
        body["Resources"]["certificate"]["OverrideSettings"] = {"Status": "REPLACE"}

        assert resolve(json.dumps(body)).certificate == CertificatePlan(
            logical_name="certificate", pem="leaf", ca_pem="ca", status="INACTIVE", override="REPLACE"
        )


def test_device_configuration_is_filled_in_like_everything_else() -> None:
    """Developer guide, "Fleet provisioning template example"."""
    body = template(
        Mappings={"LocationTable": {"DE": {"LocationUrl": "https://example.aws"}}},
        DeviceConfiguration={
            "FallbackUrl": "https://www.example.com/test-site",
            "Numbers": [1, 2.5, None, True],
            "Nested": {"LocationUrl": {"Fn::FindInMap": ["LocationTable", ref("Country"), "LocationUrl"]}},
        },
    )

    assert resolve(body).device_configuration == {
        "FallbackUrl": "https://www.example.com/test-site",
        "Numbers": [1, 2.5, None, True],
        "Nested": {"LocationUrl": "https://example.aws"},
    }


def test_what_nobody_refers_to_may_be_missing_where_a_caller_gives_the_parameters() -> None:
    """RegisterThing: "the parameter is not replaced with a value" (D)."""
    body = template(parameters=("CommonName", "Country"))
    values = {PSEUDO + "Id": "i", PSEUDO + "CommonName": "n"}

    plan = parse(body).resolve(values, every_declared=False)
    assert plan.thing is not None
    assert plan.thing.name == "n"
    with pytest.raises(APIError, match="Cannot resolve reference value"):
        parse(body).resolve({PSEUDO + "Id": "i"}, every_declared=False)
