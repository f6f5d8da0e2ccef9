"""Who is told when an account registers a certificate on connection, as a JITR Lambda is: an MQTT client of the account
that counts the events (aws-iot-behaviour.md §2 [M]: one for each CONNECT of a certificate that is pending)."""

from collections import Counter
from datetime import datetime

import trio

from devicesim.cloud.activator import REGISTERED, let_watch, new_watcher, registered_certificate
from devicesim.cloud.teardown import Made
from devicesim.conformance.stage import Actor
from devicesim.errors import TargetError, leaves
from devicesim.fleet.pacing import Backoff
from devicesim.net.failures import ConnectionFailed
from devicesim.net.mqtt import MQTTClient, MQTTSettings, open_mqtt
from devicesim.net.tls import Deadlines, TLSContext
from devicesim.outcome import Trace

_RECEIVERS = 16
"""Tasks that receive: each has a message a turn of trio's, which are long while a whole matrix connects."""


class Listener:
    """Counts the events of one account."""

    def __init__(self, actor: Actor, *, endpoint: str, address: tuple[str, int], name: str, now: datetime) -> None:
        """``name`` is its client id and that of its policy."""
        self._actor = actor
        self._endpoint = endpoint
        self._address = address
        self._name = name
        self._identity = new_watcher(name, now)
        self._told: Counter[str] = Counter()
        self._news = trio.Event()
        self.listening = False
        """Whether it missed nothing so far."""

    def made(self) -> Made:
        """What :meth:`serve` makes in the account."""
        return Made(account=self._actor.name, beside=(self._identity.certificate_id,), policy=self._name)

    async def serve(
        self,
        context: TLSContext,
        backoff: Backoff,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled or disconnected; started with why it cannot, which is empty when it can.

        ``backoff`` is for the first connection: a policy that was just attached may take a while to be in force.
        """
        try:
            await let_watch(self._actor.client, self._identity, self._name, "*")
        except TargetError as exc:
            task_status.started(str(exc))
            return
        reason = ""
        for delay in (*backoff.delays(lambda: 0.5), None):
            try:
                await self._listen(context, task_status)
            except* ConnectionFailed as group:
                reason = str(next(leaves(group)))
            if self.listening:
                self.listening = False
                self._tell()
                return
            if delay is not None:
                await trio.sleep(delay)
        task_status.started(reason)

    async def _listen(self, context: TLSContext, task_status: trio.TaskStatus[str]) -> None:
        async with open_mqtt(
            context,
            self._address,
            identity=self._identity,
            server_name=self._endpoint,
            verify_name=self._endpoint,
            client_id=self._name,
            settings=MQTTSettings(),
            deadlines=Deadlines(),
            trace=Trace(start=trio.current_time()),
        ) as mqtt:
            await mqtt.subscribe(f"{REGISTERED}/+", 1)
            self.listening = True
            task_status.started("")
            async with trio.open_nursery() as nursery:
                for _ in range(_RECEIVERS):
                    nursery.start_soon(self._count, mqtt)

    async def _count(self, mqtt: MQTTClient) -> None:
        while True:
            message = await mqtt.receive()
            certificate = registered_certificate(message.payload, None)
            if certificate is not None:
                self._told[certificate] += 1
                self._tell()

    async def told(self, certificate_id: str, due: int, deadline: float) -> int | None:
        """How many events of a certificate came, once ``due`` of them did or at the deadline; ``None``: not known."""
        with trio.move_on_at(deadline):
            while self.listening and self._told[certificate_id] < due:
                await self._news.wait()
        return self._told[certificate_id] if self.listening else None

    def so_far(self, certificate_id: str) -> int:
        """How many came."""
        return self._told[certificate_id]

    def _tell(self) -> None:
        """Whoever waits looks again."""
        self._news.set()
        self._news = trio.Event()
