"""Memory-map arrays within the system's limit on open files."""

from __future__ import annotations

import errno
import resource
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np

from renate_stages.errors import TooManyMapsError

_MOST = 2**20  # open files to ask for if there is no hard limit
_mapped = count(1)  # files mapped by this process, closed ones included


def map_array(file: Path) -> np.ndarray:
    """Return an `.npy` file's array as a read-only memory map.

    Raises:
        TooManyMapsError: If the process has reached its limit of open files or maps.
    """
    _make_room(next(_mapped))
    try:
        mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENOMEM):
            raise TooManyMapsError(file, error.strerror) from error
        raise
    return np.asarray(mapped)  # np.memmap's own indexing is slower


def _make_room(files: int) -> None:
    """Raise the soft limit on open files to the hard limit once half of it is used.

    Many systems start with a limit of 1,024 files, which allows 32 GiB of inputs with their targets.
    The other half is left for other files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in (hard, resource.RLIM_INFINITY) and 2 * files > soft:
        wanted = _MOST if hard == resource.RLIM_INFINITY else hard
        with suppress(OSError, ValueError):  # a system may allow less than its stated limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
