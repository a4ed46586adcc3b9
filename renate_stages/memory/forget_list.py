"""`forget.yaml`: the examples to forget and to leave out of future updates.

The file is in Git, and every stage that reads examples depends on it. It identifies examples by
hashed ids or by conditions on their metadata, never by content. Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from renate_stages import files
from renate_stages.errors import InvalidForgetListError, InvalidPredicateError
from renate_stages.files import yaml_file
from renate_stages.memory import Column, ExampleSpec, ExampleStore
from renate_stages.memory.identity import (
    PREFIX,
    IdSet,
    content_ids,
    id_of,
    printed,
    stored_ids,
    to_array,
)
from renate_stages.memory.predicate import Predicate, Truth
from renate_stages.memory.spec import METADATA

NAME = "forget.yaml"
HEAD = """\
# Examples to forget: `renate-stages forget --ids FILE` or `--where "source == 'eu'"` adds to it.
"""
_ID = re.compile(f"(?:{PREFIX})?[0-9a-f]{{32}}")  # lists of old releases have no prefix
_IDS = re.compile(r"^ids:\n(?=- )", re.MULTILINE)
_END = re.compile(r"\n(?!- )")
NO_IDS = IdSet(np.empty((0, 2), dtype=np.uint64))


@dataclass(frozen=True)
class ForgetList:
    """The examples to forget.

    Args:
        ids: Ids of examples.
        where: Conditions on metadata, in which `label` is an example's class.
    """

    ids: IdSet = NO_IDS
    where: tuple[Predicate, ...] = ()

    @classmethod
    def read(cls, path: Path) -> ForgetList:
        """Read the list; a missing file is an empty list.

        Raises:
            InvalidForgetListError: If it does not have the form that `write` writes.
            MalformedFileError, ConflictedFileError: If it is not YAML.
            InvalidPredicateError: If a condition is not valid.
        """
        if not path.is_file():
            return cls()
        text = yaml_file.text(path)
        plain, text = _taken_out(text)
        content = yaml_file.parse(text, path) or {}
        if not isinstance(content, dict) or set(content) - {"ids", "where"}:
            raise InvalidForgetListError(path, "expected the keys `ids` and `where`")
        ids, where = content.get("ids") or [], content.get("where") or []
        if not isinstance(ids, list) or not all(
            isinstance(i, str) and _ID.fullmatch(i) for i in ids
        ):
            expected = f"expected ids as `{PREFIX}` and 32 hexadecimal digits"
            raise InvalidForgetListError(path, expected)
        if not isinstance(where, list) or not all(isinstance(text, str) for text in where):
            raise InvalidForgetListError(path, "expected conditions as strings under `where`")
        others = (bytes.fromhex(each.removeprefix(PREFIX)) for each in ids)
        return cls(IdSet(to_array([plain, *others])), tuple(map(Predicate.parse, where)))

    def write(self, path: Path) -> None:
        """Write the list in sorted order, so that equal lists give equal files."""
        files.write_text(path, self.text())

    def text(self) -> str:
        """Return the text of the file."""
        where = sorted({predicate.text for predicate in self.where})
        ids = "".join(f"- {each}\n" for each in printed(self.ids.array))
        text = f"ids:\n{ids}" if ids else "ids: []\n"
        return HEAD + text + yaml_file.dump({"where": where})

    def with_more(self, ids: Iterable[str] | IdSet = (), where: Iterable[str] = ()) -> ForgetList:
        """Return a list with more examples to forget.

        Args:
            ids: The user's own ids, or hashed ids as `renate-stages memory --ids` prints them.
            where: Conditions on metadata.

        Raises:
            InvalidPredicateError: If a condition is not valid.
        """
        more = ids if isinstance(ids, IdSet) else IdSet(to_array(map(id_of, ids)))
        known = {predicate.text for predicate in self.where}
        new = [Predicate.parse(text) for text in where if text not in known]
        return ForgetList(self.ids | more, (*self.where, *new))

    def __bool__(self) -> bool:
        return bool(len(self.ids) or self.where)

    def __call__(self, columns: Mapping[str, Column], spec: ExampleSpec) -> np.ndarray:
        """Return which rows of a block of new examples to leave out, bool `(rows,)`.

        An example with an id of its own is also left out if an example with the same content but
        without an id was forgotten.

        Args:
            columns: The block's columns by path, metadata included.
            spec: The block's spec.
        """
        matches = self.rows(columns, spec)
        if len(self.ids) and METADATA + "id" in columns:
            examples = {path: columns[path] for path in spec.fields}
            matches |= self.ids.among(content_ids(examples, spec.fields))
        return matches

    def paths(self, spec: ExampleSpec) -> list[str]:
        """Return the paths of the columns that `rows` needs."""
        known = names(spec)
        needed = {
            known[name] for predicate in self.where for name in predicate.names if name in known
        }
        if len(self.ids):
            path = METADATA + "id"
            needed |= {path} if path in spec.metadata else spec.fields.keys()
        return sorted(needed)

    def rows(
        self, columns: Mapping[str, Column], spec: ExampleSpec, *, lenient: bool = False
    ) -> np.ndarray:
        """Return which rows to forget, by id, or by content for rows without an id.

        Args:
            columns: Columns by path, at least those from `paths`, without missing values.
            spec: The columns' spec.
            lenient: Whether a condition that compares a text with numbers matches no row instead of
                raising, for old data whose metadata had another type.

        Raises:
            InvalidPredicateError: If a condition compares a text with numbers and `lenient` is
                false.
        """
        rows = len(next(iter(columns.values())))
        matches = np.zeros(rows, dtype=bool)
        if len(self.ids):
            ids = columns.get(METADATA + "id")
            if not isinstance(ids, np.ndarray):
                examples = {path: columns[path] for path in spec.fields}
                ids = content_ids(examples, spec.fields)
            matches |= self.ids.among(ids)
        known = {
            name: column
            for name, path in names(spec).items()
            if isinstance(column := columns.get(path), np.ndarray)
        }
        for predicate in self.where:
            with suppress(InvalidPredicateError) if lenient else nullcontext():
                matches |= predicate.matches(known, rows)
        return matches

    def stored_rows(self, store: ExampleStore) -> np.ndarray:
        """Return which stored rows of a store to forget, dead rows included."""
        matches = np.zeros(store.offsets[-1], dtype=bool)
        if len(self.ids):
            matches |= self.ids.among(stored_ids(store))
        for predicate in self.where:
            matches |= stored_truth(store, predicate).true
        return matches


@dataclass
class CountedForgetList:
    """A forget list that also counts the rows it leaves out."""

    listed: ForgetList = field(default_factory=ForgetList)
    rows: int = 0

    def __call__(self, columns: Mapping[str, Column], spec: ExampleSpec) -> np.ndarray:
        """Return which rows of a block to leave out, bool `(rows,)`."""
        matches = self.listed(columns, spec)
        self.rows += int(matches.sum())
        return matches


def _taken_out(text: str) -> tuple[bytes, str]:
    """Return the ids of a list in the form that `write` writes, and the text without them.

    This avoids the YAML parser, which would take a minute for a million ids.
    """
    begin = _IDS.search(text)
    if begin is None:
        return b"", text
    end = _END.search(text, begin.end())
    block = text[begin.end() : end.end() if end else len(text)]
    for head in (f"- {PREFIX}", "- "):
        width = len(head) + 33
        lines, rest = divmod(len(block), width)
        alike = ((place, head[place] * lines) for place in range(len(head)))
        if rest or any(block[place::width] != each for place, each in alike):
            continue
        try:
            ids = bytes.fromhex(block.replace(head, ""))
        except ValueError:
            continue
        if len(ids) == 16 * lines:
            return ids, text[: begin.start()] + text[begin.end() + len(block) :]
    return b"", text


def stored_truth(store: ExampleStore, predicate: Predicate) -> Truth:
    """Return for which stored rows a condition is known to be true or false, dead rows included.

    Raises:
        InvalidPredicateError: If it compares a text with numbers, or a name refers to an array.
    """
    paths = {name: path for name, path in names(store.spec).items() if name in predicate.names}
    columns = {name: store.stored_column(path) for name, path in paths.items()}
    metadata = {name: path for name, path in paths.items() if path.startswith(METADATA)}
    known = {name: store.stored_known(path) for name, path in metadata.items()}
    return predicate.truth(columns, int(store.offsets[-1]), known)


def names(spec: ExampleSpec | None) -> dict[str, str]:
    """Return the path of each name that conditions can use."""
    if spec is None:
        return {}
    names = {path.removeprefix(METADATA): path for path in spec.metadata}
    targets = spec.fields.get("targets")
    if targets is not None and not targets.shape and not targets.ragged:
        names.setdefault("label", "targets")
    return names
