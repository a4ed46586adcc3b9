"""The content of `params.yaml`: its blocks, search spaces, the gate's rules, and the backend."""

from renate_stages.params.params import (
    DataParams,
    EvaluationParams,
    Params,
    RetentionParams,
    ShiftParams,
    ShouldUpdateParams,
    TrainerParams,
    TuningParams,
)

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
