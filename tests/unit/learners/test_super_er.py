"""Super-ER: the sum of its components, and the shrinking before an update."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_learners import CLASSES, context, first_step, stored

from renate_stages import errors
from renate_stages.learners.base.pooled_outputs import distance, pooled
from renate_stages.learners.super_er import SuperER

WEIGHTS = {"der_alpha": 0.3, "consistency_weight": 0.2, "pod_alpha": 0.5}


def started(tmp_path, **values) -> SuperER:
    draw = np.random.default_rng(2)
    learner = SuperER(context(), batch_size=4, memory_batch_size=6, **values)
    kept = {
        "logits": draw.normal(size=(20, CLASSES)).astype(np.float32),
        "pooled": draw.random((20, 8)).astype(np.float32),
    }
    old = stored(tmp_path / "old", 20, first=50, **kept)
    learner.start_update(stored(tmp_path / "new", 12), old)
    return learner


@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_loss_is_the_sum_of_its_components(tmp_path, forward):
    learner = started(tmp_path, replay_forward=forward, **WEIGHTS)
    batch = first_step(learner)
    (drawn,) = batch.memory
    model, teacher = learner.model, learner.consistency.stable.average.module
    outputs = model(drawn.inputs)
    hidden, distances = drawn.inputs, []
    kept = drawn.fields["pooled"].split(4, dim=1)
    for layer in model.features:
        hidden = layer(hidden)
        if isinstance(layer, torch.nn.ReLU):
            now = F.normalize(pooled(hidden, "spatial"), dim=1)
            distances.append(distance(now, kept[len(distances)]).mean())
    both = [batch.new, drawn]
    inputs, targets = (torch.cat([getattr(e, n) for e in both]) for n in ("inputs", "targets"))
    expected = (
        F.cross_entropy(model(inputs), targets)
        + 0.3 * F.mse_loss(outputs, drawn.fields["logits"])
        + 0.2 * F.mse_loss(outputs, teacher(drawn.inputs).detach())
        + 0.5 * torch.stack(distances).mean()
    )
    torch.testing.assert_close(learner.loss(batch), expected)


def test_weights_shrink_and_get_noise_before_the_update(tmp_path):
    given = context()
    before = torch.nn.utils.parameters_to_vector(given.start.model.parameters()).detach().clone()
    learner = started(tmp_path, sp_shrink_factor=0.5, sp_sigma=0.01)
    after = torch.nn.utils.parameters_to_vector(learner.model.parameters()).detach()
    noise = after - 0.5 * before
    assert 0.005 < noise.std() < 0.02
    teacher = torch.nn.utils.parameters_to_vector(learner.consistency.stable.average.parameters())
    assert torch.equal(teacher, before), "teachers start from the parent"


def test_frozen_weights_do_not_shrink(tmp_path):
    given = context()
    given.start.model.features.requires_grad_(False)
    before = given.start.model.features[1].weight.clone()
    learner = SuperER(given, sp_shrink_factor=0.5)
    learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "none", 0))
    assert torch.equal(learner.model.features[1].weight, before)


@pytest.mark.parametrize(
    "wrong",
    [{"der_alpha": -1}, {"pod_alpha": -1}, {"sp_shrink_factor": 1.1}, {"sp_sigma": -1},
     {"pod_distillation_type": "depth"}],
)  # fmt: skip
def test_hyperparameter_outside_its_range_is_refused(wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        SuperER(context(), **wrong)
