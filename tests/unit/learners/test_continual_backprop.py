"""Continual backprop, compared with a plain loop over units."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from small_learners import context, first_step, stored
from torch import nn

from renate_stages import errors
from renate_stages.learners.base import continual_backprop
from renate_stages.learners.cls_er import CLSER
from renate_stages.learners.er import ExperienceReplay
from renate_stages.learners.fine_tuning import FineTuning
from renate_stages.learners.si import SI
from renate_stages.models import MLP, RenateWrapper, SmallCNN

RATE, MATURITY, DECAY = 0.3, 3, 0.9
OPTION = {"replacement_rate": RATE, "maturity_threshold": MATURITY, "utility_decay": DECAY}


def started(tmp_path, given=None, kind=FineTuning, **values):
    adam = partial(torch.optim.Adam, lr=0.05)
    learner = kind(given or context(optimizer_fn=adam), batch_size=4, **{**OPTION, **values})
    learner.start_update(stored(tmp_path / "new", 40), stored(tmp_path / "none", 0))
    learner.change_weights()
    return learner


def test_replaced_units_are_those_of_a_plain_loop(tmp_path):
    learner = started(tmp_path)
    (component,) = learner.parts
    optimizer = learner.configure_optimizers()
    model = learner.model.train()
    first, second = model.features[1], model.features[3]
    layers = [(first, second), (second, model.head)]
    utility = [[0.0] * 4 for _ in layers]
    age, due, replaced = [[0] * 4 for _ in layers], [0.0, 0.0], 0
    for batch in learner.train_dataloader():
        optimizer.zero_grad()
        hidden = [model.features[:3](batch.new.inputs), model.features(batch.new.inputs)]
        component._seen.clear()
        learner.training_step(batch, 0).backward()
        optimizer.step()
        weights = [(a.weight.detach().clone(), b.weight.detach().clone()) for a, b in layers]
        learner.after_step()
        for place, (incoming, outgoing) in enumerate(layers):
            for unit in range(4):
                mean = float(hidden[place][:, unit].detach().abs().mean())
                # Layers are handled in order, so an earlier one may have zeroed incoming weights.
                total = float(weights[place][1][:, unit].abs().sum())
                utility[place][unit] = DECAY * utility[place][unit] + (1 - DECAY) * mean * total
                age[place][unit] += 1
            mature = [unit for unit in range(4) if age[place][unit] > MATURITY]
            due[place] += RATE * len(mature)
            chosen = sorted(mature, key=lambda u: utility[place][u])[: math.floor(due[place])]
            due[place] -= len(chosen)
            replaced += len(chosen)
            for unit in chosen:
                utility[place][unit] = age[place][unit] = 0
                assert incoming.bias[unit] == 0
                kept = component.get_buffer("age/1") > 0  # rows of new units were drawn later
                rows = outgoing.weight[:, unit]
                assert not (rows[kept] if outgoing is second else rows).any()
                for value in ("exp_avg", "exp_avg_sq"):
                    assert not optimizer.state[outgoing.weight][value][:, unit].any()
                    assert not optimizer.state[incoming.bias][value][unit]
                    assert not optimizer.state[incoming.weight][value][unit].any()
                bound = incoming.in_features**-0.5
                assert incoming.weight[unit].abs().max() <= bound
                assert not torch.equal(incoming.weight[unit], weights[place][0][unit])
            for unit in set(range(4)) - {*chosen}:
                columns = set(range(incoming.in_features))
                if place:  # columns of units of the layer before were zeroed
                    columns = {c for c in columns if age[0][c]}
                own = sorted(columns)
                assert torch.equal(incoming.weight[unit, own], weights[place][0][unit, own])
            found = component.get_buffer(f"utility/{place}")
            torch.testing.assert_close(found, torch.tensor(utility[place]), rtol=1e-4, atol=1e-6)
            assert component.get_buffer(f"age/{place}").tolist() == age[place]
    assert replaced > 4


def test_utility_of_channels_sums_all_positions(tmp_path):
    layers = nn.Conv1d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    model = RenateWrapper(nn.Sequential(*layers))
    learner = FineTuning(context(model=model), **OPTION)
    learner.start_update(stored(tmp_path / "new", 4), stored(tmp_path / "none", 0))
    learner.change_weights()
    (component,) = learner.parts
    hidden = model.train().wrapped[:2](torch.randn(4, 1, 5))  # (4, 3, 4)
    learner.after_step()
    weight = model.wrapped[3].weight.reshape(3, 3, 4)
    expected = (1 - DECAY) * hidden.abs().mean((0, 2)) * weight.abs().sum((0, 2))
    torch.testing.assert_close(component.get_buffer("utility/0"), expected.detach())


def test_rate_0_changes_nothing(tmp_path):
    assert not len(started(tmp_path, replacement_rate=0).components)


def test_young_units_stay(tmp_path):
    learner = started(tmp_path, maturity_threshold=100, replacement_rate=1.0)
    optimizer = learner.configure_optimizers()
    for batch in learner.train_dataloader():
        learner.training_step(batch, 0).backward()
        optimizer.step()
        before = [p.clone() for p in learner.model.parameters()]
        learner.after_step()
        assert all(map(torch.equal, before, learner.model.parameters()))


def test_measuring_the_model_does_not_count(tmp_path):
    learner = started(tmp_path)
    (component,) = learner.parts
    learner.model.eval()(first_step(learner).new.inputs)
    assert not component._seen


def test_utilities_and_ages_go_on_in_the_next_update(tmp_path):
    first = started(tmp_path / "1", maturity_threshold=100)
    first.configure_optimizers()
    for batch in first.train_dataloader():
        first.training_step(batch, 0).backward()
        first.after_step()
    first.end_training(None)
    assert not any(module._forward_hooks for module in first.model.modules())
    second = FineTuning(context(2, model=first.model, has_parent=True), **OPTION)
    second.restore_learner(*first.learner_state())
    second.start_update(stored(tmp_path / "2", 12), stored(tmp_path / "none", 0))
    (old,), (new,) = first.parts, second.parts
    assert new.get_buffer("age/0").tolist() == [10] * 4
    assert torch.equal(new.get_buffer("utility/1"), old.get_buffer("utility/1"))


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (SmallCNN(num_channels=1, num_outputs=3, width=4), "is a GroupNorm"),
        (MLP(num_inputs=5, num_outputs=3, nearest_mean=True), "one linear head"),
        (MLP(num_inputs=5, num_outputs=3, num_hidden_layers=0), "no hidden layer"),
        (RenateWrapper(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))), "no activation module"),
    ],
)
def test_model_that_is_no_such_sequence_is_refused(tmp_path, model, match):
    with pytest.raises(errors.ModelMismatchError, match=match) as error:
        started(tmp_path, context(model=model))
    assert "set hyperparameters.replacement_rate to 0" in str(error.value)


@pytest.mark.parametrize(
    ("kind", "values", "match"),
    [
        (SI, {}, "SI"),
        (CLSER, {}, "CLSER"),
        (ExperienceReplay, {"ema_decay": 0.9}, "ema_decay"),
        (FineTuning, {"replacement_rate": 2}, "replacement_rate"),
        (FineTuning, {"maturity_threshold": 0}, "maturity_threshold"),
        (FineTuning, {"utility_decay": 1}, "utility_decay"),
    ],
)
def test_setting_that_does_not_fit_is_refused(tmp_path, kind, values, match):
    with pytest.raises(errors.InvalidHyperparameterError, match=match):
        started(tmp_path, kind=kind, **values)


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(continual_backprop, "ranks", lambda: SimpleNamespace(count=2))
    with pytest.raises(errors.InvalidHyperparameterError, match="several processes"):
        started(tmp_path)


def test_activation_of_a_sequence_after_a_linear_layer_is_refused(tmp_path):
    model = RenateWrapper(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)))
    started(tmp_path, context(model=model))
    with pytest.raises(errors.ModelMismatchError, match="one vector of units per example"):
        model.train()(torch.randn(2, 7, 5))


def test_model_that_starts_anew_has_young_units(tmp_path):
    first = started(tmp_path / "1")
    first.parts[0].get_buffer("age/0").fill_(50)
    first.end_training(None)
    given = context(2, has_parent=True)
    second = FineTuning(given, reinitialize="all", **OPTION)
    second.restore_learner(*first.learner_state())
    second.start_update(stored(tmp_path / "2", 12), stored(tmp_path / "none", 0))
    assert not second.parts[0].get_buffer("age/0").any()
