"""Rule SQL as text: what is one, what is not and where, and substitution templates."""

import pytest

from devicesim.emulator.topicrules.sql import VERSION_2015, VERSION_2016, RuleSQLError, parse, parse_template
from devicesim.emulator.topicrules.tree import Binary, Call, Expression, Literal, Member, Name, Star


def problem(sql: str, version: str = VERSION_2016) -> str:
    with pytest.raises(RuleSQLError) as caught:
        parse(sql, version)
    return str(caught.value)


def where(sql: str) -> Expression:
    condition = parse(f"SELECT * FROM 'a' WHERE {sql}", VERSION_2016).where
    assert condition is not None
    return condition


def test_the_rule_of_just_in_time_registration_is_read_whole() -> None:
    statement = parse(
        "SELECT * FROM '$aws/events/certificates/registered/#' WHERE certificateStatus = \"PENDING_ACTIVATION\""
    )

    assert statement.topic_filter == "$aws/events/certificates/registered/#"
    assert [item.expression for item in statement.select.items] == [Star()]
    assert statement.where == Binary("=", Name("certificateStatus"), Literal("PENDING_ACTIVATION"))


def test_keywords_and_functions_have_no_case() -> None:
    statement = parse("select TOPIC(2) as t from 'a/b' where not True")

    assert statement.select.items[0].expression == Call("topic", (Literal(2),))
    assert statement.select.items[0].path == ("t",)


@pytest.mark.parametrize(
    ("item", "path"),
    [
        ("color", ("color",)),
        ("color.red", ("red",)),
        ("topic(2)", ("topic",)),
        ("color.red AS bar.baz", ("bar", "baz")),
        ("1 + 1 AS end", ("end",)),
        ("* AS payload", ("payload",)),
    ],
)
def test_an_item_is_named_by_its_last_segment_its_function_or_its_alias(item: str, path: tuple[str, ...]) -> None:
    assert parse(f"SELECT {item} FROM 'a'").select.items[0].path == path


def test_an_expression_without_a_name_is_refused_or_named_by_its_text() -> None:
    assert problem("SELECT a, b + 1  FROM 'a'") == "b + 1 has no name; give it one with AS at line 1, column 11"

    named = parse("SELECT b + 1  FROM 'a'", name_of=lambda text: text)

    assert named.select.items[0].path == ("b + 1",)


def test_an_attribute_may_be_called_value_or_set() -> None:
    statement = parse("SELECT value, set, state.select AS s FROM 'a' WHERE value > 3")

    assert [item.path for item in statement.select.items] == [("value",), ("set",), ("s",)]
    assert not statement.select.value
    assert parse("SELECT VALUE value FROM 'a'").select.value
    assert parse("SELECT VALUE * FROM 'a'").select.value
    assert not parse("SELECT value * 2 AS v FROM 'a'").select.value


def test_operators_bind_as_in_sql() -> None:
    assert where("NOT a = 1 + 2 * 3 AND b OR c") == Binary(
        "OR",
        Binary(
            "AND",
            where("NOT (a = (1 + (2 * 3)))"),
            Name("b"),
        ),
        Name("c"),
    )
    assert where("a - b - c = 0") == where("((a - b) - c) = 0")


def test_a_quote_in_a_string_is_written_twice_and_a_backslash_is_itself() -> None:
    assert where(r"a = 'it''s \d'") == Binary("=", Name("a"), Literal(r"it's \d"))
    assert where('a = "say ""hi"""') == Binary("=", Name("a"), Literal('say "hi"'))


def test_from_may_be_missing_for_basic_ingest_alone() -> None:
    assert parse("SELECT *").topic_filter is None


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", "found the end, expected SELECT at line 1, column 1"),
        ("SELECT", "found the end, expected an expression at line 1, column 7"),
        ("SELECT * FROM topic/#", "found topic, expected a topic filter in single quotes at line 1, column 15"),
        ('SELECT * FROM "a"', 'found "a", expected a topic filter in single quotes at line 1, column 15'),
        ("SELECT *\nFROM 'a'\nWHER x", "found WHER, expected FROM, WHERE or the end at line 3, column 1"),
        ("SELECT * FROM 'a' WHERE a != 1", "found '!' at line 1, column 27"),
        ("SELECT * FROM 'a' WHERE a == 1", "found =, expected an expression at line 1, column 28"),
        ("SELECT * FROM 'a' WHERE a LIKE 'b'", "found LIKE, expected the end of the statement at line 1, column 27"),
        ("SELECT * FROM 'a' WHERE a = 'b", "found a string that is not closed at line 1, column 29"),
        ("SELECT f(1) AS x FROM 'a'", "there is no function f at line 1, column 8"),
        ("SELECT (a FROM 'a'", "found FROM, expected ) at line 1, column 11"),
        ("SELECT CASE a END AS x FROM 'a'", "found END, expected WHEN at line 1, column 15"),
        (
            "SELECT cast(a AS date) AS x FROM 'a'",
            "found date, expected a type: String, Int, Decimal, Boolean at line 1",
        ),
        ("SELECT {a: 1} AS x FROM 'a'", "found a, expected a key in quotes at line 1, column 9"),
        ("SELECT @x FROM 'a'", "@x has not been assigned by SET at line 1, column 8"),
        ("SET @a = 1, @a = 2 SELECT @a FROM 'a'", "@a is assigned twice at line 1, column 13"),
        ("SET @a = @a SELECT @a FROM 'a'", "@a has not been assigned by SET at line 1, column 10"),
        ("SELECT * FROM 'a' -- comment", "found -, expected FROM, WHERE or the end at line 1, column 19"),
        ("SELECT " + "(" * 40, "more than 32 expressions within each other at line 1, column 40"),
        ("SELECT 1E999999 AS x FROM 'a'", "the number 1E999999 is out of range"),
    ],
)
def test_what_is_no_rule_sql_is_refused_with_the_place(sql: str, expected: str) -> None:
    assert problem(sql).startswith(expected)


@pytest.mark.parametrize(
    "item",
    ["[a, b]", "{'a': 1}", "(SELECT a FROM b)", "isUndefined(a)", "encode(*, 'base64')", "cast(a as Boolean)"],
)
def test_what_is_new_in_2016_is_refused_in_2015(item: str) -> None:
    sql = f"SELECT {item} AS x FROM 'a'"

    assert parse(sql, VERSION_2016).select.items[0].path == ("x",)
    assert parse(sql, "beta").select.items[0].path == ("x",)
    assert "needs awsIotSqlVersion 2016-03-23 or later" in problem(sql, VERSION_2015)


class TestTemplates:
    def test_text_and_expressions_stand_in_turn(self) -> None:
        template = parse_template("${topic(1)}/${state.on}/end")

        assert template.parts == (Call("topic", (Literal(1),)), "/", Member(Name("state"), "on"), "/end")
        assert not template.fixed

    def test_a_text_without_expressions_is_fixed(self) -> None:
        assert parse_template("$$aws/things/a}/shadow").parts == ("$$aws/things/a}/shadow",)
        assert parse_template("$$aws/things/a}/shadow").fixed
        assert parse_template("").fixed

    def test_braces_and_quotes_within_an_expression_do_not_end_it(self) -> None:
        template = parse_template("a${ {'x': '}'}.x }b", VERSION_2016)

        assert template.parts[0] == "a"
        assert template.parts[2] == "b"

    @pytest.mark.parametrize("text", ["${", "${a", "${}", "${a b}", "${a'}", "x/${topic(}", "${@v}"])
    def test_a_broken_expression_is_refused(self, text: str) -> None:
        with pytest.raises(RuleSQLError):
            parse_template(text)

    def test_variables_of_the_statement_are_known(self) -> None:
        assert not parse_template("${@v}", variables=["v"]).fixed
