"""L2-SP and L2 Init, compared with their equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored, take_steps

from renate_stages import errors
from renate_stages.learners.l2 import L2SP, L2Init


def started(tmp_path, learner):
    name = f"{len(list(tmp_path.iterdir()))}"
    learner.start_update(stored(tmp_path / f"new-{name}", 12), stored(tmp_path / f"no-{name}", 0))
    return learner


def distance(learner, start: dict[str, torch.Tensor]) -> torch.Tensor:
    terms = ((p - start[name]) ** 2 for name, p in learner.model.named_parameters())
    return torch.stack([term.sum() for term in terms]).sum()


def supervised(learner, batch) -> torch.Tensor:
    return F.cross_entropy(learner.model(batch.new.inputs), batch.new.targets)


def test_l2_sp_penalizes_the_distance_from_the_parents_weights(tmp_path):
    learner = started(tmp_path, L2SP(context(has_parent=True), batch_size=4, l2_weight=3.0))
    start = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    take_steps(learner, 3)
    batch = first_step(learner)
    expected = supervised(learner, batch) + 1.5 * distance(learner, start)
    torch.testing.assert_close(learner.loss(batch), expected)
    assert distance(learner, start) > 0
    assert learner.learner_state()[0] == {}


def test_l2_sp_without_a_parent_is_fine_tuning(tmp_path):
    learner = started(tmp_path, L2SP(context(), batch_size=4, l2_weight=3.0))
    take_steps(learner, 3)
    batch = first_step(learner)
    torch.testing.assert_close(learner.loss(batch), supervised(learner, batch))


def test_l2_init_penalizes_the_distance_from_the_first_weights_in_every_update(tmp_path):
    first = started(tmp_path, L2Init(context(), batch_size=4, init_weight=0.5))
    initial = {name: p.detach().clone() for name, p in first.model.named_parameters()}
    take_steps(first, 3)
    first.end_training(None)
    second = L2Init(
        context(model=first.model, update=2, has_parent=True), batch_size=4, init_weight=0.5
    )
    second.restore_learner(*first.learner_state())
    started(tmp_path, second)
    take_steps(second, 2)
    batch = first_step(second)
    expected = supervised(second, batch) + 0.5 * distance(second, initial)
    torch.testing.assert_close(second.loss(batch), expected)


@pytest.mark.parametrize(("learner", "name"), [(L2SP, "l2_weight"), (L2Init, "init_weight")])
def test_negative_weight_is_refused(learner, name):
    with pytest.raises(errors.InvalidHyperparameterError, match=name):
        learner(context(), **{name: -1.0})
