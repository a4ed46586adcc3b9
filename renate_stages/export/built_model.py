"""Build a stored model with the user's functions, and run it on a few kept examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from renate_stages.data import StoredDataset
from renate_stages.models import RenateModule
from renate_stages.models.stored import build_model
from renate_stages.params import Params
from renate_stages.randomness import Generators
from renate_stages.state import SPLITS, State
from renate_stages.user.config import UserConfig

EXAMPLES = 8  # rows


@dataclass(frozen=True)
class BuiltModel:
    """A model in evaluation mode, with a batch of its inputs.

    Args:
        model: On the CPU.
        inputs: A batch as the test transform leaves it; None where the state keeps no example.
        ragged: Whether rows differ in length, and were filled up.
        transforms: Of inputs and of targets, before a model is measured.
        task_id: Task that the model is called for.
        generators: Set the global generators, so that the same model is built each time.
    """

    model: RenateModule
    inputs: Any
    ragged: bool
    transforms: tuple[Callable | None, Callable | None]
    task_id: str
    generators: Generators

    @classmethod
    def of(
        cls,
        user: UserConfig,
        values: Mapping[str, Any],
        params: Params,
        folder: Path,
        state: State,
    ) -> BuiltModel:
        """Build a stored model.

        Args:
            user: Its functions build the model and make its inputs.
            values: Hyperparameters, of which the functions get those that they name.
            params: Seed, number and task of the update.
            folder: With the model's files.
            state: Of the update, which keeps examples.

        Raises:
            RenateStagesError: If the user's functions fail, or build another model.
        """
        generators = Generators(params.seed, params.update.number)
        generators.seed_global("built model")
        model = build_model(user, values, folder, params.update.task_id).eval()
        transforms = user.test_transforms(values)
        kept = [store for split in SPLITS for store in reversed(state.split(split).values())]
        store = next((each for each in [*kept, state.memory()] if len(each)), None)
        inputs, ragged = None, False
        if store is not None and store.spec is not None:
            rows = [row % len(store) for row in range(max(3, min(EXAMPLES, len(store))))]
            inputs, _ = StoredDataset(store, None, *transforms).__getitems__(rows)
            # An encoded image is ragged bytes on disk, and an array of one shape for the model.
            fields = store.spec.fields.items()
            of_inputs = [field for name, field in fields if name.split(".")[0] == "inputs"]
            ragged = any(field.ragged and not field.decoder for field in of_inputs)
        return cls(model, inputs, ragged, transforms, params.update.task_id, generators)

    def outputs(self) -> dict[str, Tensor]:
        """Return what the model says of the examples, a tensor for each leaf of its outputs."""
        if self.inputs is None:
            return {}
        self.generators.seed_global("outputs of the built model")
        with torch.no_grad():
            given = self.model(self.inputs, task_id=self.task_id)
        leaves = pytree.tree_leaves(given)
        return {str(n): leaf for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
