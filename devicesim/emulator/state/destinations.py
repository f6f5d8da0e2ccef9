"""Destinations of HTTP actions and their confirmation (developer guide, "Working with topic rule destinations", D).

A token goes to the URL, and whoever brings it back has shown that the URL is his: by ConfirmTopicRuleDestination, which
leaves the destination DISABLED, or by browsing to the ``enableUrl``, which enables it.
"""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from devicesim.emulator.apierrors import APIError, conflicting_resource_update, invalid_request, resource_already_exists
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.topicrulerecords import DestinationStatus, RuleDestination

_MAX_URL: Final = 2000
_TIMED_OUT: Final = "Confirmation timed out"
_TOKEN: Final = re.compile(r"(\d{12})/([a-z0-9-]{1,32})/[0-9a-f]{64}")


def is_loopback_name(host: str) -> bool:
    """Whether the name is this machine's without asking anybody (RFC 6761)."""
    return host == "localhost" or host.endswith(".localhost") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def url_problem(url: str, *, plain: bool) -> str | None:
    """Why AWS would not send to ``url``; ``None`` when it would. ``plain`` allows http:// on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"The url {url} is not valid"
    if not url.isascii() or any(character <= " " for character in url) or not host or len(url) > _MAX_URL:
        return f"The url {url} is not valid"
    if ":" in host:
        return f"The url {url} has an IPv6 address, which is not supported"  # D
    if parts.scheme == "https" or (parts.scheme == "http" and plain and is_loopback_name(host)):
        return None
    return f"The url {url} is not valid: it must begin with https://"


def token_owner(token: str) -> tuple[str, str] | None:
    """The account and Region of a confirmation token; ``None`` when it is none of ours."""
    try:
        found = _TOKEN.fullmatch(urlsafe_b64decode(token).decode("ascii"))
    except (binascii.Error, ValueError):
        return None
    return None if found is None else (found[1], found[2])


class RuleDestinations:
    """Destinations of every account and Region."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.to_confirm: list[Callable[[Partition, RuleDestination], None]] = []
        """Called when a confirmation message is to be sent: append."""

    def get(self, partition: Partition, arn: str) -> RuleDestination:
        """With its status of this moment: ERROR once the token has expired."""
        destination = partition.rule_destinations.get(arn)
        if destination is None:
            # in the words of terraform-provider-aws, topic_rule_destination.go (S)
            raise APIError("UnauthorizedException", f"Access to TopicRuleDestination '{arn}' was denied")
        return self.current(destination)

    def current(self, destination: RuleDestination) -> RuleDestination:
        expired = self._environment.now() >= destination.token_expires
        if destination.status is DestinationStatus.IN_PROGRESS and expired:
            return replace(destination, status=DestinationStatus.ERROR, status_reason=_TIMED_OUT)
        return destination

    def find(self, partition: Partition, confirmation_url: str) -> RuleDestination | None:
        """The destination of this very confirmation URL."""
        for destination in partition.rule_destinations.values():
            if destination.confirmation_url == confirmation_url:
                return self.current(destination)
        return None

    def create(self, partition: Partition, confirmation_url: str) -> RuleDestination:
        problem = url_problem(confirmation_url, plain=self._environment.settings.rule_plain_http)
        if problem is not None:
            raise invalid_request(problem)
        held = self.find(partition, confirmation_url)
        if held is not None:
            raise resource_already_exists(
                f"A destination for {confirmation_url} already exists",
                resource_id=held.arn.rpartition("/")[2],
                resource_arn=held.arn,
            )
        now = self._environment.now()
        arn = partition.arn("ruledestination", f"http/{self._environment.uuid()}")
        destination = RuleDestination(
            arn=arn,
            sequence=partition.next_sequence(),
            confirmation_url=confirmation_url,
            status=DestinationStatus.IN_PROGRESS,
            token="",
            token_expires=0.0,
            created_at=now,
            last_updated_at=now,
        )
        return self._ask(partition, destination)

    def ensure(self, partition: Partition, confirmation_url: str) -> None:
        """As AWS does when a rule names the URL (D)."""
        if self.find(partition, confirmation_url) is None:
            self.create(partition, confirmation_url)

    def update(self, partition: Partition, arn: str, status: str) -> None:
        """ENABLED from DISABLED, DISABLED from ENABLED, or IN_PROGRESS to be asked again (D)."""
        destination = self.get(partition, arn)
        now = self._environment.now()
        match status, destination.status:
            case "IN_PROGRESS", _:
                self._ask(partition, destination)
                return
            case ("ENABLED", DestinationStatus.DISABLED) | ("DISABLED", DestinationStatus.ENABLED):
                changed = replace(destination, status=DestinationStatus(status), last_updated_at=now)
            case _ if status == destination.status and status in ("ENABLED", "DISABLED"):
                return
            case "ENABLED" | "DISABLED", held:
                raise conflicting_resource_update(f"The destination {arn} is {held}; confirm it first")
            case _:
                raise invalid_request(f"The status of a destination can not be set to {status}")
        partition.rule_destinations[arn] = changed

    def delete(self, partition: Partition, arn: str) -> None:
        self.get(partition, arn)
        del partition.rule_destinations[arn]

    def confirm(self, partition: Partition, token: str, *, enable: bool) -> RuleDestination:
        """The token has come back."""
        found = [each for each in partition.rule_destinations.values() if each.token == token]
        if not found:
            raise invalid_request("The confirmation token is not valid")
        destination = self.current(found[0])
        if destination.status is DestinationStatus.ERROR:
            raise invalid_request("The confirmation token has expired")
        if destination.status is DestinationStatus.IN_PROGRESS:
            destination = replace(
                destination,
                status=DestinationStatus.ENABLED if enable else DestinationStatus.DISABLED,
                status_reason=None,
                last_updated_at=self._environment.now(),
            )
            partition.rule_destinations[destination.arn] = destination
        return destination

    def _ask(self, partition: Partition, destination: RuleDestination) -> RuleDestination:
        now = self._environment.now()
        owner = f"{partition.account_id}/{partition.region}/{self._environment.hex(32)}"
        asked = replace(
            destination,
            status=DestinationStatus.IN_PROGRESS,
            status_reason="Confirmation is in progress",
            token=urlsafe_b64encode(owner.encode()).decode(),
            token_expires=now + self._environment.settings.confirmation_token_seconds,
            last_updated_at=now,
        )
        partition.rule_destinations[asked.arn] = asked
        for listener in self.to_confirm:
            listener(partition, asked)
        return asked
