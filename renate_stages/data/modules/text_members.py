"""Texts in the members of samples, as a column that is read when it is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from renate_stages.data.columns import LazyColumn
from renate_stages.data.modules.image_column import THREADS, mean_size
from renate_stages.data.modules.sample_members import extension_of
from renate_stages.data.modules.tar_samples import Members, Sample
from renate_stages.memory import Ragged
from renate_stages.preprocessing.stored_text import problem_of, ragged_of, stored_text


class TextMembers:
    """One text, or the two of a pair, of each sample.

    Args:
        shards: The tar files.
        samples: The samples.
        places: For each text the extensions of its member, or `json:FIELD`.
        reasons: Rows that cannot be used, with the reason; gets more of them.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        samples: Sequence[Sample],
        places: Sequence[str],
        reasons: dict[int, str],
    ) -> None:
        self._parts = []
        for place in places:
            extensions, _, field = place.partition(":")
            where = []
            for row, sample in enumerate(samples):
                extension = extension_of(sample, extensions)
                if extension is None:
                    reasons.setdefault(row, f"{place} is missing")
                where.append((sample.shard, *sample.members[extension]) if extension else (0, 0, 0))
            self._parts.append(_Part(Members(shards, where), place, field))
        rows = [row for row in range(len(samples)) if row not in reasons]
        with ThreadPoolExecutor(THREADS) as pool:
            for row, problem in zip(rows, pool.map(self._problem, rows), strict=True):
                if problem is not None:
                    reasons[row] = problem

    def column(self, rows: np.ndarray) -> LazyColumn:
        """Return rows that can be used, int64 `(n,)`, as a column of inputs."""
        return _TextColumn(self._parts, rows)

    def _problem(self, row: int) -> str | None:
        try:
            for part in self._parts:
                part.text(row)
        except _UnusableTextError as error:
            return str(error)
        return None


class _UnusableTextError(Exception):
    """A member has no text; the message is the reason."""


class _Part:
    """The members with one of the texts.

    Args:
        members: Their bytes.
        place: The setting that names them, for reasons.
        field: Field of JSON members; empty: the member is the text.
    """

    def __init__(self, members: Members, place: str, field: str) -> None:
        self.members, self.place, self.field = members, place, field

    def text(self, row: int) -> str:
        """Return the text of a row; raise `_UnusableTextError` if it has none."""
        data = self.members[row]
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise _UnusableTextError(f"{self.place} is not UTF-8") from None
        if self.field:
            try:
                content = json.loads(text)
            except (ValueError, RecursionError):
                raise _UnusableTextError(f"{self.place} cannot be read") from None
            text = content.get(self.field) if isinstance(content, dict) else None
            if text is None:
                raise _UnusableTextError(f"{self.place} is missing")
            if not isinstance(text, str):
                raise _UnusableTextError(f"{self.place} is not a text")
            if problem := problem_of(text):
                raise _UnusableTextError(f"{self.place}: {problem}")
        return text


class _TextColumn(LazyColumn):
    """Texts as a column of the bytes that are stored.

    Args:
        parts: The members of each text.
        rows: The rows to use, int64 `(n,)`.
    """

    def __init__(self, parts: Sequence[_Part], rows: np.ndarray) -> None:
        self._parts, self._rows = parts, rows
        first = parts[0].members.of_rows(rows[:1000].tolist())
        self.row_bytes = len(parts) * mean_size(first.sizes)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> np.ndarray:
        return np.frombuffer(self._text(int(self._rows[row])), np.uint8)

    def take(self, rows: np.ndarray) -> Ragged:
        """Return rows in the given order, int64 `(n,)`."""
        return ragged_of(self._text(row) for row in self._rows[rows].tolist())

    def _text(self, row: int) -> bytes:
        return stored_text([part.text(row) for part in self._parts]).encode()
