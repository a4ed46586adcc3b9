"""Build a stored model with the user's functions, and run it on a few stored examples."""

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
from renate_stages.preprocessing import Preprocessing
from renate_stages.randomness import Generators
from renate_stages.state import SPLITS, State
from renate_stages.user.config import UserConfig

EXAMPLES = 8  # maximum number of rows to run


@dataclass(frozen=True)
class BuiltModel:
    """A model in evaluation mode, with a batch of its inputs.

    Args:
        model: The model, on the CPU.
        inputs: A batch after the test transform; None if the state has no examples.
        ragged: Names of the stored parts of the inputs whose rows differ in length and were padded; ""
            is the whole input.
        transforms: Test transforms of inputs and targets.
        preprocessing: What the transform of inputs begins with, if anything was fitted on data.
        own_transform: What comes after it: the user's `test_transform`, if there is one.
        task_id: The task for which the model is called.
        generators: Generators that seed the global ones, so that the model is the same each time.
    """

    model: RenateModule
    inputs: Any
    ragged: tuple[str, ...]
    transforms: tuple[Callable | None, Callable | None]
    preprocessing: Preprocessing | None
    own_transform: Callable | None
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
            user: The configuration whose functions build the model and transform its inputs.
            values: Hyperparameters; a function gets those that its signature names.
            params: Parameters with seed, number and task of the update.
            folder: Folder with the model's files.
            state: The update's state, which has examples.

        Raises:
            RenateStagesError: If the user's functions fail or build a different model.
        """
        generators = Generators(params.seed, params.update.number)
        generators.seed_global("built model")
        model = build_model(user, values, folder, params.update.task_id).eval()
        transforms = user.test_transforms(values)
        kept = [store for split in SPLITS for store in reversed(state.split(split).values())]
        store = next((each for each in [*kept, state.memory()] if len(each)), None)
        inputs, ragged = None, ()
        if store is not None and store.spec is not None:
            rows = [row % len(store) for row in range(max(3, min(EXAMPLES, len(store))))]
            inputs, _ = StoredDataset(store, None, *transforms).__getitems__(rows)
            # Encoded images are ragged bytes on disk, but the model gets arrays of one shape.
            ragged = tuple(
                name.removeprefix("inputs").removeprefix(".")
                for name, field in store.spec.fields.items()
                if name.split(".")[0] == "inputs" and field.ragged and not field.decoder
            )
        fitted, own = user.preprocessing, transforms[0]
        if fitted is not None:
            own = user.callable_of("test_transform", values)
        task_id = params.update.task_id
        return cls(model, inputs, ragged, transforms, fitted, own, task_id, generators)

    def outputs(self) -> dict[str, Tensor]:
        """Return the model's outputs for the examples, as one tensor per leaf."""
        if self.inputs is None:
            return {}
        self.generators.seed_global("outputs of the built model")
        with torch.no_grad():
            outputs = self.model(self.inputs, task_id=self.task_id)
        leaves = pytree.tree_leaves(outputs)
        return {str(n): leaf for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
