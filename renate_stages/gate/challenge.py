"""Measure an update's model and the champion's on the same holdouts, row by row."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renate_stages.data import StoredDataset
from renate_stages.errors import shortage
from renate_stages.evaluation.evaluator import examine
from renate_stages.evaluation.examined import Examined
from renate_stages.evaluation.slices import slices_of
from renate_stages.export.exported import Exported
from renate_stages.gate.figures import Measured
from renate_stages.models import RenateModule
from renate_stages.models.stored import build_model
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.state import State
from renate_stages.user import optimization
from renate_stages.user.config import UserConfig
from renate_stages.user.modules import project_modules
from renate_stages.user.used_files import OwnFiles

UNKNOWN_CLASS = 20.0
"""How far below the lowest output a class lies that a model has no output for."""


def challenge(
    project: Project, params: Params, state: State, user: UserConfig, champion: Exported
) -> Measured:
    """Measure both models. Each gets inputs as its own transforms make them; loss, metrics and
    target transforms are the update's, for both.

    A champion that cannot be built or called any more is no error of the update: what it said is
    part of the verdict.

    Args:
        project: Its `champion/` holds the champion.
        params: With the update's own hyperparameters.
        state: Of the update; its holdouts are measured on.
        user: The update's functions.
        champion: What `champion/export.json` says; where it names no model, one is measured.
    """
    torch.set_num_threads(params.trainer.threads)
    on_holdouts = _Holdouts(params, state, user)
    values = params.hyperparameters
    new, width = on_holdouts.measure(user, values, state.folder)
    slices = slices_of(params.evaluation.slices, on_holdouts.stores)
    found = Measured(params.update.number, new, champion.update, slices=slices)
    if not champion:
        return found
    try:
        with own_modules(project.root):
            own = OwnFiles(project.champion, project.root)
            deployed = UserConfig.load(project.champion / project.user_config.name, watch=own)
            old, _ = on_holdouts.measure(
                deployed, champion.hyperparameters, project.champion, width
            )
    except Exception as error:  # noqa: BLE001 -- whatever an old model does with new data
        shortage.reraise(error)
        told = str(error).replace(f"{project.root}/", "")
        return replace(found, problem=told)
    return replace(found, champion=old)


class _Holdouts:
    """The holdouts of a state, and what is measured on them.

    Args:
        params: Of the update.
        state: Of the update.
        user: The update's functions: loss, metrics, target transform.
    """

    def __init__(self, params: Params, state: State, user: UserConfig) -> None:
        self.params = params
        self.stores = state.split("holdouts")
        self.task_ids = {n: state.provenance.task_ids[str(n)] for n in self.stores}
        values = params.hyperparameters
        self.target_transform = user.test_transforms(values)[1]
        self.settings: dict[str, Any] = {
            "loss_fn": optimization.loss_fn(user, values),
            "metrics_fn": partial(user.call, "metrics_fn", values)
            if "metrics_fn" in user.functions
            else None,
            "task_ids": self.task_ids,
            "batch_size": params.evaluation.batch_size,
        }

    def measure(
        self, user: UserConfig, values: Mapping[str, Any], folder: Path, width: int = 0
    ) -> tuple[dict[int, Examined], int]:
        """Build a stored model and examine it.

        Args:
            user: Builds the model and makes its inputs.
            values: Its hyperparameters.
            folder: Holds the model's files.
            width: Classes that its outputs must have at least.

        Returns:
            What it says of each holdout, and how many classes its outputs have.
        """
        Generators(self.params.seed, self.params.update.number).seed_global("gate")
        model = build_model(user, values, folder, self.params.update.task_id)
        for task_id in sorted(set(self.task_ids.values())):
            model.add_task_params(task_id)
        transform = user.test_transforms(values)[0]
        datasets = {
            number: StoredDataset(store, None, transform, self.target_transform)
            for number, store in self.stores.items()
        }
        outputs = _Widened(model, width)
        return examine(model, datasets, **self.settings), outputs.seen


class _Widened:
    """Gives a classifier's outputs a column for each class that it does not know.

    A champion may have learnt fewer classes than there are labels now. It is wrong there, which is
    no error. The column's value is finite, and so is the loss.

    Args:
        model: The classifier.
        width: Columns that its outputs must have at least.
    """

    def __init__(self, model: RenateModule, width: int) -> None:
        self.width = width
        self.seen = 0
        model.register_forward_hook(self)

    def __call__(self, model: RenateModule, inputs: Any, outputs: Any) -> Any:
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            return outputs
        self.seen = outputs.shape[1]
        missing = self.width - outputs.shape[1]
        if missing <= 0:
            return outputs
        lowest = outputs.min(dim=1, keepdim=True).values - UNKNOWN_CLASS
        return torch.cat([outputs, lowest.expand(-1, missing)], dim=1)


@contextmanager
def own_modules(root: Path) -> Iterator[None]:
    """Let a copy of the user's code import its own neighbours, not those of the project today.

    Args:
        root: Modules from below it are imported anew inside the block, and are as before after it.
    """
    path, root = list(sys.path), root.resolve()
    writes_no_bytecode = sys.dont_write_bytecode
    before = {name: sys.modules.pop(name) for name in project_modules(root)}
    try:
        sys.dont_write_bytecode = True  # it would lie in champion/, which DVC tracks
        yield
    finally:
        sys.dont_write_bytecode = writes_no_bytecode
        for name in project_modules(root):
            del sys.modules[name]
        sys.modules.update(before)
        sys.path[:] = path
