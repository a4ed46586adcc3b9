"""Examples resident on the device give the same batches as the store."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from renate_stages.data import Batched, ConcatStored, StoredDataset
from renate_stages.data.resident import copy_to_device, drop_copies
from renate_stages.errors import DeviceMemoryError, NotBatchedError, UnequalOnDeviceError
from renate_stages.memory import ExampleStore, Ragged, StoreWriter

CPU = torch.device("cpu")


@pytest.fixture
def store(tmp_path) -> ExampleStore:
    generator = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store", update=1) as writer:
        for _ in range(3):
            images = generator.integers(0, 256, (7, 2, 2), dtype=np.uint8)
            inputs = {"image": images, "pair": (np.arange(7), generator.random(7))}
            writer.append((inputs, np.arange(7)))
    return ExampleStore.open(tmp_path / "store")


def leaves(tree) -> list[torch.Tensor]:
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    return [leaf for child in tree for leaf in leaves(child)] if isinstance(tree, tuple) else [tree]


def scaled(inputs):
    return {**inputs, "image": inputs["image"].float() / 255}


@pytest.mark.parametrize("rows", [None, np.array([20, 3, 3, 11, 0])])
@pytest.mark.parametrize("transform", [None, Batched(scaled)])
def test_resident_batches_equal_batches_of_the_store(store, rows, transform):
    dataset = StoredDataset(store, rows, transform)
    asked = [4, 0, 0, 2]
    stored = dataset.__getitems__(asked)
    copy_to_device([dataset], CPU)
    for found in (dataset.__getitems__(asked), dataset.__getitems__(np.array(asked))):
        assert found[0].keys() == stored[0].keys()
        assert all(torch.equal(*each) for each in zip(leaves(found), leaves(stored), strict=True))
    leaves(found)[0].zero_()
    again = dataset.__getitems__(asked)
    assert torch.equal(leaves(again)[0], leaves(stored)[0]), "a batch is a copy"
    drop_copies([dataset])
    assert dataset.resident is None


def test_concatenated_dataset_reads_from_resident_parts(store):
    parts = [StoredDataset(store, np.arange(5)), StoredDataset(store, np.arange(9, 21))]
    whole = ConcatStored(parts)
    rows = np.array([16, 2, 7, 0, 5])
    stored = whole.__getitems__(rows)
    copy_to_device(parts, CPU)
    found = whole.__getitems__(rows)
    assert all(torch.equal(*each) for each in zip(leaves(found), leaves(stored), strict=True))


def test_equal_rows_are_copied_once_and_empty_datasets_not_at_all(store):
    rows = np.arange(6)
    one, same, other = (StoredDataset(store, each) for each in (rows, rows, np.arange(3)))
    empty = StoredDataset(store, np.arange(0))
    copy_to_device([one, same, other, empty], CPU)
    assert one.resident is same.resident is not other.resident
    assert empty.resident is None


def test_datasets_that_cannot_be_resident_are_refused_by_name(store, tmp_path):
    def crop(inputs):
        return inputs

    with pytest.raises(NotBatchedError, match="crop takes one example at a time"):
        copy_to_device([StoredDataset(store, transform=crop)], CPU)
    with StoreWriter(tmp_path / "texts", update=1) as writer:
        writer.append((Ragged.of([np.arange(2), np.arange(3)]), np.arange(2)))
    texts = StoredDataset(ExampleStore.open(tmp_path / "texts"))
    with pytest.raises(UnequalOnDeviceError, match="'inputs' differs in length"):
        copy_to_device([texts], CPU)


def test_insufficient_device_memory_is_reported_with_sizes_before_any_example_is_copied(
    store, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 2**33))
    dataset = StoredDataset(store)
    monkeypatch.setattr(StoredDataset, "nbytes", 3 * 2**30)
    with pytest.raises(
        DeviceMemoryError, match=r"need 3\.00 GiB, but cuda:0 has only 0\.00 GiB free"
    ):
        copy_to_device([dataset, StoredDataset(store)], torch.device("cuda:0"))
    assert dataset.resident is None
