"""What a training leaves: `Trained`, and `UpdatedModel` with the examples chosen for the memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from renate_stages import files
from renate_stages.learners.base import Learner
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.working_memory import ChosenMemory
from renate_stages.memory import Selection
from renate_stages.models import RenateModule
from renate_stages.models.stored import write_tensors
from renate_stages.state import LEARNER_FILES
from renate_stages.training.callbacks import Curves


@dataclass(frozen=True)
class Trained:
    """A learner after training, with its finished model.

    Args:
        learner: The learner, on the device that it trained on.
        curves: Losses and metrics of each epoch.
        steps: Optimizer steps taken.
        measure: Measures a model on all validation data; None without validation data.
        seconds: Time from the first step to the last, in this process.
        examples: New examples seen in this process; an example counts once per pass.
    """

    learner: Learner
    curves: Curves
    steps: int
    measure: Measure | None
    seconds: float = 0.0
    examples: int = 0


@dataclass(frozen=True)
class UpdatedModel:
    """The updated model, its learner, and the examples chosen for the memory.

    Args:
        model: The trained model, in evaluation mode on the CPU.
        learner: The learner that trained it.
        chosen: Rows of the parent's memory that stay, and rows of the new data that enter.
        curves: Losses and metrics of each epoch.
        steps: Optimizer steps taken.
        tables: The learner's own figures, rows by the name of the plot's file.
        seconds: As in `Trained`.
        examples: As in `Trained`.
    """

    model: RenateModule
    learner: Learner
    chosen: ChosenMemory
    curves: Curves
    steps: int
    tables: Mapping[str, Curves] = field(default_factory=dict)
    seconds: float = 0.0
    examples: int = 0

    @property
    def selection(self) -> Selection:
        """Rows of the parent's memory that stay, and rows of the new data that enter."""
        return self.chosen.selection


def write_learner(folder: Path, learner: Learner) -> None:
    """Write the learner's tensors and values for the next update into a new state."""
    tensors, values = learner.learner_state()
    write_tensors(folder / LEARNER_FILES[0], tensors)
    files.write_json(folder / LEARNER_FILES[1], values)
