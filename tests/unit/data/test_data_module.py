"""Data modules split by seed, and the example digits never overwrite user data."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from renate_stages.actions.example_data import write_digits
from renate_stages.data import RenateDataModule
from renate_stages.errors import (
    ForeignDataError,
    InvalidShareError,
    MissingSplitError,
    UnknownExampleUpdateError,
)


class Numbers(RenateDataModule):
    def setup(self):
        data = TensorDataset(torch.arange(20), torch.arange(20))
        self._train_data, self._val_data = self._split_train_val_data(data)


def values(dataset) -> list[int]:
    return [int(inputs) for inputs, _ in dataset]


def test_the_split_is_a_partition_determined_by_the_seed(tmp_path):
    first, same, other = (Numbers(tmp_path, 0.25, seed) for seed in (1, 1, 2))
    for module in (first, same, other):
        module.prepare_data()
        module.setup()
    assert len(first.val_data()) == 5
    assert sorted(values(first.train_data()) + values(first.val_data())) == list(range(20))
    assert values(first.train_data()) == sorted(values(first.train_data()))  # order of arrival
    assert values(first.val_data()) == values(same.val_data()) != values(other.val_data())


def test_data_module_without_val_size_has_no_validation_data(tmp_path):
    module = Numbers(str(tmp_path))
    module.setup()
    assert module.val_data() is None and len(module.train_data()) == 20


def test_missing_split_error_names_the_method_to_call(tmp_path):
    module = Numbers(tmp_path)
    with pytest.raises(MissingSplitError, match=r"(?s)Numbers\.train_data\(\).*call setup\(\)"):
        module.train_data()
    module.setup()
    assert module.test_data() is None


@pytest.mark.parametrize("size", [-0.1, 1, 1.5])
def test_val_size_out_of_range_is_refused(tmp_path, size):
    with pytest.raises(InvalidShareError, match="val_size"):
        Numbers(tmp_path, val_size=size)


def names(folder) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_digits_of_each_update_have_new_classes(tmp_path):
    target = tmp_path / "data" / "incoming"
    seen, total = [], 0
    for update in (1, 2, 3):
        write_digits(target, update)
        assert names(target) == ["inputs.npy", "targets.npy"] and names(target.parent) == [
            "incoming"
        ]
        inputs, targets = np.load(target / "inputs.npy"), np.load(target / "targets.npy")
        assert (inputs.dtype, inputs.shape[1:], targets.dtype) == (np.uint8, (8, 8), np.int64)
        assert inputs.max() == 16 and len(inputs) == len(targets)
        seen.append(np.unique(targets).tolist())
        total += len(targets)
    assert seen == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]] and total == 1797


def test_writing_the_same_digits_again_leaves_the_files_untouched(tmp_path):
    def written() -> dict[str, tuple[int, int]]:  # without access times, which reading may change
        found = [(file.name, file.stat()) for file in (tmp_path / "a").iterdir()]
        return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found}

    write_digits(tmp_path / "a", 1)
    before = written()
    write_digits(tmp_path / "a", 1)
    assert written() == before


def test_file_hard_linked_to_the_cache_is_never_written(tmp_path):
    target = tmp_path / "incoming"
    write_digits(target, 1)
    cached = tmp_path / "cached"
    os.link(target / "inputs.npy", cached)
    cached.chmod(0o444)
    before = cached.read_bytes()
    write_digits(target, 2)
    assert cached.read_bytes() == before != (target / "inputs.npy").read_bytes()


@pytest.mark.parametrize("name", ["inputs.npy", "mine.csv"])
def test_user_data_is_not_replaced_by_digits(tmp_path, name):
    write_digits(tmp_path / "incoming", 1)
    (tmp_path / "incoming" / name).unlink(missing_ok=True)
    (tmp_path / "incoming" / name).write_bytes(b"mine")
    with pytest.raises(ForeignDataError, match="nothing was changed"):
        write_digits(tmp_path / "incoming", 2)
    assert (tmp_path / "incoming" / name).read_bytes() == b"mine"


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / "incoming").mkdir()
    (tmp_path / ".incoming.0123abcd.new").mkdir()
    (tmp_path / ".incoming.0123abcd.new" / "inputs.npy").touch()
    write_digits(tmp_path / "incoming", 3)
    assert names(tmp_path) == ["incoming"]


@pytest.mark.parametrize("update", [0, 4])
def test_digits_of_unknown_updates_are_refused(tmp_path, update):
    with pytest.raises(UnknownExampleUpdateError, match="from 1 to 3"):
        write_digits(tmp_path / "incoming", update)
