"""Worker processes write the same bytes as one process, and raise the same errors."""

from __future__ import annotations

import os
import random
import signal
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from renate_stages.data import ingest
from renate_stages.errors import (
    DrawingItemsError,
    ItemMismatchError,
    LabelNameError,
    NotAPairError,
    UnreadableByWorkersError,
    UnstorableValueError,
)
from renate_stages.tasks.labels import LabelNames

MAIN = os.getpid()


class Items(Dataset):
    """Items that a function makes of their numbers."""

    def __init__(self, make, rows: int = 300) -> None:
        self.make, self.rows = make, rows

    def __len__(self):
        return self.rows

    def __getitem__(self, row):
        return self.make(row)


def jpeg(row: int) -> bytes:
    stream = BytesIO()
    Image.fromarray(np.full((4 + row % 3, 5, 3), row % 256, np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def written(dataset, folder: Path, workers: int, **options) -> dict[str, bytes]:
    ingest(dataset, folder, 3, "train", num_workers=workers, **options)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


FORMS = {
    "columns of numbers": lambda n: ({"a": np.float32(n), "b": n}, n % 7),
    "tensors and metadata": lambda n: (
        torch.full((3, 2), n),
        float(n),
        {"id": f"row-{n}", "source": "ab"[n % 2], "time": n / 2},
    ),
    "encoded images": lambda n: (jpeg(n), n % 2),
    "large items": lambda n: (np.full((100, 100, 2), n, np.int16), n),
    "changes of type": lambda n: ((n if n < 150 else torch.tensor(n)), n % 3),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path, form):
    dataset = Items(FORMS[form])
    alone = written(dataset, tmp_path / "0", 0)
    assert alone == written(dataset, tmp_path / "1", 1) == written(dataset, tmp_path / "2", 2)


def ragged(row: int):
    return np.arange(row % 5 if row > 20 else 0, dtype=np.int16), row % 2


def test_rows_of_different_lengths_of_which_the_first_are_empty(tmp_path):
    alone, shared = (
        written(Items(ragged), tmp_path / str(n), n, ragged=["inputs"]) for n in (0, 2)
    )
    assert alone == shared


NAMED = {
    "texts": lambda n: (n, -100 if n < 40 else f"label-{n * n % 11}"),
    "texts for each position": lambda n: (n, ["B", -100, f"I-{n * n % 11}"][: 1 + n % 3]),
}


@pytest.mark.parametrize("form", NAMED)
def test_names_of_labels_are_numbered_in_order_of_appearance(tmp_path, form):
    stores, orders = [], []
    for workers in (0, 2):
        names = LabelNames(["label-4"])
        options = {} if form == "texts" else {"ragged": ["targets"]}
        dataset, folder = Items(NAMED[form]), tmp_path / str(workers)
        stores.append(written(dataset, folder, workers, numbers=names.numbers, **options))
        orders.append(names.names)
    assert stores[0] == stores[1] and orders[0] == orders[1] and len(orders[0]) > 4


def test_a_dataset_without_a_length_is_read_by_the_main_process(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            assert os.getpid() == MAIN
            yield from ((n, n) for n in range(50))

    assert written(Stream(), tmp_path / "0", 0) == written(Stream(), tmp_path / "2", 2)


def fails(row: int):
    if row == 217:
        raise ValueError("no such customer")
    return row, row


FAULTY = {
    "another shape": (lambda n: (np.zeros(3 if n == 217 else 2), n), ItemMismatchError),
    "an error of the dataset": (fails, ValueError),
    "no pair": (lambda n: n if n == 217 else (n, n), NotAPairError),
    "a text": (lambda n: ("text" if n == 217 else n, n), UnstorableValueError),
    "a name among numbers": (lambda n: (n, "cat" if n == 217 else n), ItemMismatchError),
    "a bad name": (lambda n: (n, " cat" if n == 217 else "dog"), LabelNameError),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_errors_are_those_of_the_main_process(tmp_path, fault):
    make, kind = FAULTY[fault]
    messages = []
    for workers in (0, 2):
        with pytest.raises(kind) as caught:
            numbers = LabelNames().numbers
            ingest(
                Items(make),
                tmp_path / str(workers),
                1,
                "train",
                num_workers=workers,
                numbers=numbers,
            )
        messages.append(str(caught.value))
        assert not (tmp_path / str(workers) / "index.json").exists()
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    "draw",
    [random.random, np.random.rand, lambda: torch.rand(()).item()],
    ids=["random", "numpy", "torch"],
)
def test_items_that_draw_random_numbers_are_refused(tmp_path, draw):
    dataset = Items(lambda n: (np.float32(draw()), n))
    with pytest.raises(DrawingItemsError, match=r"train_transform.*default_rng"):
        ingest(dataset, tmp_path / "2", 1, "train", num_workers=2)
    assert len(ingest(dataset, tmp_path / "0", 1, "train")) == 300


def test_items_with_generators_of_their_own_are_read(tmp_path):
    dataset = Items(lambda n: (np.random.default_rng(n).random(2), n))
    assert written(dataset, tmp_path / "0", 0) == written(dataset, tmp_path / "2", 2)


def test_rows_that_only_the_main_process_can_read_are_refused(tmp_path):
    def make(row):
        if os.getpid() != MAIN and row == 100:
            raise OSError("the connection is closed")
        return row, row

    with pytest.raises(UnreadableByWorkersError, match=r"OSError: the connection is closed"):
        ingest(Items(make), tmp_path / "store", 1, "train", num_workers=2)


def test_a_killed_worker_is_reported(tmp_path):
    def make(row):
        if os.getpid() != MAIN and row == 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return row, row

    with pytest.raises(UnreadableByWorkersError, match=r"worker"):
        ingest(Items(make), tmp_path / "store", 1, "train", num_workers=2)


def test_reading_does_not_draw_from_the_global_generator(tmp_path):
    before = torch.random.get_rng_state()
    ingest(Items(lambda n: (n, n)), tmp_path / "store", 1, "train", num_workers=2)
    assert torch.equal(before, torch.random.get_rng_state())
