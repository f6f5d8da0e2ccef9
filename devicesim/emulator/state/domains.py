"""Domain configurations: further data endpoints of an account, on domains of AWS or of the customer.

Developer guide, "domain configurations" (D); what it leaves open is a setting.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from devicesim.emulator.apierrors import (
    APIError,
    invalid_request,
    limit_exceeded,
    resource_already_exists,
    resource_not_found,
)
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import ENDPOINT_DOMAIN, Partition
from devicesim.emulator.state.records import DomainConfiguration, DomainStatus, DomainType
from devicesim.emulator.state.tags import Tags

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+(?![0-9]+$){_LABEL}")
_CERTIFICATE_ARN = re.compile(r"arn:[a-z-]+:acm:(?P<region>[a-z0-9-]+):\d{12}:certificate/.+")
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_RESERVED = ("amazonaws.com", "amazonaws.com.cn", ENDPOINT_DOMAIN)
"""Domains under which nobody but the service has names."""


class Domains:
    """The domain configurations of every account and Region, and the server names that they answer to."""

    def __init__(self, environment: Environment, tags: Tags) -> None:
        self._environment = environment
        self._tags = tags
        self._by_name: dict[str, dict[str, tuple[Partition, str]]] = {}
        """By server name and Region: the account, and the configuration's name. A customer may have one domain in
        several Regions."""

    def resolve(self, server_name: str, serves: Callable[[str], bool]) -> Partition | None:
        """The account that has a configuration of this name in a Region that ``serves`` says yes to."""
        for region, (partition, _) in self._by_name.get(server_name, {}).items():
            if serves(region):
                return partition
        return None

    def at(self, server_name: str, region: str) -> DomainConfiguration | None:
        """The configuration behind a server name (lower-case) in a Region; ``None`` for a default endpoint."""
        found = self._by_name.get(server_name, {}).get(region)
        return None if found is None else found[0].domain_configurations[found[1]]

    def get(self, partition: Partition, name: str) -> DomainConfiguration:
        """By name; of the default endpoints, too."""
        held = partition.domain_configurations.get(name) or self._default_endpoints(partition).get(name)
        if held is None:
            raise resource_not_found(f"The domain configuration {name} does not exist")
        return held

    def every(self, partition: Partition) -> list[DomainConfiguration]:
        """All, with the default endpoints, by name (botocore, ListDomainConfigurations: "alphabetically", D)."""
        return sorted(
            {**self._default_endpoints(partition), **partition.domain_configurations}.values(),
            key=lambda each: each.name,
        )

    def create(
        self,
        partition: Partition,
        name: str,
        *,
        domain_name: str | None = None,
        service_type: str = "DATA",
        server_certificate_arns: Sequence[str] = (),
        options: Mapping[str, object],
        tags: Sequence[tuple[str, str]] = (),
    ) -> DomainConfiguration:
        """A new configuration: on the customer's domain when ``domain_name`` is given, else on one of AWS.

        ``options`` are further fields of :class:`DomainConfiguration`.
        """
        if name in partition.domain_configurations:
            raise resource_already_exists(
                f"The domain configuration {name} already exists",
                resource_id=name,
                resource_arn=partition.domain_configurations[name].arn,
            )
        if service_type != "DATA":  # botocore: "currently supports only the DATA service type" (D)
            raise invalid_request(f"The service type {service_type} is not supported; use DATA")
        limit = self._environment.settings.max_domain_configurations
        own = [each for each in partition.domain_configurations.values() if each.type is not DomainType.ENDPOINT]
        if len(own) >= limit:
            raise limit_exceeded(f"The limit of {limit} domain configurations is reached")
        if domain_name is None:
            if server_certificate_arns or options.get("validation_certificate_arn"):
                raise invalid_request("A server certificate needs a domainName; domains of AWS have AWS's certificate")
            kind = DomainType.AWS_MANAGED
            resolved = f"d{self._text(19).lower()}-ats.iot.{partition.region}.{ENDPOINT_DOMAIN}"
        else:
            kind = DomainType.CUSTOMER_MANAGED
            resolved = self._checked_domain(partition, domain_name)
            _check_certificate(partition, server_certificate_arns)
        _check_options(options)
        checked_tags = self._tags.checked(tags)
        configuration = DomainConfiguration(
            name=name,
            arn=partition.arn("domainconfiguration", f"{name}/{self._text(5)}"),
            domain_name=resolved,
            type=kind,
            status=DomainStatus.ENABLED,
            service_type=service_type,
            server_certificate_arns=tuple(server_certificate_arns),
            last_status_change_date=self._environment.now(),
            **options,  # type: ignore[arg-type]  # fields of the record, named by the one caller
        )
        partition.domain_configurations[name] = configuration
        self._by_name.setdefault(resolved, {})[partition.region] = (partition, name)
        if checked_tags:
            partition.tags[configuration.arn] = checked_tags
        return configuration

    def update(
        self,
        partition: Partition,
        name: str,
        *,
        status: DomainStatus | None = None,
        remove_authorizer: bool = False,
        options: Mapping[str, object],
    ) -> DomainConfiguration:
        """Change a configuration. Of a default endpoint only its TLS can be (developer guide, "configuring TLS
        settings", D)."""
        held = self.get(partition, name)
        if held.type is DomainType.ENDPOINT and (status or remove_authorizer or set(options) - {"security_policy"}):
            raise invalid_request(f"The domain configuration {name} is a default endpoint: only its TLS can be changed")
        if remove_authorizer:
            if options.get("authorizer_name") is not None:
                raise invalid_request("The authorizer can not be set and removed in the same request")
            options = {**options, "authorizer_name": None, "allow_authorizer_override": None}
        _check_options({**_options_of(held), **options})
        changed = replace(held, **options)  # type: ignore[arg-type]  # as in create()
        if status is not None and status is not held.status:
            changed = replace(changed, status=status, last_status_change_date=self._environment.now())
        if changed != held:
            partition.domain_configurations[name] = changed
        return changed

    def delete(self, partition: Partition, name: str) -> None:
        """Delete a configuration that is DISABLED; one on a domain of AWS must have been so for seven days (D)."""
        held = self.get(partition, name)
        if held.type is DomainType.ENDPOINT:
            raise invalid_request(f"The domain configuration {name} is a default endpoint and can not be deleted")
        if held.status is not DomainStatus.DISABLED:
            raise invalid_request(f"The domain configuration {name} is ENABLED; disable it before it is deleted")
        delay = self._environment.settings.aws_managed_domain_deletion_delay
        disabled_for = self._environment.now() - (held.last_status_change_date or 0.0)
        if held.type is DomainType.AWS_MANAGED and disabled_for < delay:
            raise invalid_request(
                f"The domain configuration {name} has been DISABLED for {disabled_for:.0f} s; "
                f"one on a domain of AWS can be deleted after {delay:.0f} s"
            )
        del partition.domain_configurations[name]
        partition.tags.pop(held.arn, None)
        regions = self._by_name[held.domain_name]
        del regions[partition.region]
        if not regions:
            del self._by_name[held.domain_name]

    def clear(self) -> None:
        """Forget every account."""
        self._by_name.clear()

    def adopt(self, partition: Partition) -> None:
        """Take in the server names of an account whose records were kept."""
        for configuration in partition.domain_configurations.values():
            if configuration.type is not DomainType.ENDPOINT:
                regions = self._by_name.setdefault(configuration.domain_name, {})
                regions[partition.region] = (partition, configuration.name)

    def _checked_domain(self, partition: Partition, domain_name: str) -> str:
        name = domain_name.lower()
        if not _DOMAIN.fullmatch(name) or len(name) > 253:
            raise invalid_request(f"The domain name {domain_name} is not a fully qualified domain name")
        if any(name == each or name.endswith(f".{each}") for each in _RESERVED):
            raise invalid_request(f"The domain name {domain_name} is reserved; use a domain of your own")
        taken = self._by_name.get(name, {}).get(partition.region)
        if taken is not None:
            # names nobody: AWS does not tell one account what another holds
            message = f"The domain name {domain_name} is already in use"
            code = self._environment.settings.taken_domain_error
            if code == "ResourceAlreadyExistsException":
                arn = taken[0].domain_configurations[taken[1]].arn if taken[0] is partition else ""
                raise resource_already_exists(message, resource_id=domain_name, resource_arn=arn)
            raise APIError(code, message)
        return name

    def _default_endpoints(self, partition: Partition) -> dict[str, DomainConfiguration]:
        """What every account has (CLI reference, list-domain-configurations, D)."""
        names = {
            "iot:CredentialProvider": ("CREDENTIAL_PROVIDER", partition.credentials_endpoint),
            "iot:Data-ATS": ("DATA", partition.endpoint),
        }
        if self._environment.settings.plain_data_endpoint:
            names["iot:Data"] = ("DATA", partition.plain_endpoint)
            names["iot:Jobs"] = ("JOBS", partition.jobs_endpoint)
        return {
            name: DomainConfiguration(
                name=name,
                arn=partition.arn("domainconfiguration", name),
                domain_name=domain_name,
                type=DomainType.ENDPOINT,
                status=DomainStatus.ENABLED,
                service_type=service_type,
            )
            for name, (service_type, domain_name) in names.items()
        }

    def _text(self, length: int) -> str:
        """Random letters and digits."""
        return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in self._environment.randbytes(length))


def _check_certificate(partition: Partition, arns: Sequence[str]) -> None:
    """A domain of the customer's needs one certificate (botocore, D), of the same Region (developer guide, D)."""
    if len(arns) != 1:
        raise invalid_request(f"A custom domain needs one server certificate, {len(arns)} were given")
    found = _CERTIFICATE_ARN.fullmatch(arns[0])
    if found is None or found["region"] != partition.region:
        raise invalid_request(f"The server certificate {arns[0]} is not one of ACM in {partition.region}")


def _options_of(configuration: DomainConfiguration) -> Mapping[str, object]:
    names = ("authorizer_name", "allow_authorizer_override", "ocsp_lambda_arn", "ocsp_responder_arn", "ocsp_check")
    return {name: getattr(configuration, name) for name in names}


def _check_options(options: Mapping[str, object]) -> None:
    if options.get("authorizer_name") is not None and options.get("allow_authorizer_override") is None:
        # developer guide: "This value is required if a value for defaultAuthorizerName is specified" (D)
        raise invalid_request("allowAuthorizerOverride is required with defaultAuthorizerName")
    if options.get("ocsp_lambda_arn") and options.get("ocsp_responder_arn"):
        raise invalid_request("Specify either ocspLambdaArn or ocspAuthorizedResponderArn, not both")
