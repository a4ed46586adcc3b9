"""Read the items of a dataset one by one, and yield them as blocks of columns.

The first item is validated part by part. Later ones are compared with it: an item whose containers,
types, dtypes and shapes are the same is copied directly to its row of the block, which costs about a
microsecond per value. Any other item is validated part by part too, which accepts it or says what is
wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import IterableDataset

from renate_stages.data.columns import Block
from renate_stages.data.items import ItemReader
from renate_stages.data.row_block import Copier, RowBlock
from renate_stages.data.value_rows import ValueRows
from renate_stages.errors import ItemMismatchError, user_code
from renate_stages.memory import ExampleSpec


class ItemBlocks:
    """Validates items in order, and collects them as blocks.

    Args:
        reader: Validates items.

    Attributes:
        spec: The spec of the items so far; None before the first one.
        named: Whether their targets are names of labels; None if all are ignored rows.
    """

    def __init__(self, reader: ItemReader) -> None:
        self.reader = reader
        self.spec: ExampleSpec | None = None
        self.named: bool | None = None
        self._unknown: set[str] = set()  # paths without a dtype yet, because all rows are empty
        self._copier: Copier | None = None
        self._values: ValueRows | None = None  # None if items have other parts than single values
        self._block: RowBlock | None = None

    def read(self, items: Iterable[Any], start: int = 0) -> Iterator[Block]:
        """Add items, and yield the blocks that are full.

        Args:
            items: The items.
            start: The number of the first one, for messages.

        Raises:
            RenateStagesError: As `ingest`.
        """
        index = start - 1
        for index, each in enumerate(items, start):
            values = self._values
            if values is not None:
                if values.took(each):
                    if values.is_full:
                        yield from self._converted(index + 1)
                        values.reserve(self._open())
                    continue
                yield from self._converted(index)
            elif self._copier is not None and self._copier.copied(each, self._open()):
                if self._open().is_full:  # the usual case: no other generator for each item
                    yield from self.rest()
                continue
            yield from self._one(each, index)
            if self._values is not None:
                self._values.reserve(self._open())
        yield from self._converted(index + 1)

    def _one(self, each: Any, index: int) -> Iterator[Block]:
        """Add an item, and yield the block if it is full then."""
        if self._copier is None or not self._copier.copied(each, self._open()):
            self._add(each, index)
        if self._open().is_full and not self._unknown:
            yield from self.rest()

    def _converted(self, stop: int) -> Iterator[Block]:
        """Add the items of single values that have been collected, up to before `stop`."""
        values = self._values
        if values is None or not len(values):
            return
        if values.moved(self._open()):
            if self._open().is_full:
                yield from self.rest()
        else:
            for index, each in enumerate(values.items(), stop - len(values)):
                yield from self._one(each, index)

    def _open(self) -> RowBlock:
        """Return the block that gets rows."""
        if self._block is None:
            assert self.spec is not None
            self._block = RowBlock(self.spec)
        return self._block

    def rest(self) -> Iterator[Block]:
        """Yield the rows that no block has yet, if any."""
        block, self._block = self._block, None
        if block is not None and block.rows:
            yield block.columns(), block.spec

    def accepts(self, spec: ExampleSpec, named: bool | None) -> bool:
        """Return whether rows that another process has validated fit those so far.

        Args:
            spec: The spec of the rows.
            named: Whether their targets are names of labels; None if all are ignored rows.
        """
        if self._unknown or spec != self.spec:
            return False
        if None not in (named, self.named) and named != self.named:
            return False
        self._name(named)
        return True

    @property
    def row_bytes(self) -> int:
        """Average bytes of the rows that no block has yet; there must be some."""
        assert self._block is not None
        return self._block.filled // self._block.rows

    @property
    def is_certain(self) -> bool:
        """Whether the dtypes of all fields are known."""
        return not self._unknown

    def _add(self, each: Any, index: int) -> None:
        """Validate an item part by part, and add it.

        Raises:
            RenateStagesError: As `ingest`.
        """
        reader = self.reader
        item = reader.read(each, index)
        if self.spec is None:
            self.spec, self._unknown = reader.spec(item), reader.empty(item)
            self._copier = Copier.of(each, item, reader, self.spec)
            if self._copier is not None:
                self._values = ValueRows.of(each, reader, self.spec, bool(item.named))
        elif self._unknown and (found := self._unknown - reader.empty(item)):
            self.spec = reader.with_dtypes(self.spec, item, found)
            self._unknown -= found
        reader.require(item, self.spec, index)
        if self.named is not None and item.named is not None and self.named != item.named:
            kinds = ("a number", "a name")
            found, expected = kinds[bool(item.named)], kinds[self.named]
            raise ItemMismatchError(reader.split, index, "its label", found, expected)
        self._name(item.named)
        block = self._open()
        block.spec = self.spec
        block.add(item)

    def _name(self, named: bool | None) -> None:
        self.named = named if self.named is None else self.named
        if self.named and self._copier is not None and not self._copier.names:
            self._copier = self._values = None  # the first rows are ignored, their targets numbers


def has_rows(dataset: Any) -> bool:
    """Return whether items can be read by their number, from 0 to the dataset's length."""
    return hasattr(dataset, "__len__") and not isinstance(dataset, IterableDataset)


def items_of(dataset: Any, split: str, rows: range | None = None) -> Iterator[Any]:
    """Yield items of a dataset; errors name the item and the line in the user's code.

    Args:
        dataset: The dataset.
        split: "train", "val" or "test", for messages.
        rows: Numbers of the items; None: all.
    """
    index = 0
    try:
        if not has_rows(dataset):
            for item in dataset:
                yield item
                index += 1
            return
        for index in range(len(dataset)) if rows is None else rows:
            yield dataset[index]
    except Exception as error:  # noqa: BLE001 -- raised again as the user's error
        what = f"data_module_fn, {split} data, item {index}"
        user_code.fail(what, error)
