"""The search for hyperparameters: spaces, schedulers, and what earlier updates found."""

from renate_stages.tuning.domains import Domain
from renate_stages.tuning.experience import Experience
from renate_stages.tuning.history import History, TrialEpoch, TrialRecord
from renate_stages.tuning.search_space import SearchSpace

__all__ = ["Domain", "Experience", "History", "SearchSpace", "TrialEpoch", "TrialRecord"]
