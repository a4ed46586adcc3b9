"""Settings for all tests, made before torch and Lightning are imported."""

import functools
import importlib.metadata
import os

# Two workers share two cores, and a process that is forked after OpenMP has started threads hangs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Each of Lightning's trainers reads the metadata of all installed packages anew for its plugins,
# which takes longer than the training of most tests.
read_entry_points = importlib.metadata.entry_points
cached_entry_points = functools.cache(read_entry_points)


def entry_points(**params):
    of_lightning = "lightning" in params.get("group", "")
    return (cached_entry_points if of_lightning else read_entry_points)(**params)


importlib.metadata.entry_points = entry_points
