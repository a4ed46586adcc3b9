"""iCaRL, compared with the equations of its paper."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from small_learners import CLASSES, context, first_step, stored, take_steps
from small_updates import VALUES, state_of, updater, write_examples
from torch import nn

from renate_stages import errors
from renate_stages.learners.icarl import ICaRL
from renate_stages.models import MLP
from renate_stages.models.heads import NearestMeanHead, RandomFeatureHead
from renate_stages.models.module import RenateWrapper
from renate_stages.state import State, state
from renate_stages.training.update_data import UpdateData


def icarl(tmp_path: Path, old=(0, 1), new=(2,), **values) -> ICaRL:
    learner = ICaRL(
        context(has_parent=True, old_classes=old),
        batch_size=4,
        memory_batch_size=6,
        memory_size=6,
        **values,
    )
    memory = stored(tmp_path / "memory", 12, classes=old or (0,))
    learner.start_update(stored(tmp_path / "new", 12, classes=new), memory)
    return learner


def cross_entropy(wanted: float, output: torch.Tensor) -> torch.Tensor:
    p = 1 / (1 + (-output).exp())
    return -(wanted * p.log() + (1 - wanted) * (1 - p).log())


@pytest.mark.parametrize("new", [(2,), (1, 2)])
def test_icarl_training_loss_matches_the_paper(tmp_path, new):
    learner = icarl(tmp_path, new=new)
    parent = copy.deepcopy(learner.model)
    take_steps(learner, 2)
    batch = first_step(learner)
    assert len(batch.memory) == 1
    total = torch.tensor(0.0)
    for inputs, targets in ((b.inputs, b.targets) for b in (batch.new, *batch.memory)):
        for x, y in zip(inputs, targets.tolist(), strict=True):
            now, before = learner.model(x[None])[0], parent(x[None])[0]
            for k in range(CLASSES):
                distilled = k in (0, 1) and k not in new
                wanted = float(before[k].sigmoid().detach()) if distilled else float(y == k)
                total = total + cross_entropy(wanted, now[k])
    torch.testing.assert_close(learner.loss(batch), total / 10)


def test_icarl_without_a_parent_does_not_distill(tmp_path):
    learner = ICaRL(context(), batch_size=4, memory_size=6)
    learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "none", 0))
    batch = first_step(learner)
    outputs = learner.model(batch.new.inputs)
    wanted = nn.functional.one_hot(batch.new.targets, CLASSES).float()
    expected = nn.BCEWithLogitsLoss(reduction="sum")(outputs, wanted) / 4
    torch.testing.assert_close(learner.loss(batch), expected)


def test_icarl_classifies_by_the_nearest_mean_of_exemplars(tmp_path):
    learner = icarl(tmp_path)
    linear = learner.model.head.linear
    inputs = learner.new.__getitems__(range(12))[0]
    with torch.no_grad():
        served = learner.served.eval()(inputs)
        torch.testing.assert_close(served, linear(learner.model.features(inputs)))
    take_steps(learner, 3)
    learner.end_training(None)
    (kept, added) = learner.choose_memory().selection
    assert len(kept) + len(added) == 6
    examples = [(learner.memory, kept), (learner.new, added)]
    x = torch.cat([each.__getitems__(rows)[0] for each, rows in examples])
    y = torch.cat([each.__getitems__(rows)[1] for each, rows in examples])
    model = learner.model.eval()
    with torch.no_grad():
        features = nn.functional.normalize(model.features(x))
        unit = nn.functional.normalize(model.features(inputs))
        means = [nn.functional.normalize(features[y == k].mean(0), dim=0) for k in range(CLASSES)]
        expected = torch.stack([-(unit - mean).norm(dim=1) for mean in means], dim=1)
        torch.testing.assert_close(model(inputs), expected, atol=1e-4, rtol=0)


def test_icarl_never_predicts_a_class_without_exemplars(tmp_path):
    learner = icarl(tmp_path, old=(0,), new=(1,))
    take_steps(learner, 1)
    learner.end_training(None)
    with torch.no_grad():
        outputs = learner.model.eval()(learner.new.__getitems__(range(12))[0])
    assert (outputs[:, 2] == -4).all()
    assert (outputs[:, :2] >= -2).all()


def test_icarl_model_is_restored_from_the_state_and_trained_again(tmp_path):
    (tmp_path / "first").mkdir()
    state.write_empty(tmp_path / "first")
    parent = State.open(tmp_path / "first")
    for number in (1, 2):
        new = write_examples(tmp_path / f"new-{number}", 30, first=30 * number)
        made = updater("iCaRL", number=number, functions={"model_fn": model_fn})
        updated = made.update(UpdateData(parent, new))
        parent = state_of(tmp_path / f"left-{number}", updated, number, parent=parent, new=new)
    inputs = torch.randn(5, 5)
    with torch.no_grad():
        assert torch.equal(made.build_model(parent.folder).eval()(inputs), updated.model(inputs))
    assert len(parent.memory()) == VALUES["memory_size"] // 3 * 3
    assert set(np.unique(parent.memory().column("targets"))) == {0, 1, 2}


def model_fn(model_state_url: str | None = None) -> MLP:
    if model_state_url is not None:
        return MLP.from_state_dict(torch.load(model_state_url, weights_only=True))
    return MLP(num_inputs=5, num_outputs=3, hidden_size=4)


@pytest.mark.parametrize(
    "model",
    [
        RenateWrapper(nn.Linear(5, 3)),
        MLP(5, 3, hidden_size=4, heads="per_task"),
        MLP(5, 3, hidden_size=4, random_features=8),
    ],
)
def test_icarl_refuses_a_model_without_a_nearest_mean_head(model):
    with pytest.raises(errors.ModelMismatchError, match="nearest class mean"):
        ICaRL(context(model=model))


def test_nearest_mean_cannot_be_combined_with_other_head_types():
    with pytest.raises(errors.ModelArgumentError, match="nearest_mean"):
        MLP(5, 3, random_features=8, nearest_mean=True)
    with pytest.raises(errors.ModelArgumentError, match="nearest_mean"):
        MLP(5, 3, heads="per_task", nearest_mean=True)


def test_nearest_mean_head_is_linear_until_class_means_are_set():
    model = MLP(5, 3, hidden_size=4, nearest_mean=True).eval()
    assert isinstance(model.head, NearestMeanHead)
    x = torch.randn(2, 5)
    torch.testing.assert_close(model(x), model.head.linear(model.features(x)))
    again = MLP.from_state_dict(model.state_dict())
    assert isinstance(again.head, NearestMeanHead) and again.nearest_mean
    model.use_random_features(8)
    assert isinstance(model.head, RandomFeatureHead) and not model.nearest_mean
