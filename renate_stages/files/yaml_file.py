"""YAML files: read as plain values, and edited without losing a user's comments."""

from __future__ import annotations

import math
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from renate_stages.errors import ConflictedFileError, MalformedFileError
from renate_stages.files import whole

MOST_VALUES = 1_000_000
"""Values in a file, each alias counted as what it stands for."""
MOST_DEEP = 100
"""Lists and mappings within each other."""


def read(path: Path) -> Any:
    """Return the content of a YAML file as plain values.

    Raises:
        MalformedFileError: If it is not YAML in UTF-8.
        ConflictedFileError: If Git left a merge conflict in it.
    """
    return parse(text(path), path)


def text(path: Path) -> str:
    """Return the text of a file that should be YAML.

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
    """Return the content of YAML text as plain values; `source` names it in an error.

    Raises:
        MalformedFileError: If it is not YAML, or its aliases stand for more than anybody writes.
        ConflictedFileError: If Git left a merge conflict in it.
    """
    from ruamel.yaml import YAML

    if whole.has_conflict_marks(text):
        raise ConflictedFileError(source)
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except Exception as error:  # `!!int x`, 2026-99-99, deep nesting: it fails in many ways
        raise MalformedFileError(source, "YAML", str(error), _cure(source)) from error
    if "*" in text and _values(content, {}) > MOST_VALUES:
        raise MalformedFileError(source, "YAML", "its aliases make it far too large", _cure(source))
    if problem := _problem(content):
        raise MalformedFileError(source, "YAML", problem, _cure(source))
    return content


def _problem(content: Any) -> str | None:
    """Return what none of our files needs, and nobody who reads them could cope with."""
    waiting, seen = [(content, 0)], set()
    while waiting:
        each, depth = waiting.pop()
        if depth > MOST_DEEP:
            return f"it is nested more than {MOST_DEEP} deep"
        if isinstance(each, int) and not -(2**63) <= each < 2**63:
            return f"it has a number of {len(str(abs(each)))} digits"
        if isinstance(each, str) and whole.has_half_characters(each):
            return "it has half of a character, such as \\ud800"
        if isinstance(each, dict | list | set | tuple) and id(each) not in seen:
            seen.add(id(each))
            parts = [*each, *each.values()] if isinstance(each, dict) else each
            waiting += [(part, depth + 1) for part in parts]
    return None


def _values(content: Any, counted: dict[int, float]) -> float:
    """Return how many values something has, an alias counted as what it stands for.

    Args:
        content: Values from YAML; aliases are one and the same object.
        counted: By object, what was found before; infinite while it is being counted.
    """
    if not isinstance(content, dict | list | set | tuple):
        return 1
    if id(content) not in counted:
        counted[id(content)] = math.inf  # if it contains itself, it has no end
        parts = [*content, *content.values()] if isinstance(content, dict) else content
        counted[id(content)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(content)]


def dump(content: Any) -> str:
    """Return values as YAML text, in the order given."""
    from ruamel.yaml import YAML

    yaml = YAML(pure=True)
    yaml.default_flow_style = False
    stream = StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Apply `change` to a YAML file's content, keeping comments and order; written whole."""
    whole.write_text(path, edited(path, change))


def edited(path: Path, change: Callable[[Any], None]) -> str:
    """Return the text that `edit` writes."""
    from ruamel.yaml import YAML, RoundTripRepresenter

    class NullSpelledOut(RoundTripRepresenter):
        """Writes `key: null` as it was, where ruamel would leave `key:`."""

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
