"""Shrink and perturb, and reinitialization, before the first step of an update."""

from __future__ import annotations

import copy

import pytest
import torch
from small_learners import CLASSES, context, stored, take_steps

from renate_stages import errors
from renate_stages.learners.base import Learner
from renate_stages.learners.cls_er import CLSER
from renate_stages.learners.fine_tuning import FineTuning
from renate_stages.learners.l2 import L2SP
from renate_stages.learners.lucir import LUCIR
from renate_stages.learners.lwf import LwF
from renate_stages.learners.scr import SCR
from renate_stages.learners.scratch import Joint
from renate_stages.learners.si import SI
from renate_stages.learners.super_er import SuperER
from renate_stages.models import MLP

Weights = dict[str, torch.Tensor]


def weights(model: torch.nn.Module) -> Weights:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def second_update(**changes):
    """Return a context whose model is trained, and differs from the newly built one."""
    given = context(has_parent=True, **changes)
    with torch.no_grad():
        for parameter in given.start.model.parameters():
            parameter.add_(1)
    return given


def started(tmp_path, kind: type[Learner], given=None, **values) -> tuple[Learner, Weights]:
    given = given or second_update()
    parent = weights(given.start.model)
    learner = kind(given, batch_size=4, **values)
    learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "none", 0))
    learner.change_weights()
    return learner, parent


def test_weights_are_those_of_the_formula(tmp_path):
    learner, parent = started(tmp_path, FineTuning, shrink=0.6, perturb=0.2)
    fresh = learner.context.start.untrained
    for name, value in weights(learner.model).items():
        torch.testing.assert_close(value, 0.6 * parent[name] + 0.2 * fresh[name])


def test_shrinking_alone_does_not_need_a_newly_built_model(tmp_path):
    learner, parent = started(tmp_path, FineTuning, second_update(untrained={}), shrink=0.5)
    for name, value in weights(learner.model).items():
        assert torch.equal(value, 0.5 * parent[name])


def test_defaults_change_nothing(tmp_path):
    learner, parent = started(tmp_path, FineTuning)
    assert all(torch.equal(each, parent[name]) for name, each in weights(learner.model).items())


def test_first_update_is_not_changed(tmp_path):
    learner, parent = started(tmp_path, FineTuning, context(), shrink=0.5, perturb=0.5)
    assert all(torch.equal(each, parent[name]) for name, each in weights(learner.model).items())


def test_frozen_weights_are_not_changed(tmp_path):
    given = second_update()
    given.start.model.features.requires_grad_(False)
    learner, parent = started(tmp_path, FineTuning, given, shrink=0.5)
    changed = {n for n, each in weights(learner.model).items() if not torch.equal(each, parent[n])}
    assert changed == {"head.weight", "head.bias"}


def test_head_alone_is_reinitialized_and_the_rest_shrinks(tmp_path):
    learner, parent = started(tmp_path, FineTuning, shrink=0.5, reinitialize="head")
    fresh = learner.context.start.untrained
    for name, value in weights(learner.model).items():
        expected = fresh[name] if name.startswith("head") else 0.5 * parent[name]
        assert torch.equal(value, expected), name


def test_everything_is_reinitialized_with_its_buffers(tmp_path):
    class Normalized(MLP):
        def __init__(self) -> None:
            super().__init__(num_inputs=5, num_outputs=CLASSES, hidden_size=4)
            self.features.append(torch.nn.BatchNorm1d(4))

    untrained = Normalized().state_dict()
    model = Normalized()
    model(torch.randn(8, 5))  # changes the running statistics
    given = second_update(model=model, untrained=untrained)
    learner, _ = started(tmp_path, FineTuning, given, reinitialize="all")
    for name, value in learner.model.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, untrained[name]), name


def test_teacher_and_anchor_are_copies_of_the_parent(tmp_path):
    learner, parent = started(tmp_path / "lwf", LwF, shrink=0.5)
    (distillation,) = learner.parts
    teacher = weights(distillation.teacher.model)
    learner, _ = started(tmp_path / "l2", L2SP, shrink=0.5)
    (distance,) = learner.parts
    slow, _ = started(tmp_path / "cls", CLSER, shrink=0.5)
    stable = dict(slow.consistency.stable.average.module.named_parameters())
    for name, value in parent.items():
        assert torch.equal(teacher[name], value)
        assert torch.equal(distance.anchor(name), value)
        assert torch.equal(stable[name], value)


def test_average_of_weights_starts_from_the_changed_ones(tmp_path):
    learner, _ = started(tmp_path, FineTuning, shrink=0.5, ema_decay=0.9)
    start = weights(learner.model)
    take_steps(learner, 1)
    for name, value in weights(learner.served).items():  # the first decay is 1 - 1 / 2
        torch.testing.assert_close(value, (start[name] + weights(learner.model)[name]) / 2)


@pytest.mark.parametrize("kind", [LUCIR, SCR])
def test_average_of_a_model_whose_features_are_read_does_not_copy_the_learner(
    tmp_path, kind, monkeypatch
):
    def fail(*_):
        raise AssertionError("the learner was copied, with its data")

    monkeypatch.setattr(kind, "__deepcopy__", fail, raising=False)
    learner, _ = started(tmp_path, kind, shrink=0.5, ema_decay=0.9, memory_size=8)
    take_steps(learner, 1)
    assert learner._features.latest is not None
    copy.deepcopy(learner.model)


def test_synaptic_intelligence_measures_from_the_changed_weights(tmp_path):
    learner, parent = started(tmp_path, SI, shrink=0.5, si_weight=0.0, si_damping=0.01)
    start, path = weights(learner.model), {}
    optimizer = learner.configure_optimizers()
    (penalty,) = learner.parts
    for batch in learner.train_dataloader():
        before = weights(learner.model)
        optimizer.zero_grad()
        learner.training_step(batch, 0).backward()
        gradients = {n: p.grad.clone() for n, p in learner.model.named_parameters()}
        optimizer.step()
        learner.after_step()
        for name, value in weights(learner.model).items():
            path[name] = path.get(name, 0) - gradients[name] * (value - before[name])
    for name in parent:
        assert torch.equal(penalty.anchor(name), parent[name])
    end = weights(learner.model)
    learner.end_training(None)
    for name, each in path.items():
        expected = each.clamp(min=0) / ((end[name] - start[name]) ** 2 + 0.01)
        torch.testing.assert_close(penalty.importance(name), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("values", [{"shrink": 0.5}, {"reinitialize": "head"}])
def test_learner_that_starts_anew_says_that_it_changes_nothing(tmp_path, values):
    said = []
    learner, _ = started(tmp_path, Joint, second_update(say=said.append), **values)
    fresh = learner.context.start.untrained
    assert all(torch.equal(each, fresh[name]) for name, each in weights(learner.model).items())
    assert len(said) == 1 and "shrink, perturb and reinitialize have no effect" in said[0]


def test_joint_that_continues_shrinks(tmp_path):
    learner, parent = started(tmp_path, Joint, reset=False, shrink=0.5)
    assert all(torch.equal(v, 0.5 * parent[n]) for n, v in weights(learner.model).items())


def test_newly_built_model_with_other_parameters_is_refused(tmp_path):
    given = second_update(untrained={})
    with pytest.raises(errors.ModelMismatchError, match=r"no parameter `features\.1\.weight`"):
        started(tmp_path, FineTuning, given, perturb=0.1)


def test_model_without_a_last_linear_layer_cannot_reinitialize_its_head(tmp_path):
    given = second_update()
    given.start.model.output_layer = "features.0"
    with pytest.raises(errors.ModelMismatchError, match="no trained last linear layer"):
        started(tmp_path, FineTuning, given, reinitialize="head")


@pytest.mark.parametrize(
    "wrong",
    [
        {"shrink": 0},
        {"shrink": 1.1},
        {"shrink": "x"},
        {"perturb": -1},
        {"reinitialize": "body"},
        {"reinitialize": "all", "shrink": 0.5},
    ],
)
def test_hyperparameter_outside_its_range_is_refused(wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        FineTuning(context(), **wrong)


@pytest.mark.parametrize("values", [{"shrink": 0.5}, {"perturb": 0.1}])
def test_super_er_refuses_a_second_shrinking(values):
    with pytest.raises(errors.InvalidHyperparameterError, match="sp_shrink_factor"):
        SuperER(context(), **values)
