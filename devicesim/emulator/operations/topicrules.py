"""Topic rules and the destinations of their HTTP actions."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from devicesim.emulator.apierrors import APIError, invalid_request
from devicesim.emulator.operations.call import Call, Handler, token_page
from devicesim.emulator.state.topicrulerecords import RuleDestination, TopicRule
from devicesim.emulator.topics import SubscriptionTree


def create_topic_rule(call: Call) -> Mapping[str, Any]:
    tags = _tags(call.get("tags") or "")
    call.registry.topic_rules.create(call.partition, call["ruleName"], call["topicRulePayload"], tags=tags)
    return {}


def get_topic_rule(call: Call) -> Mapping[str, Any]:
    rule = call.registry.topic_rules.get(call.partition, call["ruleName"])
    return {
        "ruleArn": rule.arn,
        "rule": {
            "ruleName": rule.name,
            "sql": rule.sql,
            "description": rule.description,
            "createdAt": rule.created_at,
            "actions": rule.actions,
            "ruleDisabled": rule.disabled,
            "awsIotSqlVersion": rule.sql_version,
            "errorAction": rule.error_action,
        },
    }


def list_topic_rules(call: Call) -> Mapping[str, Any]:
    topic, disabled = call.get("topic"), call.get("ruleDisabled")
    by_match = call.registry.environment.settings.rule_list_topic == "match"
    rules = [
        rule
        for rule in sorted(call.partition.topic_rules.values(), key=_sequence)
        if disabled in (None, rule.disabled) and (topic is None or _is_of(rule, topic, by_match=by_match))
    ]
    page, token = token_page(call, rules, _sequence)
    return {
        "rules": [
            {
                "ruleArn": rule.arn,
                "ruleName": rule.name,
                "topicPattern": rule.topic_filter,
                "createdAt": rule.created_at,
                "ruleDisabled": rule.disabled,
            }
            for rule in page
        ],
        "nextToken": token,
    }


def _is_of(rule: TopicRule, topic: str, *, by_match: bool) -> bool:
    if rule.topic_filter is None:
        return False
    tree: SubscriptionTree[str, None] = SubscriptionTree()
    tree.add(rule.topic_filter, rule.name, None)
    return rule.topic_filter == topic or (by_match and any(True for _ in tree.match(topic)))


def replace_topic_rule(call: Call) -> Mapping[str, Any]:
    call.registry.topic_rules.replace(call.partition, call["ruleName"], call["topicRulePayload"])
    return {}


def delete_topic_rule(call: Call) -> Mapping[str, Any]:
    call.registry.topic_rules.delete(call.partition, call["ruleName"])
    return {}


def enable_topic_rule(call: Call) -> Mapping[str, Any]:
    call.registry.topic_rules.set_disabled(call.partition, call["ruleName"], disabled=False)
    return {}


def disable_topic_rule(call: Call) -> Mapping[str, Any]:
    call.registry.topic_rules.set_disabled(call.partition, call["ruleName"], disabled=True)
    return {}


def _sequence(held: TopicRule | RuleDestination) -> int:
    return held.sequence


def _tags(header: str) -> Sequence[tuple[str, str]]:
    """The header x-amz-tagging, a query string (``key1=value1&key2=value2``)."""
    try:
        return parse_qsl(header, keep_blank_values=True, strict_parsing=True) if header else []
    except ValueError:
        raise invalid_request(f"The header x-amz-tagging is {header}, expected key1=value1&key2=value2") from None


# --- destinations ---


def create_topic_rule_destination(call: Call) -> Mapping[str, Any]:
    configuration = call["destinationConfiguration"]
    if len(configuration) != 1:
        raise invalid_request("The destinationConfiguration must have exactly one configuration")
    if "httpUrlConfiguration" not in configuration:
        (kind,) = configuration
        raise APIError("NotImplementedException", f"devicesim does not emulate destinations with {kind}")
    url = configuration["httpUrlConfiguration"]["confirmationUrl"]
    return {"topicRuleDestination": _shown(call.registry.rule_destinations.create(call.partition, url))}


def get_topic_rule_destination(call: Call) -> Mapping[str, Any]:
    return {"topicRuleDestination": _shown(call.registry.rule_destinations.get(call.partition, call["arn"]))}


def list_topic_rule_destinations(call: Call) -> Mapping[str, Any]:
    destinations = sorted(call.partition.rule_destinations.values(), key=_sequence)
    page, token = token_page(call, destinations, _sequence)
    current = [call.registry.rule_destinations.current(destination) for destination in page]
    return {
        "destinationSummaries": [
            {
                **_described(destination),
                "httpUrlSummary": {"confirmationUrl": destination.confirmation_url},
            }
            for destination in current
        ],
        "nextToken": token,
    }


def update_topic_rule_destination(call: Call) -> Mapping[str, Any]:
    call.registry.rule_destinations.update(call.partition, call["arn"], call["status"])
    return {}


def delete_topic_rule_destination(call: Call) -> Mapping[str, Any]:
    call.registry.rule_destinations.delete(call.partition, call["arn"])
    return {}


def confirm_topic_rule_destination(call: Call) -> Mapping[str, Any]:
    """Called, or browsed to as the message's ``enableUrl``: without credentials, and the destination is enabled (D)."""
    browsed = not call.caller.access_key_id
    call.registry.rule_destinations.confirm(call.partition, call["confirmationToken"], enable=browsed)
    return {}


def _described(destination: RuleDestination) -> dict[str, Any]:
    return {
        "arn": destination.arn,
        "status": destination.status,
        "createdAt": destination.created_at,
        "lastUpdatedAt": destination.last_updated_at,
        "statusReason": destination.status_reason,
    }


def _shown(destination: RuleDestination) -> Mapping[str, Any]:
    return {**_described(destination), "httpUrlProperties": {"confirmationUrl": destination.confirmation_url}}


HANDLERS: Mapping[str, Handler] = {
    "CreateTopicRule": create_topic_rule,
    "GetTopicRule": get_topic_rule,
    "ListTopicRules": list_topic_rules,
    "ReplaceTopicRule": replace_topic_rule,
    "DeleteTopicRule": delete_topic_rule,
    "EnableTopicRule": enable_topic_rule,
    "DisableTopicRule": disable_topic_rule,
    "CreateTopicRuleDestination": create_topic_rule_destination,
    "GetTopicRuleDestination": get_topic_rule_destination,
    "ListTopicRuleDestinations": list_topic_rule_destinations,
    "UpdateTopicRuleDestination": update_topic_rule_destination,
    "DeleteTopicRuleDestination": delete_topic_rule_destination,
    "ConfirmTopicRuleDestination": confirm_topic_rule_destination,
}
