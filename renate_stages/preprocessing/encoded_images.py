"""Encode images as the bytes of JPEG or PNG files, and check that they can be decoded."""

from __future__ import annotations

import re
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages.preprocessing.decoders import ORIENTATION_TAG, is_image, orientation_of

_DAMAGED = (OSError, ValueError, SyntaxError)  # what Pillow raises
_GREY_OR_COLOUR = ("1", "L", "LA", "P", "RGB", "RGBA")  # modes of 8 bits that PNG has
_DEEP_CODE = re.compile(
    ";16[BLN]"
)  # in Pillow's name of an encoding; ";16" alone is 5 + 6 + 5 bits
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B")  # more than 8 bits, which the decoder would cut off


class UnusableImageError(ValueError):
    """Why an image cannot be used, in a few words."""


def encoded_image(image: Any) -> bytes:
    """Return an image as the bytes of a JPEG or PNG file that can be decoded.

    The bytes of JPEG and PNG files stay as they are. Other formats that Pillow reads, and pixels,
    become PNG, without loss, with their orientation.

    Args:
        image: A file's path or bytes, a PIL image, or an array of pixels, uint8 `(H, W)` or
            `(H, W, 3)`.

    Raises:
        UnusableImageError: If it cannot be read, or has more than one frame or more than 8 bits for
            each channel.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        return _as_png(_of_pixels(image))
    if isinstance(image, Image.Image):
        try:
            image.load()  # may still be to be read; some formats are turned upright here
        except _DAMAGED as error:
            raise UnusableImageError("a damaged image") from error
        return _as_png(image)
    data = file_bytes(image)
    if not isinstance(data, bytes):
        expected = "a path, the bytes of a file, a PIL image, or an array"
        raise UnusableImageError(f"found a {type(data).__name__}; expected {expected}")
    if not data:
        raise UnusableImageError("the file is empty")
    try:
        with Image.open(BytesIO(data)) as opened:
            frames = getattr(opened, "n_frames", 1) if opened.format != "MPO" else 1
            if frames > 1:
                raise UnusableImageError(f"it has {frames} frames; expected 1")
            _require_8_bits(opened)
            opened.load()
            if is_image(data):
                return data
            return _as_png(opened)
    except Image.UnidentifiedImageError:
        raise UnusableImageError("not an image that Pillow can read") from None
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        if isinstance(error, UnusableImageError):
            raise
        raise UnusableImageError("a damaged image") from error


def file_bytes(image: Any) -> Any:
    """Return the bytes of a file that is given by its path, and anything else as it is.

    Raises:
        UnusableImageError: If the file cannot be read.
    """
    if not isinstance(image, str | PathLike):
        return image
    try:
        return Path(image).read_bytes()
    except FileNotFoundError:
        raise UnusableImageError("the file does not exist") from None
    except OSError as error:
        raise UnusableImageError(f"the file cannot be read: {error.strerror}") from error


def _of_pixels(pixels: np.ndarray) -> Any:
    from PIL import Image

    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not is_image or not pixels.size:
        found = f"an array of {pixels.dtype} {pixels.shape}"
        raise UnusableImageError(f"{found}; expected uint8 (H, W) or (H, W, 3)")
    return Image.fromarray(pixels)


def _as_png(image: Any) -> bytes:
    _require_8_bits(image)
    from PIL import Image

    stream, exif = BytesIO(), Image.Exif()
    if (orientation := orientation_of(image)) != 1:
        exif[ORIENTATION_TAG] = orientation
    stored = image if image.mode in _GREY_OR_COLOUR else image.convert("RGB")
    stored.save(stream, "PNG", exif=exif)
    return stream.getvalue()


def _require_8_bits(image: Any) -> None:
    """Raise `UnusableImageError` if channels have more bits, also in colours, which Pillow cuts off."""
    encodings = (
        tile[3] for tile in getattr(image, "tile", ())
    )  # of an image that is not loaded yet
    if image.mode in _DEEP or any(map(_DEEP_CODE.search, map(str, encodings))):
        raise UnusableImageError("more than 8 bits for each channel")
