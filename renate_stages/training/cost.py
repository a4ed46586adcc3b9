"""The cost of an update. Logged to MLflow only, since it differs between runs."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renate_stages.training.updater import UpdatedModel


def cost_of(updated: UpdatedModel, state: Path) -> dict[str, float]:
    """Return what was spent so far, by name; units are in the names.

    `training_seconds` and `new_examples` are of the training as far as this process did it: one that
    went on from a checkpoint counts the rest. `new_examples` counts each pass over an example;
    replayed ones come on top. `peak_memory_mb` is the whole process's so far, `cuda_peak_memory_mb`
    what PyTorch held on the GPU, where there is one; a megabyte is 10^6 bytes.

    Args:
        updated: The model, and how it was trained.
        state: Folder of the new state; its files count with what they share with the parent's.
    """
    import torch

    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, kibibytes elsewhere
    cost = {
        "training_seconds": updated.seconds,
        "new_examples": updated.examples,
        "steps": updated.steps,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6,
        "state_mb": sum(p.stat().st_size for p in state.rglob("*") if p.is_file()) / 1e6,
    }
    if torch.cuda.is_initialized():
        cost["cuda_peak_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return cost
