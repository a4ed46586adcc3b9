"""Conditions on the metadata of examples, such as `source == 'eu' and age > 3`.

What is not known is neither true nor false (Kleene's logic, as SQL's NULL): a comparison with an
unknown value is unknown, `not` of it too, `and` is false where any part is false, `or` is true where
any part is true. A row fulfils a condition only where it is certainly true. A value is unknown where
the row has no such metadata, and where it is NaN.
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
_DEEPEST = 50  # far from where Python's stack ends
_LONGEST = 100_000  # characters: Python's parser takes hundreds of bytes for each


class Truth(NamedTuple):
    """Of which rows something is certainly true, and of which certainly false; bool `(rows,)`."""

    true: np.ndarray
    false: np.ndarray


@dataclass(frozen=True)
class Predicate:
    """A condition on metadata: comparisons of a name with constants, joined by and, or, not.

        Predicate.parse("source in ('eu', 'uk') and update < 3").matches({"source": ...}, rows=10)

    Numbers are compared by their exact value, bools as 0 and 1, texts by their code points.

    Args:
        text: As its user wrote it.
        tree: The same, parsed; never run as code.
    """

    text: str
    tree: ast.expr = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Predicate:
        """Return the condition that a text is.

        Raises:
            InvalidPredicateError: If it is something else; says which part.
        """
        if len(text) > _LONGEST:
            problem = f"it has {len(text)} characters, more than {_LONGEST}"
            raise InvalidPredicateError(text, problem)
        try:
            text.encode()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the user's text, such as "\d": not of our code
                tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InvalidPredicateError(text, "it cannot be read") from error
        _check(tree, text)
        return cls(text, tree)

    @property
    def names(self) -> set[str]:
        """Return the names that it needs."""
        return {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}

    def matches(
        self,
        metadata: Mapping[str, np.ndarray],
        rows: int,
        known: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Return which rows certainly fulfil it, bool `(rows,)`; arguments as in `truth`."""
        return self.truth(metadata, rows, known).true

    def truth(
        self,
        metadata: Mapping[str, np.ndarray],
        rows: int,
        known: Mapping[str, np.ndarray] | None = None,
    ) -> Truth:
        """Return of which rows it is certainly true, and of which certainly false.

        Args:
            metadata: Columns `(rows,)` by name; numbers, bools, or texts as bytes.
            rows: Their number.
            known: By name, of which rows the value is known, bool `(rows,)`; none: of all rows.
                NaN is unknown in any case.

        Raises:
            InvalidPredicateError: If a text is compared with numbers, or a name stands for more
                than one number an example.
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
            problem = "ids are stored as hashes and cannot be compared: give them with --ids"
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
        found = self._compared(node, node.left.id, column)
        return Truth(found & known, ~found & known)

    def _compared(self, node: ast.Compare, name: str, column: np.ndarray) -> np.ndarray:
        (operation,), value = node.ops, ast.literal_eval(node.comparators[0])
        constants: list[Constant] = [*value] if isinstance(value, tuple | list) else [value]
        for each in constants:
            if isinstance(each, str) != (kind_of(column) == "text"):
                holds = f"{name} holds {kind_of(column)}s"
                problem = (
                    f"{holds}, compared with the {'text' if isinstance(each, str) else 'number'}"
                )
                raise InvalidPredicateError(self.text, f"{problem} {_shown(each)}")
        if isinstance(operation, ast.In | ast.NotIn):
            found = is_in(column, constants)
            return found if isinstance(operation, ast.In) else ~found
        return compare(column, _COMPARISONS[type(operation)], constants[0])


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
        part = ast.get_source_segment(text.strip(), node) or text  # ast.unparse fails on deep ones
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
    except ValueError:  # an int of more digits than Python writes
        return "of many digits"
