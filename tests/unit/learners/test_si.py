"""Synaptic intelligence, compared with the sums of its paper written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored

from renate_stages import errors
from renate_stages.learners.si import SI

WEIGHT, DAMPING = 3.0, 0.01
Weights = dict[str, torch.Tensor]


def weights(learner: SI) -> Weights:
    return {name: p.detach().clone() for name, p in learner.model.named_parameters()}


def importance(learner: SI) -> Weights:
    (penalty,) = learner.parts
    return {name: penalty.importance(name).clone() for name, _ in learner.model.named_parameters()}


def take_measured_steps(learner: SI, count: int) -> Weights:
    """Train as Lightning does; return the sum of -g (theta' - theta), g of the loss alone."""
    optimizer, path = learner.configure_optimizers(), {}
    for _, batch in zip(range(count), learner.train_dataloader(), strict=False):
        names = dict(learner.model.named_parameters())
        loss = F.cross_entropy(learner.model(batch.new.inputs), batch.new.targets)
        gradients = torch.autograd.grad(loss, list(names.values()))
        before = weights(learner)
        optimizer.zero_grad()
        learner.training_step(batch, 0).backward()
        optimizer.step()
        learner.after_step()
        after = weights(learner)
        for name, gradient in zip(names, gradients, strict=True):
            step = -gradient * (after[name] - before[name])
            path[name] = path.get(name, 0) + step
    return path


def si(tmp_path, update: int = 1, **changes) -> SI:
    learner = SI(
        context(update=update, **changes), batch_size=4, si_weight=WEIGHT, si_damping=DAMPING
    )
    if update == 1:
        learner.start_update(stored(tmp_path / "new", 20), stored(tmp_path / "none", 0))
    return learner


def expected_of(path: Weights, start: Weights, end: Weights) -> Weights:
    return {
        name: path[name].clamp(min=0) / ((end[name] - start[name]) ** 2 + DAMPING) for name in path
    }


def test_importance_and_penalty_are_those_of_the_paper_over_two_updates(tmp_path):
    first = si(tmp_path)
    start = weights(first)
    path = take_measured_steps(first, 4)
    end = weights(first)
    first.end_training(None)
    old = expected_of(path, start, end)
    for name, value in importance(first).items():
        torch.testing.assert_close(value, old[name], rtol=1e-4, atol=1e-7)
    assert sum(float(value.sum()) for value in old.values()) > 0

    second = si(tmp_path, 2, model=first.model, has_parent=True)
    second.restore_learner(*first.learner_state())
    second.start_update(stored(tmp_path / "second", 20, first=70), first.memory)
    path = take_measured_steps(second, 4)  # with a penalty, whose gradient does not count
    batch = first_step(second)
    penalty = sum(
        (old[name] * (p - end[name]) ** 2).sum() for name, p in second.model.named_parameters()
    )
    expected = F.cross_entropy(second.model(batch.new.inputs), batch.new.targets) + WEIGHT * penalty
    torch.testing.assert_close(second.loss(batch), expected)
    assert penalty > 0
    now = weights(second)
    second.end_training(None)
    added = expected_of(path, end, now)
    for name, value in importance(second).items():
        torch.testing.assert_close(value, old[name] + added[name], rtol=1e-3, atol=1e-6)


def test_state_has_two_numbers_per_weight(tmp_path):
    learner = si(tmp_path)
    take_measured_steps(learner, 2)
    learner.end_training(None)
    state, _ = learner.learner_state()
    count = sum(p.numel() for p in learner.model.parameters())
    assert sum(value.numel() for value in state.values()) == 2 * count


def test_weight_without_a_gradient_has_no_importance(tmp_path):
    given = context()
    given.start.model.register_parameter("unused", torch.nn.Parameter(torch.ones(2)))
    learner = SI(given, batch_size=4)
    learner.start_update(stored(tmp_path / "new", 20), stored(tmp_path / "none", 0))
    optimizer = learner.configure_optimizers()
    for batch in learner.train_dataloader():
        optimizer.zero_grad()
        learner.training_step(batch, 0).backward()
        optimizer.step()
        learner.after_step()
    learner.end_training(None)
    assert not importance(learner)["unused"].any()


@pytest.mark.parametrize("wrong", [{"si_weight": -1}, {"si_damping": 0}, {"si_damping": "x"}])
def test_hyperparameter_outside_its_range_is_refused(wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        SI(context(), **wrong)
