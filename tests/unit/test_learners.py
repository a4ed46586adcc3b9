"""Learners against plain references, and the job that runs them from Python."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_project import REPOSITORY

from renate_stages import errors, run_training_job
from renate_stages.data import StoredDataset, write_digits
from renate_stages.learners.base import FineTuning, UpdateContext, hyperparameters_of
from renate_stages.learners.joint import Joint
from renate_stages.learners.replay import ExperienceReplay
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import MLP
from renate_stages.optimization import default_loss, default_optimizer
from renate_stages.randomness import Generators

VALUES = {
    "optimizer": "SGD",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "batch_size": 32,
    "memory_batch_size": 32,
    "memory_size": 300,
    "hidden_size": 128,
}


def stored(path, rows: int, first: int = 0) -> StoredDataset:
    generator = np.random.default_rng(rows + first)
    with StoreWriter(path, update=1) as writer:
        if rows:
            inputs = generator.normal(size=(rows, 5)).astype(np.float32)
            writer.append((inputs, np.arange(first, first + rows) % 3))
    return StoredDataset(ExampleStore.open(path))


def context(update: int = 1) -> UpdateContext:
    torch.manual_seed(0)
    model = MLP(num_inputs=5, num_outputs=3, hidden_size=4)
    untrained = {name: value.clone() for name, value in model.state_dict().items()
                 if isinstance(value, torch.Tensor)}  # fmt: skip
    return UpdateContext(
        model=model,
        untrained={**untrained, "_extra_state": model.get_extra_state()},
        loss_fn=default_loss,
        optimizer_fn=partial(default_optimizer, learning_rate=0.1),
        lr_scheduler_fn=None,
        task_id="default_task",
        generators=Generators(0, update),
    )


def test_a_step_of_er_is_the_mean_loss_over_both_batches(tmp_path):
    new, old = stored(tmp_path / "new", 12), stored(tmp_path / "old", 9, first=50)
    learner = ExperienceReplay(context(), batch_size=4, memory_batch_size=6)
    learner.start_update(new, old)
    batch = next(iter(learner.train_dataloader()))
    same = ExperienceReplay(context(), batch_size=4, memory_batch_size=6)
    same.start_update(new, old)
    replayed = same.draw()
    inputs = torch.cat([batch[0], replayed[0]])
    targets = torch.cat([batch[1], replayed[1]])
    expected = F.cross_entropy(same.model(inputs), targets)
    assert (len(batch[1]), len(replayed[1])) == (4, 6)
    torch.testing.assert_close(learner.loss(batch), expected)


def test_er_with_nothing_to_replay_is_fine_tuning(tmp_path):
    new, none = stored(tmp_path / "new", 12), stored(tmp_path / "none", 0)
    losses = []
    for kind in (ExperienceReplay, FineTuning):
        learner = kind(context(), batch_size=4)
        learner.start_update(new, none)
        losses.append([learner.loss(batch).item() for batch in learner.train_dataloader()])
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_the_stream_of_the_memory_continues_over_updates(tmp_path):
    none, first = stored(tmp_path / "none", 0), stored(tmp_path / "first", 20)
    second = stored(tmp_path / "second", 30)
    whole = ExperienceReplay(context(), memory_size=8)
    chosen = whole.choose_memory(none, first)
    old = StoredDataset(first.store, chosen.added)
    resumed = ExperienceReplay(context(update=2), memory_size=8)
    resumed.restore_learner(*whole.learner_state())
    expected = whole.choose_memory(old, second)
    found = resumed.choose_memory(old, second)
    assert np.array_equal(found.kept, expected.kept) and np.array_equal(found.added, expected.added)
    assert len(found.kept) + len(found.added) == 8
    assert len(np.unique(found.added)) == len(found.added), "each example at most once"


def test_joint_keeps_everything_and_starts_anew(tmp_path):
    new, old = stored(tmp_path / "new", 12), stored(tmp_path / "old", 9)
    given = context()
    with torch.no_grad():
        for parameter in given.model.parameters():
            parameter.add_(1)
    joint = Joint(given, batch_size=7)
    joint.start_update(new, old)
    for name, value in joint.model.named_parameters():
        assert torch.equal(value, given.untrained[name])
    assert sum(len(targets) for _, targets in joint.train_dataloader()) == 21
    chosen = joint.choose_memory(old, new)
    assert (len(chosen.kept), len(chosen.added)) == (9, 12)


def test_hyperparameters_are_those_of_the_class_and_its_bases():
    assert set(hyperparameters_of(ExperienceReplay)) == {
        "batch_size",
        "memory_size",
        "memory_batch_size",
        "memory_policy",
    }
    assert set(hyperparameters_of(Joint)) == {"batch_size", "reset"}


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"memory_size": 1.5}, {"memory_batch_size": True}]
)
def test_a_value_outside_its_range_is_refused(wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        ExperienceReplay(context(), **wrong)


def three_updates(folder, learner: str) -> list[dict]:
    results, source = [], None
    for number in (1, 2, 3):
        data, target = folder / f"data-{number}", folder / learner / str(number)
        if not data.exists():
            write_digits(data, number)
        result = run_training_job(
            VALUES,
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
    ("learner", "least", "most"), [("ER", 0.90, 1), ("Joint", 0.94, 1), ("FineTuning", 0, 0.50)]
)
def test_accuracy_over_all_classes_after_three_updates(tmp_path, learner, least, most):
    accuracy = three_updates(tmp_path, learner)[-1]["accuracy"]
    assert least <= accuracy["overall"] <= most
    assert accuracy["holdout"]["3"] > 0.9, "it has learned the newest classes"


def test_a_job_changes_neither_its_arguments_nor_an_earlier_state(tmp_path):
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
    with pytest.raises(errors.StateExistsError, match="no state is ever replaced"):
        run_training_job(space, **arguments)
    with pytest.raises(errors.UnsupportedLocationError, match="s3://"):
        run_training_job(space, **{**arguments, "output_state_url": "s3://bucket/state"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "state"]
