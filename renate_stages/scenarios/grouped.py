"""Scenarios that group rows by their class or by a metadata field."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from renate_stages.data import RenateDataModule
from renate_stages.memory.spec import IGNORED
from renate_stages.scenarios.columns import labels_of, metadata_of
from renate_stages.scenarios.scenario import Scenario, random_parts, subset

Value = int | float | str
Groupings = Sequence[Sequence[Value]]


class GroupedScenario(Scenario):
    """Gives each update the rows with certain values, such as classes.

    If a value is in several groups, its training and validation rows are divided among these updates
    at random, and each of them has all of its test rows. Rows with a value in no group are left out,
    and so are rows without a label (-100).

    Args:
        data_module: As in `Scenario`.
        chunk_id: As in `Scenario`.
        groupings: Values of each update.
        num_tasks: Number of updates, instead of `groupings`: the values of the training data, in
            ascending order, are divided into groups of equal size (to one value).
        shuffle: With `num_tasks`: whether the values are first put in a random order.
        seed: As in `Scenario`.

    Raises:
        InvalidScenarioError: If both or neither of `groupings` and `num_tasks` are given, or a group
            is empty or repeats a value.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        chunk_id: int,
        groupings: Groupings | None = None,
        *,
        num_tasks: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        if (groupings is None) == (num_tasks is None):
            self._refuse("it needs either groupings or num_tasks", "set one of them")
        super().__init__(
            data_module, len(groupings) if groupings is not None else num_tasks or 0, chunk_id, seed
        )
        self._groupings = [list(group) for group in groupings or ()]
        self._shuffle = shuffle
        for number, group in enumerate(self._groupings):
            if not group or len(set(group)) < len(group):
                self._refuse(f"group {number} is {group}", "give each group distinct values")

    @abstractmethod
    def _values(self, dataset: Dataset, split: str) -> np.ndarray:
        """Return the value of each row, `(rows,)`."""

    def _part(self, dataset: Dataset, split: str) -> Dataset:
        values = self._values(dataset, split)
        if split == "train" and not self._groupings:
            self._groupings = self._divided(values)
        if split == "train":  # of all updates, so that the first one finds a typing error
            self._require(values, split, [each for group in self._groupings for each in group])
        elif split == "test":
            self._require(values, split, self._groupings[self._chunk_id])
        return subset(dataset, self._chosen(values, split))

    def _chosen(self, values: np.ndarray, split: str) -> np.ndarray:
        """Return the sorted rows of the update."""
        chosen = []
        for value in self._groupings[self._chunk_id]:
            rows = np.flatnonzero(values == value)
            parts = [n for n, group in enumerate(self._groupings) if value in group]
            if split != "test" and len(parts) > 1:
                draw = self._draw(split, str(value))
                rows = random_parts(rows, len(parts), draw)[parts.index(self._chunk_id)]
            chosen.append(rows)
        return np.sort(np.concatenate(chosen))

    def _divided(self, values: np.ndarray) -> list[list[Value]]:
        known = np.unique(values[values != IGNORED])
        if len(known) < self._num_tasks:
            self._refuse(
                f"{self._num_tasks} updates of {len(known)} different values",
                "use fewer updates, or give groupings",
            )
        ordered = self._draw("order").permutation(known) if self._shuffle else known
        return [part.tolist() for part in np.array_split(ordered, self._num_tasks)]

    def _require(self, values: np.ndarray, split: str, wanted: Sequence[Value]) -> None:
        missing = [each for each in dict.fromkeys(wanted) if not (values == each).any()]
        if missing:
            known = np.unique(values).tolist()
            shown = ", ".join(map(str, known[:20])) + (", ..." if len(known) > 20 else "")
            self._refuse(
                f"{split}_data() has no row with {', '.join(map(repr, missing))} (it has: {shown})",
                "change groupings, or the data",
            )


class ClassIncrementalScenario(GroupedScenario):
    """Gives each update certain classes (van de Ven and Tolias, "Three scenarios for continual
    learning", 2019).

        ClassIncrementalScenario(module, chunk_id=0, groupings=((0, 1), (2, 3), (4, 5)))

    Args:
        data_module: Its targets are labels: whole numbers or texts.
        chunk_id: As in `Scenario`.
        groupings: Labels of each update.
        num_tasks: As in `GroupedScenario`.
        shuffle: As in `GroupedScenario`.
        seed: As in `Scenario`.
    """

    def _values(self, dataset: Dataset, split: str) -> np.ndarray:
        return labels_of(dataset, split, type(self).__name__)


class BlurryScenario(ClassIncrementalScenario):
    """Class-incremental updates with blurry boundaries (Koh et al., "Online Continual Learning on
    Class Incremental Blurry Task Configuration with Anytime Inference", ICLR 2022).

    Each class has a main update. A share of its training and validation rows comes in the other
    updates instead, evenly at random. The test rows of a class belong to its main update alone.

    Args:
        data_module: As in `ClassIncrementalScenario`.
        chunk_id: As in `Scenario`.
        groupings: As in `GroupedScenario`; no label may be in two groups.
        blurriness: Share of the rows outside of the main update, in [0, 1].
        grouping: Other arguments of `GroupedScenario`.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        chunk_id: int,
        groupings: Groupings | None = None,
        blurriness: float = 0.1,
        **grouping: Any,
    ) -> None:
        super().__init__(data_module, chunk_id, groupings, **grouping)
        self._blurriness = self._share("blurriness", blurriness)
        given = [value for group in self._groupings for value in group]
        if len(set(given)) < len(given):
            self._refuse("a label is in two groups", "give each label one main update")

    def _chosen(self, values: np.ndarray, split: str) -> np.ndarray:
        if split == "test" or self._num_tasks == 1:
            return super()._chosen(values, split)
        chosen = []
        for main, group in enumerate(self._groupings):
            for value in group:
                draw = self._draw(split, str(value))
                rows = draw.permutation(np.flatnonzero(values == value))
                moved = round(self._blurriness * len(rows))
                others = [n for n in range(self._num_tasks) if n != main]
                homes = np.full(len(rows), main)
                homes[:moved] = np.resize(draw.permutation(others), moved)
                chosen.append(rows[homes == self._chunk_id])
        return np.sort(np.concatenate(chosen))


class ImbalancedScenario(ClassIncrementalScenario):
    """Class-incremental updates whose classes have fewer and fewer rows (Liu et al., "Long-Tailed
    Class Incremental Learning", ECCV 2022).

    Of class number r of C, in the order of the updates, a random share of ratio^(-r / (C - 1)) of the
    training and validation rows is kept, at least one row. Test rows are all kept.

    Args:
        data_module: As in `ClassIncrementalScenario`.
        chunk_id: As in `Scenario`.
        groupings: As in `GroupedScenario`.
        ratio: Share of the first class divided by the share of the last one, >= 1.
        grouping: Other arguments of `GroupedScenario`. With `shuffle`, sizes do not follow the labels.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        chunk_id: int,
        groupings: Groupings | None = None,
        ratio: float = 100.0,
        **grouping: Any,
    ) -> None:
        super().__init__(data_module, chunk_id, groupings, **grouping)
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not ratio >= 1:
            self._refuse(f"ratio is {ratio!r}", "set a number of at least 1")
        self._ratio = float(ratio)

    def _chosen(self, values: np.ndarray, split: str) -> np.ndarray:
        rows = super()._chosen(values, split)
        if split == "test":
            return rows
        order = list(dict.fromkeys(value for group in self._groupings for value in group))
        chosen = []
        for value in self._groupings[self._chunk_id]:
            share = self._ratio ** (-order.index(value) / max(1, len(order) - 1))
            own = rows[values[rows] == value]
            count = min(len(own), max(1, round(share * len(own))))
            draw = self._draw(split, "size", str(value))
            chosen.append(draw.permutation(own)[:count])
        return np.sort(np.concatenate(chosen))


class DomainIncrementalScenario(GroupedScenario):
    """Gives each update certain domains: values of a metadata field, such as a camera or a country.

    Domains come again if `groupings` names them again; see `RecurringDomainsScenario`.

    Args:
        data_module: Its items end with a dict of metadata.
        chunk_id: As in `Scenario`.
        groupings: Values of the field for each update.
        field: Name of the metadata field.
        grouping: Other arguments of `GroupedScenario`.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        chunk_id: int,
        groupings: Groupings | None = None,
        field: str = "source",
        **grouping: Any,
    ) -> None:
        super().__init__(data_module, chunk_id, groupings, **grouping)
        self._field = field

    def _values(self, dataset: Dataset, split: str) -> np.ndarray:
        return metadata_of(dataset, self._field, split, type(self).__name__)


class RecurringDomainsScenario(DomainIncrementalScenario):
    """Gives each update one domain, in turn, several times: A, B, C, A, B, C.

    The training rows of a domain are divided among its updates.

    Args:
        data_module: As in `DomainIncrementalScenario`.
        chunk_id: As in `Scenario`.
        domains: The values of the field, in their order.
        rounds: How many times each domain comes, >= 1.
        field: Name of the metadata field.
        seed: As in `Scenario`.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        chunk_id: int,
        domains: Sequence[Value],
        rounds: int = 2,
        field: str = "source",
        *,
        seed: int = 0,
    ) -> None:
        rounds = self._integer("rounds", rounds, 1)
        groupings = [[domain] for _ in range(rounds) for domain in domains]
        super().__init__(data_module, chunk_id, groupings, field, seed=seed)
