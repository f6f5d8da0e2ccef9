"""Domain configurations (developer guide, "domain configurations", D), and the server names that they answer to."""

import re
from collections.abc import Callable

import pytest

from devicesim.emulator.registry import APIError, Partition, Registry
from devicesim.emulator.state.environment import ControlSettings
from devicesim.emulator.state.records import DomainConfiguration, DomainStatus, DomainType
from tests.control_support import REGION, A, B, Clock, make_registry

DISABLED, ENABLED = DomainStatus.DISABLED, DomainStatus.ENABLED
DOMAIN = "iot.example.com"


def certificate(region: str = REGION) -> str:
    return f"arn:aws:acm:{region}:{A}:certificate/8b7c"


def custom(registry: Registry, partition: Partition, name: str = "own", domain: str = DOMAIN) -> DomainConfiguration:
    return registry.domains.create(
        partition,
        name,
        domain_name=domain,
        server_certificate_arns=[certificate(partition.region)],
        options={},
    )


def refused(call: Callable[[], object]) -> APIError:
    with pytest.raises(APIError) as caught:
        call()
    return caught.value


def test_default_endpoints_are_there_from_the_start(registry: Registry, a: Partition) -> None:
    every = registry.domains.every(a)

    assert [(each.name, each.service_type) for each in every] == [
        ("iot:CredentialProvider", "CREDENTIAL_PROVIDER"),
        ("iot:Data-ATS", "DATA"),
    ]
    data = registry.domains.get(a, "iot:Data-ATS")
    assert data.arn == f"arn:aws:iot:{REGION}:{A}:domainconfiguration/iot:Data-ATS"
    assert (data.domain_name, data.type, data.status) == (a.endpoint, DomainType.ENDPOINT, ENABLED)
    assert a.domain_configurations == {}


def test_older_endpoints_are_listed_where_they_are_answered() -> None:
    registry = make_registry(settings=ControlSettings(plain_data_endpoint=True))
    a = registry.partition(A, REGION)

    assert [each.name for each in registry.domains.every(a)] == [
        "iot:CredentialProvider",
        "iot:Data",
        "iot:Data-ATS",
        "iot:Jobs",
    ]


def test_configuration_on_a_domain_of_aws_gets_a_name_that_selects_the_account(
    registry: Registry, a: Partition, clock: Clock
) -> None:
    made = registry.domains.create(a, "more", options={})

    assert made.type is DomainType.AWS_MANAGED
    assert re.fullmatch(rf"d[a-z0-9]{{19}}-ats\.iot\.{REGION}\.localhost", made.domain_name)
    assert re.fullmatch(rf"arn:aws:iot:{REGION}:{A}:domainconfiguration/more/[A-Za-z0-9]{{5}}", made.arn)
    assert made.last_status_change_date == clock.now
    assert registry.resolve_server_name(made.domain_name) is a


def test_custom_domain_selects_the_account_in_lower_case(registry: Registry, a: Partition) -> None:
    made = custom(registry, a, domain="IoT.Example.com")

    assert made.type is DomainType.CUSTOMER_MANAGED
    assert registry.resolve_server_name(DOMAIN) is a
    assert registry.domains.at(DOMAIN, REGION) == made
    assert registry.domains.at(DOMAIN, "eu-west-1") is None
    assert registry.resolve_server_name(a.endpoint) is a


def test_one_domain_in_two_regions_is_resolved_by_the_door(registry: Registry, a: Partition) -> None:
    west = registry.partition(A, "eu-west-1")
    custom(registry, a)
    custom(registry, west)

    assert registry.resolve_server_name(DOMAIN, lambda region: region == "eu-west-1") is west
    assert registry.resolve_server_name(DOMAIN, lambda region: region == REGION) is a
    assert registry.resolve_server_name(DOMAIN, lambda _region: False) is None


@pytest.mark.parametrize(
    ("code", "account"),
    [("InvalidRequestException", A), ("InvalidRequestException", B), ("ResourceAlreadyExistsException", B)],
)
def test_domain_is_configured_once_in_a_region(code: str, account: str) -> None:
    registry = make_registry(settings=ControlSettings(taken_domain_error=code))  # type: ignore[arg-type]
    custom(registry, registry.partition(A, REGION))

    error = refused(lambda: custom(registry, registry.partition(account, REGION), name="other"))

    assert error.code == code
    assert account == A or A not in str(error.fields)
    assert registry.resolve_server_name(DOMAIN) is registry.partition(A, REGION)


@pytest.mark.parametrize(
    "domain",
    [
        "localhost",
        "x.localhost",
        "a.iot.us-east-1.amazonaws.com",
        "no",
        "-a.com",
        "a..com",
        "a b.com",
        "a.com\n",
        "1.2.3.4",
    ],
)
def test_impossible_domain_is_refused(registry: Registry, a: Partition, domain: str) -> None:
    assert refused(lambda: custom(registry, a, domain=domain)).code == "InvalidRequestException"
    assert a.domain_configurations == {}


@pytest.mark.parametrize("arns", [[], [certificate("eu-west-1")]])
def test_custom_domain_needs_a_certificate_of_its_region(registry: Registry, a: Partition, arns: list[str]) -> None:
    error = refused(
        lambda: registry.domains.create(a, "own", domain_name=DOMAIN, server_certificate_arns=arns, options={})
    )

    assert error.code == "InvalidRequestException"
    assert registry.resolve_server_name(DOMAIN) is None


def test_certificate_without_domain_other_service_and_second_of_a_name_are_refused(
    registry: Registry, a: Partition
) -> None:
    create = registry.domains.create
    arns = [certificate()]
    assert refused(lambda: create(a, "x", server_certificate_arns=arns, options={})).code == "InvalidRequestException"
    assert refused(lambda: create(a, "x", service_type="JOBS", options={})).code == "InvalidRequestException"
    create(a, "x", options={})
    error = refused(lambda: create(a, "x", options={}))
    assert error.code == "ResourceAlreadyExistsException"
    assert error.fields["resourceArn"] == a.domain_configurations["x"].arn


def test_no_more_configurations_than_the_quota(clock: Clock) -> None:
    registry = make_registry(clock, ControlSettings(max_domain_configurations=2))
    a = registry.partition(A, REGION)
    registry.domains.update(a, "iot:Data-ATS", options={"security_policy": "IoTSecurityPolicy_TLS13_1_3_2022_10"})
    registry.domains.create(a, "one", options={})
    registry.domains.create(a, "two", options={})

    assert refused(lambda: registry.domains.create(a, "three", options={})).code == "LimitExceededException"


def test_custom_domain_is_deleted_once_it_is_disabled(registry: Registry, a: Partition) -> None:
    custom(registry, a)

    assert refused(lambda: registry.domains.delete(a, "own")).code == "InvalidRequestException"
    registry.domains.update(a, "own", status=DISABLED, options={})
    assert registry.resolve_server_name(DOMAIN) is a
    registry.domains.delete(a, "own")

    assert registry.resolve_server_name(DOMAIN) is None
    assert refused(lambda: registry.domains.get(a, "own")).code == "ResourceNotFoundException"
    custom(registry, registry.partition(B, REGION))


def test_domain_of_aws_is_deleted_after_seven_days_of_being_disabled(
    registry: Registry, a: Partition, clock: Clock
) -> None:
    registry.domains.create(a, "more", options={})
    registry.domains.update(a, "more", status=DISABLED, options={})
    clock.advance(7 * 86400 - 1)
    assert refused(lambda: registry.domains.delete(a, "more")).code == "InvalidRequestException"
    registry.domains.update(a, "more", status=DISABLED, options={})  # changes nothing: the time goes on
    clock.advance(1)

    registry.domains.delete(a, "more")
    assert a.domain_configurations == {}


def test_of_a_default_endpoint_only_tls_is_changed(registry: Registry, a: Partition) -> None:
    name = "iot:Data-ATS"
    registry.domains.update(a, name, options={"security_policy": "IoTSecurityPolicy_TLS13_1_3_2022_10"})

    assert registry.domains.get(a, name).security_policy == "IoTSecurityPolicy_TLS13_1_3_2022_10"
    assert registry.domains.get(a, name).domain_name == a.endpoint
    assert refused(lambda: registry.domains.update(a, name, status=DISABLED, options={})).code.startswith("Invalid")
    assert refused(lambda: registry.domains.delete(a, name)).code == "InvalidRequestException"
    assert registry.resolve_server_name(a.endpoint) is a


def test_authorizer_is_set_with_override_and_removed(registry: Registry, a: Partition) -> None:
    registry.domains.create(a, "more", options={})
    only_name = refused(lambda: registry.domains.update(a, "more", options={"authorizer_name": "auth"}))
    both = {"authorizer_name": "auth", "allow_authorizer_override": False}
    registry.domains.update(a, "more", options=both)
    contradiction = refused(lambda: registry.domains.update(a, "more", remove_authorizer=True, options=both))
    kept = registry.domains.get(a, "more")
    removed = registry.domains.update(a, "more", remove_authorizer=True, options={})

    assert (only_name.code, contradiction.code) == ("InvalidRequestException",) * 2
    assert (kept.authorizer_name, kept.allow_authorizer_override) == ("auth", False)
    assert (removed.authorizer_name, removed.allow_authorizer_override) == (None, None)


def test_kept_records_answer_to_their_names_again(registry: Registry, a: Partition) -> None:
    custom(registry, a)
    registry.domains.update(a, "iot:Data-ATS", options={"security_policy": "x"})
    registry.domains.clear()
    assert registry.resolve_server_name(DOMAIN) is None

    registry.domains.adopt(a)

    assert registry.resolve_server_name(DOMAIN) is a


def test_configurations_can_have_tags(registry: Registry, a: Partition) -> None:
    made = registry.domains.create(a, "more", options={}, tags=[("k", "v")])

    assert registry.tags.of(a, made.arn) == {"k": "v"}
    assert refused(lambda: registry.tags.of(a, made.arn[:-1])).code == "ResourceNotFoundException"
    registry.role_aliases.create(a, "alias", role_arn=f"arn:aws:iam::{A}:role/r", tags=[("a", "b")])
    assert registry.tags.of(a, a.arn("rolealias", "alias")) == {"a": "b"}
    registry.role_aliases.delete(a, "alias")
    assert list(a.tags) == [made.arn]
