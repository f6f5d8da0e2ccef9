"""The SQL of topic rules: text in, syntax tree out (developer guide, "AWS IoT SQL reference", D). Pure.

    statement = parse("SELECT * FROM '$aws/events/certificates/registered/#' WHERE a.b = 'c'", "2016-03-23")

What the reference does not have is refused: comments, ``!=``, ``LIKE``, ``IS NULL``, CASE without a value. Where it
says nothing: strings stand in ' or in ", the quote itself is written twice, a backslash is a backslash (I).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from typing import Final, NoReturn

from devicesim.emulator.topicrules.functions import KNOWN_FUNCTIONS, SINCE_2016
from devicesim.emulator.topicrules.tree import (
    ArrayLiteral,
    Binary,
    Call,
    Case,
    Cast,
    Expression,
    Item,
    Literal,
    Member,
    Name,
    Nested,
    ObjectLiteral,
    Select,
    Star,
    Statement,
    Template,
    Unary,
    Variable,
)
from devicesim.emulator.topicrules.values import DECIMALS, to_integer

VERSION_2015: Final = "2015-10-08"
VERSION_2016: Final = "2016-03-23"
VERSIONS: Final = (VERSION_2015, VERSION_2016, "beta")
"""``beta`` is taken for the newest (D)."""
MAX_NESTING: Final = 32
"""Parentheses, calls and literals within each other. Ours."""
_MAX_VARIABLE: Final = 64


class RuleSQLError(Exception):
    """The text is not rule SQL; the message says where and what was expected."""


_RESERVED: Final = frozenset(
    {"SELECT", "FROM", "WHERE", "AS", "AND", "OR", "NOT", "CASE", "WHEN", "THEN", "ELSE", "END", "IN", "EXISTS"}
    | {"NULL", "TRUE", "FALSE"}
)
_COMPARISONS: Final = frozenset({"=", "<>", "<", "<=", ">", ">="})
_CASTS: Final = frozenset(["string", "nvarchar", "text", "ntext", "varchar", "int", "integer", "double"])
_CASTS_2016: Final = frozenset(["decimal", "bool", "boolean"])
_TOKEN: Final = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<variable>@[A-Za-z0-9_]+)"
    r"|(?P<string>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")"
    r"|(?P<symbol><>|<=|>=|[-+*/%=<>(),.\[\]{}:])"
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """``number``, ``name``, ``variable``, ``string``, ``symbol`` or ``end``."""
    text: str
    start: int
    end: int

    @property
    def keyword(self) -> str:
        return self.text.upper() if self.kind == "name" else ""


def parse(sql: str, version: str = VERSION_2015, *, name_of: Callable[[str], str | None] | None = None) -> Statement:
    """A whole statement. ``name_of`` names a selected expression that has no name of its own and no AS, from its text;
    it is refused when that answers ``None``. Raises :class:`RuleSQLError`."""
    return _Parser(sql, version, name_of).statement()


def parse_template(text: str, version: str = VERSION_2015, *, variables: Sequence[str] = ()) -> Template:
    """A text with substitution templates; ``variables`` are the names that SET has assigned."""
    parts: list[str | Expression] = []
    position = 0
    while (start := text.find("${", position)) >= 0:
        if start > position:
            parts.append(text[position:start])
        parser = _Parser(text, version, None, start=start + 2, variables=variables)
        parts.append(parser.whole_expression())
        position = parser.expect("}").end
    if position < len(text):
        parts.append(text[position:])
    return Template(tuple(parts))


class _Parser:
    """Recursive descent, one token ahead. The text is cut into tokens only as far as it is read."""

    def __init__(
        self,
        text: str,
        version: str,
        name_of: Callable[[str], str | None] | None,
        *,
        start: int = 0,
        variables: Sequence[str] = (),
    ) -> None:
        self._text = text
        self._old = version == VERSION_2015
        self._version = version
        self._name_of = name_of
        self._variables = list(variables)
        self._depth = 0
        self._token = self._read(start)

    # --- tokens ---

    def _read(self, position: int) -> _Token:
        while position < len(self._text):
            found = _TOKEN.match(self._text, position)
            if found is None:
                quote = self._text[position] in "'\""
                self._fail("a string that is not closed" if quote else f"{self._text[position]!r}", position)
            assert found.lastgroup is not None
            if found.lastgroup != "space":
                return _Token(found.lastgroup, found.group(), position, found.end())
            position = found.end()
        return _Token("end", "", position, position)

    def _peek(self) -> _Token:
        """The token after the next one."""
        return self._read(self._token.end)

    def _next(self) -> _Token:
        token = self._token
        self._token = self._read(token.end)
        return token

    def _take(self, text: str) -> bool:
        """Take a symbol or keyword if it is next."""
        if self._token.kind != "string" and (self._token.keyword or self._token.text) == text:
            self._next()
            return True
        return False

    def expect(self, text: str) -> _Token:
        token = self._token
        if token.kind == "string" or (token.keyword or token.text) != text:
            self._unexpected(text)
        if text == "}":  # of a template: what follows is text again
            return token
        return self._next()

    def _unexpected(self, expected: str) -> NoReturn:
        token = self._token
        self._fail("the end" if token.kind == "end" else token.text, token.start, expected)

    def _fail(self, found: str, position: int, expected: str | None = None) -> NoReturn:
        line = self._text.count("\n", 0, position) + 1
        column = position - (self._text.rfind("\n", 0, position) + 1) + 1
        what = f", expected {expected}" if expected is not None else ""
        raise RuleSQLError(f"found {found}{what} at line {line}, column {column}")

    def _refuse(self, problem: str, position: int) -> NoReturn:
        line = self._text.count("\n", 0, position) + 1
        column = position - (self._text.rfind("\n", 0, position) + 1) + 1
        raise RuleSQLError(f"{problem} at line {line}, column {column}")

    def _since_2016(self, what: str, position: int) -> None:
        if self._old:
            self._refuse(f"{what} needs awsIotSqlVersion {VERSION_2016} or later", position)

    # --- the statement ---

    def statement(self) -> Statement:
        variables = self._set() if self._take("SET") else ()
        self.expect("SELECT")
        select = self._select()
        topic_filter = self._topic_filter() if self._take("FROM") else None
        where = self.whole_expression() if self._take("WHERE") else None
        if self._token.kind != "end":
            self._unexpected("the end of the statement" if where is not None else "FROM, WHERE or the end")
        return Statement(variables, select, topic_filter, where, self._version)

    def _set(self) -> tuple[tuple[str, Expression], ...]:
        variables: list[tuple[str, Expression]] = []
        while True:
            token = self._token
            if token.kind != "variable":
                self._unexpected("a variable that begins with @")
            name = token.text[1:]
            if len(name) > _MAX_VARIABLE:
                self._refuse(f"the variable name has more than {_MAX_VARIABLE} characters", token.start)
            if name in self._variables:
                self._refuse(f"@{name} is assigned twice", token.start)
            self._next()
            self.expect("=")
            variables.append((name, self.whole_expression()))
            self._variables.append(name)
            if not self._take(","):
                return tuple(variables)

    def _topic_filter(self) -> str:
        token = self._token
        if token.kind != "string" or token.text[0] != "'":  # "you must enclose ... in single quotes" (D)
            self._unexpected("a topic filter in single quotes")
        return _unquote(self._next().text)

    def _select(self) -> Select:
        if self._token.keyword == "VALUE" and self._begins_value():
            self._next()
            expression = self.whole_expression()
            return Select((Item(expression, ()),), value=True)
        items = [self._item()]
        while self._take(","):
            items.append(self._item())
        return Select(tuple(items))

    def _begins_value(self) -> bool:
        """Whether VALUE is the keyword: an attribute may have that name, too."""
        after = self._peek()
        if after.kind == "name":
            return after.keyword not in ("FROM", "AS", "AND", "OR", "IN", "WHERE")
        if after.text == "*":
            behind = self._read(after.end)
            return behind.kind == "end" or behind.keyword in ("FROM", "WHERE") or behind.text == ")"
        return after.kind in ("string", "number", "variable") or after.text in ("(", "[", "{")

    def _item(self) -> Item:
        start = self._token.start
        expression = self.whole_expression()
        end = start + len(self._text[start : self._token.start].rstrip())
        if self._take("AS"):
            return Item(expression, self._alias())
        match expression:
            case Star():
                return Item(expression, ())
            case Name(name) | Member(_, name) | Variable(name) | Call(name):
                return Item(expression, (name,))
        given = None if self._name_of is None else self._name_of(self._text[start:end])
        if given is None:
            self._refuse(f"{self._text[start:end]} has no name; give it one with AS", start)
        return Item(expression, (given,))

    def _alias(self) -> tuple[str, ...]:
        path = [self._alias_name()]
        while self._take("."):
            path.append(self._alias_name())
        return tuple(path)

    def _alias_name(self) -> str:
        if self._token.kind != "name":
            self._unexpected("a name")
        return self._next().text

    # --- expressions, loosest binding first ---

    def whole_expression(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_NESTING:
            self._refuse(f"more than {MAX_NESTING} expressions within each other", self._token.start)
        expression = self._disjunction()
        self._depth -= 1
        return expression

    def _disjunction(self) -> Expression:
        left = self._conjunction()
        while self._take("OR"):
            left = Binary("OR", left, self._conjunction())
        return left

    def _conjunction(self) -> Expression:
        left = self._negation()
        while self._take("AND"):
            left = Binary("AND", left, self._negation())
        return left

    def _negation(self) -> Expression:
        count = 0
        while self._take("NOT"):
            count += 1
        expression = self._comparison()
        for _ in range(min(count, 2 + count % 2)):  # NOT NOT NOT is NOT, but NOT NOT also makes a Boolean
            expression = Unary("NOT", expression)
        return expression

    def _comparison(self) -> Expression:
        left = self._sum()
        while True:
            token = self._token
            if token.kind == "symbol" and token.text in _COMPARISONS:
                left = Binary(self._next().text, left, self._sum())
            elif self._take("IN"):
                left = Binary("IN", left, self._sum())
            else:
                return left

    def _sum(self) -> Expression:
        left = self._product()
        while self._token.kind == "symbol" and self._token.text in ("+", "-"):
            left = Binary(self._next().text, left, self._product())
        return left

    def _product(self) -> Expression:
        left = self._signed()
        while self._token.kind == "symbol" and self._token.text in ("*", "/", "%"):
            left = Binary(self._next().text, left, self._signed())
        return left

    def _signed(self) -> Expression:
        count = 0
        while self._take("-"):
            count += 1
        operand = self._postfix()
        for _ in range(count % 2 or min(count, 2)):  # two also make a number of a string
            if isinstance(operand, Literal) and isinstance(operand.value, Decimal):
                operand = Literal(operand.value.copy_negate())
            elif isinstance(operand, Literal) and type(operand.value) is int:
                operand = Literal(-operand.value)
            else:
                operand = Unary("-", operand)
        return operand

    def _postfix(self) -> Expression:
        expression = self._primary()
        while self._token.text == "." and self._token.kind == "symbol":
            self._next()
            if self._token.kind != "name":
                self._unexpected("a name")
            expression = Member(expression, self._next().text)
        return expression

    def _primary(self) -> Expression:
        token = self._token
        match token.kind:
            case "number":
                return Literal(_number(self._next().text))
            case "string":
                return Literal(_unquote(self._next().text))
            case "variable":
                if token.text[1:] not in self._variables:
                    self._refuse(f"{token.text} has not been assigned by SET", token.start)
                return Variable(self._next().text[1:])
            case "name":
                return self._named()
        match token.text:
            case "*":
                self._next()
                return Star()
            case "(":
                self._next()
                expression = self._nested() if self._token.keyword == "SELECT" else self.whole_expression()
                self.expect(")")
                return expression
            case "[":
                self._since_2016("an array literal", token.start)
                self._next()
                return ArrayLiteral(self._list("]"))
            case "{":
                self._since_2016("an object literal", token.start)
                return self._object()
        return self._unexpected("an expression")

    def _named(self) -> Expression:
        token = self._token
        match token.keyword:
            case "NULL":
                self._next()
                return Literal(None)
            case "TRUE" | "FALSE":
                return Literal(self._next().keyword == "TRUE")
            case "CASE":
                return self._case()
            case "EXISTS":
                self._next()
                return Unary("EXISTS", self._postfix())
            case word if word in _RESERVED:
                self._unexpected("an expression")
        name = self._next()
        if self._token.text == "(" and self._token.kind == "symbol":
            self._next()
            return self._call(name)
        return Name(name.text)

    def _call(self, name: _Token) -> Expression:
        function = name.text.lower()
        if function == "cast":
            return self._cast()
        if function not in KNOWN_FUNCTIONS:
            self._refuse(f"there is no function {name.text}", name.start)
        if function in SINCE_2016:
            self._since_2016(f"{name.text}()", name.start)
        return Call(function, self._list(")"))

    def _list(self, end: str) -> tuple[Expression, ...]:
        items: list[Expression] = []
        if not self._take(end):
            items.append(self.whole_expression())
            while self._take(","):
                items.append(self.whole_expression())
            if self._token.text != end:
                self._unexpected(f", or {end}")
            self._next()
        return tuple(items)

    def _cast(self) -> Cast:
        value = self.whole_expression()
        self.expect("AS")
        token = self._token
        type_ = token.text.lower()
        if token.kind != "name" or type_ not in _CASTS | _CASTS_2016:
            self._unexpected("a type: String, Int, Decimal, Boolean")
        if type_ in _CASTS_2016:
            self._since_2016(f"cast as {token.text}", token.start)
        self._next()
        self.expect(")")
        return Cast(value, type_)

    def _case(self) -> Case:
        self._next()
        value = self.whole_expression()
        branches: list[tuple[Expression, Expression]] = []
        while self._take("WHEN"):
            test = self.whole_expression()
            self.expect("THEN")
            branches.append((test, self.whole_expression()))
        if not branches:
            self._unexpected("WHEN")
        otherwise = self.whole_expression() if self._take("ELSE") else None
        self.expect("END")
        return Case(value, tuple(branches), otherwise)

    def _object(self) -> ObjectLiteral:
        self._next()
        members: list[tuple[str, Expression]] = []
        while self._token.text != "}" or self._token.kind == "string":
            if members and not self._take(","):
                self._unexpected(", or }")
            if self._token.kind != "string":
                self._unexpected("a key in quotes")
            key = _unquote(self._next().text)
            self.expect(":")
            members.append((key, self.whole_expression()))
        self._next()
        return ObjectLiteral(tuple(members))

    def _nested(self) -> Nested:
        start = self._token.start
        self._since_2016("a nested SELECT", start)
        self._next()
        select = self._select()
        self.expect("FROM")
        source = self._postfix()
        where = self.whole_expression() if self._take("WHERE") else None
        return Nested(select, source, where)


def _number(text: str) -> int | Decimal:
    if text.isdigit() and len(text) <= 1024:
        return to_integer(int(text))
    try:
        return DECIMALS.create_decimal(text)
    except DecimalException:
        raise RuleSQLError(f"the number {text[:40]} is out of range") from None


def _unquote(text: str) -> str:
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote)
