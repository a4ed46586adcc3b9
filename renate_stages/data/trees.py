"""Trees of tensors: dicts and tuples whose leaves are tensors, batches or single examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from renate_stages.errors import UnequalExamplesError
from renate_stages.memory import Ragged, Tree
from renate_stages.preprocessing.decoders import decode

Decode = Callable[[np.ndarray, str], Tensor]
"""Returns the tensor of an example that is stored as bytes, given them and the name of a decoder."""


def leaves(tree: Any) -> Iterator[Any]:
    """Yield the leaves of a tree, in order."""
    if isinstance(tree, Mapping | tuple | list):
        for each in tree.values() if isinstance(tree, Mapping) else tree:
            yield from leaves(each)
    else:
        yield tree


def tensors_of(tree: Tree) -> Tree:
    """Return a tree of arrays as one of tensors that share their memory; `Ragged` leaves stay."""
    if isinstance(tree, dict):
        return {key: tensors_of(child) for key, child in tree.items()}
    if isinstance(tree, tuple):
        return tuple(tensors_of(child) for child in tree)
    return tree if isinstance(tree, Ragged) else torch.from_numpy(tree)


def taken(tree: Tree, rows: Tensor) -> Tree:
    """Return copies of rows of a tree of tensors, gathered on the tensors' device."""
    if isinstance(tree, dict):
        return {key: taken(child, rows) for key, child in tree.items()}
    if isinstance(tree, tuple):
        return tuple(taken(child, rows) for child in tree)
    return tree.index_select(0, rows.to(tree.device, non_blocking=True))


def example_of(batch: Tree, index: int, decode: Decode = decode) -> Tree:
    """Return one example of a batch; encoded images are decoded."""
    if isinstance(batch, dict):
        return {key: example_of(child, index, decode) for key, child in batch.items()}
    if isinstance(batch, tuple):
        return tuple(example_of(child, index, decode) for child in batch)
    if isinstance(batch, Ragged):
        row = batch[index]
        return decode(row, batch.decoder) if batch.decoder else torch.from_numpy(row.copy())
    return batch[index]


def stack(values: list[Any], padding: int) -> Tree:
    """Stack examples to a batch; unlike in torch, tuples stay tuples. `padding` is as in `padded`."""
    first = values[0]
    if isinstance(first, dict):
        return {key: stack([value[key] for value in values], padding) for key in first}
    if isinstance(first, tuple | list):
        return tuple(stack(list(column), padding) for column in zip(*values, strict=True))
    if isinstance(first, Tensor) and len({value.shape for value in values}) > 1:
        return padded(values, padding)
    return default_collate(values)


def stacked(part: Tree, count: int, padding: int, decode: Decode = decode) -> Tree:
    """Return a batch of `count` rows whose `Ragged` leaves are decoded, or padded, and stacked."""
    if isinstance(part, dict):
        return {key: stacked(child, count, padding, decode) for key, child in part.items()}
    if isinstance(part, tuple):
        return tuple(stacked(child, count, padding, decode) for child in part)
    if isinstance(part, Ragged):
        return stack([example_of(part, row, decode) for row in range(count)], padding)
    return part


def padded(tensors: list[Tensor], padding: int) -> Tensor:
    """Stack tensors of different lengths, padding shorter ones at the end.

    Args:
        tensors: The tensors, `(T, ...)`.
        padding: Value for signed integers: 0 for inputs, `IGNORED` for targets. Others get 0.

    Raises:
        UnequalExamplesError: If they differ in another dimension, such as images of several sizes.
    """
    if len({tensor.shape[1:] for tensor in tensors}) > 1 or tensors[0].ndim > 2:
        raise UnequalExamplesError({tuple(tensor.shape) for tensor in tensors})
    first = tensors[0]
    is_signed = not first.is_floating_point() and first.dtype.is_signed
    value = padding if is_signed else 0
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def concatenate(batches: Sequence[Tree], padding: int = 0) -> Tree:
    """Concatenate batches of the same structure, in the given order.

    Args:
        batches: The batches. Those that were padded to different lengths are padded to the longest.
        padding: Value for integers: 0 for inputs, `IGNORED` for targets.
    """
    first = batches[0]
    if isinstance(first, dict):
        return {key: concatenate([batch[key] for batch in batches], padding) for key in first}
    if isinstance(first, tuple):
        return tuple(concatenate(list(column), padding) for column in zip(*batches, strict=True))
    if len({batch.shape[1:] for batch in batches}) > 1:
        return padded([row for batch in batches for row in batch], padding)
    return torch.cat(list(batches))


def reordered(batch: Tree, order: Tensor) -> Tree:
    """Return the rows of a batch in another order, int64 `(B,)`."""
    if isinstance(batch, dict):
        return {key: reordered(child, order) for key, child in batch.items()}
    if isinstance(batch, tuple):
        return tuple(reordered(child, order) for child in batch)
    return batch[order]


def mapped(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a tree with a function applied to each leaf."""
    if isinstance(tree, dict):
        return {key: mapped(child, change) for key, child in tree.items()}
    if isinstance(tree, tuple):
        return tuple(mapped(child, change) for child in tree)
    return change(tree)
