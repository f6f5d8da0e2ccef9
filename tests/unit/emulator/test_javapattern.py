"""Java's regular expressions in Python."""

import re
import unicodedata

import botocore.session
import pytest

from devicesim.emulator.javapattern import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        (r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$", "Team ä東 ½:/=+-@", True),
        (r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$", "a\tb", False),
        (r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$", "a*", False),
        (r"[^\p{C}]*", "any text, ä東 \U0001f916", True),
        (r"[^\p{C}]*", "line\nbreak", False),
        (r"[^\p{C}]*", "\u200b", False),
        (r"[^\p{C}]*", "\ud800", False),
        (r"[^\p{C}]*", "\U000e0100", True),
        (r"[^\p{C}]*", "\U000f0000", False),
        (r"[^\p{C}]*", "\U0010ffff", False),
        (r"[\p{Graph}\x20]*", "a b~", True),
        (r"[\p{Graph}\x20]*", "ä", False),
        (r"[\p{Upper}\p{Digit}_]+", "A_1", True),
        (r"[\p{Upper}\p{Digit}_]+", "Ä", False),
        (r"[^\p{Cntrl}]*", "ä", True),
        (r"[^\p{Cntrl}]*", "\x7f", False),
        (r"[a-zA-Z0-9:_-]+", "a:b-c_1", True),
        (r"[a-zA-Z0-9:_-]+", "a\n", False),
    ],
)
def test_whole_text_must_fit(pattern: str, text: str, fits: bool) -> None:
    assert (compile_pattern(pattern).fullmatch(text) is not None) is fits


@pytest.mark.parametrize("name", ["C", "L", "N", "Z"])
def test_category_is_that_of_the_unicode_database(name: str) -> None:
    members = compile_pattern(rf"[\p{{{name}}}]")
    codes = [*range(0, 0x110000, 7), *range(0x3FF00, 0x40100), *range(0xE0000, 0xE0200)]

    wrong = [
        hex(code)
        for code in codes
        if (members.fullmatch(chr(code)) is not None) is not unicodedata.category(chr(code)).startswith(name)
    ]

    assert wrong == []


def test_unknown_property_is_refused() -> None:
    with pytest.raises(ValueError, match="property 'Sc' is not known"):
        compile_pattern(r"[\p{Sc}]")


def test_every_pattern_of_the_model_compiles() -> None:
    service = botocore.session.get_session().get_service_model("iot")
    shapes = [service.shape_for(name) for name in service.shape_names]

    patterns = {shape.metadata["pattern"] for shape in shapes if "pattern" in shape.metadata}

    assert all(isinstance(compile_pattern(pattern), re.Pattern) for pattern in patterns)
    assert len(patterns) > 40
