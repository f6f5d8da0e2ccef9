"""Rule SQL on messages: the examples and tables of the developer guide, and where its types meet."""

import json
from typing import Any

import pytest

from devicesim.emulator.packets import Properties
from devicesim.emulator.topicrules.evaluation import run, substitute
from devicesim.emulator.topicrules.functions import ELSEWHERE, KNOWN_FUNCTIONS, Context
from devicesim.emulator.topicrules.sql import VERSION_2015, VERSION_2016, parse, parse_template
from devicesim.emulator.topicrules.values import RuleEvaluationError


def context(payload: bytes = b"{}", *, version: str = VERSION_2016, **fields: Any) -> Context:
    known: dict[str, Any] = {
        "topic": "things/myThings/thingOne",
        "account_id": "123456789012",
        "now": 1481825251.155,
        "uuid": lambda: "123a4567-b89c-12d3-e456-789012345000",
        "uniform": lambda low, high: (low + high) / 2,
    }
    return Context(payload=payload, version=version, **{**known, **fields})


def output(sql: str, payload: object = None, *, version: str = VERSION_2016, **fields: Any) -> bytes | None:
    raw = payload if isinstance(payload, bytes) else json.dumps({} if payload is None else payload).encode()
    return run(parse(sql, version), context(raw, version=version, **fields))


def value(expression: str, payload: object = None, **fields: Any) -> Any:
    """The expression's value, or ``"Undefined"``."""
    written = output(f"SELECT {expression} AS x FROM 'a'", payload, **fields)
    assert written is not None
    return json.loads(written).get("x", "Undefined")


def holds(condition: str, payload: object = None) -> bool:
    return output(f"SELECT * FROM 'a' WHERE {condition}", payload) is not None


COLORS = {"color": {"red": 255, "green": 0}, "temperature": 50}
SENSORS = {
    "e": [
        {"n": "temperature", "u": "Cel", "t": 1234, "v": 22.5},
        {"n": "light", "u": "lm", "t": 1235, "v": 135},
    ]
}


@pytest.mark.parametrize(
    ("sql", "payload", "expected"),
    [
        ("SELECT color AS my_color FROM 'a/b'", {"color": "red"}, {"my_color": "red"}),
        ("SELECT *, 15 as speed FROM 'a/b'", {"color": "red"}, {"color": "red", "speed": 15}),
        ("SELECT VALUE color FROM 'a/b'", {"color": "red"}, "red"),
        ("SELECT color.red as red_value FROM 'a/b'", COLORS, {"red_value": 255}),
        ("SELECT color.red FROM 'a/b'", COLORS, {"red": 255}),
        (
            "SELECT (temperature - 32) * 5 / 9 AS celsius, upper(color) as my_color FROM 'a/b'",
            {"color": "red", "temperature": 50},
            {"celsius": 10, "my_color": "RED"},
        ),
        ("SELECT foo.bar AS bar.baz FROM 'a/b'", {"foo": {"bar": 1}}, {"bar": {"baz": 1}}),
        ("SELECT VALUE arr FROM 'topic'", {"a": {"b": "c"}, "arr": [1, 2]}, [1, 2]),
        ("SELECT NULL AS n, missing FROM 'a/b'", {}, {"n": None}),
        (
            "SELECT {'latitude': get(lat_long, 0),'longitude':get(lat_long, 1)} as lat_long FROM 't'",
            {"lat_long": [47.606, -122.332]},
            {"lat_long": {"latitude": 47.606, "longitude": -122.332}},
        ),
        ("SELECT [lat,long] as lat_long FROM 't'", {"lat": 47.606, "long": -122.332}, {"lat_long": [47.606, -122.332]}),
        (
            "SELECT CASE color WHEN 'green' THEN 'go' WHEN 'yellow' THEN 'caution' END as instructions FROM 't'",
            {"color": "yellow"},
            {"instructions": "caution"},
        ),
        ("SELECT (SELECT VALUE n FROM e) as sensors FROM 't'", SENSORS, {"sensors": ["temperature", "light"]}),
        (
            "SELECT (SELECT v FROM e WHERE n = 'temperature') as temperature FROM 't'",
            SENSORS,
            {"temperature": [{"v": 22.5}]},
        ),
        (
            "SELECT get((SELECT v FROM e WHERE n = 'temperature'), 0).v as temperature FROM 't'",
            SENSORS,
            {"temperature": 22.5},
        ),
        (
            "select value transform('enrichArray', attributes, values) from 'A/B'",
            {"attributes": {"data1": 1}, "values": [{"a": 3}, {"b": 4}]},
            [{"a": 3, "data1": 1}, {"b": 4, "data1": 1}],
        ),
        (
            "select value transform('enrichArray', (select a, b from data2), (select value c from data2)) from 'A/B'",
            {"data2": {"a": "first", "b": "second", "c": [{"y": True}, {"y": False}]}},
            [{"y": True, "a": "first", "b": "second"}, {"y": False, "a": "first", "b": "second"}],
        ),
        (
            "SELECT decode(encoded_temp,\"base64\").temperature AS temp from 'topic/subtopic'",
            {"encoded_temp": "eyAidGVtcGVyYXR1cmUiOiAzMyB9Cg=="},
            {"temp": 33},
        ),
        (
            "SET @s = device1.sensors, @t = @s.temp - 32 SELECT @t AS t, @s.humidity FROM 'd' WHERE @t > 1",
            {"device1": {"sensors": {"temp": 75, "humidity": 60}}},
            {"t": 43, "humidity": 60},
        ),
    ],
)
def test_examples_of_the_developer_guide(sql: str, payload: object, expected: object) -> None:
    written = output(sql, payload)

    assert written is not None
    assert json.loads(written) == expected


def test_where_decides_whether_there_is_an_output() -> None:
    sql = "SELECT color AS my_color FROM 'a/b' WHERE temperature > 50 AND color <> 'red'"

    assert output(sql, {"color": "red", "temperature": 51}) is None
    assert output(sql, {"color": "blue", "temperature": 51}) == b'{"my_color":"blue"}'


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('abs("-5.123")', 5.123),
        ("acos(0)", 1.5707963267948966),
        ("acos(2)", "Undefined"),
        ("accountid()", "123456789012"),
        ("atan2(1, 0)", 1.5707963267948966),
        ("bitand(13, 5)", 5),
        ("bitor(8, 5)", 13),
        ("bitxor(13, 5)", 8),
        ("bitnot('2.9')", -3),
        ("cast(true as Int)", 1),
        ("cast(-1.5 as Int)", -2),
        ("cast('false' as Boolean)", False),
        ("cast(0.0 as Boolean)", False),
        ("cast([1] as Int)", "Undefined"),
        ("cast(12 as String)", "12"),
        ("ceil(-1.2)", -1),
        ("chr(65)", "A"),
        ("chr(300)", "Undefined"),
        ("concat()", "Undefined"),
        ('concat([1, 2, 3], "hello", [4])', [1, 2, 3, "hello", 4]),
        ('concat(1, "hello")', "1hello"),
        ("concat(1, 2)", "Undefined"),
        ("cosh(2.3)", 5.037220649268761),
        ("decode('not base64!', 'base64')", None),
        ("decode('aGk=', 'base64')", "hi"),
        ("encode('hi', 'base64')", "aGk="),
        ("encode('hi', 'hex')", "Undefined"),
        ('endswith("cat","at")', True),
        ("floor(-1.2)", -2),
        ('get(["a", "b", "c"], 1)', "b"),
        ('get({"a":"b"}, "a")', "b"),
        ('get("abc", 3)', "Undefined"),
        ("get([1,2], -1)", "Undefined"),
        ('indexof("abcd", "bc")', 1),
        ("isNull(Null)", True),
        ("isNull(5)", False),
        ("isUndefined(floor([1,2,3]))", True),
        ("length(false)", 5),
        ("ln(0)", "Undefined"),
        ("log(100)", 2.0),
        ('lower(["HELLO"])', '["hello"]'),
        ('lpad("hello", 2)', "  hello"),
        ("lpad(1, -3)", "1"),
        ('ltrim(" h i ")', "h i "),
        ('md5("hello")', "5d41402abc4b2a76b9719d911017c592"),
        ("mod(8, 3)", 2),
        ("mod(-7, 3)", -1),
        ("mod(7, 0)", "Undefined"),
        ("nanvl(missing, 3)", 3),
        ("Nanvl(8, 3)", 8),
        ("newuuid()", "123a4567-b89c-12d3-e456-789012345000"),
        ('numbytes("€")', 3),
        ("power(2, 5)", 32.0),
        ("power(10, 400)", "Undefined"),
        ("rand()", 0.5),
        ('regexp_matches("aaaa", "a{2,}")', True),
        ('regexp_matches("aaaa", "(")', "Undefined"),
        ('regexp_matches("aaaa", "(?V1)a")', "Undefined"),
        ('regexp_replace("abcd", "b(.*)d", "$1")', "ac"),
        ('regexp_replace("abcd", "b", "$1")', "Undefined"),
        ('regexp_substr("hihihello", "(hi)*")', "hihi"),
        ('replace("abcdabcd", "b", "x")', "axcdaxcd"),
        ('rpad("hello", 2)', "hello  "),
        ("Round(1.5)", 2),
        ("Round(-1.5)", -2),
        ("Round(-1.1)", -1),
        ("sign(-7)", -1),
        ("sql_version()", "2016-03-23"),
        ("sqrt(9)", 3.0),
        ("sqrt(-9)", "Undefined"),
        ('startswith("ranger","ran")', True),
        ("startswith(null, 'n')", "Undefined"),
        ('substring("012345", 2.745)', "2345"),
        ("substring(123, 2)", "3"),
        ('substring("012345", -1)', "012345"),
        ("substring(true, 1.2)", "rue"),
        ("substring(false, -2.411E247)", "false"),
        ('substring("012345", 1, 3)', "12"),
        ('substring("012345", -50, 50)', "012345"),
        ('substring("012345", 3, 1)', ""),
        ("timestamp()", 1481825251155),
        ("topic()", "things/myThings/thingOne"),
        ("topic(1)", "things"),
        ("topic(4)", "Undefined"),
        ("topic(0)", "Undefined"),
        ('Trim(" hi ")', "hi"),
        ("trunc(2.3, 0)", 2),
        ("trunc(2.888, 2)", 2.88),
        ("trunc(2.00, 5)", 2),
        ("trunc(1E33, 5)", 1e33),
        ("cast('0.1000000000000000055511151231257827' as Double)", 0.1),
        ('upper(["hello"])', '["HELLO"]'),
        ("lower()", "Undefined"),
        ("lower('A', 'B')", "Undefined"),
        ("clientid()", "n/a"),
        ("principal()", "Undefined"),
        ("traceid()", "Undefined"),
        ("parse_time('yyyy.MM.dd', 100000000, 'Nope/Zone')", "Undefined"),
        ("time_to_epoch('18 December 2015', 'dd MMMM yyyy')", 1450396800000),
    ],
)
def test_functions_follow_their_tables(expression: str, expected: object) -> None:
    assert value(expression) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'true' AND TRUE", True),
        ("1 AND TRUE", "Undefined"),
        ("missing OR TRUE", "Undefined"),
        ("NOT 'False'", True),
        ("NOT 1", "Undefined"),
        ("'10' > 9", True),
        ("'x' > 9", "Undefined"),
        ("null >= 1", "Undefined"),
        ("2 <= 2.0", True),
        ("1 = 1.0", True),
        ("1 = '1'", False),
        ("1 <> '1'", True),
        ("TRUE = 1", False),
        ("missing = 1", "Undefined"),
        ("missing <> 1", "Undefined"),
        ("null <> null", False),
        ("[1, {'a': 2}] = [1.0, {'a': 2}]", True),
        ("[1, 2] = [2, 1]", False),
        ("[TRUE] = [1]", False),
        ("'a' + 1 + TRUE", "a1true"),
        ("[1] + 'a'", "[1]a"),
        ("'a' + missing", "Undefined"),
        ("1 + TRUE", "Undefined"),
        ("1 + 2.5", 3.5),
        ("'7' - 1", 6),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("7.0 / 2", 3.5),
        ("7 / 0", "Undefined"),
        ("7.5 / 0.0", "Undefined"),
        ("-(3)", -3),
        ("-'x'", "Undefined"),
        ("-TRUE", "Undefined"),
        ("9 % 4", 1),
        ("3 IN [1, 2, 3]", True),
        ("3 IN 3", "Undefined"),
        ("TRUE IN [1]", False),
        ("1 IN ['1', 1.0]", True),
        ("missing IN [1]", "Undefined"),
        ("EXISTS (SELECT * FROM e WHERE n = 'light')", True),
        ("EXISTS (SELECT * FROM e WHERE n = 'dark')", False),
        ("CASE missing WHEN 1 THEN 2 ELSE 3 END", "Undefined"),
        ("CASE 1 WHEN 2 THEN 3 END", "Undefined"),
    ],
)
def test_operators_follow_their_tables(expression: str, expected: object) -> None:
    assert value(expression, SENSORS) == expected


def test_the_division_of_ints_can_be_told_to_have_decimals() -> None:
    assert value("7 / 2", integer_division=False) == 3.5


def test_numbers_keep_34_digits_whatever_is_done_with_them() -> None:
    digits = "1.234567890123456789012345678901234"
    for expression in (
        f"-(-{digits})",
        f"abs(-{digits})",
        f"cast('{digits}' AS Decimal)",
        f"{digits} + 0",
        f"- -{digits}",
    ):
        assert output(f"SELECT {expression} AS x FROM 't'") == f'{{"x":{digits}}}'.encode(), expression
    assert output("SELECT cast(1E33 AS Int) AS x FROM 't'") == b'{"x":1' + b"0" * 33 + b"}"
    assert value("cast(1E999 AS Double)") == "Undefined"
    assert value("1E900 % 7.5") == "Undefined"
    assert value("cast(-2.5 AS Int)") == -3


def test_a_variable_is_evaluated_once() -> None:
    drawn = iter(range(9))

    written = output("SET @u = newuuid() SELECT @u AS a, @u AS b FROM 't'", uuid=lambda: f"u{next(drawn)}")

    assert written == b'{"a":"u0","b":"u0"}'


def test_a_name_within_a_selected_object_leaves_the_payload_as_it_is() -> None:
    written = output("SELECT o, 1 AS o.x, o AS p, 2 AS q.r.s FROM 't'", {"o": {"y": 0}})

    assert written == b'{"o":{"y":0,"x":1},"p":{"y":0},"q":{"r":{"s":2}}}'


def test_numbers_keep_their_digits() -> None:
    written = output("SELECT a, b, c FROM 't'", b'{"a": 1.10, "b": 12345678901234567890123, "c": 1E+5}')

    assert written == b'{"a":1.10,"b":12345678901234567890123,"c":1E+5}'


def test_a_result_of_more_than_34_digits_is_rounded() -> None:
    assert output("SELECT a * a AS x FROM 't'", {"a": 10**20 + 1}) == b'{"x":1.000000000000000000020000000000000E+40}'


def test_a_whole_payload_goes_through_untouched() -> None:
    for payload in (b'{ "a" : 1.0 }', b"\x00\xff", b"", b"[1]"):
        assert output("SELECT * FROM 'a'", payload) == payload


def test_where_may_look_at_a_binary_payload_only_as_a_whole() -> None:
    assert output("SELECT * FROM 'a' WHERE timestamp() > 12", b"\xff") == b"\xff"
    assert output("SELECT encode(*, 'base64') AS data FROM 'a'", b"\xff") == b'{"data":"/w=="}'
    for sql in (
        "SELECT * FROM 'a/b' WHERE device_type = 'thermostat'",
        "SELECT *, timestamp() AS timestamp FROM 'a/b'",
        "SELECT {'m': *} AS x FROM 'a/b'",
    ):
        with pytest.raises(RuleEvaluationError, match="payload is not JSON"):
            output(sql, b"\xff")


def test_encode_of_the_whole_payload_takes_its_very_bytes() -> None:
    assert value("encode(*, 'base64')", b'{ "a":1}') == "eyAiYSI6MX0="


def test_a_payload_of_json_that_is_no_object_has_no_attributes() -> None:
    assert output("SELECT a FROM 't'", b"[1]") == b"{}"
    assert output("SELECT * FROM 't' WHERE isUndefined(a)", b"80") == b"80"


def test_half_a_surrogate_pair_goes_out_as_it_came_in() -> None:
    assert output("SELECT a FROM 't'", rb'{"a":"\ud800"}') == rb'{"a":"\ud800"}'


def test_a_deep_payload_or_a_long_statement_fails_and_does_no_more() -> None:
    deep = b'{"a":' * 20_000 + b"1" + b"}" * 20_000
    assert output("SELECT * FROM 't'", deep) == deep
    with pytest.raises(RuleEvaluationError):
        output("SELECT a FROM 't'", deep)
    with pytest.raises(RuleEvaluationError, match="nested too deeply"):
        output("SELECT 1" + " + 1" * 20_000 + " AS x FROM 't'")


@pytest.mark.parametrize("function", sorted(ELSEWHERE))
def test_a_function_of_another_service_is_taken_and_fails(function: str) -> None:
    with pytest.raises(RuleEvaluationError, match=rf"{function}\(\) is not emulated"):
        value(f"{function}('a', 'b', 'c')")


def test_every_known_function_answers_undefined_or_a_value_to_no_matter_what() -> None:
    for function in sorted(KNOWN_FUNCTIONS - ELSEWHERE - {"get_thing_shadow"}):
        for arguments in (
            "",
            "null",
            "missing",
            "[]",
            "{}",
            "'x'",
            "TRUE",
            "-1",
            "1E30",
            "'x','y'",
            "1,2",
            "'a',1,'b'",
        ):
            value(f"{function}({arguments})")


class TestTheMessage:
    def test_its_client_is_known_to_a_rule(self) -> None:
        fields = {"client_id": "robot-1", "principal": "ab" * 32, "trace_id": "t"}

        assert value("clientid()", **fields) == "robot-1"
        assert value("principal()", **fields) == "ab" * 32
        assert value("traceid()", **fields) == "t"

    def test_its_mqtt_5_properties_are_known_to_a_rule(self) -> None:
        properties = Properties(
            payload_format_indicator=1,
            content_type="text/plain",
            response_topic="r/t",
            correlation_data=b"cid",
            user_properties=(("k", "v1"), ("o", "ov"), ("k", "v2")),
        )
        fields = {"properties": properties, "client_id": "c"}

        assert value("get_mqtt_property('format_indicator')", **fields) == "UTF8_DATA"
        assert value("get_mqtt_property('content_type')", **fields) == "text/plain"
        assert value("get_mqtt_property('response_topic')", **fields) == "r/t"
        assert value("get_mqtt_property('correlation_data')", **fields) == "Y2lk"
        assert value("get_mqtt_property('other')", **fields) == "Undefined"
        assert value("get_user_properties('k')", **fields) == ["v1", "v2"]
        assert value("get_user_properties()", **fields) == [{"k": "v1"}, {"o": "ov"}, {"k": "v2"}]
        assert value("get_user_properties('none')", **fields) == "Undefined"

    def test_a_shadow_can_be_asked_for(self) -> None:
        asked: list[tuple[str, str | None]] = []

        def get_shadow(thing: str, name: str | None) -> dict[str, object] | None:
            asked.append((thing, name))
            return {"state": {"reported": {"alarm": "ON"}}, "version": 3} if thing == "t" else None

        role = "'arn:aws:iam::123456789012:role/r'"
        expression = f"get_thing_shadow('t', 'n', {role}).state.reported.alarm"
        assert value(expression, get_shadow=get_shadow) == "ON"
        assert value(f"get_thing_shadow('t', {role}).version", get_shadow=get_shadow) == 3
        assert asked == [("t", "n"), ("t", None)]
        with pytest.raises(RuleEvaluationError, match="no such shadow"):
            value(f"get_thing_shadow('u', {role})", get_shadow=get_shadow)


def test_a_template_takes_values_as_text_and_variables_of_the_statement() -> None:
    statement = parse("SET @n = 7 SELECT * FROM 't'", VERSION_2016)
    message = context(b'{"id": "r1", "on": true, "o": {"a": 1.50}}')

    def text(template: str) -> str | None:
        return substitute(parse_template(template, VERSION_2016, variables=["n"]), statement, message)

    assert text("a/${id}/${on}/${o}/${@n + 1}/${topic(1)}") == 'a/r1/true/{"a":1.50}/8/things'
    assert text("a/${missing}") is None
    assert text("a/${null}") is None


def test_the_old_version_says_so() -> None:
    assert value("sql_version()", version=VERSION_2015) == "2015-10-08"
