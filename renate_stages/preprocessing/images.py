"""From images of any size to batches of one size, normalised by channel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from renate_stages.errors import (
    InvalidAugmentationError,
    InvalidModuleSettingError,
    NoPredictionsError,
    UnusableRowError,
)
from renate_stages.memory import ExampleStore, Ragged, Tree
from renate_stages.preprocessing.augmentation import Augmentation
from renate_stages.preprocessing.base import Preprocessing, RawColumn
from renate_stages.preprocessing.decoders import decode_image
from renate_stages.preprocessing.encoded_images import UnusableImageError, encoded_image

FITTED_ROWS = 10_000  # training images whose pixels are averaged, at equal distances
_NORMALIZE = "fit, imagenet, none, or {mean: [...], std: [...]} with a number for each channel"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of RGB values in [0, 1]


class ImagePreprocessing(Preprocessing):
    """Resizes, crops and normalises images; stored ones are the bytes of JPEG or PNG files.

    An image is turned as its EXIF data says. Its shorter side is resized to that of `size` (bilinear, with antialiasing, as Pillow does), and
    the centre is cropped. Then values in [0, 1] are normalised: `(x - mean) / std` in each channel.

    Args:
        size: Side of the square images that the model gets, or (height, width); None: images stay
            as they are, and must be equal in size.
        channels: 1: grey, 3: RGB; other images are converted.
        normalize: `fit`: mean and standard deviation of the training images of the first update;
            `imagenet`: those that many pretrained models expect; `none`; or `{mean: [...], std:
            [...]}`.
        augment: Random changes of training images; see `Augmentation`. They are not part of what is
            fitted, and may differ in each update.

    Attributes:
        upright: Whether images are turned as their EXIF data says. False for states of old releases,
            which did not do so.

    Raises:
        InvalidModuleSettingError: If a setting is outside its range.
        InvalidAugmentationError: If a random change is unknown, or a value is out of range.
    """

    kind = "images"

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        channels: int = 3,
        normalize: str | Mapping[str, Sequence[float]] = "fit",
        augment: Sequence[str | Mapping[str, Any]] | None = None,
    ) -> None:
        sides: list[Any] = [*size] if isinstance(size, Sequence) else [size, size]
        if size is not None and (len(sides) != 2 or not all(map(_is_side, sides))):
            expected = "a whole number >= 1, [height, width], or null"
            raise InvalidModuleSettingError("images", "size", size, expected)
        if channels not in (1, 3):
            raise InvalidModuleSettingError("images", "channels", channels, "1 or 3")
        self.size = None if size is None else (int(sides[0]), int(sides[1]))
        self.channels = channels
        self.normalize = normalize if isinstance(normalize, str) else "given"
        self.mean, self.std = _given(normalize, channels)
        self.augmentation = Augmentation(augment, self.size)
        self.upright = True

    @property
    def is_given(self) -> bool:
        """Whether the settings give means and deviations, or ask for no scaling."""
        return self.normalize != "fit"

    @property
    def is_fitted(self) -> bool:
        """Whether mean and standard deviation are known."""
        return self.mean is not None

    def fit(self, train: ExampleStore) -> dict[str, Any]:
        """Compute mean and standard deviation of the pixels, in the first update only."""
        if self.mean is not None or not len(train):
            return {}
        rows = np.linspace(0, len(train) - 1, min(len(train), FITTED_ROWS)).astype(np.int64)
        count, sums, squares = 0, np.zeros(self.channels), np.zeros(self.channels)
        for row in np.unique(rows):
            pixels = self.transform_example(self._decoded(train, row)).numpy()
            values = pixels.reshape(self.channels, -1) / 255  # float64
            count += values.shape[1]
            sums += values.sum(axis=1)
            squares += np.square(values).sum(axis=1)
        means = sums / count
        deviations = np.sqrt(np.maximum(squares / count - np.square(means), 0))
        self.mean = tuple(means.tolist())
        self.std = tuple(float(each) if each > 1e-6 else 1.0 for each in deviations)
        return {}

    @property
    def raw_columns(self) -> tuple[RawColumn, ...]:
        """The column `image`, for rows in a table."""
        return (RawColumn("image", "image"),)

    def encode(self, rows: Any) -> Tree:
        """Return images as they are stored.

        Args:
            rows: Paths, bytes of files, PIL images, or arrays uint8 `(H, W)` or `(H, W, 3)`; or a
                DataFrame with a column `image` of them.

        Raises:
            UnusableRowError: If an image cannot be used.
            NoPredictionsError: If rows have another form.
        """
        found = []
        for row, image in enumerate(_images_in(rows)):
            try:
                found.append(np.frombuffer(encoded_image(image), np.uint8))
            except (UnusableImageError, TypeError) as error:
                raise UnusableRowError(row, str(error)) from error
        if not found:
            return Ragged(np.empty(0, np.uint8), np.zeros(1, np.int64), "image")
        return Ragged.of(found, "image")

    def transform_example(self, stored: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return an image in the number of channels and the size of the model's inputs.

        Args:
            stored: uint8 `(1, H, W)` or `(3, H, W)`.

        Returns:
            uint8 `(channels, height, width)`.
        """
        from PIL import Image

        if len(stored) == self.channels and self.size in (None, tuple(stored.shape[1:])):
            return stored
        pixels = stored.permute(1, 2, 0).contiguous().numpy()
        image = Image.fromarray(pixels[:, :, 0] if len(stored) == 1 else pixels)
        image = image.convert("L" if self.channels == 1 else "RGB")
        if self.size is not None:
            image = _covering(image, *self.size)
        pixels = np.array(image).reshape(image.height, image.width, self.channels)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def transform(self, stored: Tensor) -> Tensor:
        """Return normalised images, float32 `(B, channels, H, W)`.

        Args:
            stored: Images that `transform_example` returned, uint8 `(B, channels, H, W)`.
        """
        return self._normalized(stored.float() / 255)

    def transform_training(self, stored: Tensor) -> Tensor:
        """Return normalised images as `transform` does, after random changes of each one."""
        return self._normalized(self.augmentation(stored.float() / 255))

    def decode(self, encoded: np.ndarray, decoder: str) -> Tensor:
        """Return an image of a store, uint8 `(1, H, W)` or `(3, H, W)`."""
        if self.upright and decoder == "image":
            return decode_image(encoded, upright=True)
        return super().decode(encoded, decoder)

    def sizes(self) -> dict[str, Any]:
        """Return `num_channels`, and `num_inputs` if all images have one size."""
        found: dict[str, Any] = {"num_channels": self.channels}
        if self.size is not None:
            found["num_inputs"] = self.channels * self.size[0] * self.size[1]
        return found

    def content(self) -> dict[str, Any]:
        """Return settings, mean and standard deviation."""
        return {
            "augment": self.augmentation.settings,
            "channels": self.channels,
            "mean": None if self.mean is None else list(self.mean),
            "normalize": self.normalize,
            "size": None if self.size is None else list(self.size),
            "std": None if self.std is None else list(self.std),
            "upright": self.upright,
        }

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Return the preprocessing that `content` describes."""
        mean, std, normalize = content["mean"], content["std"], content["normalize"]
        if normalize not in ("fit", "imagenet", "none", "given") or (mean is None) != (std is None):
            raise ValueError(f"normalize is {normalize!r}, mean {mean!r:.40}, std {std!r:.40}")
        try:
            augment, upright = content.get("augment"), content.get("upright", False)
            found = cls(content["size"], content["channels"], augment=augment)
            if mean is not None:
                given = {"mean": mean, "std": std}
                found.mean, found.std = _given(given, found.channels)
        except (InvalidAugmentationError, InvalidModuleSettingError) as error:
            raise ValueError(str(error)) from error
        if upright not in (True, False):
            raise ValueError(f"upright is {upright!r:.40}")
        found.upright = bool(upright)
        if found.mean is None and normalize != "fit":
            raise ValueError(f"normalize is {normalize!r}, but mean is missing")
        found.normalize = normalize
        return found

    def difference_from(self, older: ImagePreprocessing) -> str | None:
        """Return which setting differs; None if a model gets the same inputs from both."""
        for name in ("size", "channels", "normalize"):
            mine, others = getattr(self, name), getattr(older, name)
            if mine != others:
                return f"{name} is {mine}, not {others}"
        if self.normalize == "given" and (self.mean, self.std) != (older.mean, older.std):
            return "normalize has other numbers"
        return None

    def _decoded(self, store: ExampleStore, row: int) -> Tensor:
        inputs, _ = store.gather(np.array([row]))
        if isinstance(inputs, Ragged):
            return self.decode(inputs[0], inputs.decoder or "image")
        return torch.from_numpy(inputs[0])

    def _normalized(self, images: Tensor) -> Tensor:
        """Return images with values in [0, 1], float32 `(B, channels, H, W)`, as the model gets them."""
        mean, std = (
            torch.tensor(each, device=images.device).reshape(1, self.channels, 1, 1)
            for each in self._statistics()
        )
        return (images - mean) / std

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.mean is None or self.std is None:
            return (0.0,) * self.channels, (1.0,) * self.channels
        return self.mean, self.std


def _images_in(rows: Any) -> Iterable[Any]:
    """Return the images of rows that a deployed model is given."""
    if hasattr(rows, "columns"):
        if "image" not in rows.columns:
            raise NoPredictionsError("the table has no column 'image'", "name the column so")
        return rows["image"]
    if isinstance(rows, str | bytes) or not hasattr(rows, "__iter__"):
        raise NoPredictionsError(f"found one {type(rows).__name__}", "pass a list of images")
    return rows


def _covering(image: Any, height: int, width: int) -> Any:
    """Resize an image so that it covers a size, and crop the centre."""
    from PIL import Image

    scale = max(height / image.height, width / image.width)
    resized = (
        max(width, round(image.width * scale)),
        max(height, round(image.height * scale)),
    )
    image = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _given(
    normalize: Any, channels: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and standard deviation by the setting; None if they are to be fitted."""
    if normalize == "fit":
        return None, None
    if normalize == "none":
        return (0.0,) * channels, (1.0,) * channels
    if normalize == "imagenet" and channels == 3:
        return _IMAGENET
    if isinstance(normalize, Mapping) and normalize.keys() == {"mean", "std"}:
        mean, std = normalize["mean"], normalize["std"]
        if all(isinstance(each, list | tuple) and len(each) == channels for each in (mean, std)):
            numbers = [*mean, *std]
            are_finite = all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
            if are_finite and all(n > 0 for n in std):
                return tuple(map(float, mean)), tuple(map(float, std))
    expected = _NORMALIZE if normalize != "imagenet" else "another one, because channels is 1"
    raise InvalidModuleSettingError("images", "normalize", normalize, expected)
