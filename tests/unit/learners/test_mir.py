"""MIR: which candidates a step replays, and what choosing them leaves unchanged."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from small_learners import Noisy, context, first_step, stored, undisturbed
from torch import nn

from renate_stages import errors
from renate_stages.learners.er import ExperienceReplay
from renate_stages.learners.mir import MIR
from renate_stages.tasks.regression import Regression

RATE = 0.1  # the optimizer's, in `context`


def started(tmp_path, *, given=None, optimizer=True, **values) -> MIR:
    values = {"batch_size": 4, "memory_batch_size": 3, "candidate_factor": 4, **values}
    learner = MIR(given or context(), **values)
    old = stored(tmp_path / "old", 20, first=50)
    learner.start_update(stored(tmp_path / "new", 12), old)
    if optimizer:
        learner.configure_optimizers()
    return learner


def most_interfered(model, new, candidates, count, rate=RATE) -> list[int]:
    """Return the places of the candidates that Algorithm 1 chooses, ascending."""
    model = copy.deepcopy(model).eval()
    inputs, targets = candidates.inputs, candidates.targets
    before = F.cross_entropy(model(inputs), targets, reduction="none").detach()
    torch.optim.SGD(model.parameters(), rate).zero_grad()
    F.cross_entropy(model(new.inputs), new.targets).backward()
    torch.optim.SGD(model.parameters(), rate).step()
    after = F.cross_entropy(model(inputs), targets, reduction="none").detach()
    return sorted((after - before).topk(count).indices.tolist())


def test_candidates_with_the_largest_increase_are_replayed_as_in_er(tmp_path):
    learner = started(tmp_path)
    batch = first_step(learner)
    (candidates,) = batch.memory
    assert len(candidates) == 12
    chosen = most_interfered(learner.model, batch.new, candidates, 3)
    _, (drawn,) = learner.pass_all(*batch)
    assert drawn.batch.rows.tolist() == candidates.rows[chosen].tolist()
    assert torch.equal(drawn.batch.inputs, candidates.inputs[chosen])
    assert torch.equal(drawn.batch.targets, candidates.targets[chosen])
    inputs = torch.cat([batch.new.inputs, candidates.inputs[chosen]])
    targets = torch.cat([batch.new.targets, candidates.targets[chosen]])
    torch.testing.assert_close(learner.loss(batch), F.cross_entropy(learner.model(inputs), targets))


def test_virtual_step_has_the_current_learning_rate_of_each_group(tmp_path):
    learner = started(tmp_path)
    batch = first_step(learner)
    (group,) = learner._optimizer[0].param_groups
    for rate in (0.5, 5.0, 50.0):
        group["lr"] = rate
        weights = learner._virtual_weights(batch.new)
        expected = copy.deepcopy(learner.model)
        F.cross_entropy(expected(batch.new.inputs), batch.new.targets).backward()
        torch.optim.SGD(expected.parameters(), rate).step()
        for name, parameter in expected.named_parameters():
            torch.testing.assert_close(weights[name], parameter.detach())


def test_choice_changes_neither_model_nor_random_numbers_nor_gradients(tmp_path, monkeypatch):
    learner = started(tmp_path, given=context(model=Noisy()))
    batch = first_step(learner)
    learner.loss(batch).backward()
    chosen = []
    # Without the forward pass that trains, which does change them.
    monkeypatch.setattr(ExperienceReplay, "pass_all", lambda _, new, drawn: chosen.extend(drawn))
    with undisturbed(learner):
        learner.pass_all(*batch)
    assert [len(each) for each in chosen] == [3]


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_choice_does_not_depend_on_the_precision(tmp_path, precision):
    learner = started(tmp_path)
    batch = first_step(learner)
    _, (expected,) = learner.pass_all(*batch)
    with torch.autocast("cpu", dtype=precision):
        _, (drawn,) = learner.pass_all(*batch)
    assert drawn.outputs.dtype == precision
    assert drawn.batch.rows.tolist() == expected.batch.rows.tolist()


@pytest.mark.parametrize(
    "loss_fn",
    [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="none"),
     lambda outputs, targets: F.cross_entropy(outputs, targets)],
    ids=["mean", "per row", "a function's mean"],
)  # fmt: skip
def test_losses_of_rows_are_found_for_any_reduction(tmp_path, loss_fn):
    learner = started(tmp_path, given=context(loss_fn=loss_fn))
    batch = first_step(learner)
    chosen = most_interfered(learner.model, batch.new, batch.memory[0], 3)
    _, (drawn,) = learner.pass_all(*batch)
    assert drawn.batch.rows.tolist() == batch.memory[0].rows[chosen].tolist()


@pytest.mark.parametrize("values", [{"candidate_factor": 1}, {"memory_batch_size": 20}])
def test_without_a_choice_a_step_is_that_of_er(tmp_path, values):
    learner = started(tmp_path, optimizer=False, **values)
    er = ExperienceReplay(
        context(), batch_size=4, memory_batch_size=values.get("memory_batch_size", 3)
    )
    er.start_update(learner.new, learner.memory)
    assert torch.equal(learner.loss(first_step(learner)), er.loss(first_step(er)))


def test_masked_classes_do_not_affect_the_choice(tmp_path):
    learner = started(tmp_path, mask_unused_classes=True)
    batch = first_step(learner)
    _, (expected,) = learner.pass_all(*batch)
    learner.classes = [0, 1]
    outputs = learner.model(batch.memory[0].inputs).detach()
    losses = learner._losses_of_rows(outputs, batch.memory[0])
    known = batch.memory[0].targets < 2
    wanted = F.cross_entropy(
        outputs[:, :2][known], batch.memory[0].targets[known], reduction="none"
    )
    torch.testing.assert_close(losses[known].float(), wanted)
    assert len(expected.batch) == 3


def test_any_task_is_accepted_and_wrong_values_are_refused():
    MIR(context(task=Regression()))
    for wrong in (0, 1.5, True):
        with pytest.raises(errors.InvalidHyperparameterError, match="candidate_factor"):
            MIR(context(), candidate_factor=wrong)
