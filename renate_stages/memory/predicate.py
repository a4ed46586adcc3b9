"""Conditions on the metadata of examples, such as `source == 'eu' and age > 3`.

Unknown values are neither true nor false (Kleene's logic, like NULL in SQL): a comparison with an
unknown value is unknown, and so is its `not`; `and` is false if any part is false; `or` is true if
any part is true. A row matches a condition only if the condition is known to be true. A value is
unknown if the row lacks this metadata, or if it is NaN.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from renate_stages.errors import InvalidPredicateError
from renate_stages.memory.comparing import Constant, compare, is_in, kind_of
from renate_stages.memory.spec import known_values

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_DEEPEST = 50  # levels of nesting, well below Python's recursion limit
_LONGEST = 100_000  # characters; Python's parser needs hundreds of bytes for each


class Truth(NamedTuple):
    """The rows for which a condition is known to be true, and to be false; bool `(rows,)`."""

    true: np.ndarray
    false: np.ndarray


@dataclass(frozen=True)
class Predicate:
    """A condition on metadata: comparisons of names with constants, joined by and, or, not.

        Predicate.parse("source in ('eu', 'uk') and update < 3").matches({"source": ...}, rows=10)

    Numbers are compared by exact value, bools as 0 and 1, texts by their code points.

    Args:
        text: The condition as the user wrote it.
        tree: The parsed condition, which is never run as code.
    """

    text: str
    tree: ast.expr = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Predicate:
        """Parse a condition.

        Raises:
            InvalidPredicateError: If the text is not a condition; names the part that is wrong.
        """
        if len(text) > _LONGEST:
            problem = f"it has {len(text)} characters, more than {_LONGEST}"
            raise InvalidPredicateError(text, problem)
        try:
            text.encode()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the user's text, such as "\d"
                tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InvalidPredicateError(text, "it is not valid syntax") from error
        _check(tree, text)
        return cls(text, tree)

    @property
    def names(self) -> set[str]:
        """Return the names that the condition uses."""
        return {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}

    def matches(
        self,
        metadata: Mapping[str, np.ndarray],
        rows: int,
        known: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Return which rows are known to match, bool `(rows,)`; arguments as in `truth`."""
        return self.truth(metadata, rows, known).true

    def truth(
        self,
        metadata: Mapping[str, np.ndarray],
        rows: int,
        known: Mapping[str, np.ndarray] | None = None,
    ) -> Truth:
        """Return for which rows the condition is known to be true, and to be false.

        Args:
            metadata: Columns `(rows,)` by name; numbers, bools, or texts as bytes.
            rows: Number of rows.
            known: For each name, the rows whose value is known, bool `(rows,)`; all rows if a name
                is missing here. NaN is always unknown.

        Raises:
            InvalidPredicateError: If a text is compared with numbers, or a name has more than one
                number per example.
        """
        known = known or {}
        columns = {}
        for name in self.names & metadata.keys():
            column = metadata[name]
            self._require_plain(name, column)
            where = known_values(column)
            columns[name] = column, where & known[name] if name in known else where
        return self._evaluate(self.tree, columns, rows)

    def _require_plain(self, name: str, column: np.ndarray) -> None:
        if name == "id":
            problem = "ids are stored as hashes and cannot be compared; use --ids instead"
            raise InvalidPredicateError(self.text, problem)
        if column.ndim != 1:
            shape = f"an array of shape {column.shape[1:]} for each example"
            raise InvalidPredicateError(self.text, f"{name} is {shape}, expected one value")
        if kind_of(column) is None:
            raise InvalidPredicateError(self.text, f"{name} has values of {column.dtype}")

    def _evaluate(
        self, node: ast.expr, columns: Mapping[str, tuple[np.ndarray, np.ndarray]], rows: int
    ) -> Truth:
        if isinstance(node, ast.BoolOp):
            parts = [self._evaluate(each, columns, rows) for each in node.values]
            true, false = ([each[n] for each in parts] for n in (0, 1))
            if isinstance(node.op, ast.And):
                return Truth(np.logical_and.reduce(true), np.logical_or.reduce(false))
            return Truth(np.logical_or.reduce(true), np.logical_and.reduce(false))
        if isinstance(node, ast.UnaryOp):
            true, false = self._evaluate(node.operand, columns, rows)
            return Truth(false, true)
        assert isinstance(node, ast.Compare) and isinstance(node.left, ast.Name)
        if node.left.id not in columns:
            nowhere = np.zeros(rows, dtype=bool)
            return Truth(nowhere, nowhere)
        column, known = columns[node.left.id]
        result = self._compared(node, node.left.id, column)
        return Truth(result & known, ~result & known)

    def _compared(self, node: ast.Compare, name: str, column: np.ndarray) -> np.ndarray:
        (operation,), value = node.ops, ast.literal_eval(node.comparators[0])
        constants: list[Constant] = [*value] if isinstance(value, tuple | list) else [value]
        for each in constants:
            if isinstance(each, str) != (kind_of(column) == "text"):
                constant = "text" if isinstance(each, str) else "number"
                problem = f"{name} has {kind_of(column)}s, but is compared with the {constant}"
                raise InvalidPredicateError(self.text, f"{problem} {_shown(each)}")
        if isinstance(operation, ast.In | ast.NotIn):
            result = is_in(column, constants)
            return result if isinstance(operation, ast.In) else ~result
        return compare(column, _COMPARISONS[type(operation)], constants[0])


def _check(node: ast.expr, text: str, depth: int = 0) -> None:
    """Raise `InvalidPredicateError` unless a node is a comparison or a combination of such."""
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
        part = ast.get_source_segment(text.strip(), node) or text  # ast.unparse fails on deep trees
        raise InvalidPredicateError(text, f"found {part[:200]!r}")


def _is_operand(operation: ast.cmpop, operand: ast.expr) -> bool:
    try:
        value = ast.literal_eval(operand)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    if isinstance(operation, ast.In | ast.NotIn):
        return isinstance(value, tuple | list) and all(map(_is_constant, value))
    return type(operation) in _COMPARISONS and _is_constant(value)


def _is_constant(value: object) -> bool:
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= each <= "\udfff" for each in value)
    return isinstance(value, bool | int | float)


def _shown(value: Constant) -> str:
    try:
        return repr(value)[:200]
    except ValueError:  # Python refuses to convert very long ints
        return "of many digits"
