"""Default search spaces for `auto`, as in `learning_rate: auto`.

The ranges surround the values used in the papers and in the learners' benchmark (docs/learners.md).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from renate_stages.errors import UnknownLearnerError
from renate_stages.learners import registry
from renate_stages.learners.avalanche import catalog

Spaces = dict[str, dict[str, list[Any]]]

GRADIENT: Spaces = {  # for every learner that takes optimizer steps
    "learning_rate": {"loguniform": [0.001, 0.5]},
    "momentum": {"choice": [0.9, 0.0, 0.99]},
    "weight_decay": {"loguniform": [1e-6, 1e-2]},
    "batch_size": {"ordinal": [16, 32, 64, 128]},
}
ADAPTIVE_LEARNING_RATE = {"loguniform": [1e-5, 1e-2]}  # for the optimizers Adam and AdamW

REPLAY: Spaces = {"memory_batch_size": {"ordinal": [16, 32, 64, 128]}}

LEARNERS: dict[str, Spaces] = {
    "ER": REPLAY,
    "DER": REPLAY | {"alpha": {"loguniform": [0.05, 2.0]}},
    "DER++": REPLAY | {"alpha": {"loguniform": [0.05, 2.0]}, "beta": {"loguniform": [0.1, 2.0]}},
    "ER-ACE": REPLAY,
    "iCaRL": REPLAY,
    "CLS-ER": REPLAY | {"consistency_weight": {"loguniform": [0.05, 1.0]}},
    "POD-ER": REPLAY | {"alpha": {"loguniform": [0.05, 5.0]}},
    "Super-ER": REPLAY
    | {
        "consistency_weight": {"loguniform": [0.05, 1.0]},
        "der_alpha": {"loguniform": [0.05, 2.0]},
        "pod_alpha": {"loguniform": [0.05, 5.0]},
        "sp_shrink_factor": {"uniform": [0.8, 1.0]},
    },
    "WA": REPLAY | {"temperature": {"ordinal": [1.0, 2.0, 4.0]}},
    "BiC": REPLAY | {"temperature": {"ordinal": [1.0, 2.0, 4.0]}},
    "LUCIR": REPLAY
    | {
        "less_forget_weight": {"loguniform": [0.5, 20.0]},
        "margin_weight": {"loguniform": [0.1, 5.0]},
    },
    "PODNet": REPLAY
    | {
        "spatial_weight": {"loguniform": [0.3, 10.0]},
        "flat_weight": {"loguniform": [0.1, 10.0]},
        "similarity_scale": {"loguniform": [4.0, 32.0]},
    },
    "LatentReplay": REPLAY,
    "SCR": REPLAY | {"contrast_temperature": {"loguniform": [0.05, 0.5]}},
    "MIR": REPLAY,
    "ASER": REPLAY,
    "GSS": REPLAY,
    "A-GEM": REPLAY,
    "Offline-ER": REPLAY | {"loss_weight_new_data": {"uniform": [0.1, 0.9]}},
    "Budgeted": REPLAY,
    "RD": {"expert_share": {"uniform": [0.2, 0.8]}},
    "SLDA": {"shrinkage": {"loguniform": [1e-5, 0.1]}},
    "LwF": {
        "distillation_weight": {"loguniform": [0.1, 10.0]},
        "temperature": {"ordinal": [1.0, 2.0, 4.0]},
    },
    "EWC": {"ewc_weight": {"loguniform": [1.0, 10000.0]}},
    "MAS": {"mas_weight": {"loguniform": [0.001, 10.0]}},
    "SI": {"si_weight": {"loguniform": [0.01, 100.0]}},
    "L2-SP": {"l2_weight": {"loguniform": [0.001, 1.0]}},
    "L2-Init": {"init_weight": {"loguniform": [1e-5, 1e-2]}},
}

AVALANCHE: dict[str, Spaces] = {  # by plugin, a part of the learner's name
    "ER": REPLAY,
    "DER": REPLAY | {"alpha": {"loguniform": [0.05, 2.0]}, "beta": {"loguniform": [0.1, 2.0]}},
    "ER-ACE": REPLAY,
    "EWC": {"ewc_lambda": {"loguniform": [1.0, 10000.0]}},
    "SI": {"si_lambda": {"loguniform": [0.01, 100.0]}},
    "MAS": {"lambda_reg": {"loguniform": [0.001, 10.0]}},
    "LwF": {
        "alpha": {"loguniform": [0.1, 10.0]},
        "temperature": {"ordinal": [1.0, 2.0, 4.0]},
    },
    "LFL": {"lambda_e": {"loguniform": [0.0001, 1.0]}},
}


def config_space(learner: str, optimizer: str = "SGD") -> dict[str, Any]:
    """Return a copy of a learner's default search space, to be changed and searched.

        run_training_job(config_space("ER") | {"memory_size": 1000}, updater="ER", ...)

    Args:
        learner: Name of the learner, as in `params.yaml`.
        optimizer: `SGD`, `Adam` or `AdamW`, which decides about the range of the learning rate.

    Returns:
        A space in the form of `params.yaml`, such as `{"loguniform": [0.001, 0.5]}`, or a constant,
        for each hyperparameter.

    Raises:
        UnknownLearnerError: If there is no such learner.
    """
    if problem := registry.problem_of(learner):
        raise UnknownLearnerError(learner, problem, registry.names())
    chosen = {} if optimizer == "SGD" else {"optimizer": optimizer}
    return copy.deepcopy(chosen | of_learners([learner], optimizer))


def of_learners(names: Iterable[str], optimizer: Any = "SGD") -> dict[str, Any]:
    """Return the default spaces of learners, by hyperparameter.

    Args:
        names: Names of one or several learners.
        optimizer: The value of the hyperparameter `optimizer` if it is a constant.
    """
    spaces: dict[str, Any] = {}
    for name in names:
        known = registry.LEARNERS.get(name)
        # Learners that need a backbone solve for the head and take no optimizer steps.
        if known is None or "backbone" not in known.needs:
            spaces |= GRADIENT
        spaces |= LEARNERS.get(name, {})
        if catalog.is_name(name):
            for part in catalog.composed(name).parts:
                spaces |= AVALANCHE.get(part, {})
    if optimizer in ("Adam", "AdamW") and "learning_rate" in spaces:
        spaces["learning_rate"] = ADAPTIVE_LEARNING_RATE
        del spaces["momentum"]
    return spaces
