"""Example images: scikit-learn's handwritten digits as PNG files, a folder for each class."""

from __future__ import annotations

import io

import numpy as np

from renate_stages.actions.digits import CLASSES, read_digits

SIDE = 16  # pixels of an image


def image_files(update: int | None) -> dict[str, bytes]:
    """Return the images of an update by name, such as `zero/0012.png`: grey, 16 x 16 pixels.

    Args:
        update: 1 (classes 0 to 3), 2 (4 to 6) or 3 (7 to 9); None: all classes.
    """
    from PIL import Image

    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    files = {}
    for place, row in enumerate(read_digits()):
        label = int(row[-1])
        if update is not None and label not in CLASSES[update]:
            continue
        pixels = np.kron(row[:-1].reshape(8, 8) * 255 / 16, np.ones((SIDE // 8, SIDE // 8)))
        stream = io.BytesIO()
        Image.fromarray(pixels.round().astype(np.uint8)).save(stream, "PNG")
        files[f"{names[label]}/{place:04}.png"] = stream.getvalue()
    return files
