"""The emulator's settings out of a fleet file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from devicesim.cli.emulated import emulator_faults, emulator_settings
from devicesim.emulator.faults import Fault, FaultKind
from devicesim.emulator.quotas import API_RATES, Quotas
from devicesim.emulator.settings import Settings
from devicesim.errors import FleetFileError
from devicesim.fleet.sections import Emulator

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


class TestQuotas:
    def quotas(self, **given: Any) -> Quotas:
        return emulator_settings(Emulator(quotas=given), PATH).quotas

    def test_those_that_are_named_are_changed_or_lifted(self) -> None:
        quotas = self.quotas(connects_per_second=50, connections="none")

        assert (quotas.connects_per_second, quotas.connections) == (50, None)
        assert quotas.connects_per_client_id_per_second == 1

    def test_all_can_be_lifted_but_those_that_are_named(self) -> None:
        assert self.quotas(lifted=True) == Quotas.lifted()
        quotas = self.quotas(lifted=True, connects_per_second=50, api={"RegisterThing": 5})

        assert (quotas.connects_per_second, quotas.connections) == (50, None)
        assert (quotas.api_rate("RegisterThing"), quotas.api_rate("CreateThing")) == (5, None)

    def test_operations_that_are_not_named_keep_aws_s_rates(self) -> None:
        quotas = self.quotas(api={"RegisterThing": 100, "CreateThing": "none"})

        assert (quotas.api_rate("RegisterThing"), quotas.api_rate("CreateThing")) == (100, None)
        assert quotas.api_rate("DescribeThing") == API_RATES["DescribeThing"]

    @pytest.mark.parametrize(
        ("given", "path"),
        [
            ({"no_such": 1}, "emulator.quotas.no_such"),
            ({"connects_per_second": "many"}, "emulator.quotas.connects_per_second"),
            ({"connects_per_second": 0}, "emulator.quotas"),
            ({"lifted": "yes"}, "emulator.quotas.lifted"),
            ({"api": 3}, "emulator.quotas.api"),
            ({"api": {"CreateThing": "x"}}, "emulator.quotas.api.CreateThing"),
            ({"api": {"CreateThings": 1}}, "emulator.quotas.api.CreateThings"),
        ],
    )
    def test_what_is_no_quota_is_refused_by_its_path(self, given: dict[str, Any], path: str) -> None:
        with pytest.raises(FleetFileError) as caught:
            emulator_settings(Emulator(quotas=given), PATH)
        assert [each.path for each in caught.value.problems] == [path]


class TestFaults:
    ACCOUNTS: Mapping[str, str] = {"dev": "111111111111"}

    def test_accounts_are_named_as_in_the_file(self) -> None:
        section = Emulator(faults=[{"kind": "refuse_connect", "account": "dev", "share": 0.2, "count": 3}])

        (fault,) = emulator_faults(section, self.ACCOUNTS, PATH)

        assert fault == Fault(kind=FaultKind.REFUSE_CONNECT, account_id="111111111111", share=0.2, count=3)

    @pytest.mark.parametrize(
        ("given", "path"),
        [
            ({}, "emulator.faults.0.kind"),
            ({"kind": "explode"}, "emulator.faults.0.kind"),
            ({"kind": "throttle", "account": "prod"}, "emulator.faults.0.account"),
            ({"kind": "throttle", "account_id": "111111111111"}, "emulator.faults.0.account_id"),
            ({"kind": "throttle", "share": 2}, "emulator.faults.0"),
            ({"kind": "throttle", "share": "half"}, "emulator.faults.0.share"),
            ({"kind": "throttle_api", "operation": "CreateThings"}, "emulator.faults.0.operation"),
        ],
    )
    def test_what_is_no_fault_is_refused_by_its_path(self, given: dict[str, Any], path: str) -> None:
        with pytest.raises(FleetFileError) as caught:
            emulator_faults(Emulator(faults=[given]), self.ACCOUNTS, PATH)
        assert [each.path for each in caught.value.problems] == [path]

    def test_two_of_one_name_are_refused(self) -> None:
        section = Emulator(faults=[{"kind": "throttle"}, {"kind": "refuse_connect", "name": "throttle"}])

        with pytest.raises(FleetFileError) as caught:
            emulator_faults(section, self.ACCOUNTS, PATH)
        assert "'throttle' comes twice" in caught.value.problems[0].message
