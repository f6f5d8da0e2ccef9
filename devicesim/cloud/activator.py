"""JITR activation: whoever watches for registered certificates and makes them ACTIVE.

In production that is a rule with a Lambda. Here it is an MQTT client of the account, subscribed to
``$aws/events/certificates/registered/<caId>``, that does what such a Lambda does: AttachPolicy, then UpdateCertificate
ACTIVE, in that order, for a device that is ACTIVE without a policy is turned away again. It is idempotent, because the
event is repeated on every CONNECT while the certificate is pending (aws-iot-behaviour.md §2).
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import trio

from devicesim.cloud.account import AccountClient, ControlPlaneError
from devicesim.errors import TargetError, leaves
from devicesim.net.failures import ConnectionFailed
from devicesim.net.mqtt import MQTTClient, MQTTSettings, open_mqtt
from devicesim.net.tls import Deadlines, TLSContext
from devicesim.outcome import Trace
from devicesim.pki.authority import self_signed
from devicesim.pki.identity import Identity, certificate_pem

Note = Callable[[str], None]
"""Takes one line for the record."""

REGISTERED = "$aws/events/certificates/registered"
"""Topic of the event, the CA's id below it."""
RECONNECT_SECONDS = 1.0
FIRST_CONNECT_TRIES = 10
"""A policy that was just attached may take some seconds to be in force."""
REMOVE_SECONDS = 20.0
"""The most that the end of a run waits for its own traces to be removed from an account."""
_VALIDITY = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivatorPlan:
    """What one account's activator works with."""

    ca_id: str
    endpoint: str
    """The account's data endpoint: SNI, and the name verified."""
    address: tuple[str, int]
    device_policy: str
    """Name of the policy that activated devices get."""
    name: str
    """Client id, and the name of the activator's own policy."""


@dataclass(slots=True)
class Activator:
    """Activates the certificates that it is told of."""

    client: AccountClient
    plan: ActivatorPlan
    note: Note
    _under_way: set[str] = field(default_factory=set)

    async def serve(
        self,
        identity: Identity,
        context: TLSContext,
        deadlines: Deadlines,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Subscribe and activate until cancelled; started when the first subscription is acknowledged.

        A lost connection is made again: an event that was missed meanwhile comes again with the device's next CONNECT.
        Raises :class:`TargetError` when the first connection cannot be made.
        """
        failed = 0
        subscribed = connected = False
        while True:
            try:
                async with self._connect(identity, context, deadlines) as mqtt, trio.open_nursery() as nursery:
                    await mqtt.subscribe(f"{REGISTERED}/{self.plan.ca_id}", 1)
                    connected = True
                    if not subscribed:
                        subscribed = True
                        task_status.started()
                    while True:
                        message = await mqtt.receive()
                        nursery.start_soon(self._handle, message.payload)
            except* ConnectionFailed as group:
                failed += 1
                reason = next(leaves(group))
                if not subscribed and failed >= FIRST_CONNECT_TRIES:
                    raise TargetError(
                        f"account {self.client.access.name!r}: the activator cannot subscribe to the registered event: "
                        f"{reason}"
                    ) from group
                if connected:  # once for each connection that is lost, not for every try to have it back
                    connected = False
                    self.note(f"activator of {self.client.access.name} lost its connection: {reason}")
            await trio.sleep(RECONNECT_SECONDS)

    def _connect(
        self, identity: Identity, context: TLSContext, deadlines: Deadlines
    ) -> AbstractAsyncContextManager[MQTTClient]:
        return open_mqtt(
            context,
            self.plan.address,
            identity=identity,
            server_name=self.plan.endpoint,
            verify_name=self.plan.endpoint,
            client_id=self.plan.name,
            settings=MQTTSettings(keep_alive=60),
            deadlines=deadlines,
            trace=Trace(start=trio.current_time()),
        )

    async def _handle(self, payload: bytes) -> None:
        certificate = registered_certificate(payload, self.plan.ca_id)
        if certificate is None or certificate in self._under_way:
            return
        self._under_way.add(certificate)
        try:
            await activate(self.client, certificate, self.plan.device_policy)
        except TargetError as exc:
            # told, not raised: the device's next CONNECT repeats the event, and so the try
            self.note(f"activation of {certificate[:8]} failed: {exc}")
        finally:
            self._under_way.discard(certificate)


async def activate(client: AccountClient, certificate_id: str, policy_name: str) -> None:
    """Let a certificate in, in the order that leaves it without a policy at no time. Raises ``TargetError``."""
    target = client.access.arn(f"cert/{certificate_id}")
    await client.call("attach_policy", policyName=policy_name, target=target)
    await client.call("update_certificate", certificateId=certificate_id, newStatus="ACTIVE")


def registered_certificate(payload: bytes, ca_id: str | None) -> str | None:
    """The certificate id of a ``registered`` event that asks for activation, or ``None`` for anything else.

    ``ca_id`` is the CA whose certificates are meant; ``None``: any.
    """
    try:
        event = json.loads(payload)
    except ValueError:
        return None
    if not isinstance(event, dict) or ca_id not in (None, event.get("caCertificateId")):
        return None
    certificate = event.get("certificateId")
    pending = event.get("certificateStatus") == "PENDING_ACTIVATION"
    return certificate if pending and isinstance(certificate, str) else None


@asynccontextmanager
async def activator_identity(
    client: AccountClient, name: str, ca_id: str, now: datetime, note: Note
) -> AsyncIterator[Identity]:
    """A certificate with which an activator may watch one CA's events; removed from the account at the end.

    Self-signed and registered without a CA (aws-iot-behaviour.md §1.4), so its key never leaves this process. What
    cannot be removed is told by ``note``, not raised: what the devices did stands all the same.
    """
    identity = new_watcher(name, now)
    target = client.access.arn(f"cert/{identity.certificate_id}")
    try:
        await let_watch(client, identity, name, ca_id)
        yield identity
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + REMOVE_SECONDS) as scope:
            await _remove(client, name, identity.certificate_id, target, note)
        if scope.cancelled_caught:
            note(f"policy {name!r} and certificate {identity.certificate_id} are left: no answer in time")


def new_watcher(name: str, now: datetime) -> Identity:
    """A self-signed certificate that lasts for a while."""
    return self_signed(name, not_before=now - timedelta(minutes=5), not_after=now + _VALIDITY)


async def let_watch(client: AccountClient, identity: Identity, name: str, ca_id: str) -> None:
    """Register a watcher's certificate without CA, with a policy of its own called ``name``: it may connect under that
    name and be told of what is registered under the CA (``*``: any). Raises ``TargetError``."""
    topic = f"{REGISTERED}/{ca_id}"
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": client.access.arn(f"client/{name}")},
            {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": client.access.arn(f"topicfilter/{topic}")},
            {"Effect": "Allow", "Action": "iot:Receive", "Resource": client.access.arn(f"topic/{topic}")},
        ],
    }
    await client.call("create_policy", policyName=name, policyDocument=json.dumps(document))
    await client.call(
        "register_certificate_without_ca", certificatePem=certificate_pem(identity.certificate), status="ACTIVE"
    )
    target = client.access.arn(f"cert/{identity.certificate_id}")
    await client.call("attach_policy", policyName=name, target=target)


async def _remove(client: AccountClient, name: str, certificate: str, target: str, note: Note) -> None:
    for operation, parameters in (
        ("detach_policy", {"policyName": name, "target": target}),
        ("update_certificate", {"certificateId": certificate, "newStatus": "INACTIVE"}),
        ("delete_certificate", {"certificateId": certificate}),
        ("delete_policy", {"policyName": name}),
    ):
        try:
            await client.call(operation, **parameters)
        except ControlPlaneError as exc:
            if exc.code != "ResourceNotFoundException":
                note(f"not removed: {exc}")
        except TargetError as exc:
            note(f"policy {name!r} and certificate {certificate} are left: {exc}")
            return  # nobody answers, and each further call would be tried for seconds
