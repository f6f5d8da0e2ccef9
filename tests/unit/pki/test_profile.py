"""Subject templates."""

import pytest

from devicesim.errors import KeyMaterialError
from devicesim.pki.profile import Subject, render

NAMES = {"fleet": "acme", "group": "north"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("robot-{index:06d}", "robot-000042"),
        ("{fleet}/{group}/{index}", "acme/north/42"),
        ("{index:x}", "2a"),
        ("{{literal}}", "{literal}"),
        ("plain", "plain"),
    ],
)
def test_placeholders_are_filled_in(template: str, expected: str) -> None:
    assert expected == render(template, 42, NAMES, "common_name")


@pytest.mark.parametrize(
    "template",
    ["{secret}", "{}", "{0}", "{index.real}", "{fleet[0]}", "{index!r}", "{index:{fleet}}", "{", "}", "{index:q}"],
)
def test_anything_else_in_braces_is_refused(template: str) -> None:
    with pytest.raises(KeyMaterialError, match="common_name"):
        render(template, 42, NAMES, "common_name")


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (Subject(country="Germany"), "country 'Germany'"),
        (Subject(common_name="x" * 65), "common_name"),
        (Subject(common_name=""), "common_name ''"),
        (Subject(common_name=None), "subject is empty"),
    ],
)
def test_a_name_that_x509_does_not_allow_is_refused_by_its_attribute(subject: Subject, message: str) -> None:
    with pytest.raises(KeyMaterialError, match=message):
        subject.name(0, NAMES)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(KeyMaterialError, match=r"common_name .* cannot stand in a certificate"):
        Subject(common_name="{index:c}").name(0xD800, {})
