"""Settings of all tests that must be made before torch is imported."""

import os

# Two workers share two cores, and a process that is forked after OpenMP has started threads hangs.
os.environ.setdefault("OMP_NUM_THREADS", "1")
