"""Update PyTorch models with new data, again and again, without forgetting.

Importing this package imports nothing heavy: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from renate_stages._version import __version__

_PLACES = {
    "ExampleStore": "renate_stages.memory",
    "Learner": "renate_stages.learners.base",
    "ModelUpdater": "renate_stages.api.model_updater",
    "RenateDataModule": "renate_stages.data",
    "RenateModule": "renate_stages.models",
    "State": "renate_stages.state",
    "TrainingJobResult": "renate_stages.api.training_job",
    "config_space": "renate_stages.params.default_spaces",
    "load_model": "renate_stages.export.loading",
    "run_training_job": "renate_stages.api.training_job",
}
__all__ = [  # noqa: PLE0604 -- strings, unpacked
    "__version__",
    *_PLACES,  # pyright: ignore[reportUnsupportedDunderAll]
]

if TYPE_CHECKING:
    from renate_stages.api.model_updater import ModelUpdater as ModelUpdater
    from renate_stages.api.training_job import TrainingJobResult as TrainingJobResult
    from renate_stages.api.training_job import run_training_job as run_training_job
    from renate_stages.data import RenateDataModule as RenateDataModule
    from renate_stages.export.loading import load_model as load_model
    from renate_stages.learners.base import Learner as Learner
    from renate_stages.memory import ExampleStore as ExampleStore
    from renate_stages.models import RenateModule as RenateModule
    from renate_stages.params.default_spaces import config_space as config_space
    from renate_stages.state import State as State


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
