"""Learning without Forgetting, compared with the equation of its paper."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from small_learners import CLASSES, context, first_step, stored, take_steps

from renate_stages import errors
from renate_stages.data import Batch
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.er import ExperienceReplay
from renate_stages.learners.fine_tuning import FineTuning
from renate_stages.learners.lwf import LwF
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import MLP
from renate_stages.tasks.classification import Classification
from renate_stages.tasks.regression import Regression

distillation = Classification().distillation


def lwf(tmp_path, old_classes=(0, 1), **values) -> LwF:
    learner = LwF(context(has_parent=True, old_classes=old_classes), batch_size=4, **values)
    learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "none", 0))
    return learner


@pytest.mark.parametrize("old_classes", [(0, 1), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5])
def test_lwf_training_loss_and_gradients_match_the_paper(tmp_path, old_classes, temperature):
    learner = lwf(tmp_path, old_classes, distillation_weight=0.7, temperature=temperature)
    parent = copy.deepcopy(learner.model)
    take_steps(learner, 2)
    batch = first_step(learner)
    old, now = parent(batch.new.inputs), learner.model(batch.new.inputs)
    total = 0.0
    for z, q in zip(old.tolist(), now.unbind(), strict=True):
        p = torch.tensor([z[c] for c in old_classes]).div(temperature).exp()
        p = p / p.sum()
        q = torch.stack([q[c] for c in old_classes]).div(temperature).exp()
        q = q / q.sum()
        total = total + (p * (p / q).log()).sum()
    expected = F.cross_entropy(now, batch.new.targets) + 0.7 * temperature**2 * total / len(old)
    torch.testing.assert_close(learner.loss(batch), expected)
    assert total > 0
    for parameter, gradient in zip(
        learner.model.parameters(),
        torch.autograd.grad(expected, list(learner.model.parameters())),
        strict=True,
    ):
        (found,) = torch.autograd.grad(learner.loss(batch), parameter)
        torch.testing.assert_close(found, gradient)


def test_distillation_loss_is_zero_before_the_first_step(tmp_path):
    learner = lwf(tmp_path)
    batch = first_step(learner)
    torch.testing.assert_close(
        learner.loss(batch), F.cross_entropy(learner.model(batch.new.inputs), batch.new.targets)
    )


def test_first_lwf_update_equals_fine_tuning(tmp_path):
    weights = []
    for kind in (LwF, FineTuning):
        learner = kind(context(), batch_size=4)
        learner.start_update(stored(tmp_path / kind.__name__, 12), stored(tmp_path / "none", 0))
        take_steps(learner, 3)
        weights.append(torch.nn.utils.parameters_to_vector(learner.model.parameters()))
        (tmp_path / "none").rename(tmp_path / f"none-{kind.__name__}")
    assert torch.equal(*weights)


def test_training_the_learner_leaves_the_teacher_unchanged(tmp_path):
    learner = lwf(tmp_path)
    (component,) = learner.parts
    before = copy.deepcopy(learner.model.state_dict())
    take_steps(learner, 3)
    learner.train()
    teacher = component.teacher
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    after = teacher.model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if k != "_extra_state")
    assert any(name.startswith("components.0.teacher.") for name in learner.state_dict())
    learner.to(torch.float64)
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float64}
    assert teacher(torch.zeros(1, 5, dtype=torch.float64), "default_task").dtype == torch.float64


def test_teacher_outputs_are_computed_without_dropout(tmp_path):
    model = MLP(num_inputs=5, num_outputs=CLASSES, hidden_size=8, dropout=0.5)
    learner = LwF(context(model=model, has_parent=True, old_classes=(0, 1)), batch_size=4)
    learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "none", 0))
    learner.train()
    (component,), inputs = learner.parts, torch.randn(6, 5)
    taught = component.teacher(inputs, "default_task")
    assert torch.equal(taught, component.teacher(inputs, "default_task"))
    assert not taught.requires_grad and learner.model.training


@pytest.mark.parametrize("classes", [(0, 1, 3), ()])
def test_distillation_uses_only_the_outputs_that_the_teacher_has(classes):
    outputs, taught = torch.randn(5, 4), torch.randn(5, 2)
    expected = F.kl_div(
        (outputs[:, :2] / 3).log_softmax(1), (taught / 3).softmax(1), reduction="batchmean"
    )
    torch.testing.assert_close(distillation(outputs, taught, 3, classes), 9 * expected)


def test_half_precision_outputs_are_distilled_in_single_precision(tmp_path):
    outputs, taught = 100 * torch.randn(64, 10), 100 * torch.randn(64, 10)
    found = distillation(outputs.bfloat16(), taught.bfloat16(), 2, ())
    exact = distillation(outputs.bfloat16().float(), taught.bfloat16().float(), 2, ())
    assert found.dtype == torch.float32 and torch.equal(found, exact)


def test_regression_outputs_are_distilled_with_the_squared_error(tmp_path):
    with StoreWriter(tmp_path / "values", update=1) as writer:
        writer.append((torch.randn(8, 5).numpy(), torch.randn(8, 3).numpy()))
    from renate_stages.data import StoredDataset

    values = StoredDataset(ExampleStore.open(tmp_path / "values"))
    learner = LwF(context(has_parent=True, task=Regression()), batch_size=4)
    learner.start_update(values, stored(tmp_path / "none", 0))
    (component,) = learner.parts
    inputs, targets = values.__getitems__([0, 1, 2])
    outputs = learner.model(inputs) + 0.5
    passed = ForwardResult(Batch(inputs, targets, None), outputs)
    torch.testing.assert_close(component(passed, None), torch.tensor(0.25))


def test_lwf_distillation_can_be_combined_with_replay(tmp_path):
    from renate_stages.learners.lwf import OutputDistillation

    learner = ExperienceReplay(context(has_parent=True, old_classes=(0, 1)), memory_batch_size=3)
    learner.components.append(OutputDistillation(2.0, temperature=1))
    learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "old", 9))
    (component,) = learner.parts
    take_steps(learner, 1)
    batch = first_step(learner)
    both = torch.cat([batch.new.inputs, batch.memory[0].inputs])
    outputs = learner.model(both)
    expected = F.cross_entropy(outputs, torch.cat([batch.new.targets, batch.memory[0].targets]))
    taught = component.teacher(batch.new.inputs, "default_task")
    expected = expected + 2 * distillation(outputs[: len(batch.new)], taught, 1, (0, 1))
    torch.testing.assert_close(learner.loss(batch), expected)


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"temperature": "x"}, {"distillation_weight": -1}]
)
def test_hyperparameter_outside_its_range_is_refused(wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        LwF(context(), **wrong)
