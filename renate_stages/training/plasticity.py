"""Measure the plasticity of an update's models on its new training data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch.utils.data import default_collate

from renate_stages.data import StoredDataset
from renate_stages.data.ranks import ranks
from renate_stages.evaluation.evaluator import move
from renate_stages.evaluation.plasticity import plasticity
from renate_stages.evaluation.plasticity_history import Figures
from renate_stages.memory import ExampleStore
from renate_stages.models import RenateModule
from renate_stages.training.resume import generators, restore_generators
from renate_stages.training.updater import Updater

ROWS = 1000


class PlasticityProbe:
    """Measures models of one update on the same rows of its new training data.

    The rows are drawn by the update's generator `plasticity`, and have the test transforms. Global
    random generators are restored afterwards, so that measuring changes no result of training.

    Args:
        updater: The updater, with the user's functions and the parameters.
        new: The new training examples.
    """

    def __init__(self, updater: Updater, new: ExampleStore) -> None:
        drawn = updater.generators.numpy("plasticity").permutation(len(new))[:ROWS]
        self._data = StoredDataset(new, np.sort(drawn), *updater.transforms.test)
        self._params = updater.params

    def measure(self, model: RenateModule) -> Figures | None:
        """Return the figures of a model; None without new data, and in all but the first process."""
        if ranks().rank or not len(self._data):
            return None
        device = next((each.device for each in model.parameters()), "cpu")
        with _same_generators():
            return plasticity(model, self._batches(device), self._params.update.task_id, device)

    def _batches(self, device: Any) -> Iterator[Any]:
        size = self._params.evaluation.batch_size
        for start in range(0, len(self._data), size):
            rows = list(range(start, min(start + size, len(self._data))))
            batch: Any = self._data.__getitems__(rows)
            inputs, _ = default_collate(batch) if isinstance(batch, list) else batch
            yield move(inputs, device)


@contextmanager
def _same_generators() -> Iterator[None]:
    saved = generators()
    try:
        yield
    finally:
        restore_generators(saved)
