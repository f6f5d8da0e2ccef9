"""What is written is what is read; and neither the order of samples nor how they were split can be told from sums."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.outcome import Attempt
from devicesim.record.metrics import METRICS, Metrics, Tags
from devicesim.record.thresholds import parse_expression, parse_metric
from tests.record_support import ACCEPTED, DROP, REFUSED

names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,10}\Z")
numbers = st.decimals(0, 10_000, places=3).map(lambda each: f"{each:f}") | st.integers(0, 10_000).map(str)
percentiles = st.decimals(0, 100, places=2).map(lambda each: f"{each:f}")
methods = st.sampled_from(["avg", "min", "max", "med", "rate", "count"]) | percentiles.map(lambda each: f"p({each})")
operators = st.sampled_from(["<", "<=", ">", ">=", "==", "===", "!="])
units = st.sampled_from(["", "ms", "s", "m"])
blanks = st.sampled_from(["", " ", "  "])
SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0}


@given(methods, blanks, operators, blanks, numbers, units)
def test_expression_reads_back_whatever_the_blanks(
    method: str, before: str, operator: str, after: str, number: str, unit: str
) -> None:
    read = parse_expression(f"{before}{method}{before}{operator}{after}{number}{unit}{after}")

    name, _, percentile = method.removesuffix(")").partition("(")
    assert read.aggregation.method == name
    assert read.aggregation.percentile == (float(percentile) if percentile else None)
    assert read.operator == operator
    assert abs(read.value - float(number) * SECONDS[unit]) <= 1e-9 * read.value
    assert parse_expression(f"{method}{operator}{number}{unit}") == read


@given(st.text(alphabet="p(95)<=>!msrate0.1 count{}\n", max_size=20))
@settings(max_examples=300)
def test_no_text_crashes_the_parser(text: str) -> None:
    for parse in (parse_expression, parse_metric):
        try:
            parse(text)
        except ValueError as exc:
            assert str(exc)  # noqa: PT017  # any text may be refused, none without a reason


@given(st.sampled_from(sorted(METRICS)), st.none() | names, st.none() | names, st.booleans(), blanks)
def test_metric_reads_back_whatever_the_order_of_its_tags(
    metric: str, group: str | None, account: str | None, turned: bool, blank: str
) -> None:
    tags = [f"{tag}{blank}:{blank}{name}" for tag, name in (("group", group), ("account", account)) if name]
    text = f"{metric}{{{f'{blank},'.join(reversed(tags) if turned else tags)}}}" if tags else metric

    read = parse_metric(text)

    assert (read.metric.name, read.group, read.account) == (metric, group, account)


Event = tuple[str, Tags, Attempt, float]

tags = st.builds(Tags, group=st.sampled_from(["a", "b"]), account=st.sampled_from(["dev", "prod"]))
attempts = st.builds(
    lambda base, published, lost, failed: replace(
        base,
        published=published,
        acknowledged=None if lost is None or published is None else max(0, published - lost),
        failure=DROP if failed else base.failure,
    ),
    st.sampled_from([REFUSED, ACCEPTED]),
    st.none() | st.integers(0, 50),
    st.none() | st.integers(0, 5),
    st.booleans(),
)
kinds = st.sampled_from(["start", "drop", "attempt", "device", "given up", "agree"])
events = st.tuples(kinds, tags, attempts, st.floats(0, 100))


def summed(happened: list[Event]) -> Metrics:
    metrics = Metrics(late_after=1.0)
    for kind, where, attempt, seconds in happened:
        match kind:
            case "start":
                metrics.start(where, seconds)
            case "drop":
                metrics.drop(where)
            case "attempt":
                metrics.attempt(where, attempt)
            case "device":
                metrics.device(where, counts=True, provisioned=True, time_to_provision=seconds)
            case "given up":
                metrics.device(where, counts=seconds > 50, provisioned=False, time_to_provision=None)
            case _:
                metrics.agree(where, seconds > 50)
    return metrics


@given(st.lists(events, max_size=30), st.data())
def test_neither_order_nor_split_can_be_told_from_the_sums(happened: list[Event], data: st.DataObject) -> None:
    whole = summed(happened)
    mixed = data.draw(st.permutations(happened))
    parts = data.draw(st.integers(1, 4))
    shards = [summed(mixed[n::parts]) for n in range(parts)]

    one = Metrics(late_after=1.0)
    for shard in shards:
        one = one.merge(shard)
    other = Metrics(late_after=1.0)
    for shard in shards:
        other = shard.merge(other)

    assert one == whole
    assert other == whole
    assert summed(mixed) == whole
