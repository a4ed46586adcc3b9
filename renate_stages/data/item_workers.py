"""Read the items of a dataset with several processes, into the same blocks as with one.

Each process reads chunks of rows and validates them as `item_blocks` does; this process receives
columns. It reads a chunk itself, in place of the worker's result, if the worker failed or if the chunk
does not fit the rows before it. So errors, and the treatment of unusual rows, are those of one process.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from renate_stages.data.columns import BLOCK_BYTES, BLOCK_ROWS, Block, with_ids
from renate_stages.data.item_blocks import ItemBlocks, has_rows, items_of
from renate_stages.data.items import ItemReader
from renate_stages.errors import DrawingItemsError, UnreadableByWorkersError
from renate_stages.memory import Column, ExampleSpec, Ragged
from renate_stages.memory.label_names import numbered

CHUNK_BYTES = BLOCK_BYTES // 4
_CHUNKS = 8  # at least this many for each process, so that none waits long for another


@dataclass
class Chunk:
    """What a worker returns for a range of rows.

    Args:
        blocks: The rows. Labels with names are places in `names`; rows with other targets have ids.
        spec: The spec of its rows; None if it could not be read.
        named: Whether targets are names of labels; None if all rows are ignored ones.
        names: Names of labels, in order of appearance.
        draws: Whether reading it has drawn random numbers from a global generator.
        problem: The error, if it could not be read.
    """

    blocks: list[Block] = field(default_factory=list)
    spec: ExampleSpec | None = None
    named: bool | None = None
    names: list[str] = field(default_factory=list)
    draws: bool = False
    problem: str = ""


def item_blocks(dataset: Dataset, reader: ItemReader, num_workers: int = 0) -> Iterator[Block]:
    """Yield blocks of copied items, because a dataset may reuse the arrays it returns.

    Args:
        dataset: Items `(inputs, targets)`, or `(inputs, targets, metadata)`.
        reader: Validates items.
        num_workers: Processes that read items of a dataset with a length; 0: this process reads them.

    Raises:
        RenateStagesError: As `ingest`.
    """
    blocks = ItemBlocks(reader)
    if num_workers and has_rows(dataset):
        yield from _blocks_of_workers(dataset, blocks, num_workers)
    else:
        yield from blocks.read(items_of(dataset, reader.split))
    yield from blocks.rest()


def _blocks_of_workers(dataset: Any, blocks: ItemBlocks, num_workers: int) -> Iterator[Block]:
    """Yield blocks of a dataset's items in order, read by worker processes.

    Only Linux can start workers that share a dataset without copying it; elsewhere, and in a process
    that may not start others, this process reads all items.

    Args:
        dataset: A dataset with a length.
        blocks: Collects the items that this process reads; rows may be left in it.
        num_workers: Number of processes, >= 1.

    Raises:
        DrawingItemsError: If items draw random numbers, whose order workers cannot keep.
        UnreadableByWorkersError: If a worker cannot read rows that this process can read.
        RenateStagesError: As `ingest`.
    """
    reader, length = blocks.reader, len(dataset)
    is_alone = sys.platform != "linux" or multiprocessing.current_process().daemon
    yield from blocks.read(items_of(dataset, reader.split, range(length if is_alone else 1)))
    if is_alone or length < 2:
        return
    assert blocks.spec is not None
    chunks = _Chunks(dataset, reader, _rows_of_chunk(blocks, length, num_workers))
    for rows, chunk in zip(chunks.ranges, _chunks_in_order(chunks, num_workers), strict=True):
        if chunk.draws:
            raise DrawingItemsError(reader.split, rows.start, rows.stop - 1)
        if chunk.spec is not None and blocks.accepts(chunk.spec, chunk.named):
            yield from blocks.rest()
            for columns, spec in chunk.blocks:
                yield _with_numbers(columns, chunk, reader), spec
            continue
        yield from blocks.read(items_of(dataset, reader.split, rows), rows.start)
        if chunk.problem:
            raise UnreadableByWorkersError(reader.split, rows.start, rows.stop - 1, chunk.problem)


class _Chunks(Dataset):
    """Ranges of rows as a dataset, whose items are chunks.

    Args:
        dataset: The dataset with the rows.
        reader: Validates items.
        rows: Rows of a chunk.
    """

    def __init__(self, dataset: Any, reader: ItemReader, rows: int) -> None:
        length = len(dataset)
        self.ranges = [range(n, min(n + rows, length)) for n in range(1, length, rows)]
        self.split = reader.split
        self._dataset, self._reader = dataset, reader

    def __len__(self) -> int:
        return len(self.ranges)

    def __getitem__(self, number: int) -> Chunk:
        names: dict[str, int] = {}
        reader = self._reader
        if reader.numbers is not None:
            place = partial(numbered, number=lambda name: names.setdefault(name, len(names)))
            reader = replace(reader, numbers=place)
        before, collected = _global_generators(), ItemBlocks(reader)
        rows = self.ranges[number]
        try:
            items = items_of(self._dataset, reader.split, rows)
            found = [*collected.read(items, rows.start), *collected.rest()]
        except Exception as error:  # noqa: BLE001 -- the other process reads these rows again
            return Chunk(problem=f"{type(error).__name__}: {error}")
        draws = before != _global_generators()
        spec = collected.spec if collected.is_certain else None
        if not collected.named:  # the id of a row is that of its numbers, not of places in `names`
            found = [with_ids(*each) for each in found]
        return Chunk(found, spec, collected.named, list(names), draws)


def _rows_of_chunk(blocks: ItemBlocks, length: int, num_workers: int) -> int:
    """Return how many rows a worker reads at once, by the size of the first item."""
    assert blocks.spec is not None
    even = -(-(length - 1) // (_CHUNKS * num_workers))
    return max(1, min(BLOCK_ROWS, even, CHUNK_BYTES // max(1, blocks.row_bytes)))


def _chunks_in_order(chunks: _Chunks, num_workers: int) -> Iterator[Chunk]:
    """Yield chunks in order, read by workers that were forked from this process.

    They hold NumPy arrays, which go through pipes: tensors would use shared memory, which is scarce in
    containers.
    """
    loader = DataLoader(
        chunks,
        batch_size=None,
        num_workers=min(num_workers, len(chunks)),
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # otherwise it would draw from the global one
        multiprocessing_context="fork",
    )
    results = iter(loader)
    for rows in chunks.ranges:
        try:
            result = next(results)
        except RuntimeError as error:  # a worker was killed, or has exited
            split = chunks.split
            raise UnreadableByWorkersError(split, rows.start, rows.stop - 1, str(error)) from error
        yield result


def _with_numbers(
    columns: dict[str, Column], chunk: Chunk, reader: ItemReader
) -> dict[str, Column]:
    """Replace the places of names in a worker's list by the numbers of labels."""
    if not chunk.named:
        return columns
    assert reader.numbers is not None
    numbers = np.array([int(reader.numbers(name)) for name in chunk.names], dtype=np.int64)
    targets = columns["targets"]
    values = targets.values if isinstance(targets, Ragged) else targets
    values = np.where(values >= 0, numbers[np.maximum(values, 0)], values)  # -100: ignored
    if isinstance(targets, Ragged):
        return {**columns, "targets": replace(targets, values=values)}
    return {**columns, "targets": values}


def _as_it_is(chunk: Any) -> Any:
    return chunk


def _global_generators() -> tuple[Any, ...]:
    """Return the states of the global random generators, which can be compared."""
    _, keys, *counters = np.random.get_state()
    numpys = np.asarray(keys).tobytes(), *counters
    return random.getstate(), numpys, torch.random.get_rng_state().numpy().tobytes()
