"""LUCIR: the loss of a step, the rows of old classes, and the models that it takes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored, take_steps
from torch import nn

from renate_stages import errors
from renate_stages.learners.lucir import LUCIR
from renate_stages.models import MLP, RenateModule, RenateWrapper
from renate_stages.tasks.regression import Regression


class CosineHead(nn.Module):
    """The paper's last layer: scaled cosines of features and rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.scale = nn.Parameter(torch.tensor(5.0))

    @property
    def num_outputs(self) -> int:
        return len(self.weight)

    def grow_outputs(self, number: int) -> None:
        raise NotImplementedError

    def forward(self, features):
        return self.scale * F.normalize(features, dim=1) @ F.normalize(self.weight, dim=1).T


class Cosines(RenateModule):
    def __init__(self, head=None, **_) -> None:
        super().__init__({})
        self.features = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
        self.head = head or CosineHead()

    def forward(self, x, task_id=None):
        return self.head(self.features(x))


def started(tmp_path, *, old=(0, 1), classes=(2,), known=(0, 1), model=None, rows=20, **values):
    """Return a learner that has started an update; `known` are the labels of the memory."""
    more = {} if model is None else {"model": model}
    given = context(has_parent=bool(old), old_classes=old, **more)
    learner = LUCIR(given, batch_size=4, memory_batch_size=6, **values)
    new = stored(tmp_path / "new", 12, classes=classes)
    learner.start_update(new, stored(tmp_path / "old", rows, first=50, classes=known))
    return learner


def expected_loss(
    learner, parent, batch, old, new, *, base, margin, weight, hardest
) -> torch.Tensor:
    """Return the paper's loss; the draw may have examples of new classes."""
    (drawn,) = batch.memory
    inputs, targets = (
        torch.cat([getattr(each, part) for each in (batch.new, drawn)])
        for part in ("inputs", "targets")
    )
    model = learner.model
    loss = F.cross_entropy(model(inputs), targets)
    now, before = (F.normalize(each.features(inputs), dim=1) for each in (model, parent))
    ratio = len(old) / len(set(learner.new.labels()))
    loss = loss + base * math.sqrt(ratio) * (1 - (now * before.detach()).sum(1)).mean()
    if not new:
        return loss
    rows = F.normalize(model.head.weight, dim=1)
    ranking = []
    for feature, label in zip(F.normalize(model.features(drawn.inputs), dim=1), drawn.targets,
                              strict=True):  # fmt: skip
        cosines = rows @ feature
        if int(label) in old:
            others = sorted((cosines[each] for each in new), reverse=True)[:hardest]
            ranking.append(sum(torch.relu(margin - cosines[label] + each) for each in others))
        else:
            ranking.append(torch.zeros(()))
    return loss + weight * torch.stack(ranking).mean()


@pytest.mark.parametrize("forward", ["joint", "separate"])
@pytest.mark.parametrize("model", [None, Cosines], ids=["linear", "cosine"])
def test_loss_is_that_of_the_paper(tmp_path, forward, model):
    torch.manual_seed(1)
    learner = started(tmp_path, replay_forward=forward, less_forget_weight=3.0, margin=0.4,
                      margin_weight=0.7, model=model and model())  # fmt: skip
    parent = copy.deepcopy(learner.model)
    take_steps(learner, 3)
    batch = first_step(learner)
    expected = expected_loss(
        learner, parent, batch, [0, 1], [2], base=3.0, margin=0.4, weight=0.7, hardest=1
    )
    torch.testing.assert_close(learner.loss(batch), expected)


@pytest.mark.parametrize("hardest", [1, 2])
def test_hardest_new_classes_are_ranked_below_old_ones_alone(tmp_path, hardest):
    learner = started(tmp_path, old=(0,), classes=(1, 2), known=(0, 1), less_forget_weight=2.0,
                      hard_negatives=hardest)  # fmt: skip
    parent = copy.deepcopy(learner.model)
    take_steps(learner, 3)
    batch = first_step(learner)
    assert {*batch.memory[0].targets.tolist()} == {0, 1}, "the draw has old and new classes"
    expected = expected_loss(
        learner, parent, batch, [0], [1, 2], base=2.0, margin=0.5, weight=1.0, hardest=hardest
    )
    torch.testing.assert_close(learner.loss(batch), expected)


def test_only_rows_of_old_classes_stay_as_they_are(tmp_path):
    learner = started(tmp_path, ema_decay=0.5)
    head = copy.deepcopy(learner.model.head)
    take_steps(learner, 3)
    for now, before in (
        (learner.model.head.weight, head.weight),
        (learner.model.head.bias, head.bias),
    ):
        assert torch.equal(now[:2], before[:2]) and not torch.equal(now[2], before[2])
    averaged = learner.served.head
    torch.testing.assert_close(averaged.weight[:2], head.weight[:2], rtol=0, atol=1e-6)
    assert not torch.equal(
        learner.model.features[1].weight, learner.teacher.model.features[1].weight
    )


def test_first_update_is_that_of_er(tmp_path):
    learner = started(tmp_path, old=(), classes=(0, 1, 2), rows=0)
    batch = first_step(learner)
    expected = F.cross_entropy(learner.model(batch.new.inputs), batch.new.targets)
    torch.testing.assert_close(learner.loss(batch), expected)
    before = learner.model.head.weight.clone()
    take_steps(learner, 2)
    assert (learner.model.head.weight != before).any(1).all(), "no row is fixed"


def test_update_without_new_classes_has_no_ranking(tmp_path):
    learner = started(tmp_path, old=(0, 1, 2), classes=(0, 1, 2), known=(0, 1, 2))
    parent = copy.deepcopy(learner.model)
    take_steps(learner, 2)
    batch = first_step(learner)
    expected = expected_loss(
        learner, parent, batch, [0, 1, 2], [], base=5.0, margin=0.5, weight=0.0, hardest=2
    )
    torch.testing.assert_close(learner.loss(batch), expected)


def test_teacher_has_none_of_the_learners_hooks(tmp_path):
    learner = started(tmp_path)
    backbone = learner.teacher.model.features
    assert not backbone._forward_hooks and learner.model.features._forward_hooks
    learner.loss(first_step(learner))
    assert not backbone._forward_hooks


class Wider(nn.Module):
    """A last layer that takes other values than the features."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 8))

    num_outputs = 3

    def grow_outputs(self, number: int) -> None:
        raise NotImplementedError

    def forward(self, features):
        return torch.cat([features, features**2], dim=1) @ self.weight.T


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: MLP(num_inputs=5, num_outputs=3, heads="per_task"), "no such weight"),
        (lambda: RenateWrapper(nn.Linear(5, 3)), "no submodule `features`"),
        (lambda: Cosines(Wider()), "4 numbers, with the rows of the last layer, 8 numbers"),
    ],
    ids=["per-task heads", "no features", "other values"],
)
def test_model_without_comparable_rows_is_refused_before_training(tmp_path, model, message):
    with pytest.raises(errors.ModelMismatchError, match=message):
        started(tmp_path, model=model())


def test_other_tasks_and_values_outside_their_range_are_refused():
    with pytest.raises(errors.ClassLabelsNeededError, match="LUCIR"):
        LUCIR(context(task=Regression()))
    for wrong in ({"less_forget_weight": -1}, {"margin_weight": -1}, {"margin": 3},
                  {"hard_negatives": 0}):  # fmt: skip
        with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
            LUCIR(context(), **wrong)
