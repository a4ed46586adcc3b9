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


def test_loss_weighs_that_of_er_and_distillation_by_the_share_of_old_classes(tmp_path):
    learner = started(tmp_path)
    parent = copy.deepcopy(learner.model)
    take_steps(learner, 2)
    batch = first_step(learner)
    (drawn,) = batch.memory
    inputs, targets = (
        torch.cat([getattr(each, part) for each in (batch.new, drawn)])
        for part in ("inputs", "targets")
    )
    teacher, student = (
        (model(inputs)[:, :2] / 2).log_softmax(1) for model in (parent, learner.model)
    )
    kl = F.kl_div(student, teacher.detach(), reduction="batchmean", log_target=True)
    share = 2 / 3  # old classes 0 and 1, and class 2 in the new data
    expected = (1 - share) * F.cross_entropy(learner.model(inputs), targets) + share * kl
    torch.testing.assert_close(learner.loss(batch), expected)


@pytest.mark.parametrize("factor", [3.0, 0.2], ids=["longer", "shorter"])
def test_longer_rows_of_new_classes_get_the_mean_length_of_old_ones(tmp_path, factor):
    learner = started(tmp_path)
    take_steps(learner, 3)
    with torch.no_grad():
        learner.model.head.weight[2] *= factor / learner.model.head.weight[2].norm()
        learner.model.head.weight[:2] /= learner.model.head.weight[:2].norm(dim=1, keepdim=True)
    before = {
        name: each.clone() for name, each in learner.model.state_dict().items() if name[0] != "_"
    }
    learner.end_training(None)
    after = learner.model.state_dict()
    weight = after.pop("head.weight")
    old = before.pop("head.weight")
    assert torch.equal(weight[:2], old[:2])
    torch.testing.assert_close(weight[2], old[2] / max(1.0, factor))
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
    with pytest.raises(errors.InvalidHyperparameterError, match="temperature"):
        WeightAligning(context(), temperature=0)
