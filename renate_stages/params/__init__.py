"""The content of `params.yaml`: its blocks, search spaces, the gate's rules, and the backend."""

from renate_stages.params.data import DataParams
from renate_stages.params.evaluation import EvaluationParams
from renate_stages.params.params import Params
from renate_stages.params.results import RetentionParams
from renate_stages.params.shift import ShiftParams, ShouldUpdateParams
from renate_stages.params.trainer import TrainerParams
from renate_stages.params.tuning import TuningParams

__all__ = [
    "DataParams",
    "EvaluationParams",
    "Params",
    "RetentionParams",
    "ShiftParams",
    "ShouldUpdateParams",
    "TrainerParams",
    "TuningParams",
]
