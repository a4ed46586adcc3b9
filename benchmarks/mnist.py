"""MNIST and CIFAR-10 for benchmarks: read from Parquet once, then mapped into each process."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from renate_stages.files import whole_directory

DEGREES = 45


class Images(NamedTuple):
    """Images and their labels.

    Args:
        inputs: uint8 `(n, 28, 28)`; `(n, 784)` where they are permuted; `(n, 32, 32, 3)` of CIFAR-10.
        labels: int64 `(n,)`.
    """

    inputs: np.ndarray
    labels: np.ndarray

    def at(self, rows: np.ndarray | slice) -> Images:
        """Return some of them."""
        return Images(self.inputs[rows], self.labels[rows])

    def of_classes(self, *classes: int) -> Images:
        """Return those of some classes, in order."""
        return self.at(np.isin(self.labels, classes))

    def permuted(self, seed: int) -> Images:
        """Return them with the same random permutation of pixels in each, flat."""
        order = np.random.default_rng(seed).permutation(self.inputs[0].size)
        return Images(self.inputs.reshape(len(self.inputs), -1)[:, order], self.labels)

    def rotated(self, degrees: float = DEGREES) -> Images:
        """Return them turned against the clock, with black corners."""
        from scipy import ndimage

        turned = ndimage.rotate(self.inputs, degrees, axes=(1, 2), reshape=False, order=1)
        return Images(turned, self.labels)


def decode(data: Path, folder: Path, name: str = "mnist") -> None:
    """Decode the Parquet files of a folder into arrays, for `load`.

    Args:
        data: Contains `<name>-train.parquet` and `<name>-test.parquet`, with columns `label` and
            `image` (an encoded file each).
        folder: Where the arrays go.
        name: Of the dataset, such as `cifar10`.
    """
    import pyarrow.parquet as pq
    from PIL import Image

    for split in ("train", "test"):
        source = data / f"{name}-{split}.parquet"
        if not source.is_file():
            sys.exit(f"error: {source} is missing: give the folder with it by --data")
        table = pq.read_table(source, columns=["label", "image"])
        images = [np.asarray(Image.open(io.BytesIO(each.as_py()))) for each in table["image"]]
        np.save(folder / f"{split}-images.npy", np.stack(images))
        np.save(folder / f"{split}-labels.npy", table["label"].to_numpy().astype(np.int64))


def decoded(data: Path, cache: Path, name: str = "mnist") -> Path:
    """Return the folder with a dataset's arrays, which is made once.

    Args:
        data: As in `decode`.
        cache: Folder of the decoded datasets.
        name: Of the dataset.
    """
    folder = cache / name
    if not folder.is_dir():
        with whole_directory(folder) as new:
            decode(data, new, name)
    return folder


def load(folder: Path) -> tuple[Images, Images]:
    """Return the training and the test set that `decode` wrote; images are read as needed."""
    train, test = (
        Images(
            np.load(folder / f"{split}-images.npy", mmap_mode="r"),
            np.load(folder / f"{split}-labels.npy"),
        )
        for split in ("train", "test")
    )
    return train, test
