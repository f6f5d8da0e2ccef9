"""Diagnoses as a document: everything is in it, and it is read back equal."""

import json
from dataclasses import replace

from devicesim.diagnosis.rank import diagnose
from devicesim.report.diagnosis_document import Diagnoses, document
from tests.diagnosis_support import DEV, DROP, RECORD, evidence, unasked
from tests.schema_support import faults

REVOKED = diagnose(evidence(accounts=[replace(DEV, record=replace(RECORD, status="REVOKED"))]))
NOT_KNOWN = diagnose(evidence(accounts=[unasked(DEV)]))
CONNECTED = diagnose(evidence([DROP, None]))


def test_document_has_causes_with_arguments_and_fixes() -> None:
    (device,) = document([REVOKED]).devices

    assert (device.connected, device.seen, device.tries) == (False, "closed before CONNACK: close_notify", 5)
    assert (device.group, device.devices) == ("robots", 1)
    assert device.oracle == "as IoT Core should: REVOKED: refused, nothing changes (10c.revoked [D/I])"
    (finding,) = device.findings
    assert (finding.number, finding.id, finding.score) == (13, "certificate", 10)
    assert [(argument.weight, argument.text) for argument in finding.supporting] == [
        (9, "the certificate is REVOKED in dev"),
        (1, "it is what IoT Core should do, by row 10c.revoked [D/I]"),
    ]
    assert finding.fixes[0].text.startswith("give the device a new certificate")


def test_document_counts_who_is_connected_and_keeps_the_order() -> None:
    whole = document([CONNECTED, NOT_KNOWN, REVOKED])

    assert whole.connected == 1
    assert [device.connected for device in whole.devices] == [True, False, False]
    assert [bool(device.would_need) for device in whole.devices] == [False, True, False]


def test_document_is_read_back_equal() -> None:
    whole = document([CONNECTED, NOT_KNOWN, REVOKED])

    assert Diagnoses.model_validate_json(whole.to_json()) == whole
    assert faults("diagnosis", json.loads(whole.to_json())) == []


def test_device_that_was_not_looked_at_points_to_the_one_that_was() -> None:
    (device,) = document([replace(REVOKED, device="device 8 (x)", like="device 7 (robot-000007)")]).devices

    assert (device.like, device.findings) == ("device 7 (robot-000007)", ())


def test_document_has_a_schema_with_descriptions() -> None:
    schema = Diagnoses.model_json_schema()

    assert schema["additionalProperties"] is False
    assert set(schema["$defs"]) >= {"Argument", "Diagnosis", "Finding", "Fix"}
    assert schema["$defs"]["Argument"]["properties"]["weight"]["description"] == (
        "1 a hint, 3 usual, 9 as good as proof."
    )
