"""Scenario of datasets that the data module loads one by one, by their ids."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import ConcatDataset, Dataset

from renate_stages.data import RenateDataModule
from renate_stages.scenarios.scenario import SPLITS, Scenario

DataId = int | str


class DataIncrementalDataModule(RenateDataModule):
    """A data module that loads one of several datasets, such as years or domains.

    Override `setup()` to load the dataset with the id `self.data_id`.

    Args:
        data_path: As in `RenateDataModule`.
        data_id: Id of the dataset; the scenario sets others.
        val_size: As in `RenateDataModule`.
        seed: As in `RenateDataModule`.
    """

    def __init__(
        self, data_path: str | Path, data_id: DataId = 0, val_size: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(data_path, val_size, seed)
        self.data_id = data_id

    @abstractmethod
    def setup(self) -> None:
        """Load the dataset with the id `self.data_id`."""


class DataIncrementalScenario(Scenario):
    """Gives each update one of the datasets of a data module, or several together.

    Args:
        data_module: Loads the dataset whose id is in its attribute `data_id` in `setup`.
        chunk_id: As in `Scenario`.
        data_ids: Id of the dataset of each update.
        groupings: Ids of the datasets of each update, instead of `data_ids`.
        seed: Not used, because nothing is random.

    Raises:
        InvalidScenarioError: If both or neither of `data_ids` and `groupings` are given, or the data
            module has no `data_id`.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        chunk_id: int,
        data_ids: Sequence[DataId] | None = None,
        groupings: Sequence[Sequence[DataId]] | None = None,
        seed: int = 0,
    ) -> None:
        if (data_ids is None) == (groupings is None):
            self._refuse("it needs either data_ids or groupings", "set one of them")
        if not hasattr(data_module, "data_id"):
            self._refuse(
                f"{type(data_module).__name__} has no attribute data_id",
                "extend DataIncrementalDataModule",
            )
        groups = groupings if groupings is not None else [[each] for each in data_ids or ()]
        super().__init__(data_module, len(groups), chunk_id, seed)
        self._ids = list(groups[chunk_id])
        if not self._ids:
            self._refuse(f"group {chunk_id} is empty", "give each group at least one id")

    def prepare_data(self) -> None:
        """Fetch or unpack the files of the update's datasets."""
        for data_id in self._ids:
            self._data_module.data_id = data_id  # pyright: ignore[reportAttributeAccessIssue]
            self._data_module.prepare_data()

    def setup(self) -> None:
        """Load the update's datasets and concatenate them."""
        loaded: dict[str, list[Dataset | None]] = {split: [] for split in SPLITS}
        for data_id in self._ids:
            self._data_module.data_id = data_id  # pyright: ignore[reportAttributeAccessIssue]
            self._data_module.setup()
            for split in SPLITS:
                loaded[split].append(getattr(self._data_module, f"{split}_data")())
        for split, parts in loaded.items():
            present = [part for part in parts if part is not None]
            if present and len(present) < len(parts):
                self._refuse(
                    f"only some of the datasets {self._ids} have {split}_data()",
                    "return it for all of them, or for none",
                )
            whole = None if not present else present[0] if len(present) == 1 else None
            self._data[split] = ConcatDataset(present) if len(present) > 1 else whole

    def _part(self, dataset: Dataset, split: str) -> Dataset:
        return dataset
