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
        name: Name of the policy.
        size: Maximum number of examples, >= 1, or a size in bytes such as "20GB", which
            `fit_policy` converts to rows later.
        context: The model, functions and settings of the update.

    Raises:
        InvalidHyperparameterError: If the number is not a whole number >= 1.
        InvalidMemorySizeError: If the text is not a size in bytes.
        UnknownPolicyError: If there is no policy of this name.
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
    """Set a policy's size in rows, now that the size of an example is known."""
    if policy.size is not None:
        policy.size = rows_of_size(size, old.nbytes + new.nbytes, len(old) + len(new))


def restore_policy(policy: SelectionPolicy, values: Mapping[str, Any]) -> None:
    """Restore a policy's state from the parent's learner if that used the same policy."""
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
    """Let a policy choose once among all examples.

    Args:
        policy: The policy.
        old: The memory.
        new: The new examples that may enter, with their test transforms.
        model: The model that computes features if the policy needs them.
        task_id: The task to compute them for.
    """
    features = None
    if policy.needs_features:
        blocks = [
            features_of(
                model, new.__getitems__(range(start, min(start + BLOCK, len(new))))[0], task_id
            )
            for start in range(0, len(new), BLOCK)
        ]
        features = torch.cat(blocks).numpy() if blocks else np.empty((0, 1), dtype=np.float32)
    return policy.select(old.labels(), new.labels(), len(old), len(new), features)
