"""The emulator's settings out of a fleet file."""

from pathlib import Path
from typing import Any

import pytest

from devicesim.cli.emulated import emulator_settings
from devicesim.emulator.settings import Settings
from devicesim.errors import FleetFileError
from devicesim.fleet.spec import Emulator

PATH = Path("fleet.toml")


def test_without_a_word_the_defaults_hold() -> None:
    assert emulator_settings(Emulator(), PATH) == Settings()


def test_settings_are_set_by_name_those_of_the_control_plane_too() -> None:
    section = Emulator(jitp_delay=(0.0, 0.5), settings={"sni_ignores_case": False, "revoked_is_final": False})

    settings = emulator_settings(section, PATH)

    assert (settings.jitp_delay, settings.sni_ignores_case, settings.control.revoked_is_final) == (
        (0.0, 0.5),
        False,
        False,
    )


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"no_such": 1}, "emulator.settings.no_such"),
        ({"control": {}}, "emulator.settings.control"),
        ({"sni_ignores_case": "perhaps"}, "emulator.settings.sni_ignores_case"),
        ({"sni_trailing_dot": "kept"}, "emulator.settings.sni_trailing_dot"),
        ({"max_tags": []}, "emulator.settings.max_tags"),
    ],
)
def test_what_is_no_setting_is_refused_by_its_path(given: dict[str, Any], path: str) -> None:
    with pytest.raises(FleetFileError) as caught:
        emulator_settings(Emulator(settings=given), PATH)
    assert [each.path for each in caught.value.problems] == [path]
