"""Settings for all tests, made before torch and Lightning are imported."""

import functools
import importlib.metadata
import os

# Two workers share two cores, and a process that is forked after OpenMP has started threads hangs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Each of Lightning's trainers reads the metadata of all installed packages anew, which takes longer
# than the training of most tests.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)
