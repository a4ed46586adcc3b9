"""Settings for all tests, made before torch and Lightning are imported."""

import os
from pathlib import Path

import warm_processes

# Two workers share two cores, and a process that is forked after OpenMP has started threads hangs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

warm_processes.cache_entry_points()
warm_processes.skip_flushing()

# Without a GPU, torch looks for NVIDIA's library each time that it is asked for one.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
