"""Random changes of images in training, with the names and arguments of torchvision.transforms.v2.

Each takes and returns a batch, float32 `(B, C, H, W)` with values in [0, 1], and draws for each image
anew from torch's global generator of the CPU. An update seeds that generator for random transforms and
dropout, and saves it for resuming; see `randomness.Generators.seed_global`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_ATTEMPTS = 10  # draws of an area and a ratio until a rectangle fits into the image
_GREY = (0.2989, 0.587, 0.114)  # shares of red, green and blue in the brightness of a pixel


class RandomChange(Protocol):
    """Changes each image of a batch at random."""

    keeps_size: ClassVar[bool]  # whether the transform of torchvision has no argument `size`

    def __call__(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirrors images left to right.

    Args:
        p: Probability for each image, in [0, 1].
    """

    p: float = 0.5
    keeps_size: ClassVar[bool] = True

    def __call__(self, images: Tensor) -> Tensor:
        return torch.where(_chosen(images, self.p), images.flip(-1), images)


@dataclass(frozen=True)
class RandomVerticalFlip:
    """Mirrors images top to bottom.

    Args:
        p: Probability for each image, in [0, 1].
    """

    p: float = 0.5
    keeps_size: ClassVar[bool] = True

    def __call__(self, images: Tensor) -> Tensor:
        return torch.where(_chosen(images, self.p), images.flip(-2), images)


@dataclass(frozen=True)
class RandomCrop:
    """Pads images, and crops them to their size at a random place.

    Args:
        padding: Pixels on the left, at the top, on the right and at the bottom, >= 0.
        fill: Value of the padding, in [0, 1], if `padding_mode` is `constant`.
        padding_mode: `constant`, `edge`: the nearest pixel, `reflect`: mirrored at the pixel of the
            edge, or `symmetric`: mirrored including the pixel of the edge.
    """

    padding: tuple[int, int, int, int]
    fill: float = 0.0
    padding_mode: str = "constant"
    keeps_size: ClassVar[bool] = False

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        left, top, right, bottom = self.padding
        if self.padding_mode == "constant":
            padded = F.pad(images, (left, right, top, bottom), value=self.fill)
        else:
            rows = _source(height, top, bottom, self.padding_mode)
            columns = _source(width, left, right, self.padding_mode)
            padded = images[:, :, rows][:, :, :, columns]
        tops = torch.randint(top + bottom + 1, (len(images),)).tolist()
        lefts = torch.randint(left + right + 1, (len(images),)).tolist()
        places = zip(padded, tops, lefts, strict=True)
        return torch.stack([each[:, y : y + height, x : x + width] for each, y, x in places])


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crops a random rectangle, and resizes it to the size of the image.

    If no rectangle that was drawn fits, it is the centre, in the nearest ratio.

    Args:
        scale: Range of its share of the image's area, in (0, 1].
        ratio: Range of its width divided by its height, > 0.
        interpolation: `bilinear`, with antialiasing, or `nearest`.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    keeps_size: ClassVar[bool] = False

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        heights, widths, fits = _rectangles(images, self.scale, self.ratio)
        places = torch.rand(len(images), 2).tolist()
        found = []
        for row, image in enumerate(images):
            if fits[row]:
                h, w = heights[row], widths[row]
                vertical, horizontal = places[row]
                top, left = int(vertical * (height - h + 1)), int(horizontal * (width - w + 1))
            else:
                h, w = _centre(height, width, self.ratio)
                top, left = (height - h) // 2, (width - w) // 2
            crop = image[None, :, top : top + h, left : left + w]
            found.append(self._resized(crop, height, width))
        return torch.cat(found)

    def _resized(self, crop: Tensor, height: int, width: int) -> Tensor:
        if self.interpolation == "nearest":
            return F.interpolate(crop, (height, width), mode="nearest")
        return F.interpolate(crop, (height, width), mode="bilinear", antialias=True)


@dataclass(frozen=True)
class RandomRotation:
    """Rotates images about their centre; the size stays.

    Args:
        degrees: Range of the angle, counter-clockwise.
        interpolation: `nearest` or `bilinear`.
        fill: Value outside the image, in [0, 1].
    """

    degrees: tuple[float, float]
    interpolation: str = "nearest"
    fill: float = 0.0
    keeps_size: ClassVar[bool] = True

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        angles = _uniform(len(images), self.degrees) * (math.pi / 180)
        cos, sin, zero = angles.cos(), angles.sin(), torch.zeros(len(images))
        # From a place in the result to its place in the image, both from -1 to 1 along each side.
        matrix = torch.stack(
            [cos, -sin * height / width, zero, sin * width / height, cos, zero], dim=1
        ).reshape(-1, 2, 3)
        grid = F.affine_grid(matrix.to(images), list(images.shape), align_corners=False)
        turned = F.grid_sample(
            images - self.fill, grid, mode=self.interpolation, align_corners=False
        )
        return (turned + self.fill).clamp(0, 1)


@dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue, in an order that is drawn for each image.

    Args:
        brightness: Range of the factor of all values, >= 0.
        contrast: Range of the factor of the difference from the mean brightness of the image, >= 0.
        saturation: Range of the factor of the difference from grey, >= 0. Grey images stay.
        hue: Range of the turn of the hue, as a share of the circle of hues, in [-0.5, 0.5]. Grey
            images stay.
    """

    brightness: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    saturation: tuple[float, float] = (1.0, 1.0)
    hue: tuple[float, float] = (0.0, 0.0)
    keeps_size: ClassVar[bool] = True

    def __call__(self, images: Tensor) -> Tensor:
        changes = (
            (_with_brightness, self.brightness, 1.0),
            (_with_contrast, self.contrast, 1.0),
            (_with_saturation, self.saturation, 1.0),
            (_with_hue, self.hue, 0.0),
        )
        count = len(images)
        drawn = [_uniform(count, each).reshape(-1, 1, 1, 1).to(images) for _, each, _ in changes]
        order = torch.rand(count, len(changes)).argsort(dim=1).to(images.device)
        for place in range(len(changes)):
            for number, (change, bounds, neutral) in enumerate(changes):
                if bounds != (neutral, neutral):
                    now = (order[:, place] == number).reshape(-1, 1, 1, 1)
                    changed = change(images, drawn[number]).clamp(0, 1)
                    images = torch.where(now, changed, images)
        return images


@dataclass(frozen=True)
class RandomErasing:
    """Overwrites a random rectangle.

    An image stays as it is if no rectangle that was drawn is smaller than the image.

    Args:
        p: Probability for each image, in [0, 1].
        scale: Range of the rectangle's share of the image's area, in (0, 1].
        ratio: Range of its height divided by its width, > 0.
        value: What to write, in [0, 1].
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float = 0.0
    keeps_size: ClassVar[bool] = True

    def __call__(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        chosen = _chosen(images, self.p).flatten().tolist()
        # Here the ratio is that of height to width, in crops that of width to height.
        widths, heights, fits = _rectangles(images.mT, self.scale, self.ratio, smaller=True)
        places = torch.rand(len(images), 2).tolist()
        images = images.clone()
        for row, (vertical, horizontal) in enumerate(places):
            if chosen[row] and fits[row]:
                h, w = heights[row], widths[row]
                top, left = int(vertical * (height - h + 1)), int(horizontal * (width - w + 1))
                images[row, :, top : top + h, left : left + w] = self.value
        return images


def _chosen(images: Tensor, p: float) -> Tensor:
    """Return which images to change, bool `(B, 1, 1, 1)`."""
    return (torch.rand(len(images), 1, 1, 1) < p).to(images.device)


def _uniform(count: int, bounds: tuple[float, float]) -> Tensor:
    """Return draws between two bounds, float32 `(count,)`."""
    low, high = bounds
    return low + (high - low) * torch.rand(count)


def _source(length: int, before: int, after: int, mode: str) -> Tensor:
    """Return for each row of a padded image the row to copy, int64 `(before + length + after,)`."""
    wanted = torch.arange(-before, length + after)
    if mode == "edge":
        return wanted.clamp(0, length - 1)
    if mode == "symmetric":
        wanted = wanted % (2 * length)
        return torch.minimum(wanted, 2 * length - 1 - wanted)
    period = max(1, 2 * (length - 1))
    wanted = wanted % period
    return torch.minimum(wanted, period - wanted) if length > 1 else wanted


def _rectangles(
    images: Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    smaller: bool = False,
) -> tuple[list[int], list[int], list[bool]]:
    """Draw a rectangle for each image, the first of several draws that fits.

    Args:
        images: The images, `(B, C, H, W)`.
        scale: Range of the share of the area.
        ratio: Range of width divided by height; its logarithm is drawn uniformly.
        smaller: Whether both sides must be smaller than those of the image.

    Returns:
        Heights, widths, and whether a draw fits.
    """
    height, width = images.shape[-2:]
    drawn = len(images) * _ATTEMPTS
    areas = (height * width * _uniform(drawn, scale)).reshape(-1, _ATTEMPTS)
    logs = (math.log(ratio[0]), math.log(ratio[1]))
    ratios = _uniform(drawn, logs).exp().reshape(-1, _ATTEMPTS)
    widths, heights = (areas * ratios).sqrt().round().long(), (areas / ratios).sqrt().round().long()
    most = (height - 1, width - 1) if smaller else (height, width)
    fits = (heights >= 1) & (widths >= 1) & (heights <= most[0]) & (widths <= most[1])
    first = fits.int().argmax(dim=1, keepdim=True)  # the first of the largest values
    heights, widths, fits = (each.gather(1, first)[:, 0] for each in (heights, widths, fits))
    return heights.tolist(), widths.tolist(), fits.tolist()


def _centre(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Return height and width of the largest rectangle whose ratio is in a range."""
    if width / height < ratio[0]:
        return min(height, round(width / ratio[0])), width
    if width / height > ratio[1]:
        return height, min(width, round(height * ratio[1]))
    return height, width


def _grey(images: Tensor) -> Tensor:
    """Return the brightness of pixels, `(B, 1, H, W)`."""
    if images.shape[1] == 1:
        return images
    shares = torch.tensor(_GREY, dtype=images.dtype, device=images.device).reshape(1, 3, 1, 1)
    return (images * shares).sum(dim=1, keepdim=True)


def _with_brightness(images: Tensor, factor: Tensor) -> Tensor:
    return factor * images


def _with_contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return mean + factor * (images - mean)


def _with_saturation(images: Tensor, factor: Tensor) -> Tensor:
    grey = _grey(images)
    return grey + factor * (images - grey)


def _with_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by a share of its circle, `(B, 1, 1, 1)`; value and saturation of HSV stay."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    value, largest = images.max(dim=1, keepdim=True)
    span = value - images.amin(dim=1, keepdim=True)
    # The hue from 0 to 6, where 0 is red, 2 green and 4 blue; that of grey has no effect.
    differences = torch.cat([green - blue, blue - red, red - green], dim=1)
    hue = differences.gather(1, largest) / span.clamp_min(1e-12) + 2 * largest + 6 * turn
    places = torch.tensor([5, 3, 1], device=images.device).reshape(1, 3, 1, 1)
    distance = (places + hue) % 6
    return value - span * torch.minimum(distance, 4 - distance).clamp(0, 1)
