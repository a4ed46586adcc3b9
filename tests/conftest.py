"""Settings for all tests, made before torch and Lightning are imported."""

import os

import warm_processes

# Two workers share two cores, and a process that is forked after OpenMP has started threads hangs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

warm_processes.cache_entry_points()
