"""Read YAML files as plain values, and edit them without losing comments."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from renate_stages.errors import ConflictedFileError, MalformedFileError
from renate_stages.files import whole

MOST_VALUES = 1_000_000
"""Maximum number of values in a file, with aliases expanded."""
MOST_DEEP = 100
"""Maximum nesting depth of lists and mappings."""


def read(path: Path) -> Any:
    """Return the content of a YAML file as plain values.

    Raises:
        MalformedFileError: If it is not valid YAML in UTF-8.
        ConflictedFileError: If it has Git's conflict markers.
    """
    return parse(text(path), path)


def text(path: Path) -> str:
    """Return the text of a YAML file.

    Raises:
        MalformedFileError: If it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 ({error})"
        raise MalformedFileError(path, "YAML", reason, _cure(path)) from error
    except OSError as error:
        raise MalformedFileError(path, "YAML", str(error.strerror), _cure(path)) from error


def _cure(source: Path | str) -> str:
    return f"correct it; `git diff HEAD -- {source}` shows what changed since the last commit"


def parse(text: str, source: Path | str) -> Any:
    """Parse YAML text to plain values; `source` is the file's name in errors.

    Raises:
        MalformedFileError: If it is not valid YAML, is too large with its aliases expanded, is
            nested too deeply, or has an invalid number or string.
        ConflictedFileError: If it has Git's conflict markers.
    """
    if whole.has_conflict_marks(text):
        raise ConflictedFileError(source)
    try:
        return copy.deepcopy(_parsed(text))
    except Exception as error:  # the parser raises many types: `!!int x`, 2026-99-99, deep nesting
        raise MalformedFileError(source, "YAML", str(error), _cure(source)) from error


@lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    """Parse and check YAML text; cached, because a command reads the same file up to 20 times.

    Raises:
        Exception: If it cannot be used; the message is the reason.
    """
    from ruamel.yaml import YAML

    content = YAML(typ="safe", pure=True).load(text)
    if "*" in text and _values(content, {}) > MOST_VALUES:
        raise ValueError(f"with its aliases expanded it has more than {MOST_VALUES} values")
    if problem := _problem(content):
        raise ValueError(problem)
    return content


def _problem(content: Any) -> str | None:
    """Return a problem with values that are too deep, too large or not encodable, or None."""
    waiting, seen = [(content, 0)], set()
    while waiting:
        value, depth = waiting.pop()
        if depth > MOST_DEEP:
            return f"it is nested more than {MOST_DEEP} levels deep"
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return f"it contains a number with {len(str(abs(value)))} digits"
        if isinstance(value, str) and whole.has_half_characters(value):
            return "it contains half of a character (a lone surrogate), such as \\ud800"
        if isinstance(value, dict | list | set | tuple) and id(value) not in seen:
            seen.add(id(value))
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            waiting += [(part, depth + 1) for part in parts]
    return None


def _values(content: Any, counted: dict[int, float]) -> float:
    """Return the number of values in parsed YAML, with aliases expanded.

    Args:
        content: Values from YAML; aliases are the same object.
        counted: Earlier results by object id; infinite while an object is being counted.
    """
    if not isinstance(content, dict | list | set | tuple):
        return 1
    if id(content) not in counted:
        counted[id(content)] = math.inf  # an object that contains itself is infinite
        parts = [*content, *content.values()] if isinstance(content, dict) else content
        counted[id(content)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(content)]


def dump(content: Any) -> str:
    """Format values as YAML text; the order of keys is kept."""
    from ruamel.yaml import YAML

    yaml = YAML(pure=True)
    yaml.default_flow_style = False
    stream = StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Apply `change` to a YAML file's content; comments and order are kept, the write is atomic."""
    whole.write_text(path, edited(path, change))


def edited(path: Path, change: Callable[[Any], None]) -> str:
    """Return the text that `edit` would write."""
    from ruamel.yaml import YAML, RoundTripRepresenter

    class NullSpelledOut(RoundTripRepresenter):
        """Keeps `key: null`, which ruamel would shorten to `key:`."""

    NullSpelledOut.add_representer(
        type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    yaml = YAML()
    yaml.Representer = NullSpelledOut
    yaml.preserve_quotes = True
    yaml.width = 10_000
    content = yaml.load(text(path))
    change(content)
    stream = StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
