"""What learners are built of: the frame of all, components of losses, replay, statistics."""

from renate_stages.learners.base.learner import NOTHING, Learner, hyperparameters_of
from renate_stages.learners.fine_tuning import FineTuning

__all__ = ["NOTHING", "Learner", "hyperparameters_of"]
