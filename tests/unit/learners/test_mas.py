"""Memory aware synapses, compared with explicit loops over examples."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored, take_steps

from renate_stages import errors
from renate_stages.learners.mas import MAS


def mas(tmp_path, rows: int = 12, given=None, **values) -> MAS:
    name = f"{len(list(tmp_path.iterdir()))}"
    learner = MAS(given or context(), batch_size=4, **values)
    learner.start_update(stored(tmp_path / f"new-{name}", rows), stored(tmp_path / f"no-{name}", 0))
    return learner


def importance(learner: MAS) -> dict[str, torch.Tensor]:
    (penalty,) = learner.parts
    return {name: penalty.importance(name) for name, _ in learner.model.named_parameters()}


def plain_importance(learner: MAS) -> dict[str, torch.Tensor]:
    inputs, _ = learner.new.__getitems__(range(len(learner.new)))
    parameters = dict(learner.model.named_parameters())
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for one in inputs:
        norm = learner.model(one[None]).square().sum()
        found = torch.autograd.grad(norm, list(parameters.values()))
        for name, gradient in zip(parameters, found, strict=True):
            total[name] += gradient.abs()
    return {name: value / len(inputs) for name, value in total.items()}


def test_importance_is_the_mean_gradient_size_of_the_squared_norm(tmp_path):
    learner = mas(tmp_path)
    take_steps(learner, 3)
    learner.end_training(None)
    found, expected = importance(learner), plain_importance(learner)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    assert found["head.weight"].sum() > 0


def test_importance_adds_up_and_the_loss_includes_the_penalty(tmp_path):
    first = mas(tmp_path, mas_weight=0.7)
    take_steps(first, 3)
    first.end_training(None)
    old = {name: value.clone() for name, value in importance(first).items()}
    start = {name: p.detach().clone() for name, p in first.model.named_parameters()}
    second = MAS(
        context(model=first.model, update=2, has_parent=True), batch_size=4, mas_weight=0.7
    )
    second.restore_learner(*first.learner_state())
    second.start_update(stored(tmp_path / "second", 9, first=70), first.memory)
    take_steps(second, 2)
    batch = first_step(second)
    changes = ((p - start[name]) ** 2 for name, p in second.model.named_parameters())
    penalty = sum((o * c).sum() for o, c in zip(old.values(), changes, strict=True))
    expected = F.cross_entropy(second.model(batch.new.inputs), batch.new.targets) + 0.7 * penalty
    torch.testing.assert_close(second.loss(batch), expected)
    assert penalty > 0
    second.end_training(None)
    added = plain_importance(second)
    for name, value in importance(second).items():
        torch.testing.assert_close(value, old[name] + added[name], rtol=1e-4, atol=1e-6)
    state, _ = second.learner_state()
    kinds = {name.split(".")[1].split("/")[0] for name in state}
    assert kinds == {"importance", "anchor"}


@pytest.mark.parametrize("wrong", [{"mas_weight": -1}, {"mas_examples": 0}])
def test_hyperparameter_outside_its_range_is_refused(wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        MAS(context(), **wrong)
