"""Stored datasets return copied batches in the requested order, with or without transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from renate_stages.data import Batched, ConcatStored, StoredDataset, ingest
from renate_stages.data.resident import copy_to_device
from renate_stages.memory import ExampleStore, Ragged, StoreWriter


def numbers(path, start: int, count: int) -> ExampleStore:
    """Store examples (float32 (2,), int64) whose values are consecutive numbers."""
    values = torch.arange(start, start + count)
    return ingest(TensorDataset(values[:, None].repeat(1, 2).float(), values), path, 1, "train")


@pytest.fixture
def store(tmp_path) -> ExampleStore:
    return numbers(tmp_path / "store", 0, 10)


@pytest.fixture
def nested(tmp_path) -> ExampleStore:
    with StoreWriter(tmp_path / "nested", 1) as writer:
        writer.append(({"x": (np.eye(3), np.arange(3))}, (np.arange(3),)))
    return ExampleStore.open(tmp_path / "nested")


def test_items_and_batches_are_copies_that_may_be_modified(store):
    data = StoredDataset(store, rows=np.array([7, 2, 5]))
    assert len(data) == 3
    inputs, target = data[1]
    assert inputs.tolist() == [2, 2] and target.item() == 2 and target.shape == ()
    inputs, targets = data.__getitems__([2, 0])
    assert targets.tolist() == [5, 7] and inputs.shape == (2, 2)
    inputs.zero_()
    targets.zero_()
    assert data[-1][0].tolist() == [5, 5]
    with pytest.raises(IndexError):
        data[3]


def test_transforms_are_applied_to_each_example(store):
    shapes = []

    def double(inputs):
        shapes.append(inputs.shape)
        return inputs * 2

    data = StoredDataset(store, transform=double, target_transform=lambda target: -target)
    inputs, targets = data.__getitems__([3, 4])
    assert shapes == [(2,), (2,)]
    assert inputs.tolist() == [[6, 6], [8, 8]] and targets.tolist() == [-3, -4]
    assert data[3][0].tolist() == [6, 6] and data[3][1] == -3


def test_batched_transform_receives_whole_batches(store, nested, tmp_path):
    shapes = []

    def double(inputs):
        shapes.append(inputs.shape)
        return inputs * 2

    data = StoredDataset(store, None, Batched(double), Batched(lambda targets: -targets))
    inputs, targets = data.__getitems__([3, 4])
    assert shapes == [(2, 2)]
    assert inputs.tolist() == [[6, 6], [8, 8]] and targets.tolist() == [-3, -4]
    assert data[3][0].tolist() == [6, 6] and data[3][1] == -3
    both = ConcatStored([data, StoredDataset(numbers(tmp_path / "more", 10, 2))])
    assert both.__getitems__([11, 0, 3])[0].tolist() == [[11, 11], [0, 0], [6, 6]]
    flat = StoredDataset(nested, None, Batched(lambda inputs: inputs["x"][0].flatten(1)))
    assert flat.__getitems__([2, 1])[0].shape == (2, 3) and flat[0][0].tolist() == [1, 0, 0]


def test_batched_transform_receives_padded_texts(tmp_path):
    with StoreWriter(tmp_path / "texts", 1) as writer:
        texts = Ragged.of([np.array([1, 2, 3]), np.array([4])])
        writer.append((texts, np.arange(2)))
    data = StoredDataset(ExampleStore.open(tmp_path / "texts"), None, Batched(lambda x: x + 1))
    assert data.__getitems__([0, 1])[0].tolist() == [[2, 3, 4], [5, 1, 1]]


def test_nested_examples_keep_their_structure_in_batches(nested):
    for transform in (None, lambda inputs: inputs):
        inputs, targets = StoredDataset(nested, transform=transform).__getitems__([2, 1])
        assert isinstance(inputs["x"], tuple) and isinstance(targets, tuple)
        assert inputs["x"][0].tolist() == [[0, 0, 1], [0, 1, 0]] and targets[0].tolist() == [2, 1]


@pytest.mark.parametrize("resident", [False, True])
def test_targets_alone_are_those_of_a_batch_and_inputs_are_not_read(store, nested, resident):
    def refuse(_):
        raise AssertionError("inputs are read")

    for examples, negate in ((store, lambda targets: -targets), (nested, lambda each: (-each[0],))):
        for own in (None, negate, Batched(negate)):
            data = StoredDataset(examples, np.array([2, 0, 1]), None, own)
            _, expected = data.__getitems__([2, 0, 2])
            if resident:
                plain = StoredDataset(examples, data.rows)
                copy_to_device([plain], torch.device("cpu"))
                data.resident = plain.resident
            data.transform = refuse
            found = data.targets([2, 0, 2])
            assert type(found) is type(expected)
            pairs = zip(found, expected, strict=True) if examples is nested else [(found, expected)]
            assert all(torch.equal(*each) for each in pairs)


def test_labels_and_classes_follow_the_rows(store, nested):
    data = StoredDataset(store, rows=np.array([7, 2, 7]))
    assert data.labels().tolist() == [7, 2, 7] and data.classes() == [2, 7]
    assert StoredDataset(nested).labels() is None and StoredDataset(nested).classes() is None


def test_concatenated_parts_keep_their_own_transforms(store, tmp_path):
    with StoreWriter(tmp_path / "empty", 1):
        pass
    memory = StoredDataset(numbers(tmp_path / "new", 10, 5), transform=lambda inputs: -inputs)
    empty = StoredDataset(ExampleStore.open(tmp_path / "empty"))
    data = ConcatStored([StoredDataset(store), empty, memory])
    assert len(data) == 15
    rows = [14, 0, 10, 9, 3, 14]
    inputs, targets = data.__getitems__(rows)
    assert targets.tolist() == rows
    assert inputs[:, 0].tolist() == [-14, 0, -10, 9, 3, -14]
    assert data.__getitems__([1, 0])[1].tolist() == [1, 0]
    assert data[10][0][0] == -10 and data[-1][1] == 14
    assert data.labels().tolist() == list(range(15)) and data.classes() == list(range(15))


def test_concatenated_nested_parts_keep_their_structure(nested):
    data = ConcatStored([StoredDataset(nested), StoredDataset(nested)])
    inputs, _ = data.__getitems__([5, 0, 4])
    assert isinstance(inputs["x"], tuple) and inputs["x"][1].tolist() == [2, 0, 1]
