"""Conditions on what is known of an example, such as `source == 'eu' and age > 3`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from renate_stages.errors import InvalidPredicateError

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

_DEEPEST = 50  # far from where Python's stack ends


@dataclass(frozen=True)
class Predicate:
    """A condition on metadata: comparisons of a name with constants, joined by and, or, not.

        Predicate.parse("source in ('eu', 'uk') and update < 3").matches({"source": ...}, rows=10)

    Rows without a name that a comparison needs do not fulfil that comparison.

    Args:
        text: As its user wrote it.
        tree: The same, parsed; never run as code.
    """

    text: str
    tree: ast.expr

    @classmethod
    def parse(cls, text: str) -> Predicate:
        """Return the condition that a text is.

        Raises:
            InvalidPredicateError: If it is something else; says which part.
        """
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InvalidPredicateError(text, "it cannot be read") from error
        _check(tree, text)
        return cls(text, tree)

    @property
    def names(self) -> set[str]:
        """Return the names that it needs."""
        return {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}

    def matches(self, metadata: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        """Return which rows fulfil it, bool `(rows,)`.

        Args:
            metadata: Columns `(rows,)` by name; numbers, bools, or texts as bytes.
            rows: Their number.

        Raises:
            InvalidPredicateError: If a text is compared with numbers.
        """
        return self._evaluate(self.tree, metadata, rows)

    def _evaluate(
        self, node: ast.expr, metadata: Mapping[str, np.ndarray], rows: int
    ) -> np.ndarray:
        if isinstance(node, ast.BoolOp):
            parts = [self._evaluate(each, metadata, rows) for each in node.values]
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return join.reduce(parts)
        if isinstance(node, ast.UnaryOp):
            return ~self._evaluate(node.operand, metadata, rows)
        assert isinstance(node, ast.Compare) and isinstance(node.left, ast.Name)
        column = metadata.get(node.left.id)
        if column is None:
            return np.zeros(rows, dtype=bool)
        value = ast.literal_eval(node.comparators[0])
        if isinstance(node.ops[0], ast.In | ast.NotIn):
            found = np.zeros(rows, dtype=bool)
            for each in value:
                found |= self._compare(column, operator.eq, each, node.left.id)
            return found if isinstance(node.ops[0], ast.In) else ~found
        return self._compare(column, _COMPARE[type(node.ops[0])], value, node.left.id)

    def _compare(
        self, column: np.ndarray, compare: Callable[[Any, Any], Any], value: Any, name: str
    ) -> np.ndarray:
        if (column.dtype.kind == "S") != isinstance(value, str):
            kind = "texts" if column.dtype.kind == "S" else "numbers"
            raise InvalidPredicateError(self.text, f"{name} holds {kind}, compared with {value!r}")
        return compare(column, value.encode() if isinstance(value, str) else value)


def _check(node: ast.expr, text: str, depth: int = 0) -> None:
    """Refuse whatever is not a comparison of a name with constants, or a join of such."""
    if depth > _DEEPEST:
        raise InvalidPredicateError(text, f"it is nested more than {_DEEPEST} deep")
    if isinstance(node, ast.BoolOp):
        for each in node.values:
            _check(each, text, depth + 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check(node.operand, text, depth + 1)
    elif not (
        isinstance(node, ast.Compare)
        and isinstance(node.left, ast.Name)
        and len(node.ops) == 1
        and _is_operand(node.ops[0], node.comparators[0])
    ):
        raise InvalidPredicateError(text, f"found {ast.unparse(node)!r}")


def _is_operand(compare: ast.cmpop, operand: ast.expr) -> bool:
    try:
        value = ast.literal_eval(operand)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return False
    if isinstance(compare, ast.In | ast.NotIn):
        return isinstance(value, tuple | list) and all(map(_is_constant, value))
    return type(compare) in _COMPARE and _is_constant(value)


def _is_constant(value: object) -> bool:
    return isinstance(value, bool | int | float | str)
