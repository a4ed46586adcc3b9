"""`renate.data.datasets`: images from files, nested tensors, and parts of items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from renate_stages.errors import DataModuleError
from renate_stages.preprocessing.decoders import is_image


class ImageDataset(Dataset):
    """Images from files, in RGB.

    Without a transform, an item is the bytes of a JPEG or PNG file. They are stored unchanged, and
    transforms of `renate_config.py` get a uint8 tensor (3, height, width).

    Args:
        data: Paths of the files.
        labels: A label for each image.
        transform: Applied to the PIL image; must return a tensor or an array.
        target_transform: Applied to the label.

    Raises:
        DataModuleError: If there is not one label for each image.
    """

    def __init__(
        self,
        data: Sequence[str | Path],
        labels: Sequence[int],
        transform: Callable | None = None,
        target_transform: Callable | None = None,
    ) -> None:
        if len(data) != len(labels):
            problem = f"ImageDataset got {len(data)} images and {len(labels)} labels"
            raise DataModuleError(problem, "pass one label for each image")
        self.data = data
        self.labels = labels
        self.transform = transform
        self.target_transform = target_transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        target = torch.tensor(self.labels[index], dtype=torch.long)
        if self.target_transform is not None:
            target = torch.as_tensor(self.target_transform(target)).long()
        return self._image(Path(self.data[index])), target

    def _image(self, path: Path) -> Any:
        from PIL import Image

        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            if self.transform is not None:
                return self.transform(image.convert("RGB"))
            if image.mode not in ("1", "L") and is_image(content):
                return content
            stream = BytesIO()  # a grey image, or another format, becomes a PNG file in RGB
            image.convert("RGB").save(stream, format="PNG")
        return stream.getvalue()


class NestedTensorDataset(Dataset):
    """Rows of tensors in a nested tuple or dict; all tensors have the same number of rows.

    Args:
        nested_tensors: A tensor, or a tuple or dict of nested tensors.

    Raises:
        DataModuleError: If the numbers of rows differ, or it contains something else.
    """

    def __init__(self, nested_tensors: Any) -> None:
        lengths = {len(each) for each in _tensors(nested_tensors)}
        if len(lengths) != 1:
            problem = f"NestedTensorDataset got tensors with {sorted(lengths)} rows"
            raise DataModuleError(problem, "pass tensors with the same number of rows")
        (self._length,) = lengths
        self._nested_tensors = nested_tensors

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return _row(self._nested_tensors, index)


class IndexedSubsetDataset(Dataset):
    """Some parts of each item of a dataset whose items are tuples.

    Args:
        dataset: The dataset.
        indexes_to_keep: Position of the part, or positions of the parts, in an item.
    """

    def __init__(self, dataset: Dataset, indexes_to_keep: int | Sequence[int]) -> None:
        self.dataset = dataset
        single = isinstance(indexes_to_keep, int)
        self.indexes_to_keep = {indexes_to_keep} if single else {*indexes_to_keep}

    def __len__(self) -> int:
        return len(self.dataset)  # pyright: ignore[reportArgumentType]

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        kept = tuple(part for place, part in enumerate(item) if place in self.indexes_to_keep)
        return kept[0] if len(kept) == 1 else kept


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict | tuple):
        parts = tree.values() if isinstance(tree, dict) else tree
        return [each for part in parts for each in _tensors(part)]
    problem = f"NestedTensorDataset got a {type(tree).__name__}"
    raise DataModuleError(problem, "pass tensors, or tuples or dicts of tensors")


def _row(tree: Any, index: int) -> Any:
    if isinstance(tree, dict):
        return {key: _row(part, index) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_row(part, index) for part in tree)
    return tree[index]
