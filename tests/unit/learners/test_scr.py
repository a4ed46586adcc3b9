"""SCR: the contrastive loss, the second view, the nearest means, and two updates of it."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored, take_steps
from small_updates import VALUES, Interrupt, in_memory, state_of, updater, weights, write_examples
from torch import nn

from renate_stages import errors
from renate_stages.data import StoredDataset
from renate_stages.learners.scr import SCR, contrastive_loss
from renate_stages.models import MLP, RenateWrapper
from renate_stages.tasks.regression import Regression
from renate_stages.training.resume import SECONDS_VARIABLE, Resume
from renate_stages.training.update_data import UpdateData


class Views:
    """A transform that records its inputs and returns another view at each call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, inputs):
        self.calls += 1
        return inputs + 0.01 * self.calls


def started(tmp_path, *, rows=20, views=None, given=None, **values) -> SCR:
    learner = SCR(given or context(), batch_size=4, memory_batch_size=6, **values)
    new = stored(tmp_path / "new", 12)
    memory = stored(tmp_path / "old", rows, first=50)
    new, memory = (StoredDataset(each.store, None, views) for each in (new, memory))
    learner.start_update(new, memory)
    return learner


def paper_loss(z, labels, temperature) -> torch.Tensor:
    """Return equation 1, term by term."""
    terms = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        total = sum(torch.exp(z[i] @ z[a] / temperature) for a in others)
        pairs = [a for a in others if labels[a] == labels[i]]
        if pairs:
            shares = [torch.log(torch.exp(z[i] @ z[p] / temperature) / total) for p in pairs]
            terms.append(-sum(shares) / len(pairs))
    return torch.stack(terms).mean()


def test_contrastive_loss_is_that_of_the_paper():
    z = F.normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.tensor([0, 1, 0, 2, 1, 1, 0, 3, 2])  # class 3 has no other view
    torch.testing.assert_close(contrastive_loss(z, labels, 0.3), paper_loss(z, labels, 0.3))
    ignored = torch.cat([labels, torch.tensor([-100, -100])])
    more = torch.cat([z, z[:2]])
    assert torch.equal(contrastive_loss(more, ignored, 0.3), contrastive_loss(z, labels, 0.3))
    assert contrastive_loss(z[:2], torch.tensor([-100, -100]), 0.3) == 0


@pytest.mark.parametrize("forward", ["joint", "separate"])
@pytest.mark.parametrize("rows", [20, 0])
def test_step_contrasts_two_views_of_new_and_remembered_examples(tmp_path, forward, rows):
    views = Views()
    learner = started(
        tmp_path, views=views, rows=rows, replay_forward=forward, contrast_temperature=0.2
    )
    batch = first_step(learner)
    assert len(batch.memory) == (rows > 0)
    before = views.calls
    loss = learner.loss(batch)
    count = sum(len(each) for each in (batch.new, *batch.memory))
    assert views.calls == before + count, "the second view has its own transforms"
    plain = StoredDataset(learner.new.store), StoredDataset(learner.memory.store)
    z, labels, call = [], [], before
    for dataset, each in zip(plain, (batch.new, *batch.memory), strict=False):
        second = dataset.__getitems__(each.rows)[0]
        second = torch.stack([row + 0.01 * (call + n + 1) for n, row in enumerate(second)])
        call += len(each)
        for view in (each.inputs, second):
            z.append(F.normalize(learner.projection.layers(learner.model.features(view)), dim=1))
            labels.append(each.targets)
    torch.testing.assert_close(loss, paper_loss(torch.cat(z), torch.cat(labels), 0.2))


def test_optimizer_trains_features_and_projection(tmp_path):
    learner = started(tmp_path)
    before = copy.deepcopy((learner.model.state_dict(), learner.projection.state_dict()))
    take_steps(learner, 3)
    assert not torch.equal(learner.model.features[1].weight, before[0]["features.1.weight"])
    assert not torch.equal(learner.projection.layers[0].weight, before[1]["layers.0.weight"])


def unit_means(model, dataset, rows) -> dict[int, torch.Tensor]:
    inputs, labels = dataset.__getitems__(rows)
    unit = F.normalize(model.features(inputs), dim=1)
    means = {int(each): unit[labels == each].mean(0) for each in labels.unique()}
    return {label: F.normalize(mean, dim=0).detach() for label, mean in means.items()}


def test_prediction_is_the_nearest_mean_of_the_memory(tmp_path):
    learner = started(tmp_path, rows=0, memory_size=9)
    take_steps(learner, 3)
    learner.end_training(None)
    chosen = learner.choose_memory().selection
    assert len(chosen.added) == 9
    model = learner.model.eval()
    inputs = torch.randn(30, 5)
    unit = F.normalize(model.features(inputs), dim=1)
    expected = unit_means(model, learner.new, chosen.added)
    distances = torch.stack(
        [(unit - expected[c]).norm(dim=1) if c in expected else torch.full((30,), 4.0)
         for c in range(3)], dim=1,
    )  # fmt: skip
    torch.testing.assert_close(model(inputs), -distances)


def test_validation_during_training_uses_means_too(tmp_path):
    learner = started(tmp_path, memory_size=6)
    take_steps(learner, 2)
    head = learner.served.eval().head
    assert head.uses_means and head.known.all()
    labels = learner.new.labels()
    assert np.bincount(labels[learner._some_of_each_class()]).tolist() == [2, 2, 2]
    model = learner.model.train()
    inputs = torch.randn(4, 5)
    torch.testing.assert_close(model(inputs), head.linear(model.features(inputs)))


def test_models_and_tasks_that_cannot_predict_means_are_refused():
    with pytest.raises(errors.ModelMismatchError, match="SCR predicts the nearest class mean"):
        SCR(context(model=RenateWrapper(nn.Linear(5, 3))))
    with pytest.raises(errors.ModelMismatchError, match="SCR"):
        SCR(context(model=MLP(num_inputs=5, num_outputs=3, heads="per_task")))
    with pytest.raises(errors.ClassLabelsNeededError, match="SCR"):
        SCR(context(task=Regression()))


def test_values_outside_their_range_are_refused():
    for wrong in ({"contrast_temperature": 0}, {"projection_size": 0}):
        with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
            SCR(context(), **wrong)


# -- run by the updater ----------------------------------------------------------------------------


EACH = {**VALUES, "dropout": 0.3}


@pytest.fixture
def first(make_state, new, tmp_path):
    """Return the result of a first update, and its state."""
    updated = updater("SCR", EACH).update(UpdateData(make_state(), new))
    return updated, state_of(tmp_path / "first", updated, 1, new=new)


@pytest.fixture
def second(tmp_path):
    return write_examples(tmp_path / "second", 25, first=300)


def assert_equal(one, other):
    mine, theirs = (each.model.state_dict() for each in (one, other))
    assert all(torch.equal(mine[n], theirs[n]) for n in mine if n != "_extra_state")
    (tensors, values), (expected, expected_values) = (
        each.learner.learner_state() for each in (one, other)
    )
    assert values == expected_values and tensors.keys() == expected.keys() and tensors
    assert all(torch.equal(value, expected[name]) for name, value in tensors.items())
    assert one.curves == other.curves
    for part in ("kept", "added"):
        np.testing.assert_array_equal(getattr(one.selection, part), getattr(other.selection, part))


def test_projection_is_kept_for_the_next_update(first, second):
    before, parent = first
    data = UpdateData(parent, second, {2: second})
    stored_one = updater("SCR", EACH, number=2).update(data)
    made = in_memory(updater("SCR", EACH, number=2), before, parent)
    assert_equal(stored_one, made.update(data))
    still = updater("SCR", {**EACH, "learning_rate": 1e-12}, number=2).update(data)
    pairs = zip(still.learner.projection.parameters(), before.learner.projection.parameters(),
                strict=True)  # fmt: skip
    assert all(torch.allclose(*each) for each in pairs)


@pytest.mark.parametrize("values", [{}, {"memory_update": "online", "ema_decay": 0.5}])
def test_resumed_training_has_identical_bytes(first, second, tmp_path, monkeypatch, values):
    monkeypatch.setenv(SECONDS_VARIABLE, "0")
    interrupt = Interrupt()
    made = updater("SCR", {**EACH, **values, }, number=2, max_epochs=5,
                   functions={"train_transform": lambda: interrupt})  # fmt: skip
    data = UpdateData(first[1], second, {2: second})
    straight = made.update(data)
    interrupt.left = (-1 - interrupt.left) // 2
    resume = Resume.of(tmp_path / "resume", "inputs", lambda _: None)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        made.update(data, resume=resume)
    interrupt.left = -1
    assert_equal(made.update(data, resume=resume), straight)


def test_mixed_precision_weights_are_close_to_single_precision(first, second):
    half, single = (
        weights(updater("SCR", EACH, number=2, precision=each).update(UpdateData(first[1], second)))
        for each in ("bf16-mixed", "32-true")
    )
    assert half.dtype == torch.float32 and not torch.equal(half, single)
    torch.testing.assert_close(half, single, rtol=0.1, atol=0.1)


def test_validation_loss_of_each_epoch_is_that_of_the_means(first, second):
    made = updater("SCR", EACH, number=2, keep="best", max_epochs=3)
    updated = made.update(UpdateData(first[1], second, {2: second}))
    assert all(0 < row["val_loss"] < math.log(3) + 2 for row in updated.curves)
    assert updated.model.head.uses_means and updated.model.head.known.all()
