"""The syntax tree of rule SQL: what ``sql`` makes and ``evaluation`` evaluates. Pure."""

from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Literal:
    value: bool | int | Decimal | str | None


@dataclass(frozen=True, slots=True)
class Name:
    """An attribute of the payload, or of the row within a nested SELECT."""

    name: str


@dataclass(frozen=True, slots=True)
class Variable:
    """``@name``, from SET."""

    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """``object.name``"""

    object: "Expression"
    name: str


@dataclass(frozen=True, slots=True)
class Star:
    """The whole payload."""


@dataclass(frozen=True, slots=True)
class Unary:
    operator: str
    operand: "Expression"


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    """In lower case."""
    arguments: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Cast:
    value: "Expression"
    type: str
    """In lower case."""


@dataclass(frozen=True, slots=True)
class Case:
    value: "Expression"
    branches: tuple[tuple["Expression", "Expression"], ...]
    otherwise: "Expression | None"


@dataclass(frozen=True, slots=True)
class ArrayLiteral:
    items: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class ObjectLiteral:
    members: tuple[tuple[str, "Expression"], ...]


@dataclass(frozen=True, slots=True)
class Nested:
    """``(SELECT ... FROM expression WHERE ...)``"""

    select: "Select"
    source: "Expression"
    where: "Expression | None"


Expression: TypeAlias = (
    Literal
    | Name
    | Variable
    | Member
    | Star
    | Unary
    | Binary
    | Call
    | Cast
    | Case
    | ArrayLiteral
    | ObjectLiteral
    | Nested
)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a SELECT."""

    expression: Expression
    path: tuple[str, ...]
    """Where in the output its value goes; empty for ``*`` alone, whose members are merged into the output."""


@dataclass(frozen=True, slots=True)
class Select:
    items: tuple[Item, ...]
    value: bool = False
    """SELECT VALUE: the only item's value is the output."""


@dataclass(frozen=True, slots=True)
class Statement:
    variables: tuple[tuple[str, Expression], ...]
    """In the order in which they are assigned."""
    select: Select
    topic_filter: str | None
    """``None`` for a rule that only Basic Ingest could trigger."""
    where: Expression | None
    version: str


@dataclass(frozen=True, slots=True)
class Template:
    """A text with ``${expression}`` in it: literal text and expressions in turn."""

    parts: tuple[str | Expression, ...]

    @property
    def fixed(self) -> bool:
        """Whether nothing is substituted."""
        return all(isinstance(part, str) for part in self.parts)
