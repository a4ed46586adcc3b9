"""Kinds of preprocessing by name, and how to read one from a folder."""

from __future__ import annotations

import importlib
from pathlib import Path

from renate_stages import files
from renate_stages.errors import MalformedFileError
from renate_stages.preprocessing.base import FILE, FOLDER, SCHEMA, Preprocessing

KINDS = {
    "images": "renate_stages.preprocessing.images:ImagePreprocessing",
    "table": "renate_stages.preprocessing.table:TablePreprocessing",
    "text": "renate_stages.preprocessing.text:TextPreprocessing",
}


def read_preprocessing(folder: Path) -> Preprocessing | None:
    """Return what `Preprocessing.write` wrote to a folder; None if it has no preprocessing.

    Args:
        folder: `work/prepared`, a state or `export`.

    Raises:
        MalformedFileError: If the files do not have the form of a known kind.
    """
    path = folder / FOLDER / FILE
    if not path.is_file():
        return None
    content = files.read_json(path)
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind not in KINDS or content.get("schema") != SCHEMA:
        reason = (
            f"found kind {kind!r:.80} of schema {content.get('schema') if kind else None!r:.80}"
        )
        raise MalformedFileError(path, "preprocessing", reason, "use the version that wrote it")
    module, name = KINDS[kind].split(":")
    try:
        found = getattr(importlib.import_module(module), name).from_content(content, path.parent)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise MalformedFileError(path, "preprocessing", reason) from error
    built = content.get("built")
    if not isinstance(built, dict | None):
        raise MalformedFileError(path, "preprocessing", f"built is {built!r:.80}")
    targets = content.get("targets", [])
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        raise MalformedFileError(path, "preprocessing", f"targets is {targets!r:.80}")
    found.built, found.targets = built, tuple(targets)
    return found
