"""Scenarios that sort rows by a number: a feature, the hue of an image, or the time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from renate_stages.data import RenateDataModule
from renate_stages.data.columns import chosen, columns_of
from renate_stages.scenarios.columns import array_of, items_of, metadata_of
from renate_stages.scenarios.scenario import Scenario, subset

HUE_BINS = 100


class SortingScenario(Scenario):
    """Sorts each split by a score of its rows and cuts it into parts of equal size (to one row).

    With `randomness`, `int(randomness * rows / 2)` random pairs of rows change places first.

    Args:
        data_module: As in `Scenario`.
        num_tasks: As in `Scenario`.
        randomness: In [0, 1]; 0 sorts exactly.
        chunk_id: As in `Scenario`.
        seed: As in `Scenario`.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        num_tasks: int,
        randomness: float,
        chunk_id: int,
        seed: int = 0,
    ) -> None:
        super().__init__(data_module, num_tasks, chunk_id, seed)
        self._randomness = self._share("randomness", randomness)

    @abstractmethod
    def _scores(self, dataset: Dataset, split: str) -> np.ndarray:
        """Return the score of each row, float `(rows,)`."""

    def _part(self, dataset: Dataset, split: str) -> Dataset:
        scores = self._scores(dataset, split)
        if len(missing := np.flatnonzero(np.isnan(scores))):
            self._refuse(
                f"the score of item {missing[0]} of {split}_data() is NaN ({len(missing)} in all)",
                "replace missing values, or sort by something else",
            )
        order = np.argsort(scores, kind="stable")
        draw = self._draw(split)
        for _ in range(int(self._randomness * len(order) / 2)):
            one, other = draw.integers(len(order), size=2)
            order[[one, other]] = order[[other, one]]
        return subset(dataset, np.sort(np.array_split(order, self._num_tasks)[self._chunk_id]))


class FeatureSortingScenario(SortingScenario):
    """Sorts rows by one feature of their inputs.

    Args:
        data_module: Its inputs are one tensor `(features, ...)`.
        num_tasks: As in `Scenario`.
        feature_idx: Index in the first dimension of the inputs. If there are more dimensions, the
            score is the mean over them: for images `(C, H, W)`, the mean of a channel.
        randomness: As in `SortingScenario`.
        chunk_id: As in `Scenario`.
        seed: As in `Scenario`.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        num_tasks: int,
        feature_idx: int,
        randomness: float,
        chunk_id: int,
        seed: int = 0,
    ) -> None:
        super().__init__(data_module, num_tasks, randomness, chunk_id, seed)
        self._feature = self._integer("feature_idx", feature_idx, 0)

    def _scores(self, dataset: Dataset, split: str) -> np.ndarray:
        source, rows = columns_of(dataset)
        if source is not None and isinstance(source.inputs, Tensor | np.ndarray):
            inputs = chosen(source.inputs, rows)
            self._require_feature(tuple(inputs.shape[1:]))
            values = np.asarray(inputs[:, self._feature], dtype=np.float64)
            return values.reshape(len(inputs), -1).mean(axis=1)
        scores = []
        for row, item in enumerate(items_of(dataset, split)):
            array = array_of(item[0], row, split, type(self).__name__)
            self._require_feature(array.shape)
            scores.append(array[self._feature].mean(dtype=np.float64))
        return np.array(scores)

    def _require_feature(self, shape: tuple[int, ...]) -> None:
        if not shape or shape[0] <= self._feature:
            self._refuse(
                f"feature_idx is {self._feature}, but inputs have the shape {shape}",
                "choose an index in the first dimension",
            )


class HueShiftScenario(SortingScenario):
    """Sorts color images by their most frequent hue.

    The hue in [0, 1) of each pixel is counted in 100 bins. Pixels without color count as hue 0.

    Args:
        data_module: Its inputs are images `(3, H, W)`, uint8 or floats in [0, 1].
        num_tasks: As in `Scenario`.
        randomness: As in `SortingScenario`.
        chunk_id: As in `Scenario`.
        seed: As in `Scenario`.
    """

    def _scores(self, dataset: Dataset, split: str) -> np.ndarray:
        from matplotlib.colors import rgb_to_hsv

        scores = []
        for row, item in enumerate(items_of(dataset, split)):
            image = array_of(item[0], row, split, type(self).__name__)
            image = image / 255 if image.dtype == np.uint8 else image
            if image.ndim != 3 or len(image) != 3 or image.min() < 0 or image.max() > 1:
                self._refuse(
                    f"the inputs of item {row} of {split}_data() are {image.dtype} {image.shape}",
                    "return images (3, H, W): uint8, or floats in [0, 1]",
                )
            hue = rgb_to_hsv(np.moveaxis(image, 0, -1))[..., 0]
            counts, _ = np.histogram(hue, bins=HUE_BINS, range=(0, 1))
            scores.append(counts.argmax() / HUE_BINS)
        return np.array(scores)


class TimeSliceScenario(Scenario):
    """Gives each update the rows of a period, by a metadata field such as a date.

    Args:
        data_module: Its items end with a dict of metadata.
        chunk_id: As in `Scenario`.
        edges: Ascending values at which a new period begins; n edges make n + 1 updates. A row at an
            edge belongs to the later period. Texts, such as `2026-11-30`, are compared letter by
            letter.
        field: Name of the metadata field.
        num_tasks: Number of updates, instead of `edges`: periods with about the same number of
            training rows. Rows of the same time stay together.
        seed: Not used, because nothing is random.

    Raises:
        InvalidScenarioError: If both or neither of `edges` and `num_tasks` are given, or the edges
            do not ascend.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        chunk_id: int,
        edges: Sequence[int | float | str] | None = None,
        field: str = "time",
        *,
        num_tasks: int | None = None,
        seed: int = 0,
    ) -> None:
        if (edges is None) == (num_tasks is None):
            self._refuse("it needs either edges or num_tasks", "set one of them")
        updates = len(edges) + 1 if edges is not None else num_tasks or 0
        super().__init__(data_module, updates, chunk_id, seed)
        self._field = field
        self._edges = list(edges) if edges is not None else None
        if self._edges is not None and sorted(set(self._edges)) != self._edges:
            self._refuse(f"edges are {self._edges}", "give them in ascending order")

    def _part(self, dataset: Dataset, split: str) -> Dataset:
        times = metadata_of(dataset, self._field, split, type(self).__name__)
        if self._edges is None:
            self._edges = self._even(times)
        if self._edges and isinstance(self._edges[0], str) != isinstance(times[0], str):
            self._refuse(
                f"edges are such as {self._edges[0]!r}, but '{self._field}' is {times[0]!r}",
                "give edges of the type of the field",
            )
        periods = np.array([sum(edge <= time for edge in self._edges) for time in times])
        return subset(dataset, np.flatnonzero(periods == self._chunk_id))

    def _even(self, times: np.ndarray) -> list[int | float | str]:
        ordered = np.sort(times)
        starts = [part[0] for part in np.array_split(ordered, self._num_tasks)[1:] if len(part)]
        edges = sorted(set(starts) - {ordered[0]})
        if len(edges) + 1 < self._num_tasks:
            self._refuse(
                f"'{self._field}' of the training data has too few different values for "
                f"{self._num_tasks} periods",
                "use fewer updates, or give edges",
            )
        return edges
