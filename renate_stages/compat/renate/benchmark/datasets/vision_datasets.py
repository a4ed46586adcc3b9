"""`renate.benchmark.datasets.vision_datasets`: datasets of torchvision, from local files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from renate_stages.compat.renate.data.data_module import RenateDataModule
from renate_stages.compat.renate.missing import refuse
from renate_stages.errors import DataModuleError, MissingFileError, MissingPackageError

DATASETS = ("CIFAR10", "CIFAR100", "FashionMNIST", "MNIST")

__getattr__ = refuse(
    __name__,
    dict.fromkeys(
        ("CDDBDataModule", "CLEARDataModule", "CORE50DataModule", "DomainNetDataModule"),
        "write a RenateDataModule that lists the images in an ImageDataset",
    )
    | {"TinyImageNetDataModule": "write a RenateDataModule with an ImageDataset"},
)


class TorchVisionDataModule(RenateDataModule):
    """Images of a torchvision dataset as float tensors in [0, 1], read from `data_path`.

    Nothing is downloaded. Put the files where torchvision does, for example with
    `torchvision.datasets.MNIST("data/incoming", download=True)`.

    Args:
        data_path: Folder with the files, as torchvision stores them.
        src_bucket: Must be None; pass a URL as `data_path` to `run_training_job` instead.
        src_object_name: Not used.
        dataset_name: One of `DATASETS`.
        val_size: Share of the training data to use for validation.
        seed: Seed of the split.

    Raises:
        DataModuleError: If the dataset is not one of `DATASETS`.
    """

    dataset_stats: ClassVar[dict[str, dict[str, Any]]] = {
        "CIFAR10": {
            "mean": (0.49139967861519607, 0.48215840839460783, 0.44653091444546567),
            "std": (0.24703223246174102, 0.24348512800151828, 0.26158784172803257),
        },
        "CIFAR100": {
            "mean": (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
            "std": (0.26733428587941854, 0.25643846292120615, 0.2761504713263903),
        },
        "FashionMNIST": {"mean": 0.2860405969887955, "std": 0.3530242445149223},
        "MNIST": {"mean": 0.1306604762738429, "std": 0.30810780385646264},
    }
    """Mean and standard deviation of the training images, for normalization."""

    def __init__(
        self,
        data_path: str | Path,
        src_bucket: str | None = None,
        src_object_name: str | None = None,
        dataset_name: str = "MNIST",
        val_size: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(data_path, src_bucket, src_object_name, val_size, seed)
        if dataset_name not in DATASETS:
            problem = f"TorchVisionDataModule has no dataset {dataset_name!r}"
            raise DataModuleError(problem, f"choose one of {', '.join(DATASETS)}")
        self._dataset_name = dataset_name

    def prepare_data(self) -> None:
        """Refuse `src_bucket`; nothing is downloaded."""
        self._refuse_bucket()

    def setup(self) -> None:
        """Read the training and test images.

        Raises:
            MissingPackageError: If torchvision is not installed.
            MissingFileError: If the files are not in `data_path`.
        """
        train = self._read(train=True)
        self._train_data, self._val_data = self._split_train_val_data(train)
        self._test_data = self._read(train=False)

    def _read(self, *, train: bool) -> Any:
        try:
            vision = import_module("torchvision")
            to_tensor = import_module("torchvision.transforms").ToTensor()
        except ImportError as error:
            raise MissingPackageError("TorchVisionDataModule", "torchvision") from error
        kind = getattr(vision.datasets, self._dataset_name)
        try:
            return kind(
                str(self._data_path),
                train=train,
                transform=to_tensor,
                target_transform=to_long,
                download=False,
            )
        except RuntimeError as error:  # torchvision's "Dataset not found or corrupted"
            name = self._dataset_name
            folder = Path(self._data_path)
            cure = f"run `torchvision.datasets.{name}({str(folder)!r}, download=True)` once"
            what = f"the files of {name} are not there, or are damaged ({error})"
            raise MissingFileError(folder, what, cure) from error


def to_long(label: int) -> Tensor:
    """Return a label as an int64 tensor."""
    return torch.tensor(label, dtype=torch.long)
