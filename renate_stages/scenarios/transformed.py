"""Scenarios in which each update sees the inputs in another way: rotated or permuted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from renate_stages.data import RenateDataModule
from renate_stages.errors import user_code
from renate_stages.scenarios.columns import array_of
from renate_stages.scenarios.scenario import Scenario


class TransformScenario(Scenario):
    """Applies a transform to the inputs of each update.

    The training and validation data are cut into random parts, one for each transform. The test data
    of an update are all test rows, transformed.

    Args:
        data_module: As in `Scenario`.
        transforms: One function for each update, which takes and returns the inputs of an item. It
            must not be random.
        chunk_id: As in `Scenario`.
        seed: As in `Scenario`.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        transforms: Sequence[Callable[[Any], Any]],
        chunk_id: int,
        seed: int = 0,
    ) -> None:
        super().__init__(data_module, len(transforms), chunk_id, seed)
        self._transform = transforms[chunk_id]

    def _part(self, dataset: Dataset, split: str) -> Dataset:
        own = dataset if split == "test" else self._random_chunk(dataset, split)
        return _Transformed(own, self._transform, split, type(self).__name__)


class ImageRotationScenario(TransformScenario):
    """Rotates the images of each update by an angle (Rotated-MNIST: Lopez-Paz and Ranzato, "Gradient
    Episodic Memory for Continual Learning", NeurIPS 2017).

    Images are rotated about their center, by the nearest pixel; the size stays, and corners become 0.

    Args:
        data_module: Its inputs are images `(H, W)` or `(C, H, W)` of any numeric dtype.
        degrees: Angle for each update, counter-clockwise.
        chunk_id: As in `Scenario`.
        seed: As in `Scenario`.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        degrees: Sequence[float],
        chunk_id: int,
        seed: int = 0,
    ) -> None:
        super().__init__(data_module, [self._rotation(each) for each in degrees], chunk_id, seed)

    def _rotation(self, degrees: Any) -> Callable[[np.ndarray], np.ndarray]:
        if isinstance(degrees, bool) or not isinstance(degrees, int | float):
            self._refuse(f"degrees has {degrees!r}", "give numbers")

        def rotate(image: np.ndarray) -> np.ndarray:
            self._require_image(image.shape)
            return image if degrees % 360 == 0 else rotated(image, degrees)

        return rotate

    def _require_image(self, shape: tuple[int, ...]) -> None:
        channels_last = len(shape) == 3 and shape[-1] in (1, 3) and shape[0] not in (1, 3)
        if len(shape) not in (2, 3) or channels_last:
            self._refuse(
                f"inputs have the shape {shape}",
                "return images (H, W) or (C, H, W), channels first",
            )


class PermutationScenario(TransformScenario):
    """Permutes the values of the inputs of each update (Permuted-MNIST: Goodfellow et al., "An
    Empirical Investigation of Catastrophic Forgetting", 2013).

    The first update sees the inputs as they are; each other one has its own fixed order of all values
    of an item.

    Args:
        data_module: Its inputs are one tensor of any shape.
        num_tasks: As in `Scenario`.
        input_dim: Number of values of an item, or its shape.
        chunk_id: As in `Scenario`.
        seed: As in `Scenario`.
    """

    def __init__(
        self,
        data_module: RenateDataModule,
        num_tasks: int,
        input_dim: int | Sequence[int],
        chunk_id: int,
        seed: int = 0,
    ) -> None:
        tasks = self._integer("num_tasks", num_tasks, 1)
        shape = [input_dim] if isinstance(input_dim, int) else list(input_dim)
        self._size = math.prod(self._integer("input_dim", each, 1) for each in shape)
        transforms = [lambda array: array, *(self._permutation(n, seed) for n in range(1, tasks))]
        super().__init__(data_module, transforms, chunk_id, seed)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """None after the first update, because the features have changed places."""
        return super().feature_names if self._chunk_id == 0 else ()

    @property
    def categorical_features(self) -> tuple[str, ...]:
        """None after the first update, as `feature_names`."""
        return super().categorical_features if self._chunk_id == 0 else ()

    @property
    def excluded_features(self) -> tuple[str, ...]:
        """None after the first update, as `feature_names`."""
        return super().excluded_features if self._chunk_id == 0 else ()

    def _permutation(self, number: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        def permute(array: np.ndarray) -> np.ndarray:
            if array.size != self._size:
                self._refuse(
                    f"inputs have {array.size} values, but input_dim is {self._size}",
                    f"set input_dim to {array.size}",
                )
            return array.ravel()[order].reshape(array.shape)

        order = np.random.default_rng([seed, number]).permutation(self._size)
        return permute


def rotated(image: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate the last two dimensions counter-clockwise about their center; the shape stays."""
    if degrees % 180 == 0 or (degrees % 90 == 0 and image.shape[-1] == image.shape[-2]):
        return np.rot90(image, int(degrees // 90), axes=(-2, -1)).copy()  # exact
    from scipy import ndimage

    return ndimage.rotate(image, degrees, axes=(-1, -2), reshape=False, order=0)


class _Transformed(Dataset):
    """A dataset whose inputs are transformed when an item is read.

    Args:
        dataset: The dataset.
        transform: Takes and returns the inputs of an item, as an array.
        split: Name of the split, for messages.
        scenario: Name of the scenario, for messages.
    """

    def __init__(
        self, dataset: Any, transform: Callable[[Any], Any], split: str, scenario: str
    ) -> None:
        self._dataset, self._transform = dataset, transform
        self._split, self._scenario = split, scenario

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        with user_code.running(f"data_module_fn, {self._split} data, item {index}"):
            inputs, *others = self._dataset[index]
        array = array_of(inputs, index, self._split, self._scenario)
        result = self._transform(array)
        return (torch.from_numpy(result) if isinstance(inputs, Tensor) else result, *others)
