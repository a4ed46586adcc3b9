"""Hyperparameter search: spaces, schedulers, trials, and the results of earlier updates."""

from renate_stages.params.domains import Domain
from renate_stages.params.search_space import SearchSpace
from renate_stages.tuning.experience import Experience
from renate_stages.tuning.history import History
from renate_stages.tuning.records import TrialEpoch, TrialRecord

__all__ = ["Domain", "Experience", "History", "SearchSpace", "TrialEpoch", "TrialRecord"]
