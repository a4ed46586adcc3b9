"""Compute the cost of an update, which is logged to MLflow only because it differs between runs."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renate_stages.training.updated_model import UpdatedModel


def cost_of(updated: UpdatedModel, state: Path) -> dict[str, float]:
    """Return the costs so far, by name; the names contain the units.

    `training_seconds` and `new_examples` cover only the part of the training that this process ran,
    so a resumed training counts only the rest. `new_examples` counts an example once per pass and
    does not count replayed examples. `peak_memory_mb` is the peak of the whole process,
    `cuda_peak_memory_mb` the peak that PyTorch allocated on the GPU, if it uses one. A megabyte is
    10^6 bytes.

    Args:
        updated: The updated model with its training time and step counts.
        state: Folder of the new state; files that are linked from the parent count in full.
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
