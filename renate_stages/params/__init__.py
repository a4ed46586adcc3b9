"""All of `params.yaml`: its blocks, search spaces, rules of the gate, and where stages run."""

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
