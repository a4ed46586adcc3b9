"""Learners compared with plain references, and `run_training_job`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored
from small_project import REPOSITORY

from renate_stages import errors, run_training_job
from renate_stages.actions.example_data import write_digits
from renate_stages.data import StoredDataset
from renate_stages.learners import registry
from renate_stages.learners.base import hyperparameters_of
from renate_stages.learners.er import ExperienceReplay
from renate_stages.learners.fine_tuning import FineTuning
from renate_stages.learners.scratch import Joint

VALUES = {
    "optimizer": "SGD",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "batch_size": 32,
    "memory_batch_size": 32,
    "memory_size": 300,
    "hidden_size": 128,
}


@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_er_loss_is_the_mean_over_new_and_replayed_examples(tmp_path, forward):
    new, old = stored(tmp_path / "new", 12), stored(tmp_path / "old", 9, first=50)
    learner = ExperienceReplay(context(), batch_size=4, memory_batch_size=6, replay_forward=forward)
    learner.start_update(new, old)
    batch = first_step(learner)
    (drawn,) = batch.memory
    expected = F.cross_entropy(
        learner.model(torch.cat([batch.new.inputs, drawn.inputs])),
        torch.cat([batch.new.targets, drawn.targets]),
    )
    assert (len(batch.new), len(drawn)) == (4, 6)
    torch.testing.assert_close(learner.loss(batch), expected)


def test_er_with_an_empty_memory_equals_fine_tuning(tmp_path):
    new, none = stored(tmp_path / "new", 12), stored(tmp_path / "none", 0)
    losses = []
    for kind in (ExperienceReplay, FineTuning):
        learner = kind(context(), batch_size=4)
        learner.start_update(new, none)
        losses.append([learner.loss(batch).item() for batch in learner.train_dataloader()])
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_memory_selection_continues_from_a_restored_learner_state(tmp_path):
    none, first = stored(tmp_path / "none", 0), stored(tmp_path / "first", 20)
    second = stored(tmp_path / "second", 30)
    whole = ExperienceReplay(context(), memory_size=8)
    whole.start_update(first, none)
    old = StoredDataset(first.store, whole.choose_memory().selection.added)
    resumed = ExperienceReplay(context(update=2), memory_size=8)
    resumed.restore_learner(*whole.learner_state())
    found = []
    for learner in (whole, resumed):
        learner.start_update(second, old)
        found.append(learner.choose_memory().selection)
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)
    assert len(found[0].kept) + len(found[0].added) == 8
    assert len(np.unique(found[0].added)) == len(found[0].added), "each example at most once"


def test_joint_keeps_all_examples_and_starts_from_untrained_weights(tmp_path):
    new, old = stored(tmp_path / "new", 12), stored(tmp_path / "old", 9)
    given = context()
    with torch.no_grad():
        for parameter in given.start.model.parameters():
            parameter.add_(1)
    joint = Joint(given, batch_size=7)
    joint.start_update(new, old)
    for name, value in joint.model.named_parameters():
        assert torch.equal(value, given.start.untrained[name])
    assert sum(len(batch.new) for batch in joint.train_dataloader()) == 21
    chosen = joint.choose_memory().selection
    assert (len(chosen.kept), len(chosen.added)) == (9, 12)


def test_compute_matched_joint_takes_as_many_steps_as_fine_tuning(tmp_path):
    new, old = stored(tmp_path / "new", 12), stored(tmp_path / "old", 9)
    joint = Joint(context(), batch_size=5, budget="compute_matched")
    joint.start_update(new, old)
    seen = [row for _ in range(7) for batch in joint.train_dataloader() for row in batch.new.rows]
    assert len(seen) == 7 * 3 * 5
    assert np.bincount(seen).tolist() == [5] * 21, "every example is seen equally often"


def test_hyperparameters_of_a_learner_include_those_of_its_base_classes():
    base = {"batch_size", "ema_decay", "mask_unused_classes", "perturb", "reinitialize", "shrink"}
    base |= {"maturity_threshold", "replacement_rate", "utility_decay"}
    assert set(hyperparameters_of(FineTuning)) == base
    assert set(hyperparameters_of(Joint)) == base | {"reset", "budget"}
    assert set(hyperparameters_of(registry.learner_class("DER++"))) == base | {
        "alpha",
        "beta",
        "loss_normalization",
        "loss_weight",
        "memory_batch_size",
        "memory_policy",
        "memory_size",
        "memory_update",
        "replay_forward",
    }


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"memory_size": 1.5}, {"memory_batch_size": True}]
)
def test_hyperparameter_outside_its_range_is_refused(wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        ExperienceReplay(context(), **wrong)


def three_updates(folder, learner: str, values=VALUES) -> list[dict]:
    results, source = [], None
    for number in (1, 2, 3):
        data, target = folder / f"data-{number}", folder / learner / str(number)
        if not data.exists():
            write_digits(data, number)
        result = run_training_job(
            values,
            updater=learner,
            max_epochs=20,
            config_file=REPOSITORY / "renate_config.py",
            data_path=data,
            input_state_url=source,
            output_state_url=target,
        )
        results.append(result.metrics)
        source = target
    return results


@pytest.mark.parametrize(
    ("learner", "own", "least", "most"),
    [
        ("DER++", {}, 0.94, 1),  # test_documents.py checks ER, Joint and FineTuning
        ("ER-ACE", {}, 0.90, 1),  # with memory_update: end it would learn no new class
        ("PODNet", {"memory_size": 100}, 0.93, 1),  # ER reaches 0.88
        ("LatentReplay", {"latent_layer": "features.2"}, 0.90, 1),
    ],
)
def test_accuracy_after_three_updates_is_in_the_expected_range(tmp_path, learner, own, least, most):
    accuracy = three_updates(tmp_path, learner, {**VALUES, **own})[-1]["accuracy"]
    assert least <= accuracy["overall"] <= most
    assert accuracy["holdout"]["3"] > 0.9, "the newest classes are learned"


def test_training_job_changes_neither_its_arguments_nor_an_existing_state(tmp_path):
    write_digits(tmp_path / "data", 1)
    space = {**VALUES, "batch_memory_frac": 0.25}
    given = dict(space)
    arguments = {
        "max_epochs": 1,
        "config_file": REPOSITORY / "renate_config.py",
        "data_path": tmp_path / "data",
        "output_state_url": tmp_path / "state",
    }
    result = run_training_job(space, **arguments)
    assert space == given
    assert result.metrics["training"]["steps"] == -(-518 // 24), "24 new and 8 replayed a step"
    with pytest.raises(errors.StateExistsError, match="nothing that exists is ever replaced"):
        run_training_job(space, **arguments)
    with pytest.raises(errors.InvalidParamsError, match="did you mean 'prefetch'"):
        run_training_job(space, **arguments | {"output_state_url": None}, trainer={"prefetsh": 1})
    with pytest.raises(errors.UnsupportedLocationError, match="did you mean 'sagemaker'"):
        run_training_job(space, backend="sagemakr", **arguments)
    with pytest.raises(errors.InvalidParamsError, match=r"remote\.url: SageMaker needs s3://"):
        run_training_job(space, backend="sagemaker", **arguments | {"output_state_url": None})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "state"]
