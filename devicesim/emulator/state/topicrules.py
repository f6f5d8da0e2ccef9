"""Topic rules (developer guide, "Rules for AWS IoT"): what may be one, and who is told of a change."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from devicesim.emulator.apierrors import APIError, invalid_request, resource_already_exists
from devicesim.emulator.state.destinations import RuleDestinations, url_problem
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.tags import Tags
from devicesim.emulator.state.topicrulerecords import TopicRule
from devicesim.emulator.topicrules import sql as rulesql
from devicesim.emulator.topicrules.sql import RuleSQLError
from devicesim.emulator.topicrules.tree import Statement, Template
from devicesim.emulator.topics import filter_problem

MAX_ACTIONS: Final = 10
_NO_LIMIT: Final = 1 << 20
_WORDS: Final = 40
"""Characters of an expression that may be its name in the output."""


@lru_cache(maxsize=4096)
def parse_statement(sql: str, version: str, *, name_by_text: bool) -> Statement:
    """Parsed once; raises :class:`RuleSQLError`."""
    return rulesql.parse(sql, version, name_of=(lambda text: text[:_WORDS]) if name_by_text else None)


def templates_of(action: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The texts of a republish or HTTP action that are substitution templates (developer guide, D), by where they
    stand: ``topic``, ``headers.contentType``, ``headers.userProperties.0.value``."""
    for kind, names in (("republish", ("topic",)), ("http", ("url", "confirmationUrl"))):
        held = action.get(kind)
        if not isinstance(held, Mapping):
            continue
        for name in names:
            text = held.get(name)
            if isinstance(text, str):
                yield name, text
        headers = held.get("headers")
        if isinstance(headers, Mapping):
            yield from _header_templates(headers)
        elif isinstance(headers, Sequence):
            for number, header in enumerate(headers):
                yield f"headers.{number}.value", header["value"]


def _header_templates(headers: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        if isinstance(value, str):
            yield f"headers.{name}", value
        elif isinstance(value, Sequence):
            for number, pair in enumerate(value):
                yield f"headers.{name}.{number}.key", pair["key"]
                yield f"headers.{name}.{number}.value", pair["value"]


class TopicRules:
    """Topic rules of every account and Region."""

    def __init__(self, environment: Environment, tags: Tags, destinations: RuleDestinations) -> None:
        self._environment = environment
        self._tags = tags
        self._destinations = destinations
        self.changed: list[Callable[[Partition], None]] = []
        """Called when an account's rules have changed: append."""

    def get(self, partition: Partition, name: str) -> TopicRule:
        rule = partition.topic_rules.get(name)
        if rule is None:
            # AWS does not say whether there is none (terraform-provider-aws, topic_rule.go, S; of Get alone, of the
            # other operations I)
            raise APIError("UnauthorizedException", f"Access to topic rule '{name}' was denied")
        return rule

    def create(
        self,
        partition: Partition,
        name: str,
        payload: Mapping[str, object],
        *,
        tags: Sequence[tuple[str, str]] = (),
    ) -> TopicRule:
        """``payload`` is the API's TopicRulePayload."""
        arn = partition.arn("rule", name)
        if name in partition.topic_rules:
            raise resource_already_exists("Rule already exists", resource_id=name, resource_arn=arn)
        limit = self._environment.settings.max_topic_rules
        if len(partition.topic_rules) >= limit:
            raise invalid_request(f"The account already has {limit} rules, the most there can be")
        rule = self._make(partition, name, payload, created_at=self._environment.now())
        checked_tags = self._tags.checked(tags)
        self._put(partition, replace(rule, sequence=partition.next_sequence()))
        if checked_tags:
            partition.tags[arn] = checked_tags
        return partition.topic_rules[name]

    def replace(self, partition: Partition, name: str, payload: Mapping[str, object]) -> None:
        """Everything but name, tags and time of creation."""
        previous = self.get(partition, name)
        rule = self._make(partition, name, payload, created_at=previous.created_at)
        self._put(partition, replace(rule, sequence=previous.sequence))

    def set_disabled(self, partition: Partition, name: str, *, disabled: bool) -> None:
        rule = self.get(partition, name)
        partition.topic_rules[name] = replace(rule, disabled=disabled)
        self._tell(partition)

    def delete(self, partition: Partition, name: str) -> None:
        rule = self.get(partition, name)
        del partition.topic_rules[name]
        partition.tags.pop(rule.arn, None)
        self._tell(partition)

    def _put(self, partition: Partition, rule: TopicRule) -> None:
        partition.topic_rules[rule.name] = rule
        for url in self._destination_urls(rule):
            self._destinations.ensure(partition, url)
        self._tell(partition)

    def _tell(self, partition: Partition) -> None:
        for listener in self.changed:
            listener(partition)

    def _make(self, partition: Partition, name: str, payload: Mapping[str, object], *, created_at: float) -> TopicRule:
        sql, version = payload["sql"], payload.get("awsIotSqlVersion") or rulesql.VERSION_2015
        assert isinstance(sql, str)  # the model has it so
        if version not in rulesql.VERSIONS:
            raise invalid_request(f"Unsupported awsIotSqlVersion: {version}, must be one of {rulesql.VERSIONS}")
        assert isinstance(version, str)
        size, limit = len(json.dumps(payload, ensure_ascii=False).encode()), self._environment.settings.max_rule_bytes
        if size > limit:
            raise invalid_request(f"The rule has {size} bytes, must be at most {limit}")
        statement = self._parse(sql, version)
        actions = payload["actions"]
        error_action = payload.get("errorAction")
        assert isinstance(actions, Sequence)
        assert error_action is None or isinstance(error_action, Mapping)
        for action in (*actions, *(() if error_action is None else (error_action,))):
            self._check_action(partition, action, statement)
        return TopicRule(
            name=name,
            arn=partition.arn("rule", name),
            sequence=0,
            sql=sql,
            sql_version=version,
            topic_filter=statement.topic_filter,
            actions=tuple(_frozen(action) for action in actions),
            error_action=None if error_action is None else _frozen(error_action),
            description=payload.get("description"),  # type: ignore[arg-type]  # the model has it so
            disabled=bool(payload.get("ruleDisabled")),
            created_at=created_at,
        )

    def statement(self, rule: TopicRule) -> Statement:
        """The rule's SQL, which was checked when the rule was made."""
        return self._parse(rule.sql, rule.sql_version)

    def template(self, text: str, statement: Statement) -> Template:
        """A substitution template of one of the rule's actions."""
        try:
            return rulesql.parse_template(
                text, statement.version, variables=[variable for variable, _ in statement.variables]
            )
        except RuleSQLError as error:
            # whether AWS looks into templates when the rule is made is not known (I)
            raise APIError("SqlParseException", f"Substitution template {text!r}: {error}") from None

    def _parse(self, sql: str, version: str) -> Statement:
        by_text = self._environment.settings.rule_unnamed_expression == "text"
        try:
            statement = parse_statement(sql, version, name_by_text=by_text)
        except RuleSQLError as error:
            raise APIError("SqlParseException", f"SQL parse error: {error}") from None
        if statement.topic_filter is not None:
            problem = filter_problem(statement.topic_filter, max_bytes=_NO_LIMIT, max_slashes=_NO_LIMIT)
            if problem is not None:
                raise APIError("SqlParseException", f"SQL parse error: FROM: {problem}")
        return statement

    def _check_action(self, partition: Partition, action: Mapping[str, object], statement: Statement) -> None:
        if len(action) != 1:
            raise invalid_request(f"An action must have exactly one type, this one has {', '.join(action) or 'none'}")
        for _, text in templates_of(action):
            self.template(text, statement)
        kind, held = next(iter(action.items()))
        if isinstance(held, Mapping):
            self._check_role(partition, held.get("roleArn"))
        if kind == "http":
            assert isinstance(held, Mapping)
            self._check_http(held, statement)

    def _check_role(self, partition: Partition, role: object) -> None:
        """AWS assumes the role when the rule is made (ministack #1417, M); here there are no roles to look at, but one
        of another account could never be."""
        if not isinstance(role, str) or self._environment.settings.rule_role_of_other_account == "accept":
            return
        account = role.split(":")[4] if role.count(":") >= 5 else None
        if account != partition.account_id:
            raise invalid_request(
                f"AWS IoT (iot.amazonaws.com) is unable to assume role (sts:AssumeRole) on resource: {role}. "
                "If the role was just created or updated, please try again in a few seconds."
            )

    def _check_http(self, action: Mapping[str, object], statement: Statement) -> None:
        """Developer guide, "HTTP" (D): which of the two URLs may be a template, and that one begins with the other."""
        url, confirmation_url = action["url"], action.get("confirmationUrl")
        assert isinstance(url, str)
        fixed = self.template(url, statement).fixed
        if confirmation_url is None:
            if not fixed:
                raise invalid_request("An http action whose url is a substitution template must have a confirmationUrl")
        else:
            assert isinstance(confirmation_url, str)
            confirmation_fixed = self.template(confirmation_url, statement).fixed
            if confirmation_fixed and not url.startswith(confirmation_url):
                raise invalid_request(f"The url {url} does not begin with its confirmationUrl {confirmation_url}")
            if confirmation_fixed:
                self._check_url(confirmation_url)
        if fixed:
            self._check_url(url)

    def _check_url(self, url: str) -> None:
        problem = url_problem(url, plain=self._environment.settings.rule_plain_http)
        if problem is not None:
            raise invalid_request(problem)

    def _destination_urls(self, rule: TopicRule) -> Iterator[str]:
        """The confirmation URLs without templates, for which AWS makes destinations (D)."""
        statement = self.statement(rule)
        for action in (*rule.actions, *(() if rule.error_action is None else (rule.error_action,))):
            held = action.get("http")
            if isinstance(held, Mapping):
                url: str = held.get("confirmationUrl") or held["url"]
                if self.template(url, statement).fixed:
                    yield url


def _frozen(value: Mapping[str, object]) -> Mapping[str, object]:
    """What the API sent, with tuples for lists, so that the record does not change."""
    return {key: _frozen_value(held) for key, held in value.items()}


def _frozen_value(value: object) -> object:
    if isinstance(value, Mapping):
        return _frozen(value)
    if isinstance(value, list | tuple):
        return tuple(_frozen_value(held) for held in value)
    return value
