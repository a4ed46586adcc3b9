"""Measure an update's model and its opponent's on the same holdouts, row by row."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from renate_stages.data import StoredDataset
from renate_stages.errors import ChangedPreprocessingError, shortage
from renate_stages.evaluation.evaluator import examine
from renate_stages.evaluation.examined import ExaminedHoldouts
from renate_stages.evaluation.slices import slices_of
from renate_stages.evaluation.widened import widened
from renate_stages.export.exported import Exported
from renate_stages.gate.figures import Measured
from renate_stages.models.stored import build_model
from renate_stages.params import Params
from renate_stages.preprocessing import Preprocessing, read_preprocessing
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.state import State
from renate_stages.tasks import named
from renate_stages.user import optimization
from renate_stages.user.config import UserConfig
from renate_stages.user.modules import project_modules
from renate_stages.user.used_files import OwnFiles


def challenge(
    project: Project,
    params: Params,
    state: State,
    user: UserConfig,
    champion: Exported,
    parent: State | None = None,
) -> Measured:
    """Measure the update's model and the champion's, or else its parent's, on its holdouts.

    The champion is built by its own code and uses its own input transforms, the parent's model those
    of the update. Both use the update's loss, metrics and target transforms. If the opponent cannot
    be built or called any more, the update does not fail: the error is part of the verdict.

    Args:
        project: The project, with the champion in `champion/`.
        params: Parameters with the update's own hyperparameters.
        state: The update's state, with the holdouts.
        user: The update's functions.
        champion: The content of `champion/export.json`; empty: there is no champion to measure.
        parent: The parent's state, if its model is the opponent. Without champion and parent, only
            the new model is measured.
    """
    torch.set_num_threads(params.trainer.threads)
    on_holdouts = _Holdouts(params, state, user)
    values = params.hyperparameters
    new, width = on_holdouts.measure(user, values, state.folder)
    slices = slices_of(params.evaluation.slices, on_holdouts.stores)
    names = state.provenance.labels
    measured = Measured(params.update.number, new, champion.update, slices=slices, names=names)
    try:
        if champion:
            with own_modules(project.root):
                own = OwnFiles(project.champion, project.root)
                deployed = UserConfig.load(
                    project.champion / project.user_config.name, watch=own, named=champion.named
                )
                deployed.preprocessing = read_preprocessing(project.champion)
                check_preprocessing(user.preprocessing, deployed.preprocessing)
                old, _ = on_holdouts.measure(
                    deployed, champion.hyperparameters, project.champion, width
                )
        elif parent is not None:
            measured = replace(measured, parent_update=parent.provenance.update)
            old, _ = on_holdouts.measure(user, values, parent.folder, width)
        else:
            return measured
    except Exception as error:  # noqa: BLE001 -- an old model may fail in any way on new data
        shortage.reraise(error)
        problem = str(error).replace(f"{project.root}/", "")
        return replace(measured, problem=problem)
    return replace(measured, opponent=old)


def check_preprocessing(own: Preprocessing | None, other: Preprocessing | None) -> None:
    """Check that a champion can read holdouts that the update's preprocessing encoded.

    Raises:
        ChangedPreprocessingError: If codes have another meaning for it.
    """
    if own is None or other is None:
        problem = None if own is other else "only one of the two models has a preprocessing"
    else:
        problem = other.problem_reading(own)
    if problem is not None:
        raise ChangedPreprocessingError("the champion's preprocessing does not fit", problem)


class _Holdouts:
    """The holdouts of a state, with the settings to measure models on them.

    Args:
        params: The update's parameters.
        state: The update's state.
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
            "task": named(state.provenance.task or params.task),
            "task_ids": self.task_ids,
            "batch_size": params.evaluation.batch_size,
        }

    def measure(
        self, user: UserConfig, values: Mapping[str, Any], folder: Path, width: int = 0
    ) -> tuple[ExaminedHoldouts, int]:
        """Build a stored model and measure it.

        Args:
            user: The configuration that builds the model and transforms its inputs.
            values: The model's hyperparameters.
            folder: Folder with the model's files.
            width: Minimum number of classes in its outputs.

        Returns:
            The results on each holdout, and the number of classes in the model's outputs.
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
        task = self.settings["task"]
        if task is not None and not task.grows:  # other outputs than classes
            width = 0
        with widened(model, width) as outputs:
            return examine(model, datasets, **self.settings, keep_rows=True), outputs.seen


@contextmanager
def own_modules(root: Path) -> Iterator[None]:
    """Let a copy of the user's code import its own modules instead of the project's current ones.

    Args:
        root: The project. Modules from this folder are imported again inside the block and restored
            after it.
    """
    path, root = list(sys.path), root.resolve()
    writes_no_bytecode = sys.dont_write_bytecode
    before = {name: sys.modules.pop(name) for name in project_modules(root)}
    try:
        sys.dont_write_bytecode = True  # DVC tracks champion/, so no bytecode may be written there
        yield
    finally:
        sys.dont_write_bytecode = writes_no_bytecode
        for name in project_modules(root):
            del sys.modules[name]
        sys.modules.update(before)
        sys.path[:] = path
