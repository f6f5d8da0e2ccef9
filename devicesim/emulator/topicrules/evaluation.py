"""Rule SQL on one message: whether WHERE is true, and what SELECT makes of the payload. Pure.

    output = run(statement, context)      # None: WHERE is not true
    topic = substitute(template, statement, context)

Operators follow the tables of the developer guide ("Operators", D). Raises :class:`RuleEvaluationError` only.
"""

from collections.abc import Mapping
from decimal import ROUND_FLOOR, Decimal, DecimalException
from typing import Final

from devicesim.emulator.topicrules.functions import Context, call
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
from devicesim.emulator.topicrules.values import (
    DECIMALS,
    UNDEFINED,
    RuleEvaluationError,
    Value,
    same,
    to_boolean,
    to_decimal,
    to_double,
    to_integer,
    to_number,
    to_string,
    type_name,
    write_json,
)

_ORDERS: Final[Mapping[str, tuple[int, ...]]] = {"<": (-1,), "<=": (-1, 0), ">": (1,), ">=": (0, 1)}


def run(statement: Statement, context: Context) -> bytes | None:
    """The payload for the actions; ``None`` when the message is none of the rule's."""
    try:
        evaluation = _Evaluation(context, statement)
        if statement.where is not None and to_boolean(evaluation.value(statement.where)) is not True:
            return None
        select = statement.select
        if select.items == (Item(Star(), ()),) and not select.value:
            return context.payload
        output = evaluation.select(select, context.document)
        return output if isinstance(output, bytes) else write_json(output).encode()
    except RecursionError:
        raise RuleEvaluationError("the statement or the payload is nested too deeply") from None


def substitute(
    template: Template, statement: Statement, context: Context, *, undefined: str | None = None
) -> str | None:
    """The text with its expressions' values; ``undefined`` stands for one that is Undefined, and without it the whole
    is ``None``."""
    try:
        evaluation = _Evaluation(context, statement)
        texts = [part if isinstance(part, str) else to_string(evaluation.placed(part)) for part in template.parts]
        texts = [undefined if text is None else text for text in texts]
    except RecursionError:
        raise RuleEvaluationError("the template or the payload is nested too deeply") from None
    return None if None in texts else "".join(text for text in texts if text is not None)


class _Evaluation:
    """The evaluation of one statement's expressions on one message; variables are evaluated once, when asked for."""

    def __init__(self, context: Context, statement: Statement) -> None:
        self._context = context
        self._assigned = dict(statement.variables)
        self._variables: dict[str, Value] = {}

    def value(self, expression: Expression) -> Value:
        return self._value(expression, self._context.document)

    def placed(self, expression: Expression) -> Value:
        return self._placed(expression, self._context.document)

    def select(self, select: Select, scope: Value) -> Value:
        """The output on one scope: the message, or a row of a nested SELECT."""
        if select.value:
            return self._placed(select.items[0].expression, scope)
        output: dict[str, Value] = {}
        for item in select.items:
            value = self._placed(item.expression, scope)
            if not item.path:
                if isinstance(value, bytes):
                    raise RuleEvaluationError(
                        "the payload is not JSON and cannot be selected together with other items"
                    )
                if isinstance(value, dict):
                    output.update(value)
                continue
            _put(output, item.path, value)
        return output

    def _placed(self, expression: Expression, scope: Value) -> Value:
        """A value that is worked on, or becomes part of another: its size counts."""
        value = self._value(expression, scope)
        self._context.spend(value)
        return value

    def _value(self, expression: Expression, scope: Value) -> Value:
        self._context.spend(None)
        match expression:
            case Literal(value):
                return value
            case Name(name):
                if isinstance(scope, bytes):
                    raise RuleEvaluationError(f"the payload is not JSON, so it has no {name}")
                return scope.get(name, UNDEFINED) if isinstance(scope, dict) else UNDEFINED
            case Member(holder, name):
                held = self._value(holder, scope)
                return held.get(name, UNDEFINED) if isinstance(held, dict) else UNDEFINED
            case Star():
                return scope
            case Variable(name):
                return self._variable(name)
            case Call(function, arguments):
                return self._call(function, arguments, scope)
            case Binary(operator, left, right):
                return self._binary(operator, self._placed(left, scope), self._placed(right, scope))
            case Unary(operator, operand):
                return _unary(operator, self._value(operand, scope))
            case Cast(operand, type_):
                return _cast(self._placed(operand, scope), type_)
            case Case(subject, branches, otherwise):
                compared = self._placed(subject, scope)
                if compared is UNDEFINED:
                    return UNDEFINED
                for test, result in branches:
                    if same(compared, self._placed(test, scope)):
                        return self._value(result, scope)
                return UNDEFINED if otherwise is None else self._value(otherwise, scope)
            case ArrayLiteral(items):
                return [self._placed(item, scope) for item in items]
            case ObjectLiteral(members):
                return {key: self._placed(member, scope) for key, member in members}
            case Nested(select, source, where):
                return self._nested(select, self._value(source, scope), where)
        raise AssertionError(expression)

    def _variable(self, name: str) -> Value:
        if name not in self._variables:
            self._variables[name] = self.value(self._assigned[name])
        return self._variables[name]

    def _call(self, function: str, arguments: tuple[Expression, ...], scope: Value) -> Value:
        if function == "encode" and len(arguments) == 2 and isinstance(arguments[0], Star):
            whole = self._context.payload if scope is self._context.document else scope
            return call(self._context, function, [whole, self._value(arguments[1], scope)])
        return call(self._context, function, [self._value(argument, scope) for argument in arguments])

    def _nested(self, select: Select, source: Value, where: Expression | None) -> Value:
        """Of an Array a row for each element, of an Object one; of anything else Undefined."""
        if isinstance(source, dict):
            return self.select(select, source) if self._holds(where, source) else UNDEFINED
        if not isinstance(source, list):
            return UNDEFINED
        return [self.select(select, row) for row in source if self._holds(where, row)]

    def _holds(self, where: Expression | None, row: Value) -> bool:
        return where is None or to_boolean(self._value(where, row)) is True

    def _binary(self, operator: str, left: Value, right: Value) -> Value:
        match operator:
            case "AND" | "OR":
                one, other = to_boolean(left), to_boolean(right)
                if one is None or other is None:
                    return UNDEFINED
                return (one and other) if operator == "AND" else (one or other)
            case "=" | "<>":
                if left is UNDEFINED or right is UNDEFINED:
                    return UNDEFINED
                return same(left, right) is (operator == "=")
            case "<" | "<=" | ">" | ">=":
                first, second = to_decimal(left), to_decimal(right)
                if first is None or second is None:
                    return UNDEFINED
                return (first > second) - (first < second) in _ORDERS[operator]
            case "IN":
                if left is UNDEFINED or not isinstance(right, list):
                    return UNDEFINED
                return any(same(left, item) for item in right)
            case "+" if isinstance(left, str) or isinstance(right, str):
                texts = to_string(left), to_string(right)
                return UNDEFINED if texts[0] is None or texts[1] is None else texts[0] + texts[1]
            case "+" if not (isinstance(left, int | Decimal) and isinstance(right, int | Decimal)):
                return UNDEFINED
            case "%":
                return call(self._context, "remainder", [left, right])
        return self._arithmetic(operator, to_number(left), to_number(right))

    def _arithmetic(self, operator: str, left: int | Decimal | None, right: int | Decimal | None) -> Value:
        if left is None or right is None or (operator == "/" and right == 0):
            return UNDEFINED
        whole = isinstance(left, int) and isinstance(right, int)
        try:
            match operator:
                case "+":
                    return to_integer(int(left + right)) if whole else DECIMALS.add(Decimal(left), Decimal(right))
                case "-":
                    return to_integer(int(left - right)) if whole else DECIMALS.subtract(Decimal(left), Decimal(right))
                case "*":
                    return to_integer(int(left * right)) if whole else DECIMALS.multiply(Decimal(left), Decimal(right))
            if whole and self._context.integer_division:
                quotient = abs(int(left)) // abs(int(right))
                return quotient if (left < 0) == (right < 0) else -quotient
            return DECIMALS.divide(Decimal(left), Decimal(right))
        except DecimalException:
            return UNDEFINED


def _unary(operator: str, value: Value) -> Value:
    match operator:
        case "NOT":
            truth = to_boolean(value)
            return UNDEFINED if truth is None else not truth
        case "EXISTS":
            return len(value) > 0 if isinstance(value, list) else UNDEFINED
    number = to_number(value)
    if isinstance(number, Decimal):
        return number.copy_negate()  # the operator of Decimal would round to 28 digits
    return UNDEFINED if number is None else -number


def _cast(value: Value, type_: str) -> Value:
    match type_:
        case "string" | "nvarchar" | "text" | "ntext" | "varchar":
            text = to_string(value)
            return UNDEFINED if text is None else text
        case "bool" | "boolean":
            if isinstance(value, int | Decimal) and not isinstance(value, bool):
                return value != 0
            truth = to_boolean(value)
            return UNDEFINED if truth is None else truth
    if isinstance(value, bool):
        value = int(value)
    number = to_decimal(value)
    if number is None:
        return UNDEFINED
    if type_ in ("int", "integer"):
        return to_integer(int(number.to_integral_value(rounding=ROUND_FLOOR)))
    return to_double(float(number)) if type_ == "double" else number


def _put(output: dict[str, Value], path: tuple[str, ...], value: Value) -> None:
    """Set a member, making the objects on the way to it; an Undefined one is left out."""
    if value is UNDEFINED:
        return
    for name in path[:-1]:
        held = output.get(name)
        inner: dict[str, Value] = dict(held) if isinstance(held, dict) else {}  # never the payload's own object
        output[name] = inner
        output = inner
    output[path[-1]] = value


__all__ = ["Context", "RuleEvaluationError", "run", "substitute", "type_name"]
