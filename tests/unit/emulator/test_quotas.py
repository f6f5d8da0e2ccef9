"""The counting itself, with the test as clock."""

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicesim.emulator.quotas import API_RATES, QuotaMeter, Quotas, RateLimiter, Throttled

ACCOUNT = ("111111111111", "us-east-1")
OTHER = ("222222222222", "us-east-1")
ELSEWHERE = ("111111111111", "eu-west-1")


class TestRateLimiter:
    def test_a_second_s_worth_may_come_at_once_and_then_one_by_one(self) -> None:
        limiter = RateLimiter(10)

        assert [limiter.take("k", 100.0) for _ in range(11)] == [True] * 10 + [False]
        assert not limiter.take("k", 100.05)
        assert limiter.take("k", 100.1)
        assert not limiter.take("k", 100.1)

    def test_what_is_refused_uses_nothing_up(self) -> None:
        limiter = RateLimiter(1)
        limiter.take("k", 0.0)
        for _ in range(1000):
            assert not limiter.take("k", 0.5)

        assert limiter.take("k", 1.0)

    def test_keys_do_not_share(self) -> None:
        limiter = RateLimiter(1)

        assert limiter.take("a", 0.0)
        assert limiter.take("b", 0.0)
        assert not limiter.take("a", 0.0)

    def test_a_rate_below_one_a_second_lets_the_first_in(self) -> None:
        limiter = RateLimiter(0.5)

        assert limiter.take("k", 0.0)
        assert not limiter.take("k", 1.9)
        assert limiter.take("k", 2.0)

    def test_the_burst_is_a_choice(self) -> None:
        limiter = RateLimiter(10, burst_seconds=0.1)

        assert [limiter.take("k", 0.0) for _ in range(2)] == [True, False]

    def test_several_are_taken_together_or_not_at_all(self) -> None:
        limiter = RateLimiter(10)

        assert limiter.take("k", 0.0, 8)
        assert limiter.take("k", 0.0, 8)  # one was still allowed
        assert not limiter.take("k", 0.0, 8)
        assert limiter.take("k", 0.7, 1)

    def test_reserving_tells_when_its_turn_is(self) -> None:
        limiter = RateLimiter(10)

        waits = [limiter.reserve("k", 0.0) for _ in range(12)]

        assert waits[:10] == [0.0] * 10
        assert waits[10] == pytest.approx(0.1)
        assert waits[11] == pytest.approx(0.2)

    def test_keys_are_forgotten_when_their_bucket_is_full(self) -> None:
        limiter = RateLimiter(1)
        for number in range(10_000):
            limiter.take(number, number / 100)

        assert len(limiter) <= 102  # those of the last second

    @given(
        rate=st.integers(1, 200),
        gaps=st.lists(st.floats(0, 0.5, allow_nan=False), min_size=1, max_size=300),
    )
    def test_no_second_sees_more_than_the_rate_and_its_burst(self, rate: int, gaps: list[float]) -> None:
        limiter, now, taken = RateLimiter(rate), 1000.0, []
        for gap in gaps:
            now += gap
            if limiter.take("k", now):
                taken.append(now)

        for start in taken:
            assert sum(start <= each < start + 1 for each in taken) <= 2 * rate
        assert len(taken) <= rate + rate * (now - 1000.0) + 1

    @given(rate=st.floats(0.5, 1000), gaps=st.lists(st.floats(1, 100), min_size=1, max_size=50))
    def test_who_keeps_to_the_rate_is_never_refused(self, rate: float, gaps: list[float]) -> None:
        limiter, now = RateLimiter(rate), 0.0
        for gap in gaps:
            now += gap / rate

            assert limiter.take("k", now)


class TestQuotas:
    def test_the_defaults_are_the_published_ones(self) -> None:
        quotas = Quotas()

        assert quotas.connects_per_second == 500
        assert quotas.connects_per_client_id_per_second == 1
        assert quotas.connections == 500_000
        assert quotas.certificate_registrations_per_second == 15
        assert quotas.publishes_per_connection_per_second == 100
        assert quotas.api_rate("RegisterThing") == 10
        assert quotas.api_rate("CreateThing") == 15
        assert quotas.api_rate("DescribeThing") == 350
        assert quotas.api_rate("AddThingToThingGroup") == 60
        assert quotas.api_rate("UpdateCertificate") == 10

    def test_every_operation_of_the_table_is_one_of_the_api(self) -> None:
        session = botocore.session.get_session()
        known = {name for each in ("iot", "cloudtrail") for name in session.get_service_model(each).operation_names}

        assert set(API_RATES) <= known

    def test_lifted_ones_let_everything_through(self) -> None:
        meter = QuotaMeter(Quotas.lifted())

        for _ in range(1000):
            assert meter.connect(ACCOUNT, 0.0) is None
            assert meter.connect_client_id(ACCOUNT, "c", 0.0) is None
            assert meter.registration(ACCOUNT, 0.0) is None
            assert meter.publish(ACCOUNT, 1, 0.0) is None
            assert meter.outbound(ACCOUNT, 1, 0.0) is None
            assert meter.subscribe(ACCOUNT, 8, 0.0) is None
            assert meter.call(ACCOUNT, "RegisterThing", 0.0) is None
            assert meter.call_data(ACCOUNT, "GetThingShadow", 0.0) is None
            assert meter.received(1, 100_000, 0.0) == 0
        assert meter.connections(10**9) is None

    @pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
    def test_a_rate_that_is_none_is_refused(self, rate: float) -> None:
        with pytest.raises(ValueError, match=r"quota (connects_per_second|CreateThing) is"):
            Quotas(connects_per_second=rate)
        with pytest.raises(ValueError, match="quota CreateThing is"):
            Quotas(api={"CreateThing": rate})


class TestQuotaMeter:
    def test_accounts_and_regions_have_their_own(self) -> None:
        meter = QuotaMeter(Quotas(connects_per_second=1))

        assert meter.connect(ACCOUNT, 0.0) is None
        assert meter.connect(OTHER, 0.0) is None
        assert meter.connect(ELSEWHERE, 0.0) is None
        assert meter.connect(ACCOUNT, 0.0) == Throttled(quota="connects_per_second", limit=1)
        assert meter.throttled == {"connects_per_second": 1}

    def test_the_same_client_id_in_two_accounts_is_two(self) -> None:
        meter = QuotaMeter(Quotas())

        assert meter.connect_client_id(ACCOUNT, "c", 0.0) is None
        assert meter.connect_client_id(OTHER, "c", 0.0) is None
        assert meter.connect_client_id(ACCOUNT, "d", 0.0) is None
        assert meter.connect_client_id(ACCOUNT, "c", 0.9) is not None
        assert meter.connect_client_id(ACCOUNT, "c", 1.0) is None

    def test_operations_have_their_own_rates(self) -> None:
        meter = QuotaMeter(Quotas())

        allowed = {
            name: sum(meter.call(ACCOUNT, name, 0.0) is None for _ in range(400))
            for name in ("CreatePolicy", "CreateThing", "DescribeThing")
        }

        assert allowed == {"CreatePolicy": 10, "CreateThing": 15, "DescribeThing": 350}
        assert meter.throttled["api.CreatePolicy"] == 390

    def test_certificates_registered_by_the_api_and_by_connecting_count_together(self) -> None:
        meter = QuotaMeter(Quotas())

        assert sum(meter.call(ACCOUNT, "RegisterCertificate", 0.0) is None for _ in range(10)) == 10
        assert sum(meter.registration(ACCOUNT, 0.0) is None for _ in range(10)) == 5
        throttled = meter.call(ACCOUNT, "RegisterCertificateWithoutCA", 0.0)
        assert throttled is not None
        assert throttled.quota == "certificate_registrations_per_second"

    def test_shadow_operations_count_together_and_publish_counts_as_inbound(self) -> None:
        meter = QuotaMeter(Quotas(shadow_requests_per_second=2, inbound_publishes_per_second=1))

        assert meter.call_data(ACCOUNT, "GetThingShadow", 0.0) is None
        assert meter.call_data(ACCOUNT, "UpdateThingShadow", 0.0) is None
        assert meter.call_data(ACCOUNT, "DeleteThingShadow", 0.0) is not None
        assert meter.call_data(ACCOUNT, "Publish", 0.0) is None
        assert meter.publish(ACCOUNT, 1, 0.0) == Throttled(quota="inbound_publishes_per_second", limit=1)
        assert meter.call_data(ACCOUNT, "ListNamedShadowsForThing", 0.0) is None

    def test_directions_of_one_connection_do_not_share(self) -> None:
        meter = QuotaMeter(Quotas(publishes_per_connection_per_second=1))

        assert meter.publish(ACCOUNT, 1, 0.0) is None
        assert meter.outbound(ACCOUNT, 1, 0.0) is None
        assert meter.publish(ACCOUNT, 1, 0.0) is not None
        assert meter.publish(ACCOUNT, 2, 0.0) is None

    def test_throughput_is_told_as_a_pause(self) -> None:
        meter = QuotaMeter(Quotas(throughput_per_connection=1000))

        assert meter.received(1, 900, 0.0) == 0
        assert meter.received(1, 600, 0.0) == pytest.approx(0.5, abs=0.01)
        assert meter.received(2, 600, 0.0) == 0
        assert meter.received(1, 0, 0.6) == 0

    def test_explaining_takes_nothing(self) -> None:
        meter = QuotaMeter(Quotas(connections=5))

        for _ in range(10):
            assert set(meter.explain_connect(ACCOUNT, "c", 4, 0.0).values()) == {None}
        assert meter.explain_connect(ACCOUNT, "c", 5, 0.0)["connections"] == Throttled(quota="connections", limit=5)
        assert meter.connect_client_id(ACCOUNT, "c", 0.0) is None
        assert meter.explain_connect(ACCOUNT, "c", 0, 0.0)["connects_per_client_id_per_second"] is not None
        assert not meter.throttled

    def test_other_quotas_count_from_now_on(self) -> None:
        meter = QuotaMeter(Quotas(connects_per_second=1))
        meter.connect(ACCOUNT, 0.0)

        meter.replace(Quotas(connects_per_second=2))

        assert [meter.connect(ACCOUNT, 0.0) is None for _ in range(3)] == [True, True, False]
