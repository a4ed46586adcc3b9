"""Test a user's `renate_config.py` on a few examples before hours of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch.utils.data import Subset

from renate_stages.data import StoredDataset, ingest
from renate_stages.export import carried_files
from renate_stages.export.built_model import BuiltModel
from renate_stages.export.program_files import write_program
from renate_stages.memory import ExampleStore, Ragged
from renate_stages.models import RenateModule
from renate_stages.models.stored import write_model
from renate_stages.params import Params
from renate_stages.preprocessing import read_preprocessing
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.state import State, new_data, state
from renate_stages.state.fitted import fit_preprocessing
from renate_stages.state.label_names import label_names
from renate_stages.state.prepared import PreparedData
from renate_stages.state.retention import Kept
from renate_stages.training.rehearsal import rehearse
from renate_stages.training.updater import Updater
from renate_stages.user import optimization
from renate_stages.user.config import UserConfig

STEPS = 20


@dataclass(frozen=True)
class CheckedConfig:
    """The result of a test of `renate_config.py`.

    Args:
        loss_before: Mean loss of a new model on the examples.
        loss_after: Mean loss after a few steps on the examples.
        restored_equals_saved: Whether the model gives the same outputs after it was saved and
            restored with `model_fn`.
        lacking: Why a program of the model could not be exported, by file name.
        padding_change: The largest change of an output of a shorter example if it is padded to the
            length of the longest; 0 if examples do not differ in length.
    """

    loss_before: float
    loss_after: float
    restored_equals_saved: bool
    lacking: Mapping[str, str]
    padding_change: float = 0.0


def check_user_config(root: Path, examples: int = 64) -> CheckedConfig:
    """Read a few examples, take a few optimizer steps on them, save and restore the model.

    Then rehearse an update with the learner of `params.yaml`, and export its program. The files
    that the functions use are compared with the deps in `dvc.yaml`.

    Args:
        root: Folder of the project, with data in `data/incoming`.
        examples: Number of training examples to use, >= 1.

    Raises:
        UndeclaredUserFileError: If the functions use a file of the project that is missing from the
            `deps` of a stage that calls them.
        RenateStagesError: If a parameter, a hyperparameter, a function, the data or the model cannot
            be used.
    """
    project = Project(root)
    params = Params.load(project.params)
    carried_files.check_files(project, params)
    user = UserConfig.of(project, None, named=params.named)
    space = params.search_space.read_by(optimization.shared_hyperparameters(user))
    params = params.fixed(space.middle())
    hyperparameters, task_id = params.hyperparameters, params.update.task_id
    user.preprocessing = read_preprocessing(project.parent)
    Updater(user, params, hyperparameters, say=lambda _: None)  # refuses wrong values at once
    new_data.require_files(project.incoming)
    generators = Generators(params.seed, params.update.number)
    generators.seed_global("check")
    splits = new_data.read_splits(user, project.incoming, params, generators, project.scratch)
    few, names = _some(splits.train, examples), label_names(params, None)
    for name in splits.label_order:
        names.number(name)
    with TemporaryDirectory() as scratch:
        with new_data.reading(user):
            folder, number = Path(scratch) / "few", params.update.number
            store = ingest(
                few, folder, number, "train", ragged=splits.ragged, numbers=names.numbers
            )
            if splits.preprocessing is not None:
                user.preprocessing = splits.preprocessing
                task, stores = params.task, {"train": store}
                fit_preprocessing(splits.preprocessing, stores, names.names, task, Path(scratch))
            updater = Updater(user, params, hyperparameters, labels=names.names)
        dataset = StoredDataset(store, None, *updater.transforms.train)
        inputs, targets = dataset.__getitems__(range(len(dataset)))

        model = updater.build_model(None)
        updater.make_room(model, updater.test_set(store))
        updater.task.check(model, {"the training data": updater.test_set(store)})
        learner = updater.learner(model, untrained=model.state_dict())
        optimizer = learner.context.functions.optimizer_fn(model.get_params(task_id))

        def loss() -> torch.Tensor:
            return updater.task.loss.mean(model(inputs, task_id=task_id), targets)

        before = loss().item()
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        after = loss().item()
        model.eval()
        write_model(Path(scratch), model)
        restored = updater.build_model(Path(scratch)).eval()
        with torch.inference_mode():
            pair = [each(inputs, task_id=task_id) for each in (model, restored)]
        padded = padding_change(restored, updater.test_set(store), task_id)
        for transform in (updater.transforms.memory, updater.transforms.test):
            StoredDataset(store, None, *transform).__getitems__(range(len(dataset)))
        if "metrics_fn" in user.functions:
            user.call("metrics_fn", hyperparameters)
        if "feature_fn" in user.functions and params.shift.enabled:
            user.call("feature_fn", hyperparameters)
        lacking = _rehearsed(user, params, store, names.names, Path(scratch))
    user.files.check()
    return CheckedConfig(before, after, _equal(*pair), lacking, padded)


def padding_change(model: RenateModule, dataset: StoredDataset, task_id: str) -> float:
    """Return the largest change of an output by padding shorter examples to the longest.

    A model whose outputs depend on padding answers differently for other batches of the same rows.
    Of the shorter half, the shortest, the longest and one between them are padded: the shortest may
    be empty, which looks like its own padding.

    Args:
        model: The model, in evaluation mode.
        dataset: Examples with the test transforms.
        task_id: Task for which the model is called.
    """
    fields = dataset.store.spec.fields if dataset.store.spec is not None else {}
    paths = [
        path
        for path, field in fields.items()
        if field.ragged and not field.decoder and path.split(".")[0] == "inputs"
    ]
    largest, rows = 0.0, np.arange(len(dataset))
    for path, column in dataset.store.columns(rows, paths).items():
        assert isinstance(column, Ragged), path
        order = column.lengths.argsort(kind="stable").tolist()
        for short in {order[0], order[len(order) // 4], order[len(order) // 2]}:
            with torch.inference_mode():
                alone, both = (
                    model(dataset.__getitems__(chosen)[0], task_id=task_id)
                    for chosen in ([short], [short, order[-1]])
                )
            for one, other in zip(*map(pytree.tree_leaves, (alone, both)), strict=True):
                same = other[0][
                    tuple(slice(size) for size in one[0].shape)
                ]  # outputs may be padded
                largest = max(largest, float((one[0] - same).abs().max()))
    return largest


def _rehearsed(
    user: UserConfig,
    params: Params,
    store: ExampleStore,
    labels: tuple[str, ...],
    scratch: Path,
) -> dict[str, str]:
    """Rehearse a first update, and export its program; return the reasons for missing programs."""
    state.write_empty(scratch / "first")
    first = State.open(scratch / "first")
    data = PreparedData(train=store, val=store, test=store, digest="", labels=labels)
    nothing = np.empty(0, dtype=bool)
    kept = Kept(first, data, np.arange(len(store)), nothing, params.update.number)
    rehearsed = rehearse(user, params, first, kept, scratch / "rehearsal")
    if rehearsed is None:
        return {}
    built = BuiltModel.of(user, params.hyperparameters, params, rehearsed.folder, rehearsed)
    (scratch / "export").mkdir()
    return write_program(scratch / "export", rehearsed, params, built)


def _some(dataset: Any, count: int) -> Any:
    """Return examples from all parts of a dataset, because files are often sorted by label."""
    if hasattr(dataset, "__len__"):
        size = len(dataset)
        few = min(count, size)
        return Subset(dataset, [row * size // few for row in range(few)])
    return list(islice(dataset, count))  # a stream, made a list because ingest takes any sequence


def _equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other
