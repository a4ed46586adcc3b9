"""Model and data of Renate's experiment suites, for `renate-stages simulate`.

The folder of the data holds `<split>-images.npy`, uint8 (n, H, W) or (n, H, W, 3), and
`<split>-labels.npy`, int64 (n,), which `benchmarks/suites.py` decodes.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from renate_stages.data import Batched, RenateDataModule
from renate_stages.models import MLP, RenateModule, ResNet18, SmallCNN
from torch import Tensor
from torch.utils.data import TensorDataset


class Kind(NamedTuple):
    """A dataset: shape of its images, and mean and standard deviation of each channel in [0, 1]."""

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


KINDS = {
    "cifar10": Kind((3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "mnist": Kind((1, 28, 28), (0.1307,), (0.3081,)),
}
PADDING = 4


class Images(RenateDataModule):
    """Images (C, H, W) uint8 and labels; validation data are a share of the training data.

    Args:
        data_path: Folder of the arrays.
        rows_per_class: Maximum number of training rows of each class; None: all.
        test_rows_per_class: The same for test rows.
        val_size: Share of the training rows for validation.
        seed: Seed of that split.
    """

    def __init__(
        self,
        data_path: str,
        rows_per_class: int | None,
        test_rows_per_class: int | None,
        val_size: float,
        seed: int,
    ) -> None:
        super().__init__(data_path, val_size, seed)
        self.most = {"train": rows_per_class, "test": test_rows_per_class}

    def setup(self) -> None:
        whole = self._read("train")
        self._train_data, self._val_data = self._split_train_val_data(whole)
        self._test_data = self._read("test")

    def _read(self, split: str) -> TensorDataset:
        folder = Path(self._data_path)
        images = np.load(folder / f"{split}-images.npy", mmap_mode="r")
        labels = np.load(folder / f"{split}-labels.npy")
        rows = [np.flatnonzero(labels == label)[: self.most[split]] for label in np.unique(labels)]
        chosen = np.sort(np.concatenate(rows))
        images = np.ascontiguousarray(images[chosen])
        images = np.moveaxis(images, -1, 1) if images.ndim == 4 else images[:, None]
        return TensorDataset(torch.from_numpy(images.copy()), torch.from_numpy(labels[chosen]))


def data_module_fn(
    data_path: str,
    rows_per_class: int | None = None,
    test_rows_per_class: int | None = None,
    val_size: float = 0.05,
    seed: int = 0,
) -> RenateDataModule:
    return Images(data_path, rows_per_class, test_rows_per_class, val_size, seed)


def model_fn(
    model_state_url: str | None = None,
    dataset: str = "cifar10",
    model: str = "mlp",
    hidden_size: int = 200,
    width: int = 32,
) -> RenateModule:
    """Build the suites' MLP (two hidden layers of 200), ResNet-18, or a small CNN."""
    shape = KINDS[dataset].shape
    kinds = {"mlp": MLP, "resnet18": ResNet18, "small_cnn": SmallCNN}
    if model_state_url is not None:
        return kinds[model].from_state_dict(torch.load(model_state_url))
    if model == "mlp":
        return MLP(int(np.prod(shape)), 10, num_hidden_layers=2, hidden_size=hidden_size)
    if model == "resnet18":
        return ResNet18(num_outputs=10, num_channels=shape[0])
    return SmallCNN(num_channels=shape[0], num_outputs=10, width=width)


def loss_fn() -> torch.nn.Module:
    return torch.nn.CrossEntropyLoss(reduction="none")


def train_transform(dataset: str = "cifar10", augment: bool = True):
    """Crop and flip CIFAR's images at random, each for itself; normalize."""
    random = augment and dataset == "cifar10"
    return Batched(lambda images: _normalized(_augmented(images) if random else images, dataset))


def test_transform(dataset: str = "cifar10"):
    return Batched(lambda images: _normalized(images, dataset))


def _normalized(images: Tensor, dataset: str) -> Tensor:
    kind = KINDS[dataset]
    mean, deviation = (torch.tensor(each)[:, None, None] for each in (kind.mean, kind.deviation))
    return (images.float() / 255 - mean) / deviation


def _augmented(images: Tensor) -> Tensor:
    """Crop each image (C, H, W) of a batch from itself padded with zeros, and flip every second."""
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (PADDING,) * 4)
    top, left = torch.randint(2 * PADDING + 1, (2, count))
    rows = top[:, None] + torch.arange(height)  # (B, H)
    columns = left[:, None] + torch.arange(width)  # (B, W)
    flipped = torch.rand(count) < 0.5
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    batch = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
