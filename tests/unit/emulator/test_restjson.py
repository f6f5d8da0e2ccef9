"""REST-JSON: routes, golden requests and responses, and every way a request can be wrong."""

import json
from collections.abc import Callable
from typing import Any

import botocore.session
import pytest
from botocore.model import ServiceModel

from devicesim.emulator.apierrors import APIError, resource_already_exists
from devicesim.emulator.httpmessage import HTTPRequest
from devicesim.emulator.restjson import RestJSON


@pytest.fixture(scope="module")
def iot() -> RestJSON:
    return RestJSON(botocore.session.get_session().get_service_model("iot"))


def parse(iot: RestJSON, method: str, target: str, body: object = b"", **headers: str) -> dict[str, Any]:
    path, _, query = target.partition("?")
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = HTTPRequest(method=method, path=path, query=query, headers=named, body=encoded)
    return iot.parse(iot.route(method, path), request)


def refused(call: Callable[[], object]) -> APIError:
    with pytest.raises(APIError) as caught:
        call()
    return caught.value


class TestRoute:
    @pytest.mark.parametrize(
        ("method", "path", "operation"),
        [
            ("GET", "/registrationcode", "GetRegistrationCode"),
            ("DELETE", "/registrationcode", "DeleteRegistrationCode"),
            ("POST", "/cacertificate", "RegisterCACertificate"),
            ("PUT", "/cacertificate/abc", "UpdateCACertificate"),
            ("POST", "/certificate/register-no-ca", "RegisterCertificateWithoutCA"),
            ("PUT", "/thing-groups/addThingToThingGroup", "AddThingToThingGroup"),
            ("PATCH", "/thing-groups/addThingToThingGroup", "UpdateThingGroup"),
            ("GET", "/principals/things-v2", "ListPrincipalThingsV2"),
            ("POST", "/attached-policies/arn%3Aaws%3Aiot%3Aus-east-1%3A1%3Acert%2Fabc", "ListAttachedPolicies"),
            ("GET", "/destinations/arn:aws:iot:us-east-1:1:ruledestination/http/1", "GetTopicRuleDestination"),
        ],
    )
    def test_finds_the_operation(self, iot: RestJSON, method: str, path: str, operation: str) -> None:
        assert iot.route(method, path).name == operation

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("GET", ""),
            ("GET", "/nothing"),
            ("PATCH", "/registrationcode"),
            ("GET", "/registrationcode/"),
            ("GET", "/certificates//"),
            ("GET", "/things/a/b/c"),
            ("get", "/registrationcode"),
        ],
    )
    def test_finds_nothing_elsewhere(self, iot: RestJSON, method: str, path: str) -> None:
        error = refused(lambda: iot.route(method, path))

        assert error.code == "UnknownOperationException"
        assert iot.serialise_error(error).status == 404

    def test_reaches_every_operation_of_the_model(self, iot: RestJSON) -> None:
        service: ServiceModel = iot.service
        for name in service.operation_names:
            http = service.operation_model(name).http
            path = "/".join("x" if part.startswith("{") else part for part in http["requestUri"].split("/"))
            assert iot.route(http["method"], path).name == name


class TestParse:
    def test_query_string_and_body(self, iot: RestJSON) -> None:
        parameters = parse(
            iot,
            "POST",
            "/cacertificate?setAsActive=true&allowAutoRegistration=false",
            {"caCertificate": "PEM", "certificateMode": "SNI_ONLY", "tags": [{"Key": "team", "Value": "lab"}]},
        )

        assert parameters == {
            "caCertificate": "PEM",
            "certificateMode": "SNI_ONLY",
            "setAsActive": True,
            "allowAutoRegistration": False,
            "tags": [{"Key": "team", "Value": "lab"}],
        }

    def test_label_is_decoded_once(self, iot: RestJSON) -> None:
        arn = "arn:aws:iot:us-east-1:111111111111:cert/abc"
        parameters = parse(iot, "POST", "/attached-policies/arn%3Aaws%3Aiot%3Aus-east-1%3A111111111111%3Acert%2Fabc")

        assert parameters == {"target": arn}
        assert parse(iot, "POST", "/attached-policies/a%252Fb") == {"target": "a%2Fb"}

    def test_header(self, iot: RestJSON) -> None:
        parameters = parse(
            iot, "PUT", "/things/robot/principals?thingPrincipalType=EXCLUSIVE_THING", x_amzn_principal="p"
        )

        assert parameters == {"thingName": "robot", "principal": "p", "thingPrincipalType": "EXCLUSIVE_THING"}

    def test_integer_and_plus_and_last_of_several(self, iot: RestJSON) -> None:
        parameters = parse(iot, "GET", "/certificates?pageSize=3&pageSize=7&marker=x%2By%3D")

        assert parameters == {"pageSize": 7, "marker": "x+y="}

    def test_nested_and_unknown_and_null_members(self, iot: RestJSON) -> None:
        parameters = parse(
            iot,
            "POST",
            "/things/robot",
            {
                "attributePayload": {"attributes": {"size": "xl"}, "merge": None, "more": 1},
                "thingTypeName": None,
                "nonsense": {"a": []},
            },
        )

        assert parameters == {"thingName": "robot", "attributePayload": {"attributes": {"size": "xl"}}}

    def test_timestamps_are_seconds_wherever_they_stand(self, iot: RestJSON) -> None:
        parameters = parse(iot, "GET", "/audit/tasks?startTime=2026-01-31T12%3A00%3A00Z&endTime=2026-01-31T13:00:00.5Z")

        assert parameters == {"startTime": 1769860800.0, "endTime": 1769864400.5}

    def test_payload_is_the_whole_body(self, iot: RestJSON) -> None:
        rule = {"sql": "SELECT * FROM 'a'", "actions": []}

        assert parse(iot, "POST", "/rules/name", rule) == {"ruleName": "name", "topicRulePayload": rule}

    def test_blob_is_base64(self, iot: RestJSON) -> None:
        parameters = parse(iot, "POST", "/authorizer/a/test", {"mqttContext": {"password": "AAEC"}})

        assert parameters == {"authorizerName": "a", "mqttContext": {"password": b"\0\1\2"}}

    @pytest.mark.parametrize("text", ["A", "AA E", "é"])
    def test_blob_that_is_not_base64_is_refused(self, iot: RestJSON, text: str) -> None:
        error = refused(lambda: parse(iot, "POST", "/authorizer/a/test", {"mqttContext": {"password": text}}))

        assert error.code == "SerializationException"
        assert error.message == "mqttContext.password is of JSON type str, expected base64"

    def test_empty_body_is_no_members(self, iot: RestJSON) -> None:
        assert parse(iot, "POST", "/things/robot") == {"thingName": "robot"}

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"{", "The request body is not JSON"),
            (b"\xff", "The request body is not JSON"),
            (b"[" * 100_000, "The request body is not JSON"),
            (b'{"thingTypeName": NaN}', "The request body is not JSON"),
            (b"[]", "The request body is not a JSON object"),
            (b'{"thingTypeName": 1}', "thingTypeName is of JSON type int, expected a string"),
            (b'{"attributePayload": []}', "attributePayload is of JSON type list, expected an object"),
            (b'{"attributePayload": {"merge": "yes"}}', "attributePayload.merge is of JSON type str, expected true or"),
            (b'{"attributePayload": {"attributes": {"a": null}}}', "attributes.a is of JSON type null, expected a str"),
        ],
    )
    def test_body_that_can_not_be_read(self, iot: RestJSON, body: bytes, words: str) -> None:
        error = refused(lambda: parse(iot, "POST", "/things/robot", body))

        assert error.code == "SerializationException"
        assert words in error.message
        assert iot.serialise_error(error).status == 400

    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("/things?maxResults=many", "maxResults is 'many', expected an integer"),
            ("/things?maxResults=1_0", "maxResults is '1_0', expected an integer"),
            ("/things?maxResults=", "maxResults is '', expected an integer"),
            ("/things?usePrefixAttributeValue=True", "usePrefixAttributeValue is 'True', expected true or false"),
            ("/audit/tasks?startTime=now&endTime=now", "startTime is 'now', expected a date"),
        ],
    )
    def test_query_that_can_not_be_read(self, iot: RestJSON, target: str, words: str) -> None:
        error = refused(lambda: parse(iot, "GET", target))

        assert error.code == "SerializationException"
        assert words in error.message

    @pytest.mark.parametrize(
        ("method", "target", "body", "message"),
        [
            (
                "POST",
                "/things/a%20b",
                {},
                (
                    "1 validation error detected: Value 'a b' at 'thingName' failed to satisfy constraint: "
                    "Member must satisfy regular expression pattern: [a-zA-Z0-9:_-]+"
                ),
            ),
            (
                "POST",
                "/cacertificate",
                {},
                (
                    "1 validation error detected: Value null at 'caCertificate' failed to satisfy constraint: "
                    "Member must not be null"
                ),
            ),
            (
                "POST",
                "/cacertificate",
                {"caCertificate": "PEM", "certificateMode": "BOTH"},
                (
                    "1 validation error detected: Value 'BOTH' at 'certificateMode' failed to satisfy constraint: "
                    "Member must satisfy enum value set: [DEFAULT, SNI_ONLY]"
                ),
            ),
            (
                "GET",
                "/certificates?pageSize=251",
                b"",
                (
                    "1 validation error detected: Value '251' at 'pageSize' failed to satisfy constraint: "
                    "Member must have value less than or equal to 250"
                ),
            ),
            (
                "GET",
                "/certificates?pageSize=0",
                b"",
                (
                    "1 validation error detected: Value '0' at 'pageSize' failed to satisfy constraint: "
                    "Member must have value greater than or equal to 1"
                ),
            ),
            (
                "POST",
                "/tags",
                {"resourceArn": "x", "tags": [{"Key": ""}, {"Value": "v"}]},
                (
                    "2 validation errors detected: Value '' at 'tags.1.member.key' failed to satisfy constraint: "
                    "Member must have length greater than or equal to 1; "
                    "Value null at 'tags.2.member.key' failed to satisfy constraint: Member must not be null"
                ),
            ),
            (
                "POST",
                "/untag",
                {"resourceArn": "x", "tagKeys": ["a", ""]},
                (
                    "1 validation error detected: Value '[a, ]' at 'tagKeys' failed to satisfy constraint: "
                    "Member must satisfy constraint: [Member must have length less than or equal to 128, "
                    "Member must have length greater than or equal to 1, "
                    "Member must satisfy regular expression pattern: ^([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)$]"
                ),
            ),
            (  # the text that aws-sdk-java #666 shows, of the same operation
                "PATCH",
                "/things/t",
                {"attributePayload": {"attributes": {'"state"': '{"reported":{}}'}}},
                (
                    "2 validation errors detected: "
                    "Value '{\"state\"={\"reported\":{}}}' at 'attributePayload.attributes' "
                    "failed to satisfy constraint: "
                    "Map keys must satisfy constraint: [Member must have length less than or equal to 128, "
                    "Member must have length greater than or equal to 0, "
                    "Member must satisfy regular expression pattern: [a-zA-Z0-9_.,@/:#-]+]; "
                    "Value '{\"state\"={\"reported\":{}}}' at 'attributePayload.attributes' "
                    "failed to satisfy constraint: "
                    "Map value must satisfy constraint: [Member must have length less than or equal to 800, "
                    "Member must have length greater than or equal to 0, "
                    "Member must satisfy regular expression pattern: [a-zA-Z0-9_.,@/:#=\\[\\]-]*]"
                ),
            ),
            (
                "POST",
                "/policies/p%C3%BC",
                {"policyDocument": "{}"},
                (  # \\w is ASCII in Java
                    "1 validation error detected: Value 'p\u00fc' at 'policyName' failed to satisfy constraint: "
                    "Member must satisfy regular expression pattern: [\\w+=,.@-]+"
                ),
            ),
            (
                "POST",
                "/test-authorization",
                {"authInfos": [{"actionType": "SHOUT", "resources": ["x"]}, {"actionType": "PUBLISH"}]},
                (
                    "2 validation errors detected: Value 'SHOUT' at 'authInfos.1.member.actionType' failed to satisfy "
                    "constraint: Member must satisfy enum value set: [PUBLISH, SUBSCRIBE, RECEIVE, CONNECT]; "
                    "Value null at 'authInfos.2.member.resources' failed to satisfy constraint: Member must not be null"
                ),
            ),
        ],
    )
    def test_constraints_are_refused_in_the_words_of_aws(
        self, iot: RestJSON, method: str, target: str, body: object, message: str
    ) -> None:
        error = refused(lambda: parse(iot, method, target, body))

        assert error.code == "InvalidRequestException"
        assert error.message == message

    @pytest.mark.parametrize(
        "body", [{"thingTypeName": "\ud800"}, {"attributePayload": {"attributes": {"\udfff": "x"}}}]
    )
    def test_half_a_character_is_none(self, iot: RestJSON, body: object) -> None:
        error = refused(lambda: parse(iot, "POST", "/things/t", body))

        assert error.code == "SerializationException"
        assert "half a surrogate pair" in error.message

    @pytest.mark.parametrize(("value", "bits"), [(2**31, 32), (-(2**31) - 1, 32)])
    def test_integer_that_does_not_fit_is_none(self, iot: RestJSON, value: int, bits: int) -> None:
        body = {"timeoutConfig": {"inProgressTimeoutInMinutes": 2**63}}
        long_error = refused(lambda: parse(iot, "PUT", "/jobs/j", {**body, "targets": ["x"]}))
        in_query = refused(lambda: parse(iot, "GET", f"/things?maxResults={value}"))

        assert (long_error.code, in_query.code) == ("SerializationException", "SerializationException")
        assert "64 bits" in long_error.message
        assert f"{bits} bits" in in_query.message

    def test_long_values_are_cut_in_the_refusal(self, iot: RestJSON) -> None:
        error = refused(lambda: parse(iot, "POST", "/certificate/register", {"certificatePem": "x" * 70_000}))

        assert "Member must have length less than or equal to 65536" in error.message
        assert len(error.message) < 500


class TestSerialise:
    def test_golden_description(self, iot: RestJSON) -> None:
        operation = iot.service.operation_model("DescribeCACertificate")

        response = iot.serialise(
            operation,
            {
                "certificateDescription": {
                    "certificateId": "0" * 64,
                    "creationDate": 1655249872.319,
                    "customerVersion": 1,
                    "validity": {"notBefore": 1655249071, "notAfter": 1743722671.0},
                },
                "registrationConfig": None,
            },
        )

        assert response.status == 200
        assert response.headers == {"content-type": "application/json"}
        assert response.body == (
            b'{"certificateDescription": {"certificateId": "' + b"0" * 64 + b'", "creationDate": 1655249872.319, '
            b'"customerVersion": 1, "validity": {"notBefore": 1655249071.0, "notAfter": 1743722671.0}}}'
        )

    def test_answer_without_members_is_an_empty_object(self, iot: RestJSON) -> None:
        response = iot.serialise(iot.service.operation_model("DeleteCACertificate"), {})

        assert (response.status, response.body) == (200, b"{}")

    def test_operation_without_output_answers_nothing(self, iot: RestJSON) -> None:
        response = iot.serialise(iot.service.operation_model("UpdateCertificate"), {})

        assert (response.status, response.body) == (200, b"")

    @pytest.mark.parametrize("operation", ["UpdateCertificate", "GetRegistrationCode"])
    def test_member_that_is_not_in_the_model_is_a_bug(self, iot: RestJSON, operation: str) -> None:
        with pytest.raises((ValueError, KeyError)):
            iot.serialise(iot.service.operation_model(operation), {"certificateArn": "x"})

    def test_golden_error(self, iot: RestJSON) -> None:
        error = resource_already_exists("It is there", resource_id="1", resource_arn="arn:1")

        response = iot.serialise_error(error)

        assert response.status == 409
        assert response.headers["x-amzn-errortype"] == "ResourceAlreadyExistsException"
        assert response.body == b'{"message": "It is there", "resourceId": "1", "resourceArn": "arn:1"}'

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("CertificateConflictException", 409),
            ("CertificateStateException", 406),
            ("CertificateValidationException", 400),
            ("ConflictingResourceUpdateException", 409),
            ("DeleteConflictException", 409),
            ("InternalFailureException", 500),
            ("InvalidRequestException", 400),
            ("LimitExceededException", 410),
            ("MalformedPolicyException", 400),
            ("MissingAuthenticationTokenException", 403),
            ("NotImplementedException", 501),
            ("RegistrationCodeValidationException", 400),
            ("RequestEntityTooLargeException", 413),
            ("ResourceAlreadyExistsException", 409),
            ("ResourceNotFoundException", 404),
            ("ResourceRegistrationFailureException", 400),
            ("VersionConflictException", 409),
            ("VersionsLimitExceededException", 409),
        ],
    )
    def test_status_of_an_error(self, iot: RestJSON, code: str, status: int) -> None:
        """aws-iot-behaviour.md §1.2 and §1.4, from the model itself."""
        assert iot.serialise_error(APIError(code, "")).status == status

    def test_field_that_is_not_in_the_error_is_a_bug(self, iot: RestJSON) -> None:
        with pytest.raises(ValueError, match="has no members"):
            iot.serialise_error(APIError("InvalidRequestException", "", resourceId="1"))
