"""PODNet: the loss of a step, the rows of the last layer, and the models that it takes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored, take_steps
from torch import nn

from renate_stages import errors
from renate_stages.learners.podnet import PODNet
from renate_stages.memory.spec import IGNORED
from renate_stages.models import MLP, RenateWrapper
from renate_stages.tasks.regression import Regression


def started(tmp_path, *, old=(0, 1), classes=(2,), known=(0, 1), outputs=3, rows=20, **values):
    """Return a learner that has started an update; `known` are the labels of the memory."""
    model = MLP(num_inputs=5, num_outputs=outputs, hidden_size=[4, 7])
    given = context(has_parent=bool(old), old_classes=old, model=model)
    learner = PODNet(given, batch_size=4, memory_batch_size=6, **values)
    new = stored(tmp_path / "new", 12, classes=classes)
    learner.start_update(new, stored(tmp_path / "old", rows, first=50, classes=known))
    return learner


def nca(model, inputs, targets, classes, eta, delta) -> torch.Tensor:
    """Return the classification loss over the seen classes, example by example."""
    losses = []
    for feature, label in zip(model.features(inputs), targets.tolist(), strict=True):
        cosine = {
            each: F.cosine_similarity(feature, model.head.weight[each], dim=0) for each in classes
        }
        others = sum(torch.exp(eta * cosine[each]) for each in classes if each != label)
        share = torch.exp(eta * (cosine[label] - delta)) / others
        losses.append(torch.relu(-torch.log(share)))
    return torch.stack(losses).mean()


def distilled(model, parent, inputs, spatial, flat) -> torch.Tensor:
    """Return both terms of POD; the spatial one of each layer's squared outputs of length 1."""
    hidden, before, distances = inputs, inputs, []
    for layer, own in zip(model.features, parent.features, strict=True):
        hidden, before = layer(hidden), own(before).detach()
        if isinstance(layer, nn.ReLU):
            now, kept = (F.normalize(each**2, dim=1) for each in (hidden, before))
            small = 0.01 * kept.norm(dim=1)
            distances.append((((now - kept) ** 2).sum(1) + small**2).sqrt().sub(small).mean())
    angles = 1 - F.cosine_similarity(hidden, before, dim=1)
    return spatial * sum(distances) / len(distances) + flat * angles.mean()


def both(batch) -> tuple[torch.Tensor, torch.Tensor]:
    parts = (batch.new, *batch.memory)
    return torch.cat([each.inputs for each in parts]), torch.cat([each.targets for each in parts])


@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_loss_is_that_of_the_paper(tmp_path, forward):
    learner = started(tmp_path, replay_forward=forward, spatial_weight=2.0, flat_weight=1.5,
                      margin=0.4, similarity_scale=3.0)  # fmt: skip
    parent = copy.deepcopy(learner.model)
    take_steps(learner, 3)
    batch = first_step(learner)
    inputs, targets = both(batch)
    factor = math.sqrt(3 / 1)  # seen classes over classes in the new data
    expected = nca(learner.model, inputs, targets, [0, 1, 2], 3.0, 0.4)
    pod = distilled(learner.model, parent, inputs, 2.0 * factor, 1.5 * factor)
    assert pod > 0.05
    torch.testing.assert_close(learner.loss(batch), expected + pod)


def test_first_update_classifies_alone_and_only_among_seen_classes(tmp_path):
    learner = started(tmp_path, old=(), classes=(0, 2), rows=0, outputs=5)
    before = learner.model.head.weight.clone()
    batch = first_step(learner)
    expected = nca(learner.model, *both(batch), [0, 2], 8.0, 0.6)
    torch.testing.assert_close(learner.loss(batch), expected)
    take_steps(learner, 2)
    changed = (learner.model.head.weight != before).any(1)
    assert changed.tolist() == [True, False, True, False, False]


def test_rows_have_one_length_and_those_of_old_classes_keep_their_direction(tmp_path):
    learner = started(tmp_path, ema_decay=0.5)
    old = learner.model.head.weight[:2].detach().clone()
    take_steps(learner, 3)
    weight, bias = (each.detach() for each in learner.model.head.parameters())
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(3))
    assert torch.equal(weight[:2], old) and not bias.any()
    learner.end_training(None)
    weight, bias = (each.detach() for each in learner.model.head.parameters())
    lengths = weight.norm(dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand(3))
    torch.testing.assert_close(F.normalize(weight[:2], dim=1), old, rtol=0, atol=1e-6)
    inputs, _ = learner.new.__getitems__(range(12))
    features = learner.model.features(inputs).detach()
    cosines = F.normalize(features, dim=1) @ F.normalize(weight, dim=1).T
    logits = learner.model.eval()(inputs)
    assert torch.equal(logits.argmax(1), cosines.argmax(1)) and not bias.any()
    torch.testing.assert_close(float(lengths[0] * features.norm(dim=1).mean()), 8.0)


def test_example_beyond_the_margin_and_ignored_one_count_as_nothing(tmp_path):
    learner = started(tmp_path, margin=0.3, similarity_scale=10.0)
    cosines = torch.tensor([[0.9, 0.1, -0.5], [0.5, 0.3, -0.5], [0.0, 0.0, 0.9]])
    far, near, wrong = learner._nca_of_rows(cosines, torch.tensor([0, 0, 1]))
    assert far == 0 and 0 < near < wrong
    torch.testing.assert_close(wrong, torch.logaddexp(torch.tensor(0.0), torch.tensor(9.0)) + 3)
    labels = torch.tensor([0, IGNORED, 1])
    torch.testing.assert_close(learner.loss_of(cosines, labels), (far + wrong) / 2)
    one = started(tmp_path / "one", old=(), classes=(1,), rows=0)
    loss = one.loss(first_step(one))
    loss.backward()
    assert loss == 0 and all(each.grad.isfinite().all() for each in one.model.parameters())


def test_teacher_has_hooked_layers_but_none_of_the_learners_hooks(tmp_path):
    learner = started(tmp_path)
    taught = learner.teacher.representation(torch.rand(2, 5), "default_task")
    assert taught.features.shape == (2, 7) and [each.shape[1] for each in taught.layers] == [4, 7]
    assert not learner.teacher.model.features._forward_hooks
    assert learner.model.features._forward_hooks
    learner.end_training(None)
    assert learner.teacher is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: MLP(5, 3, heads="per_task"), "PODNet compares features .* no such weight"),
        (lambda: RenateWrapper(nn.Linear(5, 3)), "no submodule `features`"),
        (lambda: MLP(5, 3, num_hidden_layers=0), "MLP names none"),
    ],
    ids=["per-task heads", "no features", "no layers"],
)
def test_model_without_comparable_rows_or_layers_is_refused(tmp_path, model, message):
    learner = PODNet(context(model=model()))
    with pytest.raises(errors.ModelMismatchError, match=message):
        learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "none", 0))


def test_other_tasks_and_values_outside_their_range_are_refused():
    with pytest.raises(errors.ClassLabelsNeededError, match="PODNet"):
        PODNet(context(task=Regression()))
    for wrong in ({"spatial_weight": -1}, {"flat_weight": -1}, {"margin": 3},
                  {"similarity_scale": 0}):  # fmt: skip
        with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
            PODNet(context(), **wrong)
