"""Decode fields that are stored as bytes, such as encoded images."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
from torch import Tensor

from renate_stages.errors import UndecodableError

MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # first bytes of JPEG and PNG files


def decode_image(encoded: np.ndarray) -> Tensor:
    """Return a JPEG or PNG image as a tensor.

    Args:
        encoded: The file's bytes, uint8 `(n,)`.

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
            pixels = np.array(image.convert("L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UndecodableError("image", error) from error
    return torch.from_numpy(pixels[None] if grey else np.moveaxis(pixels, 2, 0).copy())


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
