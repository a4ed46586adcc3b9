"""`Scenario`: a data module that returns one of several parts of another one's data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
from torch.utils.data import Dataset, Subset

from renate_stages.data import RenateDataModule
from renate_stages.errors import InvalidScenarioError
from renate_stages.scenarios.columns import length_of

SPLITS = ("train", "val", "test")


class Scenario(ABC):
    """Cuts the data of a data module into the data of `num_tasks` updates, and returns one of them.

    Return a scenario from `data_module_fn`, or name it in `data.scenario` of `params.yaml`. Each
    update must use the same arguments and the same seed, apart from `chunk_id`. If the data module
    has no validation or test data, the scenario has none either, and `prepare` splits a share off
    the training rows of the update.

    Args:
        data_module: The data module with the data of all updates.
        num_tasks: Number of updates, >= 1.
        chunk_id: Which part to return, in [0, num_tasks).
        seed: Seed of random choices, >= 0.

    Raises:
        InvalidScenarioError: If an argument is outside its range.
    """

    def __init__(
        self, data_module: RenateDataModule, num_tasks: int, chunk_id: int, seed: int = 0
    ) -> None:
        self._data_module = data_module
        self._num_tasks = self._integer("num_tasks", num_tasks, 1)
        self._chunk_id = self._integer("chunk_id", chunk_id, 0)
        self._seed = self._integer("seed", seed, 0)
        if chunk_id >= num_tasks:
            self._refuse(
                f"chunk_id is {chunk_id}, but there are {num_tasks} parts, counted from 0",
                f"choose a chunk_id up to {num_tasks - 1}, or more parts",
            )
        self._data: dict[str, Dataset | None] = {}

    @property
    def num_tasks(self) -> int:
        """Number of updates."""
        return self._num_tasks

    @property
    def ragged_fields(self) -> tuple[str, ...]:
        """The fields of varying length, as the data module lists them."""
        return getattr(self._data_module, "ragged_fields", ())

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features, as the data module lists them."""
        return getattr(self._data_module, "feature_names", ())

    @property
    def categorical_features(self) -> tuple[str, ...]:
        """The features whose values are codes, as the data module lists them."""
        return getattr(self._data_module, "categorical_features", ())

    @property
    def excluded_features(self) -> tuple[str, ...]:
        """The features that shift tests leave out, as the data module lists them."""
        return getattr(self._data_module, "excluded_features", ())

    @property
    def label_order(self) -> tuple[str, ...]:
        """The labels to number first, as the data module lists them; of all updates together."""
        return getattr(self._data_module, "label_order", ())

    @property
    def preprocessing(self) -> Any:
        """What is fitted on the data, as the data module has it."""
        return getattr(self._data_module, "preprocessing", None)

    @property
    def rejected(self) -> Sequence[Any]:
        """The rows that the data module left out."""
        return getattr(self._data_module, "rejected", ())

    @property
    def rows_seen(self) -> int:
        """The rows that the data module read, with those."""
        return getattr(self._data_module, "rows_seen", 0)

    def fingerprint(self) -> str | None:
        """Return the fingerprint of the data module."""
        own: Any = getattr(self._data_module, "fingerprint", None)
        text: Any = own() if callable(own) else own
        return text

    def prepare_data(self) -> None:
        """Fetch or unpack the files of the data module."""
        self._data_module.prepare_data()

    def setup(self) -> None:
        """Set up the data module and cut its data.

        Raises:
            InvalidScenarioError: If the data cannot be cut in this way, or the part has no rows.
        """
        self._data_module.setup()
        for split in SPLITS:
            whole = getattr(self._data_module, f"{split}_data")()
            self._data[split] = None if whole is None else self._cut(whole, split)

    def train_data(self) -> Dataset | None:
        """Return the training data of the update; None before `setup`."""
        return self._data.get("train")

    def val_data(self) -> Dataset | None:
        """Return the validation data of the update, or None."""
        return self._data.get("val")

    def test_data(self) -> Dataset | None:
        """Return the test data of the update, or None.

        Renate returned a list with the test data of all updates. Here the state keeps the test data
        of earlier updates.
        """
        return self._data.get("test")

    def train_collate_fn(self) -> Callable[[list[Any]], Any] | None:
        """Return the collate function of the data module for training data, or None."""
        return self._collate_fn("train")

    def val_collate_fn(self) -> Callable[[list[Any]], Any] | None:
        """Return that for validation data, or None."""
        return self._collate_fn("val")

    def test_collate_fn(self) -> Callable[[list[Any]], Any] | None:
        """Return that for test data, or None."""
        return self._collate_fn("test")

    def _collate_fn(self, split: str) -> Callable[[list[Any]], Any] | None:
        own = getattr(self._data_module, f"{split}_collate_fn", None)
        return own() if own is not None else None

    @abstractmethod
    def _part(self, dataset: Dataset, split: str) -> Dataset:
        """Return the update's part of one split, which has a length."""

    def _cut(self, whole: Dataset, split: str) -> Dataset:
        total = length_of(whole, split, type(self).__name__)
        part = self._part(whole, split)
        if not len(part):  # pyright: ignore[reportArgumentType]
            self._refuse(
                f"part {self._chunk_id} has no rows of {split}_data(), which has {total}",
                "use fewer parts, or return more data",
            )
        return part

    def _random_chunk(self, dataset: Dataset, split: str) -> Subset:
        """Return one of `num_tasks` random parts of equal size (to one row), in original order."""
        return subset(
            dataset,
            random_parts(self._rows(dataset), self._num_tasks, self._draw(split))[self._chunk_id],
        )

    def _rows(self, dataset: Dataset) -> np.ndarray:
        return np.arange(len(dataset))  # pyright: ignore[reportArgumentType]

    def _draw(self, *purpose: str) -> np.random.Generator:
        """Return a generator for a purpose, the same for every part."""
        words = [byte for each in purpose for byte in each.encode()]
        return np.random.default_rng([self._seed, *words])

    def _refuse(self, problem: str, cure: str) -> NoReturn:
        raise InvalidScenarioError(type(self).__name__, problem, cure)

    def _integer(self, name: str, value: Any, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self._refuse(f"{name} is {value!r}", f"set a whole number, at least {least}")
        return value

    def _share(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            self._refuse(f"{name} is {value!r}", "set a number in [0, 1]")
        return float(value)


class IIDScenario(Scenario):
    """Cuts the training and validation data into random parts; each part has all of the test data.

    Args:
        data_module: As in `Scenario`.
        num_tasks: As in `Scenario`.
        chunk_id: As in `Scenario`.
        seed: As in `Scenario`.
    """

    def _part(self, dataset: Dataset, split: str) -> Dataset:
        return dataset if split == "test" else self._random_chunk(dataset, split)


def random_parts(rows: np.ndarray, parts: int, draw: np.random.Generator) -> list[np.ndarray]:
    """Divide rows at random into parts whose sizes differ by at most one; each part is sorted.

    Args:
        rows: Numbers of rows, int64 `(n,)`.
        parts: Number of parts, >= 1.
        draw: The random generator.
    """
    return [np.sort(part) for part in np.array_split(draw.permutation(rows), parts)]


def subset(dataset: Dataset, rows: np.ndarray | Sequence[int]) -> Subset:
    """Return the given rows of a dataset."""
    return Subset(dataset, np.asarray(rows, dtype=np.int64).tolist())
