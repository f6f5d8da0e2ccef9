"""The rules engine: every message of an account against its topic rules, and what follows from it. Pure.

    engine = RulesEngine(registry, plane, ...)      # listens to the data plane from now on
    engine.send = sender.offer                      # who can send HTTP

Rules run when a message has gone to its subscribers, at once and in the order of their names; a message that a rule
republishes is looked at when the one before is done with. Each rule that fires is one entry of the history.
"""

import base64
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from devicesim.emulator import history
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.clock import Clock
from devicesim.emulator.dataplane import DataPlane
from devicesim.emulator.history import Kind
from devicesim.emulator.recorder import Recorder
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.sendable import message_problem
from devicesim.emulator.session import Message
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.destinations import url_problem
from devicesim.emulator.state.topicrulerecords import DestinationStatus, RuleDestination, TopicRule
from devicesim.emulator.topicrules.actions import HTTP, CompiledAction, HTTPPost, Substitute, compile_action
from devicesim.emulator.topicrules.evaluation import run, substitute
from devicesim.emulator.topicrules.functions import Context
from devicesim.emulator.topicrules.tree import Statement, Template
from devicesim.emulator.topicrules.values import RuleEvaluationError, from_plain, write_json
from devicesim.emulator.topics import SubscriptionTree, topic_problem

CONFIRMATION: Final = "DestinationConfirmation"

Done = Callable[[int | None, str], None]
"""Told how a request ended: the HTTP status, or ``None`` and what went wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    """A rule, ready to run."""

    rule: TopicRule
    statement: Statement
    actions: tuple[CompiledAction, ...]
    error_action: CompiledAction | None


@dataclass(slots=True)
class _Index:
    """An account's enabled rules by their topic filters."""

    compiled: dict[str, _Compiled] = field(default_factory=dict)
    tree: SubscriptionTree[str, None] = field(default_factory=SubscriptionTree)
    stale: bool = True


@dataclass(slots=True)
class _Origin:
    """The message that everything began with."""

    firings: int = 0
    stopped: bool = False
    """Something that would have followed from it has been left undone."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """A message to look at."""

    partition: Partition
    message: Message
    now: float
    origin: _Origin
    chain: int
    """Rules that led to it, one after the other."""


@dataclass(slots=True, kw_only=True)
class _Firing:
    """One rule on one message, until all its actions are done."""

    heard: _Heard
    compiled: _Compiled
    context: Context
    waiting: int = 0
    """Requests on their way, and one while actions are being started."""
    done: list[str] = field(default_factory=list)
    not_executed: bool = False
    failures: list[dict[str, str]] = field(default_factory=list)
    is_error_action: bool = False


class RulesEngine:
    """See the module. One for the whole emulator."""

    def __init__(
        self,
        registry: Registry,
        plane: DataPlane,
        *,
        settings: Settings,
        recorder: Recorder,
        clock: Clock,
        uniform: Callable[[float, float], float],
    ) -> None:
        self._registry = registry
        self._plane = plane
        self._settings = settings
        self._recorder = recorder
        self._clock = clock
        self._uniform = uniform
        self._indexes: dict[Partition, _Index] = {}
        self._queue: deque[_Heard] = deque()
        self._running = False
        self._origin: _Origin | None = None
        """Of what is being done, so that a message published by it is known to be."""
        self._chain = 0
        self.send: Callable[[HTTPPost, Done], bool] | None = None
        """Sends a request some time later and tells how it ended, as :data:`Done` says; ``False`` when it has too many
        already. ``None``: nothing here can send."""
        self.publish_reserved: Callable[[Partition, Message, float], bool] | None = None
        """Takes what a rule republishes to a reserved topic, publishes it, and does what it asks for; ``False`` when
        the topic is none that a rule may republish to."""
        self.get_shadow: Callable[[Partition, str, str | None], Mapping[str, object] | None] | None = None
        """For ``get_thing_shadow()``."""
        self.api_url = "http://localhost"
        """Where the API is, for the ``enableUrl`` of confirmation messages."""
        plane.published.append(self._published)
        registry.topic_rules.changed.append(self._changed)
        registry.rule_destinations.to_confirm.append(self._confirm)

    def changed(self) -> None:
        """Rules may be others than before in any account."""
        self._indexes.clear()

    def _changed(self, partition: Partition) -> None:
        index = self._indexes.get(partition)
        if index is not None:
            index.stale = True

    # --- messages ---

    def _published(self, partition: Partition, message: Message, now: float) -> None:
        if not partition.topic_rules:
            return
        origin = self._origin or _Origin()
        self._queue.append(_Heard(partition, message, now, origin, self._chain))
        if self._running:
            return
        self._running = True
        before = self._origin, self._chain
        try:
            while self._queue:
                self._look_at(self._queue.popleft())
        finally:
            self._running = False
            self._origin, self._chain = before
            self._queue.clear()  # of what is left when something failed; the next message begins anew

    def _look_at(self, heard: _Heard) -> None:
        self._origin, self._chain = heard.origin, heard.chain + 1
        for compiled in self._matching(heard.partition, heard.message.topic):
            self._fire(heard, compiled)

    def _matching(self, partition: Partition, topic: str) -> list[_Compiled]:
        """The enabled rules whose FROM matches, by name."""
        index = self._indexes.setdefault(partition, _Index())
        if index.stale:
            self._renew(index, partition)
        names = sorted(name for name, _ in index.tree.match(topic))
        return [index.compiled[name] for name in names]

    def _renew(self, index: _Index, partition: Partition) -> None:
        index.stale = False
        wanted = {
            name: rule
            for name, rule in partition.topic_rules.items()
            if rule.topic_filter is not None and not rule.disabled
        }
        for name, compiled in tuple(index.compiled.items()):
            if wanted.get(name) is not compiled.rule:
                assert compiled.rule.topic_filter is not None
                index.tree.remove(compiled.rule.topic_filter, name)
                del index.compiled[name]
        for name, rule in wanted.items():
            if name not in index.compiled:
                assert rule.topic_filter is not None
                try:
                    index.compiled[name] = self._compile(rule)
                except APIError as error:  # it was kept from a time of other settings
                    self._recorder.add(
                        kind=Kind.RULE,
                        verdict=history.RULE_FAILED,
                        account_id=partition.account_id,
                        region=partition.region,
                        detail=f"rule {name} does nothing: {error.message}",
                    )
                else:
                    index.tree.add(rule.topic_filter, name, None)

    def _compile(self, rule: TopicRule) -> _Compiled:
        rules = self._registry.topic_rules
        statement = rules.statement(rule)

        def template(text: str) -> Template:
            return rules.template(text, statement)

        return _Compiled(
            rule=rule,
            statement=statement,
            actions=tuple(compile_action(action, template) for action in rule.actions),
            error_action=None if rule.error_action is None else compile_action(rule.error_action, template),
        )

    # --- one rule ---

    def _fire(self, heard: _Heard, compiled: _Compiled) -> None:
        context = self._context(heard, compiled.statement, heard.message.payload)
        firing = _Firing(heard=heard, compiled=compiled, context=context)
        try:
            payload = run(compiled.statement, context)
        except RuleEvaluationError as error:
            self._note(firing, history.RULE_FAILED, f"SQL: {error}")
            return
        if payload is None:
            return
        if heard.chain >= self._settings.max_rule_chain:
            self._stop(firing, f"it would be rule {heard.chain + 1} of a chain")
            return
        if heard.origin.firings >= self._settings.max_rule_firings:
            self._stop(firing, f"one message has set {heard.origin.firings} rules going")
            return
        heard.origin.firings += 1
        firing.waiting = 1
        for action in compiled.actions:
            self._execute(firing, action, payload)
        self._one_done(firing)

    def _stop(self, firing: _Firing, why: str) -> None:
        """Told once for all that began with one message: a loop would fill the history."""
        origin = firing.heard.origin
        if not origin.stopped:
            origin.stopped = True
            self._note(firing, history.RULE_STOPPED, why)

    def _context(self, heard: _Heard, statement: Statement, payload: bytes) -> Context:
        message = heard.message
        uuid = self._registry.environment.uuid
        get_shadow = self.get_shadow
        return Context(
            payload=payload,
            topic=message.topic,
            account_id=heard.partition.account_id,
            version=statement.version,
            now=self._clock.wall(),
            uuid=uuid,
            uniform=self._uniform,
            client_id=message.publisher,
            principal=message.principal,
            trace_id=None if message.publisher is None else uuid(),
            properties=message.properties,
            get_shadow=None if get_shadow is None else partial(get_shadow, heard.partition),
            integer_division=self._settings.rule_integer_division,
        )

    def _execute(self, firing: _Firing, action: CompiledAction, payload: bytes) -> None:
        why = action.unsupported()
        if why is not None:
            firing.not_executed = True
            firing.done.append(f"{action.kind} not executed: {why}")
            return
        try:
            if action.kind == HTTP:
                self._post(firing, action, payload)
            else:
                firing.done.append(self._republish(firing, action, payload))
        except RuleEvaluationError as error:
            _fail(firing, action, str(error))

    def _substitute(self, firing: _Firing) -> Substitute:
        empty = self._settings.rule_undefined_substitution == "empty"

        def text(template: Template) -> str | None:
            try:
                return substitute(template, firing.compiled.statement, firing.context, undefined="" if empty else None)
            except RuleEvaluationError as error:
                raise RuleEvaluationError(f"substitution template: {error}") from None

        return text

    def _republish(self, firing: _Firing, action: CompiledAction, payload: bytes) -> str:
        """Do it, and say so."""
        settings, heard = self._settings, firing.heard
        made = action.republish(self._substitute(firing))
        reserved = made.topic.startswith("$$")  # "use $$ instead" (D)
        topic = made.topic[1:] if reserved else made.topic
        if topic.startswith("$") and not reserved:
            raise RuleEvaluationError(f"the topic {topic} is reserved; it is republished to as ${topic}")
        now = self._clock.now()
        message = Message(
            topic=topic,
            payload=payload,
            qos=made.qos,
            properties=made.properties,
            expires_at=None if made.expiry is None else now + made.expiry,
        )
        problem = message_problem(message) or topic_problem(
            topic,
            max_bytes=settings.max_topic_bytes,
            max_slashes=settings.max_topic_slashes,
        )
        if problem is not None:
            raise RuleEvaluationError(f"the message cannot be sent: {problem}")
        if len(payload) > settings.max_payload_bytes:
            raise RuleEvaluationError(
                f"the payload has {len(payload)} bytes, must be at most {settings.max_payload_bytes}"
            )
        if reserved:
            if self.publish_reserved is None or not self.publish_reserved(heard.partition, message, now):
                raise RuleEvaluationError(f"rules cannot republish to the reserved topic {topic}")
            return f"republished to {topic}"
        receivers = self._plane.publish(heard.partition, message, now)
        return f"republished to {topic}, {receivers} subscribers"

    # --- HTTP ---

    def _post(self, firing: _Firing, action: CompiledAction, payload: bytes) -> None:
        post = action.post(self._substitute(firing), payload)
        problem = url_problem(post.url, plain=self._settings.control.rule_plain_http)
        if problem is not None:
            raise RuleEvaluationError(problem)
        if not self._settings.rule_http_unconfirmed:
            self._check_destination(firing.heard.partition, post.confirmation_url or post.url)
        firing.waiting += 1
        started = self.send is not None and self.send(post, partial(self._posted, firing, action, post))
        if not started:
            firing.waiting -= 1
            raise RuleEvaluationError("nothing here sends HTTP" if self.send is None else "too many requests wait")

    def _check_destination(self, partition: Partition, url: str) -> None:
        destination = self._registry.rule_destinations.find(partition, url)
        if destination is None:
            raise RuleEvaluationError(f"there is no destination for {url}")
        if destination.status is not DestinationStatus.ENABLED:
            raise RuleEvaluationError(f"the destination for {url} is {destination.status}, must be ENABLED")

    def _posted(
        self, firing: _Firing, action: CompiledAction, post: HTTPPost, status: int | None, problem: str
    ) -> None:
        if not self._registry.holds(firing.heard.partition):
            return  # everything was reset in the meantime
        if status is not None and 200 <= status < 300:
            firing.done.append(f"POST {post.url}: {status}")
        else:
            what = problem if status is None else f"HTTP status {status}"
            _fail(firing, action, f"POST {post.url}: {what}")
        before = self._origin, self._chain
        self._origin, self._chain = firing.heard.origin, firing.heard.chain + 1
        try:
            self._one_done(firing)
        finally:
            self._origin, self._chain = before

    # --- the end of a firing ---

    def _one_done(self, firing: _Firing) -> None:
        firing.waiting -= 1
        if firing.waiting:
            return
        verdict = history.RULE_EXECUTED
        if firing.not_executed:
            verdict = history.RULE_NOT_EXECUTED
        if firing.failures:
            verdict = history.RULE_FAILED
        failed = [f"{failure['failedAction']} failed: {failure['errorMessage']}" for failure in firing.failures]
        prefix = "error action: " if firing.is_error_action else ""
        self._note(firing, verdict, prefix + ("; ".join([*firing.done, *failed]) or "it has no actions"))
        if firing.failures and not firing.is_error_action and firing.compiled.error_action is not None:
            self._start_error_action(firing, firing.compiled.error_action)

    def _start_error_action(self, firing: _Firing, action: CompiledAction) -> None:
        """One message for all that failed (developer guide, "Error handling", D)."""
        heard = firing.heard
        report = from_plain(
            {
                "ruleName": firing.compiled.rule.name,
                "topic": heard.message.topic,
                "cloudwatchTraceId": firing.context.trace_id or self._registry.environment.uuid(),
                "clientId": "N/A" if heard.message.publisher is None else heard.message.publisher,
                "base64OriginalPayload": base64.b64encode(heard.message.payload).decode(),
                "failures": firing.failures,
            }
        )
        payload = write_json(report).encode()
        context = self._context(heard, firing.compiled.statement, payload)
        second = _Firing(heard=heard, compiled=firing.compiled, context=context, waiting=1, is_error_action=True)
        self._execute(second, action, payload)
        self._one_done(second)

    def _note(self, firing: _Firing, verdict: str, detail: str) -> None:
        if self._settings.rule_history == "problems" and verdict == history.RULE_EXECUTED:
            return
        heard = firing.heard
        self._recorder.add(
            kind=Kind.RULE,
            verdict=verdict,
            account_id=heard.partition.account_id,
            region=heard.partition.region,
            client_id=heard.message.publisher,
            certificate_id=heard.message.principal,
            detail=f"rule {firing.compiled.rule.name} on {heard.message.topic}: {detail}",
        )

    # --- destinations ---

    def _confirm(self, partition: Partition, destination: RuleDestination) -> None:
        """Send the confirmation message (developer guide, "Working with topic rule destinations", D)."""
        body = {
            "arn": destination.arn,
            "confirmationToken": destination.token,
            "enableUrl": f"{self.api_url}/confirmdestination/{destination.token}",
            "messageType": CONFIRMATION,
        }
        url = destination.confirmation_url
        joint = "" if url.endswith("/") else "/"
        post = HTTPPost(
            url=f"{url}{joint}?confirmationToken={destination.token}",
            headers=(
                ("x-amz-rules-engine-message-type", CONFIRMATION),
                ("x-amz-rules-engine-destination-arn", destination.arn),
                ("Content-Type", "application/json"),
            ),
            body=write_json(from_plain(body)).encode(),
        )
        told = partial(self._confirmation_sent, partition, url)
        if self.send is None:
            told(None, "nothing here sends HTTP")
        elif not self.send(post, told):
            told(None, "too many requests wait")

    def _confirmation_sent(self, partition: Partition, url: str, status: int | None, problem: str) -> None:
        if not self._registry.holds(partition):
            return
        sent = status is not None and 200 <= status < 300
        self._recorder.add(
            kind=Kind.RULE,
            verdict=history.CONFIRMATION_SENT if sent else history.CONFIRMATION_FAILED,
            account_id=partition.account_id,
            region=partition.region,
            detail=f"confirmation message to {url}: {problem if status is None else f'HTTP status {status}'}",
        )


def _fail(firing: _Firing, action: CompiledAction, problem: str) -> None:
    firing.failures.append(
        {"failedAction": action.failed_name, "failedResource": action.resource, "errorMessage": problem}
    )
