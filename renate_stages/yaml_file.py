"""YAML files: read as plain values, and edited without losing a user's comments."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.errors import MalformedFileError


def read(path: Path) -> Any:
    """Return the content of a YAML file as plain values.

    Raises:
        MalformedFileError: If it is not YAML in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MalformedFileError(path, "YAML", f"it is not UTF-8 ({error})") from error
    return parse(text, path)


def parse(text: str, source: Path | str) -> Any:
    """Return the content of YAML text; `source` names it in an error.

    Raises:
        MalformedFileError: If it is not YAML.
    """
    from ruamel.yaml import YAML

    try:
        return YAML(typ="safe", pure=True).load(text)
    except Exception as error:  # `!!int x`, 2026-99-99, deep nesting: it fails in many ways
        raise MalformedFileError(source, "YAML", str(error)) from error


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
    content = yaml.load(path.read_text(encoding="utf-8"))
    change(content)
    stream = StringIO()
    yaml.dump(content, stream)
    files.write_text(path, stream.getvalue())
