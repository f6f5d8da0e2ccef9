"""Locust with its own MQTT user (``locust.contrib.mqtt``): a greenlet a user, run as a library, without web interface.

``use_loop_selectors`` is on, as whoever wants more than 340 users must have it (Locust PR #3268), and each user has an
``ssl`` context of its own, for ``MqttUser`` knows only one a class.
"""

from peers.phases import client_id, connected, fail, hello, job, need, prepared
from peers.python_tls import OPENSSL, context

SPAWN_RATE = 400
"""Users a second: more than it manages on one core, so that it does not wait."""


def main() -> None:
    gevent, locust, mqtt = need("gevent"), need("locust"), need("locust.contrib.mqtt")
    environment_module, paho = need("locust.env"), need("paho.mqtt.client")
    task = job()
    hello("locust", "paho-mqtt", "gevent", tls=OPENSSL)
    numbers = iter(range(task.batches[0].start, task.batches[-1].stop))
    up = 0

    class Robot(mqtt.MqttUser):  # type: ignore[name-defined,misc]  # Locust comes without types
        host, port = task.host, task.port
        protocol = paho.MQTTv311
        use_loop_selectors = True

        def __init__(self, environment: object) -> None:
            number = next(numbers)
            self.client_id = client_id(number)
            self.tls_context = context(task.roots, task.bundle(number))
            super().__init__(environment)

        @locust.task  # type: ignore[untyped-decorator]  # Locust comes without types
        def idle(self) -> None:
            gevent.sleep(3600)

    def on_request(request_type: str, name: str, exception: object, **_: object) -> None:
        nonlocal up
        if exception is not None or (request_type, name) != ("MQTT", "connect"):
            fail(f"{name}: {exception}")
        up += 1

    environment = environment_module.Environment(user_classes=[Robot])
    environment.events.request.add_listener(on_request)
    runner = environment.create_local_runner()
    for batch in task.batches:
        prepared()
        runner.start(batch.stop - task.batches[0].start, spawn_rate=SPAWN_RATE)
        while up < batch.stop - task.batches[0].start:
            gevent.sleep(0.01)
        connected(len(batch))


if __name__ == "__main__":
    main()
