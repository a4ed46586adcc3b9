"""Data on disk between stages: states, prepared data, and digests of the inputs."""

from renate_stages.state.manifest import MANIFEST, Provenance, is_inside
from renate_stages.state.state import (
    LEARNER_FILES,
    MODEL_FILES,
    SPLITS,
    TUNING_HISTORY,
    State,
    write_empty,
)

__all__ = [
    "LEARNER_FILES",
    "MANIFEST",
    "MODEL_FILES",
    "SPLITS",
    "TUNING_HISTORY",
    "Provenance",
    "State",
    "is_inside",
    "write_empty",
]
