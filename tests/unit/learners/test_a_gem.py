"""A-GEM: the projected gradient of a step, also with accumulation, and what it does not change."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored
from small_updates import VALUES, state_of, updater, weights, write_examples

from renate_stages import errors
from renate_stages.data import Batch
from renate_stages.learners.a_gem import AGEM
from renate_stages.tasks.regression import Regression
from renate_stages.training.update_data import UpdateData


def started(tmp_path, *, old_rows=20, **values) -> AGEM:
    learner = AGEM(context(), batch_size=4, memory_batch_size=6, **values)
    old = stored(tmp_path / "old", old_rows, first=50)
    learner.start_update(stored(tmp_path / "new", 12), old)
    if old_rows:  # then other labels conflict with the memory
        inputs, targets = old.__getitems__(range(old_rows))
        optimizer = torch.optim.Adam(learner.model.parameters(), 0.02)
        for _ in range(150):
            optimizer.zero_grad()
            F.cross_entropy(learner.model(inputs), targets).backward()
            optimizer.step()
        optimizer.zero_grad()
    return learner


def gradient(model, *batches) -> torch.Tensor:
    """Return the gradient of the sum of the batches' mean losses, as one vector."""
    model = copy.deepcopy(model)
    sum(F.cross_entropy(model(each.inputs), each.targets) for each in batches).backward()
    return torch.cat([each.grad.flatten() for each in model.parameters()])


def own_gradient(learner, *steps) -> torch.Tensor:
    """Return the gradient that the optimizer gets after steps that are accumulated."""
    learner.zero_grad()
    for batch in steps:
        learner.training_step(batch, 0).backward()
    learner.on_before_optimizer_step(None)
    return torch.cat([each.grad.flatten() for each in learner.model.parameters()])


def opposed(batch):
    """Return a step whose new examples are the remembered ones with other labels."""
    (drawn,) = batch.memory
    wrong = Batch(drawn.inputs[:4], (drawn.targets[:4] + 1) % 3, batch.new.rows)
    return batch._replace(new=wrong)


def test_conflicting_gradient_is_projected(tmp_path):
    learner = started(tmp_path)
    batch = opposed(first_step(learner))
    g, reference = gradient(learner.model, batch.new), gradient(learner.model, *batch.memory)
    product = g @ reference
    assert product < 0, "the test needs a conflict"
    found = own_gradient(learner, batch)
    expected = g - product / (reference @ reference) * reference
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert abs(found @ reference) < 1e-5 and not torch.allclose(found, g, atol=1e-3)


def test_agreeing_gradient_is_not_changed(tmp_path):
    learner = started(tmp_path)
    batch = first_step(learner)
    (drawn,) = batch.memory
    batch = batch._replace(new=Batch(drawn.inputs[:4], drawn.targets[:4], batch.new.rows))
    assert torch.equal(own_gradient(learner, batch), gradient(learner.model, batch.new))


def test_accumulated_gradient_is_projected_once(tmp_path):
    learner = started(tmp_path)
    first, second = [opposed(each) for each in list(learner.train_dataloader())[:2]]
    g = gradient(learner.model, first.new, second.new)
    reference = gradient(learner.model, *first.memory, *second.memory)
    expected = g - (g @ reference) / (reference @ reference) * reference
    assert g @ reference < 0
    torch.testing.assert_close(own_gradient(learner, first, second), expected, rtol=1e-4, atol=1e-6)
    again = opposed(first_step(learner))  # nothing is left of the step before
    g, reference = gradient(learner.model, again.new), gradient(learner.model, *again.memory)
    expected = g - (g @ reference).clamp(max=0) / (reference @ reference) * reference
    torch.testing.assert_close(own_gradient(learner, again), expected, rtol=1e-4, atol=1e-6)


def test_empty_memory_gives_fine_tuning(tmp_path):
    learner = started(tmp_path, old_rows=0)
    batch = first_step(learner)
    assert not batch.memory
    assert torch.equal(own_gradient(learner, batch), gradient(learner.model, batch.new))


def test_weight_that_only_the_memory_uses_gets_the_projection(tmp_path):
    learner = started(tmp_path)
    frozen = learner.model.head.bias
    batch = opposed(first_step(learner))
    g, reference = gradient(learner.model, batch.new), gradient(learner.model, *batch.memory)
    product = g[:-3] @ reference[:-3]
    factor = product / (reference @ reference)
    learner.training_step(batch, 0).backward()
    frozen.grad = None
    learner.on_before_optimizer_step(None)
    torch.testing.assert_close(frozen.grad, -factor * reference[-3:], rtol=1e-4, atol=1e-6)


def test_joint_forward_pass_is_not_used(tmp_path):
    assert started(tmp_path, replay_forward="joint").replay_forward == "separate"


def test_float16_does_not_reach_the_reference_gradient(tmp_path):
    learner = started(tmp_path)
    batch = first_step(learner)
    with torch.autocast("cpu", dtype=torch.float16):
        new, (drawn,) = learner.pass_all(batch.new, batch.memory)
    assert new.outputs.dtype == torch.float16 and drawn.outputs.dtype == torch.float32


@pytest.mark.parametrize(
    "trainer", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}]
)
def test_lightning_steps_do_not_oppose_the_memory(tmp_path, make_state, monkeypatch, trainer):
    """Record what the optimizer receives: before clipping, with all batches of the step."""
    new = write_examples(tmp_path / "new", 30)
    first = updater("A-GEM", VALUES).update(UpdateData(make_state(), new))
    parent = state_of(tmp_path / "after", first, 1, new=new)
    products, sizes = [], []
    project = AGEM.on_before_optimizer_step

    def recorded(self, optimizer):
        reference = self._reference.clone()
        before = torch.cat([each.grad.flatten() for each in self._projected])
        project(self, optimizer)
        after = torch.cat([each.grad.flatten() for each in self._projected])
        scale = float(reference.norm() * before.norm())
        products.append((float(before @ reference) / scale, float(after @ reference) / scale))
        sizes.append(float(after.norm()))

    monkeypatch.setattr(AGEM, "on_before_optimizer_step", recorded)
    second = write_examples(tmp_path / "second", 25, first=300)
    made = updater("A-GEM", {**VALUES, "learning_rate": 0.3}, number=2, max_epochs=8,
                   gradient_clip_val=0.05, **trainer)  # fmt: skip
    updated = made.update(UpdateData(parent, second))
    assert any(before < -1e-3 for before, _ in products), "some steps are in conflict"
    assert all(after >= min(0, before) * 1e-3 - 1e-6 for before, after in products)
    assert max(sizes) > 0.05 and weights(updated).isfinite().all()
    assert updated.steps == len(products)


def test_any_task_is_accepted_and_sizes_are_checked():
    AGEM(context(task=Regression()))
    with pytest.raises(errors.InvalidHyperparameterError, match="memory_batch_size"):
        AGEM(context(), memory_batch_size=0)
