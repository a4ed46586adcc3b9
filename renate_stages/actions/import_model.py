"""Make the first state from an existing model, with examples of its old data."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from renate_stages.data import StoredDataset
from renate_stages.errors import MissingFileError, ModelMismatchError, UnfittedModelError
from renate_stages.evaluation.history import EvaluationHistory
from renate_stages.memory import ExampleStore, StoreWriter, evolve
from renate_stages.models import unwrap
from renate_stages.models.stored import EXTRA_STATE, GROWN, read_state_dict, write_model
from renate_stages.params import Params
from renate_stages.preprocessing import Preprocessing, link_preprocessing, read_preprocessing
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.state import MODEL_FILES, Provenance, new_data, state
from renate_stages.state.fingerprint import fingerprint_of
from renate_stages.state.fitted import check_kind, fit_preprocessing
from renate_stages.state.label_names import label_names
from renate_stages.tasks.labels import LabelNames
from renate_stages.training.updated_model import write_learner
from renate_stages.training.updater import Updater
from renate_stages.user import optimization
from renate_stages.user.config import UserConfig

RENATE_PREFIX = "_model."


def write_imported(
    folder: Path, project: Project, params: Params, model_file: Path, old_data: Path | None
) -> None:
    """Write the state of update 0: the model, and as much of its old data as fits into the memory.

    The test split of the old data becomes holdout 0, to measure how much of it later updates forget.
    What was fitted on the data that the model was trained with is read from the folder
    `preprocessing` next to the model, as in a state or an export. It grows for what the old data has
    anew.

    Args:
        folder: An empty folder for the state.
        project: Its `renate_config.py` builds the model and reads the data.
        params: The parameters; learner, hyperparameters and seed are used.
        model_file: A state dict, in torch's format or as safetensors. The `model.safetensors` of a
            state or an export is read with its `model.json`.
        old_data: A folder that `data_module_fn` can read, or None.

    Raises:
        MissingFileError: If the model file does not exist.
        ModelMismatchError: If the file does not contain the tensors of the user's model.
        UnfittedModelError: If the data module fits something on data, but nothing is next to the model.
        RenateStagesError: If the data cannot be used.
    """
    if not model_file.is_file():
        raise MissingFileError(
            model_file, "`init --model` starts from this file", "give the path of an existing file"
        )
    user = UserConfig.load(project.user_config, named=params.named)
    space = params.search_space.read_by(optimization.shared_hyperparameters(user))
    params = params.fixed(space.middle())
    user.preprocessing = read_preprocessing(model_file.parent)
    updater = Updater(user, params, params.hyperparameters)
    if user.preprocessing is None and _fits_data(user, project):
        raise UnfittedModelError(
            model_file, params.data.module.name if params.data.module else None
        )
    model = updater.build_model(None)
    _load(unwrap(model), model_file, named=params.model is not None)
    project.scratch.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=project.scratch) as scratch:
        names = label_names(params, None, has_model=True)
        splits, found, fingerprint = _read_old_data(
            user, project, params, old_data, Path(scratch), names
        )
        if found is not None:
            if user.preprocessing is None and not found.is_given:
                raise UnfittedModelError(model_file, found.kind)
            user.preprocessing = found
            fit_preprocessing(found, splits, names.names, params.task, folder)
        else:
            link_preprocessing(model_file.parent, folder)
        updater = Updater(user, params, params.hyperparameters, _silent, names.names)
        if user.preprocessing is not None:
            model.grow_inputs(user.preprocessing.sizes())
        write_model(folder, model)
        datasets = {f"the {name} data": updater.test_set(s) for name, s in splits.items()}
        updater.task.check(model, datasets)
        learner = updater.learner(model, unwrap(model).state_dict())
        with StoreWriter(Path(scratch) / "nothing", update=0):
            pass
        nothing = ExampleStore.open(Path(scratch) / "nothing")
        train = splits.get("train", nothing)
        holdouts = {0: splits["test"]} if "test" in splits else {}
        validation = {0: splits["val"]} if len(splits.get("val", nothing)) else {}
        state.write_split(folder, "holdouts", holdouts)
        state.write_split(folder, "validation", validation)
        measured = updater.examine(model, {n: updater.test_set(s) for n, s in holdouts.items()})
        # Learners may change the model here, so it was measured before.
        new, none = updater.transforms.train, updater.transforms.memory
        learner.start_update(StoredDataset(train, None, *new), StoredDataset(nothing, None, *none))
        (kept, added), fields, _ = learner.choose_memory(at_once=True)
        evolve(folder / "memory", None, kept, train, added, update=0, added_metadata=fields)
        write_learner(folder, learner)
        labels = {c for s in splits.values() for c in StoredDataset(s).classes() or []}
        classes = sorted(labels) if updater.task.loss.task.labelled else []
    history = EvaluationHistory().with_update(0, "after", measured)
    history.write(folder / "evaluations.csv")
    task_ids = {"0": params.update.task_id}
    state.write_manifest(
        folder,
        Provenance(
            "init",
            0,
            learner=params.learner,
            classes=tuple(classes),
            task=updater.task.name,
            task_ids=task_ids,
            labels=updater.labels,
            fingerprint=fingerprint,
        ),
    )


def _fits_data(user: UserConfig, project: Project) -> bool:
    """Return whether the data module that params.yaml names fits something on data."""
    if user.named.module is None:
        return False
    given = {"data_path": str(project.incoming), "seed": 0}
    return user.call("data_module_fn", user.named.arguments, **given).fits_data


def _read_old_data(
    user: UserConfig,
    project: Project,
    params: Params,
    old_data: Path | None,
    scratch: Path,
    names: LabelNames,
) -> tuple[dict[str, ExampleStore], Preprocessing | None, dict[str, str]]:
    """Return the splits of the old data as stores, its preprocessing and its fingerprint.

    There are no splits without old data.
    """
    if old_data is None:
        return {}, None, {}
    new_data.require_files(old_data)
    generators = Generators(params.seed, 0)
    splits = new_data.read_splits(user, old_data, params, generators, project.scratch)
    check_kind(user.preprocessing, splits.preprocessing)
    fingerprint = fingerprint_of(project, params.data.fingerprint, splits.fingerprint)
    stores = new_data.ingest_splits(splits, scratch, update=0, names=names)
    return stores, splits.preprocessing, fingerprint


def _load(module: nn.Module, path: Path, *, named: bool) -> None:
    """Load a state dict strictly, from a file of its own, a Lightning checkpoint, or one of Renate.

    Raises:
        ModelMismatchError: If it cannot be read, or does not match the module's tensors.
    """
    try:
        if path.name == MODEL_FILES[0] and (path.parent / MODEL_FILES[1]).is_file():
            tensors: Any = read_state_dict(path.parent)
        elif path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelMismatchError(
            f"{path} contains no state dict that can be loaded safely ({error})",
            "save it with `torch.save(model.state_dict(), FILE)` or as safetensors",
        ) from error
    tensors = tensors.get("state_dict", tensors) if isinstance(tensors, dict) else {}
    tensors = _of_renate(tensors, module.state_dict().keys())
    extra = module.state_dict().get(EXTRA_STATE)
    if extra is not None:
        stored = tensors.get(EXTRA_STATE)
        grown = stored.get(GROWN) if isinstance(stored, dict) else None
        tensors = {**tensors, EXTRA_STATE: {**extra, **({GROWN: grown} if grown else {})}}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        cure = "let model_fn build the architecture that the weights in the file belong to"
        if named:
            cure = (
                "set the hyperparameters in params.yaml that the model in the file was built with"
            )
        raise ModelMismatchError(str(error), cure) from error


def _silent(message: str) -> None:
    pass


def _of_renate(tensors: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return a state dict of awslabs/Renate as one of the user's module; others unchanged.

    Renate writes the extra state as a tensor of pickled bytes, which is left out, and its
    `RenateWrapper` and checkpoints put `_model.` before all other names.

    Args:
        tensors: The state dict in the file.
        names: The names in the module's own state dict.
    """
    if isinstance(tensors.get(EXTRA_STATE), torch.Tensor):
        tensors = {name: value for name, value in tensors.items() if name != EXTRA_STATE}
    if names and not any(name.startswith(RENATE_PREFIX) for name in names):
        tensors = {name.removeprefix(RENATE_PREFIX): value for name, value in tensors.items()}
    return tensors
