"""Example data: scikit-learn's handwritten digits, a few classes in each of three updates.

They are read from scikit-learn's data file, because importing scikit-learn takes seconds.
"""

from __future__ import annotations

import importlib.metadata
import io
from pathlib import Path

import numpy as np

from renate_stages.errors import ForeignDataError, UnknownDigitsUpdateError
from renate_stages.files import whole_directory

INPUTS = "inputs.npy"
TARGETS = "targets.npy"
CLASSES = {1: range(4), 2: range(4, 7), 3: range(7, 10)}


def write_digits(target: Path, update: int | None) -> None:
    """Write the digits of one update, or all of them: `inputs.npy` (n, 8, 8) uint8, `targets.npy` (n,) int64.

    The files are written to a new folder that then replaces `target`, because DVC may link files to
    its cache, and those must not be opened for writing. If the folder already has the digits of this
    update, nothing is written; digits of another update are replaced.

    Args:
        target: Folder for the two files.
        update: 1 (classes 0 to 3), 2 (4 to 6) or 3 (7 to 9); None: all classes.

    Raises:
        UnknownDigitsUpdateError: If the number is not 1, 2 or 3.
        ForeignDataError: If the folder contains other data; nothing is changed.
    """
    if update is not None and update not in CLASSES:
        raise UnknownDigitsUpdateError(update, max(CLASSES))
    target = Path(target).resolve()
    digits = _read_digits()
    files = {
        number: _files(digits, classes) for number, classes in {**CLASSES, None: range(10)}.items()
    }
    found = _read(target, max(len(f[INPUTS]) for f in files.values()))
    if found == files[update]:
        return
    if found and found not in files.values():
        raise ForeignDataError(target, found)

    with whole_directory(target) as new:
        for name, content in files[update].items():
            (new / name).write_bytes(content)


def holds_digits(target: Path, update: int) -> bool:
    """Return whether a folder contains the digits of an update, and nothing else."""
    wanted = _files(_read_digits(), CLASSES[update])
    return _read(target, max(map(len, wanted.values()))) == wanted


def _files(digits: np.ndarray, classes: range) -> dict[str, bytes]:
    chosen = digits[np.isin(digits[:, -1], classes)]
    return {
        INPUTS: _npy(chosen[:, :-1].reshape(-1, 8, 8).astype(np.uint8)),
        TARGETS: _npy(chosen[:, -1].astype(np.int64)),
    }


def _read_digits() -> np.ndarray:
    """Return the digits, (1797, 65) float64: per row 64 pixels from 0 to 16, then the label."""
    scikit_learn = importlib.metadata.distribution("scikit-learn")
    file = scikit_learn.locate_file("sklearn/datasets/data/digits.csv.gz")
    return np.loadtxt(Path(str(file)), delimiter=",")


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _read(folder: Path, most: int) -> dict[str, bytes | None]:
    """Return the content of a folder by name; None instead of bytes for files that are no digits.

    Args:
        folder: The folder.
        most: Size in bytes above which a file cannot be one of the digits.
    """
    if not folder.is_dir():
        return {folder.name: None} if folder.exists() else {}
    return {
        file.name: file.read_bytes()
        if file.name in (INPUTS, TARGETS) and file.is_file() and file.stat().st_size <= most
        else None
        for file in folder.iterdir()
    }
