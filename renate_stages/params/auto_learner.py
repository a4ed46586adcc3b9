"""The learners among which `learner: auto` searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REPLAY = ("ER", "DER++", "FineTuning")
"""For any task: replay of examples, replay of outputs, and no protection as the baseline."""

REPLAY_OF_LABELS = ("ER", "DER++", "ER-ACE", "FineTuning")
"""For classification: also a loss that spares old classes when new ones arrive."""

WITHOUT_MEMORY = ("FineTuning", "LwF", "EWC", "L2-SP")
"""If no example may be stored: distillation, and two penalties on changes of the weights."""


def suited_learners(hyperparameters: Any, task: str) -> tuple[str, ...]:
    """Return a short list of learners for a search.

    Args:
        hyperparameters: As in `params.yaml`; `memory_size: 0` means that no example may be stored.
        task: As in `params.yaml`; with `auto`, only learners for any task.
    """
    values = hyperparameters if isinstance(hyperparameters, Mapping) else {}
    if values.get("memory_size") == 0:
        return WITHOUT_MEMORY
    return REPLAY_OF_LABELS if task == "classification" else REPLAY
