"""What learners are built of: the frame of all, components of losses, replay, statistics."""

from renate_stages.learners.base.learner import NOTHING, FineTuning, Learner, hyperparameters_of

__all__ = ["NOTHING", "FineTuning", "Learner", "hyperparameters_of"]
