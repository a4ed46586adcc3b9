"""Find out what `learner: auto` needs to know: data, parent and model of an update, before its trials."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from renate_stages import files
from renate_stages.data import StoredDataset
from renate_stages.errors import UnfitHeadError
from renate_stages.evaluation.evaluator import move
from renate_stages.learners.base.closed_form import ClosedFormLearner
from renate_stages.models import RenateModule
from renate_stages.models.features import head_inputs_of
from renate_stages.models.growth import output_layer
from renate_stages.models.module import unwrap
from renate_stages.models.stored import read_tensors
from renate_stages.params import Params
from renate_stages.params.auto_learner import CLOSED_FORM, Situation, stores_examples
from renate_stages.state import LEARNER_FILES, State
from renate_stages.state.prepared import PreparedData
from renate_stages.training.updater import Updater
from renate_stages.user.config import UserConfig

FEW = 0.05  # share of trained parameters up to which features hardly change


def situation_of(
    user: UserConfig,
    params: Params,
    configuration: Mapping[str, Any],
    parent: State,
    data: PreparedData,
) -> Situation:
    """Describe an update by its parameters, its data, its parent and the model of `model_fn`.

    Args:
        user: The user's functions; `model_fn` and the test transforms are called.
        params: Parameters of the update.
        configuration: The middle of the search space, with which the model is built.
        parent: The state to start from.
        data: The new examples.

    Raises:
        RenateStagesError: If the model cannot be built, or does not fit the data or the parent.
    """
    updater = _updater(user, params, configuration, parent, data)
    updater.task.inherit(parent)
    model = updater.build_model(parent.folder if parent.has_model else None)
    new = updater.test_set(data.train)
    updater.make_room(model, new, parent)
    updater.task.find(model, new)
    task, share = updater.task.name, trained_share(model, params.update.task_id)
    frozen, unfit = share <= FEW, unfit_for_outputs(model, new, params.update.task_id)
    if frozen and task == "classification":
        for name in CLOSED_FORM:
            own = _updater(user, params, {**configuration, "learner": name}, parent, data)
            own.task.inherit(parent)
            own.task.find(model, new)
            if why := _unfit_in_closed_form(own, model, new, parent):
                unfit[name] = why
    return Situation(
        task,
        stores_examples(params.hyperparameters),
        not parent.has_model,
        _new_classes(new, parent) if task == "classification" else None,
        share,
        frozen,
        parent.provenance.learner,
        unfit,
    )


def trained_share(model: RenateModule, task_id: str) -> float:
    """Return which share of a model's parameters before its last layer an update trains.

    Args:
        model: The model; if no last layer is found, all parameters count.
        task_id: The task of the update.

    Returns:
        A number in [0, 1]; 0 if there are no parameters before the last layer.
    """
    name = output_layer(unwrap(model))
    last = {id(each) for each in unwrap(model).get_submodule(name).parameters()} if name else set()
    before = [each for each in unwrap(model).parameters() if id(each) not in last]
    trained = {id(each) for each in model.get_params(task_id) if each.requires_grad}
    number = sum(each.numel() for each in before if id(each) in trained)
    return number / max(1, sum(each.numel() for each in before))


def _updater(
    user: UserConfig,
    params: Params,
    configuration: Mapping[str, Any],
    parent: State,
    data: PreparedData,
) -> Updater:
    fixed = params.fixed(configuration)
    labels = data.labels or parent.provenance.labels
    return Updater(user, fixed, fixed.hyperparameters, _silent, labels)


def _new_classes(new: StoredDataset, parent: State) -> tuple[int, ...] | None:
    """Return labels that no earlier update had; None if labels are not known."""
    known, found = parent.provenance, new.classes()
    old = known.classes or tuple(range(len(known.labels)))
    if found is None or (parent.has_model and not old):
        return None
    return tuple(sorted({*found} - {*old}))


def unfit_for_outputs(model: RenateModule, new: StoredDataset, task_id: str) -> dict[str, str]:
    """Return why DER++ cannot store the model's outputs with examples, by its name.

    Args:
        model: The model.
        new: The new examples, with the test transforms.
        task_id: The task of the update.
    """
    spec = new.store.spec
    targets = spec.fields.get("targets") if spec is not None else None
    if targets is not None and targets.ragged:
        return {"DER++": "targets have different lengths"}
    if not len(new):
        return {}
    with torch.inference_mode():
        outputs = model.eval()(_first_inputs(model, new), task_id=task_id)
    return {} if isinstance(outputs, Tensor) else {"DER++": "outputs are not one tensor"}


def _unfit_in_closed_form(
    updater: Updater, model: RenateModule, new: StoredDataset, parent: State
) -> str | None:
    """Return why a learner in closed form cannot be used; None if it can."""
    task_id = updater.params.update.task_id
    try:
        learner = updater.learner(_with_shared_weights(model), {}, parent)
    except UnfitHeadError as error:
        return error.found
    assert isinstance(learner, ClosedFormLearner)
    if len(new) and head_inputs_of(model, _first_inputs(model, new), task_id) is None:
        return "the model does not call its head once, with the features"
    if not parent.has_model or len(parent.memory()):
        return None
    if parent.has_learner:
        tensors = read_tensors(parent.folder / LEARNER_FILES[0])
        learner.restore_learner(tensors, files.read_json(parent.folder / LEARNER_FILES[1]))
    learner.prepare_head()
    if learner.continues_sums:
        return None
    return "the parent has neither sums of these features nor stored examples"


def _with_shared_weights(model: RenateModule) -> RenateModule:
    """Return a copy of a model with its tensors themselves, whose head may be replaced."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(each): each for each in tensors})


def _first_inputs(model: RenateModule, new: StoredDataset) -> Any:
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    return move(new.__getitems__(range(1))[0], device)


def _silent(message: str) -> None:
    pass
