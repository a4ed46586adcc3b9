"""Keep the examples of a training on the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renate_stages.data.stored import Batched, StoredDataset
from renate_stages.errors import DeviceMemoryError, NotBatchedError, UnequalOnDeviceError
from renate_stages.memory import Tree

BLOCK = 4096  # examples to copy at once


def copy_to_device(datasets: Iterable[StoredDataset], device: torch.device) -> None:
    """Copy datasets' examples to a device, where batches are then gathered and transformed.

    Datasets with the same rows of a store share one copy.

    Args:
        datasets: The datasets; empty ones are skipped.
        device: The device; a GPU needs enough free memory.

    Raises:
        NotBatchedError: If a transform takes single examples.
        UnequalOnDeviceError: If examples differ in length or are encoded.
        DeviceMemoryError: If the GPU does not have enough free memory.
    """
    copies: dict[tuple[int, int | None], list[StoredDataset]] = {}
    for dataset in datasets:
        if len(dataset):
            _check(dataset)
            rows = None if dataset.rows is None else id(dataset.rows)
            copies.setdefault((id(dataset.store), rows), []).append(dataset)
    needed = sum(alike[0].nbytes for alike in copies.values())
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # Memory that torch has reserved but does not use is free too.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        if needed > free:
            raise DeviceMemoryError(needed, free, str(device))
    for alike in copies.values():
        tensors = _copied(alike[0], device)
        for dataset in alike:
            dataset.resident = tensors


def drop_copies(datasets: Iterable[StoredDataset]) -> None:
    """Drop the copies, so that batches are gathered from the stores again."""
    for dataset in datasets:
        dataset.resident = None


def check_transforms(transforms: dict[str, Any]) -> None:
    """Check that no transform takes single examples.

    Args:
        transforms: Transforms by name, or None.

    Raises:
        NotBatchedError: If a transform is not `Batched`.
    """
    for name, transform in transforms.items():
        if transform is not None and not isinstance(transform, Batched):
            raise NotBatchedError(name)


def _check(dataset: StoredDataset) -> None:
    for transform in (dataset.transform, dataset.target_transform):
        name = getattr(transform, "__qualname__", type(transform).__qualname__)
        check_transforms({name: transform})
    assert dataset.store.spec is not None
    for path, field in dataset.store.spec.fields.items():
        if field.ragged:
            raise UnequalOnDeviceError(path)


def _copied(dataset: StoredDataset, device: torch.device) -> Tree:
    """Return all examples of a dataset, `(inputs, targets)`, on a device."""
    store = dataset.store
    spec = store.spec
    assert spec is not None
    whole: dict[str, Tensor] = {}
    for start in range(0, len(dataset), BLOCK):
        stop = min(start + BLOCK, len(dataset))
        rows = np.arange(start, stop) if dataset.rows is None else dataset.rows[start:stop]
        for path, column in store.columns(rows, spec.fields).items():
            part = torch.from_numpy(column)
            if path not in whole:
                whole[path] = part.new_empty((len(dataset), *part.shape[1:]), device=device)
            whole[path][start:stop] = part
    return spec.unflatten(whole)
