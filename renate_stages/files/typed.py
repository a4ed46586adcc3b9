"""Read small files as typed, frozen values; a file of another format is an error."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from renate_stages.errors import MalformedFileError
from renate_stages.files import whole

T = TypeVar("T")
FROM_GIT = "run `git checkout HEAD -- {}`, which restores the committed version"
RUN_AGAIN = "run `dvc repro`, which writes it again"

LARGEST = 2**63  # limit of whole numbers, because NumPy and torch must be able to hold them
Count = Annotated[int, Field(ge=0, lt=2**53)]
UpdateNumber = Annotated[int, Field(ge=0, lt=10**9)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Figure = Finite | None
"""A figure in one of our JSON files: null if it is unknown, never NaN."""


class Content(BaseModel):
    """Content of one of our files. Unknown keys are ignored, because newer releases may add some."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Ends(Content):
    """The ends of an interval; both are null if it is unknown."""

    low: Figure
    high: Figure

    @model_validator(mode="after")
    def _are_two(self) -> Ends:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high must be both numbers, or both null")
        return self


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number within the range of int64 or float64."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -LARGEST <= value < LARGEST if isinstance(value, int) else math.isfinite(value)


def checked(kind: type[T], content: Any, path: Path | str, what: str, cure: str) -> T:
    """Validate content and return it as its type.

    Args:
        kind: The type: a `Content`, or any other type that pydantic can validate.
        content: Parsed JSON or YAML.
        path: Path of the file, for the error.
        what: Description of the file, for the error.
        cure: What the user should do, for the error.

    Raises:
        MalformedFileError: If the content does not match; names the first problem.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise MalformedFileError(path, what, described(error), cure) from error


def parse_json(text: str | bytes, path: Path | str, cure: str) -> Any:
    """Parse JSON text; `path` and `cure` are used in the error.

    Raises:
        MalformedFileError: If it is not valid JSON.
    """
    try:
        return whole.parse_json(text)
    except (ValueError, RecursionError) as error:
        raise MalformedFileError(path, "JSON", str(error), cure) from error


def read_json(kind: type[T], path: Path, what: str, cure: str) -> T:
    """Read a JSON file as its type.

    Raises:
        MalformedFileError: If it is missing, is not valid JSON, or has another type.
    """
    return checked(kind, whole.read_json(path, cure), path, what, cure)


def read_table(
    path: Path, columns: Mapping[str, type], what: str, cure: str, *, rest: type = str
) -> list[dict[str, Any]]:
    """Read a CSV file; return each row as a mapping from column to value.

    Args:
        path: The file.
        columns: Required columns and the type of their cells: `str`, `int` or `float`. An empty cell
            in a `float` column is NaN.
        what: Description of the file, for the error.
        cure: What the user should do, for the error.
        rest: Type of all other columns.

    Raises:
        MalformedFileError: If the file is not as expected; names the line.
    """
    line = 1
    try:
        lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True)
        header = next(lines, [])
        if missing := [name for name in columns if name not in header]:
            raise ValueError(f"the column {missing[0]!r} is missing")
        if len(set(header)) < len(header):
            raise ValueError("two columns have the same name")
        rows = []
        for cells in lines:
            line = lines.line_num
            if len(cells) != len(header):
                raise ValueError(f"found {len(cells)} cells, expected {len(header)}")
            texts = zip(header, cells, strict=True)
            rows.append({name: _cell(columns.get(name, rest), name, text) for name, text in texts})
        return rows
    except (OSError, ValueError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
        raise MalformedFileError(path, what, f"line {line}: {error}", cure) from error


def _cell(kind: type, name: str, text: str) -> Any:
    try:
        value = kind(text or "nan") if kind is float else kind(text)
    except ValueError as error:
        raise ValueError(f"{name} is {text!r:.80}, expected a number") from error
    if isinstance(value, int) and not -LARGEST <= value < LARGEST:
        raise ValueError(f"{name} is {text!r:.80}, expected a smaller number")
    return value


def described(error: ValidationError) -> str:
    """Return the first problem of a validation error with its location, in one line."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(f"{part!r}" if _is_odd(part) else str(part) for part in first["loc"])
    message = first["msg"][:200]
    return f"{place[:200]}: {message}" if place else message


def _is_odd(part: str | int) -> bool:
    return isinstance(part, str) and not part.isidentifier()
