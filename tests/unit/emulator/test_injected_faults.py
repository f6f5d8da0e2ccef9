"""What each fault does to devices and callers, without sockets, and that the history tells of it."""

import pytest

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.faults import MAX_SECONDS, Fault, FaultKind
from devicesim.emulator.packets import ConnAck, PingReq, PingResp, Publish, ReasonCode
from devicesim.emulator.settings import Settings
from tests.emulator_support import V5, A, B, World, device, template


def inject(world: World, kind: FaultKind, **fields: object) -> None:
    world.core.faults.inject(Fault(kind=kind, **fields), world.now)  # type: ignore[arg-type]


def told(world: World) -> list[tuple[str | None, str | None, str | None]]:
    """Fault, account and client of each firing in the history."""
    return [(e.fault, e.account_id, e.client_id) for e in world.history.select(verdict="fault_injected")]


class TestConnect:
    def test_dropped_after_the_handshake(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.DROP_AFTER_HANDSHAKE, name="drop", count=1)

        client = world.client(0, account.endpoint)

        assert client.closed
        assert client.connect() == []
        assert told(world) == [("drop", A, None)]
        assert world.verdicts() == ["fault_injected", "no_connect"]
        world.client(0, account.endpoint).connected()

    def test_a_fault_of_one_account_leaves_the_others_alone(self) -> None:
        world = World()
        first, second = world.ready_account(0), world.ready_account(0, account_id=B)
        inject(world, FaultKind.REFUSE_CONNECT, account_id=B)

        world.client(0, first.endpoint).connected()
        assert world.client(0, second.endpoint).connect("c") == []
        assert told(world) == [("refuse_connect", B, "c")]

    def test_a_share_of_connects_is_refused(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.REFUSE_CONNECT, share=0.3, seed=1)

        refused = sum(not world.client(0, account.endpoint).connect(f"c{n}") for n in range(200))

        assert 40 < refused < 80
        assert len(told(world)) == refused
        assert world.history.counts["refused"] == refused

    def test_mqtt_5_sees_an_unspecified_error(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.REFUSE_CONNECT)

        (answer,) = world.client(0, account.endpoint, version=V5).connect()

        assert isinstance(answer, ConnAck)
        assert answer.reason_code == ReasonCode.UNSPECIFIED_ERROR

    def test_a_refused_first_connection_registers_nothing(self) -> None:
        world = World()
        account = world.ready_account()
        inject(world, FaultKind.REFUSE_CONNECT)
        world.client(0, account.endpoint).connect()

        assert world.status(account, device(0)) is None

    def test_throttled_as_by_the_account_s_quota(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.THROTTLE, client_id="c")

        (answer,) = world.client(0, account.endpoint, version=V5).connect("c")
        world.client(0, account.endpoint).connected("d")

        assert isinstance(answer, ConnAck)
        assert answer.reason_code == ReasonCode.QUOTA_EXCEEDED
        (entry,) = world.history.select(verdict="throttled")
        assert entry.reason == "THROTTLED"
        assert told(world) == [("throttle", A, "c")]

    def test_its_time_is_that_of_the_clock(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.REFUSE_CONNECT, after=10, duration=10)

        outcomes = []
        for _ in range(3):
            outcomes.append(bool(world.client(0, account.endpoint).connect("c")))
            world.advance(10)

        assert outcomes == [True, False, True]


class TestDelayedConnack:
    def test_connect_is_decided_on_later(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.DELAY_CONNACK, seconds=3)
        client = world.client(0, account.endpoint)

        assert client.connect() == []
        assert not client.closed
        world.advance(2.9)
        assert client.received() == []
        world.advance(0.1)
        assert client.received() == [ConnAck()]
        client.send(PingReq())
        assert client.received() == [PingResp()]

    def test_by_what_is_true_then(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.DELAY_CONNACK, seconds=3)
        client = world.client(0, account.endpoint)
        client.connect()

        world.update(account, device(0), "INACTIVE")
        world.advance(3)

        assert client.received() == []
        assert client.closed

    def test_the_deadline_for_connect_does_not_strike_meanwhile(self) -> None:
        world = World(Settings(connect_timeout=1))
        account = world.ready_account(0)
        inject(world, FaultKind.DELAY_CONNACK, seconds=30)
        client = world.client(0, account.endpoint)
        client.connect()
        world.advance(29)

        assert not client.closed

    def test_what_the_client_sends_meanwhile_waits(self) -> None:
        world = World(Settings(packets_before_connack="accept"))
        account = world.ready_account(0)
        inject(world, FaultKind.DELAY_CONNACK, seconds=3)
        client = world.client(0, account.endpoint)
        client.connect()
        client.send(PingReq())
        assert client.received() == []

        world.advance(3)

        assert client.received() == [ConnAck(), PingResp()]

    def test_it_does_not_pile_up(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.DELAY_CONNACK, seconds=3)
        client = world.client(0, account.endpoint)
        client.connect()

        client.send_bytes(bytes(1 << 20))

        assert client.closed

    def test_who_leaves_meanwhile_is_not_decided_on(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.DELAY_CONNACK, seconds=3)
        client = world.client(0, account.endpoint)
        client.connect()
        client.lose()
        world.advance(10)

        assert world.verdicts() == ["fault_injected", "no_connect"]
        assert len(world.plane.timers) == 0


class TestCertificates:
    def test_a_clock_that_is_ahead_sees_certificates_expire_early(self) -> None:
        world = World()
        account = world.ready_account(0)
        left = device(0).certificate.not_valid_after_utc.timestamp() - world.epoch()
        inject(world, FaultKind.CLOCK_SKEW, seconds=left + 60, count=1)

        assert world.client(0, account.endpoint).connect() == []
        assert "not valid after" in world.history.select(verdict="refused")[0].detail
        assert told(world) == [("clock_skew", A, "c")]
        world.client(0, account.endpoint).connected()

    def test_a_clock_that_is_behind_sees_them_begin_late(self) -> None:
        world = World()
        account = world.ready_account(0)
        age = world.epoch() - device(0).certificate.not_valid_before_utc.timestamp()
        inject(world, FaultKind.CLOCK_SKEW, seconds=-age - 60)

        assert world.client(0, account.endpoint).connect() == []
        assert "not valid before" in world.history.select(verdict="refused")[0].detail

    def test_a_front_door_that_is_behind_does_not_see_an_activation_at_once(self) -> None:
        world = World()
        account = world.ready_account()
        inject(world, FaultKind.STALE_CERTIFICATE_STATE, seconds=30)
        world.client(0, account.endpoint).connect()
        world.update(account, device(0), "ACTIVE")
        world.allow(account, device(0))
        events = world.history.counts["published"]

        assert world.client(0, account.endpoint).connect() == []
        assert world.history.select(verdict="pending")
        assert world.history.counts["published"] == events  # the service itself is not behind
        assert told(world) == [("stale_certificate_state", A, "c")]
        world.advance(30)
        world.client(0, account.endpoint).connected()

    def test_it_lets_a_deactivated_certificate_in_until_it_has_caught_up(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.STALE_CERTIFICATE_STATE, seconds=30)
        world.update(account, device(0), "REVOKED")
        world.advance(10)

        client = world.client(0, account.endpoint).connected()
        world.advance(19)
        assert not client.closed
        world.advance(1)
        assert client.closed
        assert world.last().reason == "AUTH_ERROR"
        assert world.client(0, account.endpoint).connect() == []

    def test_a_fault_that_lasts_too_short_neither_fires_nor_stands_before_another(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.STALE_CERTIFICATE_STATE, name="short", seconds=5)
        inject(world, FaultKind.STALE_CERTIFICATE_STATE, name="long", seconds=50)
        world.update(account, device(0), "INACTIVE")
        world.advance(6)

        world.client(0, account.endpoint).connected()

        assert told(world) == [("long", A, "c")]

    @pytest.mark.parametrize("seconds", [MAX_SECONDS, -MAX_SECONDS])
    def test_the_longest_skew_is_a_refusal_and_no_failure(self, seconds: float) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.CLOCK_SKEW, seconds=seconds)

        assert world.client(0, account.endpoint).connect("c") == []

        assert (world.last().verdict, world.last().reason) == ("refused", "NOT_AUTHENTICATED")

    @pytest.mark.parametrize("start_again", ["delete", "reset"])
    def test_a_new_record_was_never_what_the_one_before_it_was(self, start_again: str) -> None:
        world = World()
        fault = Fault(kind=FaultKind.STALE_CERTIFICATE_STATE, seconds=50)

        def inject_again() -> None:
            world.core.faults.inject(fault, world.now)

        inject_again()
        world.core.on_reset.append(inject_again)
        account = world.ready_account(0)
        world.update(account, device(0), "INACTIVE")
        if start_again == "reset":
            world.core.reset()
        else:
            world.registry.certificates.delete(account, device(0).certificate_id, force=True)
        again = world.account() if start_again == "delete" else world.ready_account()

        assert world.client(0, again.endpoint).connect("c") == []
        assert world.client(0, again.endpoint).connect("c") == []

        assert "pending" in world.verdicts()
        assert "pending" in world.verdicts()
        assert told(world) == []

    def test_what_has_not_changed_is_not_stale(self) -> None:
        world = World()
        account = world.ready_account(0)
        inject(world, FaultKind.STALE_CERTIFICATE_STATE)

        world.client(0, account.endpoint).connected()

        assert told(world) == []


class TestProvisioning:
    def world(self) -> World:
        world = World(Settings(jitp_delay=(2.0, 2.0)))
        world.register_ca(world.account(), mode="SNI_ONLY", template_body=template())
        return world

    def test_it_takes_longer(self) -> None:
        world = self.world()
        account = world.account()
        inject(world, FaultKind.DELAY_PROVISIONING, seconds=5)
        world.client(0, account.endpoint).connect()

        world.advance(6)
        assert world.status(account, device(0)) == "PENDING_ACTIVATION"
        world.advance(1)
        assert world.status(account, device(0)) == "ACTIVE"
        assert told(world) == [("delay_provisioning", A, None)]

    def test_it_fails_and_the_next_connect_tries_again(self) -> None:
        world = self.world()
        account = world.account()
        inject(world, FaultKind.FAIL_PROVISIONING, count=1)
        world.client(0, account.endpoint).connect()
        world.advance(2)

        assert world.status(account, device(0)) == "PENDING_ACTIVATION"
        assert world.history.select(verdict="provisioning_failed")[0].reason == "AccessDeniedException"
        assert world.plane.provisioning_runs == 0
        world.client(0, account.endpoint).connect()
        world.advance(2)
        assert world.status(account, device(0)) == "ACTIVE"


class TestConnected:
    def test_the_connection_is_cut_at_a_publish(self) -> None:
        world = World()
        account = world.ready_account(0, 1)
        receiver = world.client(1, account.endpoint).connected("r").subscribe("t")
        client = world.client(0, account.endpoint).connected("c")
        inject(world, FaultKind.DROP_CONNECTION, client_id="c")

        client.send(Publish(topic="t", payload=b"", qos=0))

        assert client.connection.end is not None
        assert not client.connection.end.flush
        assert receiver.messages() == []
        assert world.last().reason == "CONNECTION_LOST"
        assert told(world) == [("drop_connection", A, "c")]


class TestAPI:
    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            (FaultKind.THROTTLE_API, "ThrottlingException"),
            (FaultKind.API_UNAVAILABLE, "ServiceUnavailableException"),
        ],
    )
    def test_a_call_fails(self, kind: FaultKind, code: str) -> None:
        world = World()
        inject(world, kind, operation="UpdateCertificate", count=1)
        call = world.plane.guard.call

        call(world.account(), "iot", "CreateThing")
        with pytest.raises(APIError) as caught:
            call(world.account(), "iot", "UpdateCertificate")
        call(world.account(), "iot", "UpdateCertificate")

        assert caught.value.code == code
        assert told(world) == [(kind.value, A, None)]
        assert world.last().detail == "UpdateCertificate"
