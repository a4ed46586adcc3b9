"""Memory maps of arrays, limited to what the system allows for a process."""

from __future__ import annotations

import errno
import resource
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np

from renate_stages.errors import TooManyMapsError

_MOST = 2**20  # files to ask for where the hard limit is none
_mapped = count(1)  # of this process, those that are closed again included


def map_array(file: Path) -> np.ndarray:
    """Return an `.npy` file's array as a read-only memory map.

    Raises:
        TooManyMapsError: The process has as many files open, or maps, as it may.
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
    """Take as many open files as the hard limit allows when half of those that may be are used.

    Many systems begin with 1,024: that is 32 GiB of inputs, beside their targets. Half, so that other
    files can still be opened.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in (hard, resource.RLIM_INFINITY) and 2 * files > soft:
        wanted = _MOST if hard == resource.RLIM_INFINITY else hard
        with suppress(OSError, ValueError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
