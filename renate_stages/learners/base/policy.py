"""Create, size, restore and apply the selection policy of a learner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from renate_stages.data import StoredDataset
from renate_stages.learners.base.arguments import positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.working_memory import BLOCK
from renate_stages.memory import SelectionPolicy, make_policy, rows_of_size, size_in_bytes
from renate_stages.models.features import features_of


def policy_of(name: str, size: int | str, context: UpdateContext) -> SelectionPolicy:
    """Return a selection policy with the update's generator.

    Args:
        name: Of the policy.
        size: Most examples, >= 1, or their bytes: how many rows those are shows with the data.
        context: What the update gives.

    Raises:
        InvalidHyperparameterError: If the size is no such number.
        InvalidMemorySizeError: If it is no size in bytes.
        UnknownPolicyError: If there is no such policy.
    """
    rows = 1
    if isinstance(size, str):
        size_in_bytes(size)
    else:
        rows = positive("memory_size", size)
    return make_policy(name, rows, context.generators.numpy("memory"))


def fit_policy(
    policy: SelectionPolicy, size: int | str, old: StoredDataset, new: StoredDataset
) -> None:
    """Tell a policy how many rows a size is, now that there are examples."""
    if policy.size is not None:
        policy.size = rows_of_size(size, old.nbytes + new.nbytes, len(old) + len(new))


def restore_policy(policy: SelectionPolicy, values: Mapping[str, Any]) -> None:
    """Let a policy go on from what the parent's learner left, if it had one of the same name."""
    saved = values.get("policy")
    if saved is not None and saved["policy"] == policy.name:
        policy.restore(saved)


def select(
    policy: SelectionPolicy,
    old: StoredDataset,
    new: StoredDataset,
    model: Any,
    task_id: str,
) -> Any:
    """Let a policy choose once, of all examples.

    Args:
        policy: Chooses.
        old: The memory.
        new: The new examples that may enter, as they are measured.
        model: Whose features a policy may need.
        task_id: Its task.
    """
    features = None
    if policy.needs_features:
        found = [
            features_of(
                model, new.__getitems__(range(start, min(start + BLOCK, len(new))))[0], task_id
            )
            for start in range(0, len(new), BLOCK)
        ]
        features = torch.cat(found).numpy() if found else np.empty((0, 1), dtype=np.float32)
    return policy.select(old.labels(), new.labels(), len(old), len(new), features)
