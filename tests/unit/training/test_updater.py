"""Model updates, compared with plain PyTorch loops and with repeated runs."""

from __future__ import annotations

import json
import random
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_updates import RATE, VALUES, model_fn, numbers_of, updater, weights, write_examples
from torch import nn

from renate_stages import errors
from renate_stages.data import StoredDataset
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.training import update_task
from renate_stages.training.update_data import UpdateData
from renate_stages.training.updater import Updater


def train_in_plain_loop(updater: Updater, new: ExampleStore, memory: ExampleStore, epochs: int):
    """Train in a plain loop; only the order of the examples comes from the learner."""
    model = updater.build_model(None)
    source = updater.learner(updater.build_model(None), model.state_dict())
    source.start_update(StoredDataset(new), StoredDataset(memory))
    loader = source.train_dataloader()
    for _ in range(epochs):
        # Lightning stops after the last batch; asking for one more would draw from the generator.
        for new_batch, drawn in islice(loader, len(loader)):
            inputs = torch.cat([each.inputs for each in (new_batch, *drawn)])
            targets = torch.cat([each.targets for each in (new_batch, *drawn)])
            loss = F.cross_entropy(model(inputs), targets)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= RATE * gradient
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("learner", ["FineTuning", "ER", "Joint"])
def test_update_equals_a_plain_training_loop(make_state, new, learner):
    parent = make_state(rows=10)
    values = {**VALUES, "reset": True}
    updated = updater(learner, values, max_epochs=3).update(UpdateData(parent, new))
    expected = train_in_plain_loop(updater(learner, values), new, parent.memory(), epochs=3)
    torch.testing.assert_close(weights(updated), expected, rtol=0, atol=1e-6)
    per_epoch = -(-40 // 8) if learner == "Joint" else -(-30 // 8)
    assert updated.steps == 3 * per_epoch
    assert [row["epoch"] for row in updated.curves] == [1, 2, 3]
    assert [row["step"] for row in updated.curves] == [per_epoch * n for n in (1, 2, 3)]
    assert not updated.model.training


def test_epoch_loss_is_the_mean_over_examples(make_state, new):
    values = {**VALUES, "learning_rate": 1e-12}  # too small to change weights in single precision
    made = updater("FineTuning", values, max_epochs=1)
    updated = made.update(UpdateData(make_state(), new, {1: new}))
    inputs, targets = (torch.from_numpy(part) for part in new.gather(np.arange(30)))
    expected = F.cross_entropy(made.build_model(None)(inputs), targets).item()
    (row,) = updated.curves
    assert row["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert row["val_loss"] == pytest.approx(expected, rel=1e-5)
    assert set(row) == {"epoch", "step", "train_loss", "val_loss", "val_accuracy"}


def test_equal_seeds_give_equal_weights_and_memory(make_state, new):
    parent = make_state(rows=10)
    one, same, other_seed, other_update = (
        updater(**options).update(UpdateData(parent, new))
        for options in ({}, {}, {"seed": 1}, {"number": 2})
    )
    assert torch.equal(weights(one), weights(same)) and one.curves == same.curves
    assert np.array_equal(one.selection.added, same.selection.added)
    for other in (other_seed, other_update):
        assert not torch.equal(weights(one), weights(other))


def random_transform():
    def transform(inputs: torch.Tensor) -> torch.Tensor:
        return inputs + random.random() + float(np.random.rand()) + torch.rand(5)

    return transform


def test_random_numbers_in_user_code_are_reproducible(make_state, new):
    found = []
    for disturbance in (0, 1):

        def draws_more(model_state_url=None, dropout=0.0, disturbance=disturbance):
            model = model_fn(dropout=dropout)
            torch.rand(disturbance)
            return model

        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(disturbance)
        functions = {"train_transform": random_transform, "model_fn": draws_more}
        made = updater("ER", {**VALUES, "dropout": 0.5}, functions=functions)
        found.append(weights(made.update(UpdateData(make_state(rows=10), new))))
    assert torch.equal(*found)


def test_er_with_empty_memory_equals_fine_tuning(make_state, new):
    er, tuned = (
        updater(name).update(UpdateData(make_state(), new)) for name in ("ER", "FineTuning")
    )
    assert torch.equal(weights(er), weights(tuned)) and er.curves == tuned.curves


def test_memory_adds_each_new_example_once_after_many_epochs(make_state, new):
    parent = make_state(rows=10)
    updated = updater(values={**VALUES, "memory_size": 1000}, max_epochs=7).update(
        UpdateData(parent, new)
    )
    assert numbers_of(parent.memory(), updated.selection.kept) == list(range(1000, 1010))
    assert numbers_of(new, updated.selection.added) == list(range(30))


def test_memory_is_filled_up_to_its_size_limit(make_state, new):
    parent = make_state(rows=10)
    chosen = updater(max_epochs=1).update(UpdateData(parent, new)).selection
    assert len(chosen.kept) + len(chosen.added) == 20
    assert len(set(chosen.added.tolist())) == len(chosen.added) > 0


def test_fine_tuning_keeps_no_memory_and_no_learner_state(make_state, new):
    updated = updater("FineTuning", max_epochs=1).update(UpdateData(make_state(rows=10), new))
    assert len(updated.selection.kept) == len(updated.selection.added) == 0
    assert updated.learner.learner_state() == ({}, {"learner": "FineTuning"})


def test_joint_without_reset_starts_from_the_given_weights(make_state, new):
    results = []
    for reset in (True, False):
        made = updater("Joint", {**VALUES, "reset": reset}, max_steps=1)
        model = made.build_model(None)
        untrained = made.build_model(None).state_dict()
        with torch.no_grad():
            model.head.bias.add_(1)
        learner = made.learner(model, untrained)
        learner.start_update(StoredDataset(new), StoredDataset(make_state().memory()))
        results.append((model.head.bias - untrained["head.bias"]).abs().max().item())
    assert results == [0, pytest.approx(1)]


def test_fewer_examples_than_the_batch_size_give_one_step_per_epoch(make_state, tmp_path):
    few = write_examples(tmp_path / "few", 3)
    made = updater("ER", {**VALUES, "batch_size": 32}, max_epochs=4)
    updated = made.update(UpdateData(make_state(rows=2), few))
    assert updated.steps == 4
    assert not torch.equal(
        weights(updated), nn.utils.parameters_to_vector(made.build_model(None).parameters())
    )


def test_training_ends_at_max_steps_or_max_epochs_whichever_is_first(make_state, new):
    for limits, steps, epochs in (
        ({"max_steps": 6, "max_epochs": None}, 6, 2),  # an epoch has four steps
        ({"max_steps": 6, "max_epochs": 1}, 4, 1),
        ({"max_steps": 2, "max_epochs": 9}, 2, 1),
    ):
        updated = updater(**limits).update(UpdateData(make_state(), new))
        assert (updated.steps, len(updated.curves)) == (steps, epochs)


@pytest.mark.parametrize(("interval", "limit"), [("step", "max_steps"), ("epoch", "max_epochs")])
def test_custom_lr_scheduler_is_stepped_per_step_or_per_epoch(make_state, new, interval, limit):
    def zero_after_first():
        schedule = torch.optim.lr_scheduler.LambdaLR
        return partial(schedule, lr_lambda=lambda count: 0.0 if count else 1.0), interval

    functions = {"lr_scheduler_fn": zero_after_first}
    long = updater(functions=functions, max_epochs=3).update(UpdateData(make_state(), new))
    short = updater(**{"max_epochs": 3, limit: 1}).update(UpdateData(make_state(), new))
    assert long.steps > short.steps
    assert torch.equal(weights(long), weights(short))


def test_gradient_is_clipped_to_the_given_norm(make_state, new):
    made = updater(max_steps=1, gradient_clip_val=0.01)
    updated = made.update(UpdateData(make_state(), new))
    start = nn.utils.parameters_to_vector(made.build_model(None).parameters())
    assert (weights(updated) - start).norm().item() == pytest.approx(RATE * 0.01, rel=1e-3)


def test_frozen_parameters_are_not_updated(make_state, new):
    def frozen_fn(model_state_url=None):
        model = model_fn()
        model.features.requires_grad_(False)
        return model

    made = updater(functions={"model_fn": frozen_fn})
    updated, start = made.update(UpdateData(make_state(), new)).model, made.build_model(None)
    for name, value in updated.named_parameters():
        same = torch.equal(value, start.get_parameter(name))
        assert same == name.startswith("features"), name


def test_non_finite_loss_aborts_the_update(make_state, tmp_path):
    with StoreWriter(tmp_path / "bad", update=1) as writer:
        writer.append((np.full((9, 5), np.nan, dtype=np.float32), np.zeros(9, dtype=np.int64)))
    bad = ExampleStore.open(tmp_path / "bad")
    with pytest.raises(errors.NotFiniteError, match="after epoch 1") as raised:
        updater().update(UpdateData(make_state(), bad))
    assert "check the inputs for NaN and infinite values" in str(raised.value)


def test_unknown_hyperparameter_error_suggests_the_closest_name():
    with pytest.raises(errors.UnknownHyperparameterError) as raised:
        updater(values={"learing_rate": 0.1, "drop_out": 0.1, "zzz": 1})
    text = str(raised.value)
    assert "'learing_rate', did you mean 'learning_rate'?" in text
    assert "'drop_out', did you mean 'dropout'?" in text
    assert "'zzz'\n" in text
    used = text.partition(" use: ")[2]
    assert "memory_size" in used and "ewc_lambda" not in used and "distillation" not in used


def test_hyperparameters_of_other_learners_are_accepted():
    updater("FineTuning", {"memory_size": 5, "reset": True, "learning_rate": 0.1})


def test_default_optimizer_hyperparameters_are_refused_with_a_custom_optimizer():
    def optimizer_fn(rate: float = 0.1):
        return partial(torch.optim.SGD, lr=rate)

    with pytest.raises(errors.UnknownHyperparameterError, match="'learning_rate'"):
        updater(values={"learning_rate": 0.1}, functions={"optimizer_fn": optimizer_fn})


@pytest.mark.parametrize("accelerator", ["gpuu", "hpu"])
def test_unavailable_accelerator_is_refused_before_training(accelerator):
    with pytest.raises(errors.InvalidParamsError, match=f"trainer: .*'{accelerator}'"):
        updater(accelerator=accelerator)


@pytest.mark.parametrize("policy", ["reservoir", "class_balanced", "greedy", "herding"])
def test_every_memory_policy_keeps_and_adds_examples_in_update_2(make_state, new, tmp_path, policy):
    values = {**VALUES, "memory_policy": policy, "memory_size": 12}
    first = updater(values=values, max_epochs=1).update(UpdateData(make_state(), new))
    assert len(first.selection.added) == 12
    tensors, kept = first.learner.learner_state()
    again = updater(values=values, max_epochs=1, number=2)
    learner = again.learner(again.build_model(None), {})
    learner.restore_learner(tensors, json.loads(json.dumps(kept)))
    old = StoredDataset(new, first.selection.added)
    learner.start_update(StoredDataset(write_examples(tmp_path / "n", 20, 500)), old)
    selection = learner.choose_memory().selection
    assert len(selection.kept) + len(selection.added) == 12 and len(selection.kept) > 0


def test_herding_applies_the_test_transform_and_leaves_the_model_in_eval_mode(make_state, new):
    seen = []

    def test_transform():
        return lambda inputs: (seen.append(1), inputs)[1]

    values = {**VALUES, "memory_policy": "herding", "memory_size": 9}
    functions = {"test_transform": test_transform}
    chosen = updater(values=values, functions=functions, max_epochs=1).update(
        UpdateData(make_state(), new)
    )
    checked = min(len(new), update_task.ROWS)  # before training
    assert len(seen) == checked + len(new) and not chosen.model.training
    labels = new.column("targets")[chosen.selection.added]
    assert np.bincount(labels, minlength=3).tolist() == [3, 3, 3]


def test_memory_size_in_bytes_limits_the_number_of_examples(make_state, new):
    row = 5 * 4 + 8
    values = {**VALUES, "memory_size": f"{7 * row + 3} B"}
    chosen = updater(values=values, max_epochs=1).update(UpdateData(make_state(), new))
    assert len(chosen.selection.added) == 7
    with pytest.raises(errors.InvalidMemorySizeError, match="500 MB"):
        updater(values={**VALUES, "memory_size": "7 rows"}).update(UpdateData(make_state(), new))
