"""Members of samples by extension: images, arrays and texts as columns, labels as values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages.data.columns import LazyColumn
from renate_stages.data.modules.image_column import THREADS, ImageColumn, mean_size
from renate_stages.data.modules.tar_samples import Members, Sample
from renate_stages.memory import Column, Ragged

KINDS = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"), "an image"),
    **dict.fromkeys(("npy",), "an array"),
    **dict.fromkeys(("txt", "text"), "a text"),
    **dict.fromkeys(("cls", "cls2", "index", "inx", "id"), "a whole number"),  # as in WebDataset
}


@dataclass(frozen=True)
class TypedMembers:
    """One member of each sample.

    Args:
        kind: A value of `KINDS`.
        members: The bytes of the rows.
        images: The same as images; None if they are of another kind.
    """

    kind: str
    members: Members
    images: ImageColumn | None = None

    def column(self, rows: np.ndarray) -> LazyColumn:
        """Return rows that can be used, int64 `(n,)`, as a column of inputs."""
        members = self.members.of_rows(rows.tolist())
        size = mean_size(members.sizes[:1000])
        if self.images is not None:
            return self.images.of_rows(rows, size)
        return _ReadColumn(members, self.kind == "a text", size)


class _ReadColumn(LazyColumn):
    """Members as arrays of one shape, or as the bytes of texts.

    Args:
        members: The bytes of the rows.
        is_text: Whether they are texts.
        row_bytes: Bytes of a row, about.
    """

    def __init__(self, members: Members, is_text: bool, row_bytes: int) -> None:
        self._members, self._is_text, self.row_bytes = members, is_text, row_bytes

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, row: int) -> np.ndarray:
        data = self._members[row]
        return np.frombuffer(data, np.uint8) if self._is_text else _array(data)

    def take(self, rows: np.ndarray) -> Column:
        """Return rows in the given order, int64 `(n,)`."""
        found = [self[row] for row in rows.tolist()]
        if self._is_text and not found:
            return Ragged(np.empty(0, np.uint8), np.zeros(1, np.int64))
        return Ragged.of(found) if self._is_text else np.stack(found)


def typed_members(
    shards: Sequence[Path], samples: Sequence[Sample], place: str, reasons: dict[int, str]
) -> TypedMembers:
    """Return a member of each sample, after checking that each can be used as inputs.

    Args:
        shards: The tar files.
        samples: The samples.
        place: Extensions, separated by `;`, of which the first that a sample has counts.
        reasons: Rows that cannot be used, with the reason; gets more of them.
    """
    places, kinds = [], []
    for sample in samples:
        extension = extension_of(sample, place)
        places.append((sample.shard, *sample.members[extension]) if extension else (0, 0, 0))
        kinds.append(KINDS.get(extension.rpartition(".")[2], "unknown") if extension else "missing")
    kind = next((each for each in kinds if each != "missing"), "an image")
    members = Members(shards, places)
    fits = kind in ("an image", "an array", "a text")
    for row, each in enumerate(kinds):
        if each == "missing":
            reasons.setdefault(row, f"{place} is missing")
        elif each != kind or not fits:
            reasons.setdefault(row, f"{place} is {each}; expected {kind if fits else 'an image'}")
    rows = [row for row in range(len(samples)) if row not in reasons]
    images = ImageColumn(members, np.array(rows, np.int64)) if kind == "an image" else None
    problems = images.problems() if images is not None else _problems(kind, members.of_rows(rows))
    for row, problem in zip(rows, problems, strict=True):
        if problem is not None:
            reasons[row] = problem
    return TypedMembers(kind, members, images)


def values_of(
    shards: Sequence[Path], samples: Sequence[Sample], place: str, reasons: dict[int, str]
) -> list[Any]:
    """Return a value of each sample: a text, a number, or an array; None where it has none.

    Args:
        shards: The tar files.
        samples: The samples.
        place: Extensions, or `json:FIELD`.
        reasons: Rows that cannot be used, with the reason; gets more of them.
    """
    extensions, _, name = place.partition(":")
    places, values = [], []
    for sample in samples:
        extension = extension_of(sample, extensions)
        places.append((sample.shard, *sample.members[extension]) if extension else (0, 0, 0))
    members = Members(shards, places)
    for row, sample in enumerate(samples):
        extension = extension_of(sample, extensions)
        value, problem = None, f"{place} is missing"
        if extension is not None and row not in reasons:
            try:
                value = _value(members[row], extension.rpartition(".")[2], name)
                problem = None if value is not None else problem
            except (ValueError, OSError, EOFError):
                problem = f"{place} cannot be read"
        values.append(value)
        if problem is not None:
            reasons.setdefault(row, problem)
    return values


def require_one_type(values: Sequence[Any], reasons: dict[int, str], place: str) -> None:
    """Reject rows whose value is not of the type, and the shape, that most have.

    Args:
        values: A value of each row.
        reasons: Rows that cannot be used, with the reason; gets more of them.
        place: Where the values are, for messages.
    """
    kinds = {row: _form(value) for row, value in enumerate(values) if row not in reasons}
    counts: dict[str, int] = {}
    for kind in kinds.values():
        counts[kind] = counts.get(kind, 0) + 1
    most = max(counts, key=lambda kind: counts[kind], default="")
    for row, kind in kinds.items():
        if kind != most:
            reasons[row] = f"{place} is {kind}; most are {most}"


def _form(value: Any) -> str:
    return "a text" if isinstance(value, str) else f"{value.dtype} {value.shape}"


def extension_of(sample: Sample, place: str) -> str | None:
    """Return the first of the extensions, separated by `;`, that a sample has; None if it has none."""
    return next((each for each in place.lower().split(";") if each in sample.members), None)


def _value(data: bytes, extension: str, name: str) -> Any:
    """Return a text, or an array of numbers, int64 or float32; None if it is missing."""
    if extension == "npy":
        found = _array(data)
    elif extension == "json" and name:
        content = json.loads(data)
        found = content.get(name) if isinstance(content, dict) else None
        if found is None or isinstance(found, str):
            return found
        found = np.asarray(found)
    elif KINDS.get(extension) == "a whole number":
        found = np.asarray(int(data))
    elif KINDS.get(extension) == "a text":
        return data.decode().strip() or None
    else:
        raise ValueError(f"no value can be read from {extension}")
    if found.dtype.kind not in "biuf" or (found.dtype.kind == "f" and np.isnan(found).any()):
        raise ValueError("expected numbers")
    return found.astype(np.float32 if found.dtype.kind == "f" else np.int64)


def _array(data: bytes) -> np.ndarray:
    return np.load(BytesIO(data), allow_pickle=False)


def _problems(kind: str, members: Members) -> list[str | None]:
    """Return for each row of arrays or texts why it cannot be used, or None."""

    def form(row: int) -> str | None:
        try:
            if kind == "a text":
                members[row].decode()
                return "a text"
            array = _array(members[row])
            return f"{array.dtype} {array.shape}" if array.dtype.kind in "biufc" else None
        except (ValueError, OSError, EOFError):
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        forms = [*pool.map(form, range(len(members)))]
    first = next((each for each in forms if each is not None), None)
    unreadable = "the text is not UTF-8" if kind == "a text" else "the array cannot be read"
    return [
        unreadable if each is None else None if each == first else f"{each}; expected {first}"
        for each in forms
    ]
