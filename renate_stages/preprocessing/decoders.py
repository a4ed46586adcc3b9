"""Decode fields that are stored as bytes, such as encoded images."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renate_stages.errors import UndecodableError

ORIENTATION_TAG = 0x0112  # in EXIF data
# What makes an image upright, by its orientation: members of PIL.Image.Transpose, as numbers because
# Pillow is imported only when it is needed.
ORIENTATIONS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # first bytes of JPEG and PNG files


def decode_image(encoded: np.ndarray, upright: bool = False) -> Tensor:
    """Return a JPEG or PNG image as a tensor.

    Args:
        encoded: The file's bytes, uint8 `(n,)`.
        upright: Whether to rotate and mirror it as its EXIF data says.

    Returns:
        uint8 `(1, height, width)` for a grey image, otherwise `(3, height, width)` in RGB order.

    Raises:
        UndecodableError: If it is not a complete image, or exceeds PIL's limit against
            decompression bombs.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(encoded.tobytes()), formats=("JPEG", "PNG")) as image:
            grey = image.mode in ("1", "L")
            turned = ORIENTATIONS.get(orientation_of(image)) if upright else None
            image = image.convert("L" if grey else "RGB")
            pixels = np.array(image if turned is None else image.transpose(Image.Transpose(turned)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UndecodableError("image", error) from error
    return torch.from_numpy(pixels[None] if grey else np.moveaxis(pixels, 2, 0).copy())


def orientation_of(image: Any) -> int:
    """Return how the EXIF data of a PIL image says that it is stored, 1 to 8; 1: upright.

    EXIF data that cannot be read counts as none, because viewers show such images as they are.
    """
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 -- damaged EXIF data fails in many ways
        return 1
    return orientation if orientation in ORIENTATIONS else 1


DECODERS: dict[str, Callable[[np.ndarray], Tensor]] = {"image": decode_image}


def decode(encoded: np.ndarray, decoder: str) -> Tensor:
    """Decode a stored row of bytes by a decoder's name.

    Raises:
        UndecodableError: If there is no such decoder, or it cannot decode the bytes.
    """
    if decoder not in DECODERS:
        raise UndecodableError(decoder, f"this version has only the decoders {', '.join(DECODERS)}")
    return DECODERS[decoder](encoded)


def is_image(data: bytes) -> bool:
    """Return whether bytes begin like a JPEG or PNG file."""
    return data.startswith(MAGIC)
