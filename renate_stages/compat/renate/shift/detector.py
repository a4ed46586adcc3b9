"""`renate.shift.detector`: the base classes of detectors that take datasets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from renate_stages.errors import UnfittedDetectorError
from renate_stages.models.modes import evaluating
from renate_stages.shift.detector import Detector


class ShiftDetector(ABC):
    """Tests whether a dataset comes from the same distribution as a reference dataset.

    Args:
        batch_size: Examples per batch; does not change the result.
        num_preprocessing_workers: Worker processes that load batches.
        device: Device on which features are computed.
    """

    def __init__(
        self, batch_size: int = 32, num_preprocessing_workers: int = 0, device: str = "cpu"
    ) -> None:
        self._batch_size = batch_size
        self._num_preprocessing_workers = num_preprocessing_workers
        self._device = device

    @abstractmethod
    def fit(self, dataset: Dataset) -> None:
        """Store the reference dataset."""

    @abstractmethod
    def score(self, dataset: Dataset) -> float:
        """Return how likely there is a shift, in [0, 1]; higher means more likely."""

    def _make_data_loader(self, dataset: Dataset) -> DataLoader:
        return DataLoader(
            dataset, batch_size=self._batch_size, num_workers=self._num_preprocessing_workers
        )


class ShiftDetectorWithFeatureExtractor(ShiftDetector):
    """Compares features of the inputs of two datasets; targets are ignored.

    Args:
        feature_extractor: Maps a batch of inputs to features `(B, ...)`, which are flattened. It
            runs in evaluation mode. None: the inputs themselves.
        batch_size: As in `ShiftDetector`.
        num_preprocessing_workers: As in `ShiftDetector`.
        device: As in `ShiftDetector`.
    """

    def __init__(
        self,
        feature_extractor: nn.Module | None = None,
        batch_size: int = 32,
        num_preprocessing_workers: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(batch_size, num_preprocessing_workers, device)
        self._feature_extractor = (feature_extractor or nn.Identity()).to(device)
        self._test: Detector | None = None

    @abstractmethod
    def _make_test(self) -> Detector:
        """Return the statistical test, with its settings."""

    def fit(self, dataset: Dataset) -> None:
        """Compute and store the features of the reference dataset.

        Raises:
            UncomparableRowsError: If there are too few examples, or features are not finite.
        """
        self._test = self._make_test().fit(self.extract_features(dataset).numpy())

    def score(self, dataset: Dataset) -> float:
        """Return 1 - p for the features of a dataset, in [0, 1); higher means a shift.

        Equal datasets give equal scores: the permutations have a fixed seed.

        Raises:
            UnfittedDetectorError: If `fit` was not called.
            UncomparableRowsError: As for `fit`, or if the number of features differs.
        """
        if self._test is None:
            raise UnfittedDetectorError(type(self).__name__)
        rows = self.extract_features(dataset).numpy()
        return 1.0 - self._test.test(rows, np.random.default_rng(0)).p_value

    @torch.no_grad()
    def extract_features(self, dataset: Dataset) -> Tensor:
        """Return the features of a dataset's inputs, float32 `(n, d)`, on the CPU."""
        extractor = self._feature_extractor
        with evaluating(extractor):
            blocks = [
                extractor(_moved(batch[0], self._device)).flatten(1).float().cpu()
                for batch in self._make_data_loader(dataset)
            ]
        return torch.cat(blocks)


def _moved(inputs: Any, device: str) -> Any:
    if isinstance(inputs, Mapping):
        return {key: _moved(each, device) for key, each in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(_moved(each, device) for each in inputs)
    return inputs.to(device)
