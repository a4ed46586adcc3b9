"""Weight aligning: the loss of a step, and the lengths of the head's rows after training."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored, take_steps
from torch import nn

from renate_stages import errors
from renate_stages.learners.wa import WeightAligning
from renate_stages.models import MLP
from renate_stages.tasks.regression import Regression


def started(tmp_path, *, old=(0, 1), classes=(2,), **values) -> WeightAligning:
    given = context(has_parent=True, old_classes=old)
    learner = WeightAligning(given, batch_size=4, memory_batch_size=6, **values)
    new = stored(tmp_path / "new", 12, classes=classes)
    learner.start_update(new, stored(tmp_path / "old", 20, first=50, classes=(0, 1)))
    return learner


def test_loss_is_that_of_er_plus_distillation(tmp_path):
    learner = started(tmp_path, distillation_weight=0.7)
    parent = copy.deepcopy(learner.model)
    take_steps(learner, 2)
    batch = first_step(learner)
    (drawn,) = batch.memory
    inputs, targets = (
        torch.cat([getattr(each, part) for each in (batch.new, drawn)])
        for part in ("inputs", "targets")
    )
    teacher, student = (
        (model(batch.new.inputs)[:, :2] / 2).log_softmax(1) for model in (parent, learner.model)
    )
    kl = F.kl_div(student, teacher.detach(), reduction="batchmean", log_target=True)
    expected = F.cross_entropy(learner.model(inputs), targets) + 0.7 * 4 * kl
    torch.testing.assert_close(learner.loss(batch), expected)


def test_rows_of_new_classes_get_the_mean_length_of_old_ones(tmp_path):
    learner = started(tmp_path)
    take_steps(learner, 3)
    before = {
        name: each.clone() for name, each in learner.model.state_dict().items() if name[0] != "_"
    }
    learner.end_training(None)
    after = learner.model.state_dict()
    weight = after.pop("head.weight")
    old = before.pop("head.weight")
    gamma = old[:2].norm(dim=1).mean() / old[2].norm()
    assert torch.equal(weight[:2], old[:2])
    torch.testing.assert_close(weight[2], gamma * old[2])
    assert abs(float(gamma) - 1) > 0.01
    assert all(torch.equal(after[name], each) for name, each in before.items())


@pytest.mark.parametrize(("old", "classes"), [((), (0, 1, 2)), ((0, 1, 2), (0, 1, 2))])
def test_weights_are_not_aligned_without_old_or_without_new_classes(tmp_path, old, classes):
    learner = started(tmp_path, old=old, classes=classes)
    take_steps(learner, 3)
    before = learner.model.head.weight.clone()
    learner.end_training(None)
    assert torch.equal(learner.model.head.weight, before)


def test_model_without_a_linear_last_layer_is_refused_before_training(tmp_path):
    model = MLP(num_inputs=5, num_outputs=3, heads="per_task")
    learner = WeightAligning(context(model=model))
    with pytest.raises(errors.ModelMismatchError, match="last linear layer"):
        learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "none", 0))
    assert isinstance(MLP(5, 3).head, nn.Linear)


def test_other_tasks_and_values_outside_their_range_are_refused():
    with pytest.raises(errors.ClassLabelsNeededError, match="WA"):
        WeightAligning(context(task=Regression()))
    for wrong in ({"temperature": 0}, {"distillation_weight": -1}):
        with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
            WeightAligning(context(), **wrong)
