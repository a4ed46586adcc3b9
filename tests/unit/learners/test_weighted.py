"""Weighted losses on new and remembered examples, compared with Renate's formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_learners import CLASSES, context, first_step, stored

from renate_stages import errors
from renate_stages.data import StoredDataset
from renate_stages.learners.der import DarkExperienceReplayPlusPlus
from renate_stages.learners.er import ExperienceReplay
from renate_stages.learners.pod_er import PODER
from renate_stages.memory import ExampleStore

SIZES = {"batch_size": 4, "memory_batch_size": 6}


def started(learner, tmp_path, old: int = 20, **metadata):
    stored(tmp_path / "new", 12)
    stored(tmp_path / "old", old, first=50, **metadata)
    stores = (StoredDataset(ExampleStore.open(tmp_path / name)) for name in ("new", "old"))
    learner.start_update(*stores)
    return learner


def cross_entropy(learner, batch):
    return F.cross_entropy(learner.model(batch.inputs), batch.targets)


@pytest.mark.parametrize("forward", ["joint", "separate"])
@pytest.mark.parametrize(
    ("weights", "new", "old", "divisor"),
    [
        ({"replay_weight": 0.5}, 1.0, 0.5, 1.0),
        ({"replay_weight": 0.5, "loss_weight": 0.25}, 0.25, 0.5, 1.0),
        ({"replay_weight": 0.5, "loss_normalization": True}, 1.0, 0.5, 1.5),
        ({"loss_weight": 3.0}, 3.0, 1.0, 1.0),
        ({"loss_normalization": True}, 1.0, 1.0, 2.0),
        ({"replay_weight": 0.0, "loss_normalization": True}, 1.0, 0.0, 1.0),
    ],
)
def test_weighted_er_loss_is_the_weighted_sum_of_two_means(
    tmp_path, forward, weights, new, old, divisor
):
    learner = started(
        ExperienceReplay(context(), replay_forward=forward, **weights, **SIZES), tmp_path
    )
    batch = first_step(learner)
    (drawn,) = batch.memory
    expected = new * cross_entropy(learner, batch.new) + old * cross_entropy(learner, drawn)
    torch.testing.assert_close(learner.loss(batch), expected / divisor)


def test_weighted_er_without_memory_does_not_normalize(tmp_path):
    weights = {"loss_weight": 2.0, "loss_normalization": True}
    learner = started(ExperienceReplay(context(), **weights, **SIZES), tmp_path, old=0)
    batch = first_step(learner)
    torch.testing.assert_close(learner.loss(batch), 2 * cross_entropy(learner, batch.new))


def test_normalized_der_pp_divides_by_all_weights(tmp_path):
    logits = np.random.default_rng(9).normal(size=(20, CLASSES)).astype(np.float32)
    weights = {"alpha": 0.2, "beta": 0.7, "loss_weight": 0.5, "loss_normalization": True}
    learner = started(
        DarkExperienceReplayPlusPlus(context(), **weights, **SIZES), tmp_path, logits=logits
    )
    batch = first_step(learner)
    dark, labelled = batch.memory
    z = torch.from_numpy(logits)[torch.from_numpy(dark.rows)]
    expected = 0.5 * cross_entropy(learner, batch.new) + 0.7 * cross_entropy(learner, labelled)
    expected = expected + 0.2 * ((learner.model(dark.inputs) - z) ** 2).mean()
    torch.testing.assert_close(learner.loss(batch), expected / (0.5 + 0.7 + 0.2))


def test_pod_er_with_replay_weight_zero_does_not_replay_labels(tmp_path):
    learner = started(
        PODER(context(), alpha=2.0, replay_weight=0.0, loss_normalization=True, **SIZES), tmp_path
    )
    batch = first_step(learner)
    (pod,) = learner.active
    assert type(pod).__name__ == "PooledOutputDistillation"
    new, draws = learner.pass_all(batch.new, batch.memory)
    expected = (cross_entropy(learner, batch.new) + 2 * pod(new, draws[0])) / 3
    torch.testing.assert_close(learner.total(new, draws), expected)


@pytest.mark.parametrize(
    "wrong", [{"loss_weight": -1}, {"replay_weight": "1"}, {"loss_normalization": "yes"}]
)
def test_wrong_weights_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(errors.InvalidHyperparameterError, match=name):
        ExperienceReplay(context(), **wrong, **SIZES)
