"""Fine-tuning: the baseline that every other learner must beat."""

from __future__ import annotations

from renate_stages.learners.base.learner import Learner


class FineTuning(Learner):
    """Trains on the new data alone, and so forgets: the baseline that other learners must beat."""
