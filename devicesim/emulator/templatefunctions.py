"""The functions of provisioning templates (aws-iot-behaviour.md §3; developer guide, "Intrinsic functions", D). Pure.

``Ref``, ``Fn::Join``, ``Fn::Select``, ``Fn::Sub``, ``Fn::Split`` and ``Fn::FindInMap``: their form is checked when a
template is registered (:class:`Checker`), their values are when it runs (:class:`Evaluator`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypeGuard

from devicesim.emulator.apierrors import APIError, invalid_request

_SUBSTITUTION = re.compile(r"\$\{(!?)([^}]*)\}")
_MAX_MADE: Final = 512 * 1024
"""Characters that the functions of one run may make: ours, and far beyond every name, policy and certificate."""
_MAX_DEPTH: Final = 32
"""Nesting that is followed; a template is 10 kB at most, and Python's stack is not the place to find that out."""


def invalid_template(detail: str) -> APIError:
    """AWS's exception for every fault of a template, with its prefix (S)."""
    return invalid_request(f"Invalid registration template. {detail}")


def refuse(detail: str) -> NoReturn:
    """Raise :func:`invalid_template`."""
    raise invalid_template(detail)


def is_strings(value: object) -> TypeGuard[list[str]]:
    """Whether this is a list of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checker:
    """The form of references and functions, as far as it does not depend on values."""

    names: frozenset[str]
    mappings: Mapping[str, object]

    def value(self, value: object, where: str, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            refuse(f"{where} is nested too deeply")
        if isinstance(value, list):
            for item in value:
                self.value(item, where, depth + 1)
            return
        if not isinstance(value, dict):
            return
        call = _function(value)
        if call is None:
            for item in value.values():
                self.value(item, where, depth + 1)
            return
        name, argument = call
        if name == "Ref":
            if not isinstance(argument, str) or argument not in self.names:
                refuse(f"Cannot resolve reference value: {{Ref={argument}}}")
            return
        shape = _SHAPES.get(name)
        if shape is None:
            refuse(f"{where} calls {name}, must be one of {', '.join(('Ref', *_SHAPES))}")
        if not shape(argument):
            refuse(f"{where} calls {name} with arguments of the wrong form")
        if name == "Fn::Sub":
            text, own = _sub_arguments(argument)
            for literal, variable in _SUBSTITUTION.findall(text):
                if not literal and variable not in self.names and variable not in own:
                    refuse(f"Cannot resolve reference value: {{Ref={variable}}}")
            argument = list(own.values())
        if name == "Fn::FindInMap":
            self._check_mapping(argument, where)
        self.value(argument, where, depth + 1)

    def _check_mapping(self, argument: object, where: str) -> None:
        mapping = argument[0] if isinstance(argument, list) else None
        if isinstance(mapping, str) and mapping not in self.mappings:
            refuse(f"{where} looks into the mapping {mapping}, which does not exist")


def is_call(value: Mapping[str, object]) -> bool:
    """Whether this object stands for what a function gives."""
    return _function(value) is not None


def _function(value: Mapping[str, object]) -> tuple[str, object] | None:
    """(name, argument) when this object is a call: its one key is Ref or begins with ``Fn::``."""
    if len(value) == 1:
        name, argument = next(iter(value.items()))
        if name == "Ref" or name.startswith("Fn::"):
            return name, argument
    return None


def _is_list(argument: object, length: int) -> TypeGuard[list[object]]:
    return isinstance(argument, list) and len(argument) == length


def _is_sub(argument: object) -> bool:
    if isinstance(argument, str):
        return True
    return _is_list(argument, 2) and isinstance(argument[0], str) and isinstance(argument[1], dict)


def _sub_arguments(argument: object) -> tuple[str, Mapping[str, object]]:
    if isinstance(argument, str):
        return argument, {}
    assert isinstance(argument, list)  # _is_sub has seen to it
    text, own = argument
    return text, own


_SHAPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "Fn::Join": lambda argument: _is_list(argument, 2) and isinstance(argument[0], str),
    "Fn::Select": lambda argument: _is_list(argument, 2),
    "Fn::Sub": _is_sub,
    "Fn::Split": lambda argument: _is_list(argument, 2) and isinstance(argument[0], str) and argument[0] != "",
    "Fn::FindInMap": lambda argument: _is_list(argument, 3),
}


@dataclass(slots=True, kw_only=True)
class Evaluator:
    """Functions with their values, for one run. The form has been checked."""

    parameters: Mapping[str, str]
    mappings: Mapping[str, Mapping[str, Mapping[str, object]]] = field(default_factory=dict)
    _made: int = 0
    """Characters that functions have made so far."""

    def value(self, value: object) -> object:
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if not isinstance(value, dict):
            return value
        call = _function(value)
        if call is None:
            return {key: self.value(item) for key, item in value.items()}
        name, argument = call
        match name:
            case "Ref":
                return self.parameter(str(argument))
            case "Fn::Sub":
                return self._sub(argument)
        arguments = self.value(argument)
        assert isinstance(arguments, list)  # its form has been checked
        match name:
            case "Fn::Join":
                return self._join(*arguments)
            case "Fn::Select":
                return _select(*arguments)
            case "Fn::Split":
                return self._split(*arguments)
            case _:
                return self._find(*arguments)

    def parameter(self, name: str) -> str:
        value = self.parameters.get(name)
        if value is None:
            refuse(f"Cannot resolve reference value: {{Ref={name}}}")  # text: M (§3)
        return value

    def _sub(self, argument: object) -> str:
        text, own = _sub_arguments(argument)
        local = {key: self.value(value) for key, value in own.items()}

        def replace(match: re.Match[str]) -> str:
            literal, variable = match.groups()
            if literal:
                return f"${{{variable}}}"
            value = local[variable] if variable in local else self.parameter(variable)
            if not isinstance(value, str):
                refuse(f"Fn::Sub replaces {variable} by something that is not a string")
            self._make(len(value))
            return value

        self._make(len(text))
        return _SUBSTITUTION.sub(replace, text)

    def _join(self, delimiter: object, values: object) -> str:
        if not isinstance(delimiter, str) or not is_strings(values):
            refuse("Fn::Join needs a delimiter and a list of strings")
        self._make(sum(map(len, values)) + len(delimiter) * len(values))
        return delimiter.join(values)

    def _split(self, delimiter: object, text: object) -> list[str]:
        if not isinstance(delimiter, str) or not isinstance(text, str):
            refuse("Fn::Split needs a delimiter and a string")
        self._make(len(text))
        return text.split(delimiter)

    def _make(self, characters: int) -> None:
        """Before they are made: each level of nested functions can multiply what the one below it made."""
        self._made += characters
        if self._made > _MAX_MADE:
            refuse(f"The functions of the template make more than {_MAX_MADE} characters")

    def _find(self, *keys: object) -> object:
        value: object = self.mappings
        for key in keys:
            if not isinstance(key, str) or not isinstance(value, Mapping) or key not in value:
                refuse(f"Fn::FindInMap does not find {'.'.join(map(str, keys))}")
            value = value[key]
        return value


def _select(index: object, values: object) -> object:
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) < 10:
        index = int(index)
    if not isinstance(index, int) or isinstance(index, bool) or not isinstance(values, list):
        refuse("Fn::Select needs an index and a list")
    if not 0 <= index < len(values) or values[index] is None:
        # D: "does not check for null values or if the index is out of bounds; both result in a provisioning error"
        refuse(f"Fn::Select has index {index} for a list of {len(values)}")
    return values[index]
