"""POD-ER: pooled outputs and the loss of a step, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored
from torch import nn

from renate_stages import errors
from renate_stages.learners.base.pooled_outputs import POOLINGS, distance, pooled
from renate_stages.learners.pod_er import PODER
from renate_stages.models import MLP, RenateWrapper, ResNet18, SmallCNN

SIZES = {"batch_size": 4, "memory_batch_size": 6}


def started(learner: PODER, tmp_path, width: int) -> PODER:
    kept = np.random.default_rng(2).random((20, width)).astype(np.float32)
    learner.start_update(
        stored(tmp_path / "new", 12), stored(tmp_path / "old", 20, first=50, pooled=kept)
    )
    return learner


@pytest.mark.parametrize("forward", ["joint", "separate"])
@pytest.mark.parametrize("normalize", [True, False])
def test_loss_is_that_of_er_plus_the_distance_of_pooled_outputs(tmp_path, forward, normalize):
    torch.manual_seed(1)
    model = MLP(num_inputs=5, num_outputs=3, hidden_size=[4, 7])
    given = context(model=model)
    learner = PODER(given, alpha=0.7, normalize=normalize, replay_forward=forward, **SIZES)
    learner = started(learner, tmp_path, 4 + 7)
    batch = first_step(learner)
    (drawn,) = batch.memory
    hidden, distances = drawn.inputs, []
    for layer, kept in zip((1, 3), drawn.fields["pooled"].split([4, 7], dim=1), strict=True):
        hidden = torch.relu(model.features[layer](hidden))
        squares = hidden**2
        if normalize:
            squares = squares / squares.norm(dim=1, keepdim=True).clamp(min=1e-12)
        small = 0.01 * kept.norm(dim=1)
        distances.append((((squares - kept) ** 2).sum(1) + small**2).sqrt().sub(small).mean())
    inputs, targets = (
        torch.cat([getattr(each, part) for each in (batch.new, drawn)])
        for part in ("inputs", "targets")
    )
    expected = F.cross_entropy(model(inputs), targets) + 0.7 * sum(distances) / 2
    torch.testing.assert_close(learner.loss(batch), expected)


def test_gradient_of_a_change_by_rounding_is_small():
    kept = F.normalize(torch.rand(3, 50), dim=1)
    for change, length in ((1e-7, 1e-4), (0.5, 1.0)):
        now = (kept + change * F.normalize(torch.randn(3, 50), dim=1)).requires_grad_()
        (gradient,) = torch.autograd.grad(distance(now, kept).sum(), now)
        assert gradient.norm(dim=1).max() < 2 * length
        assert change < 0.5 or gradient.norm(dim=1).min() > 0.9
    assert torch.equal(distance(kept, kept), torch.zeros(3))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_are_sums_of_squares_over_their_dimensions(pooling):
    torch.manual_seed(0)
    h = torch.randn(2, 3, 4, 5)
    found = pooled(h, pooling)
    for row in range(2):
        squares = [[[float(h[row, c, y, x]) ** 2 for x in range(5)] for y in range(4)] for c in range(3)]  # fmt: skip
        width = [sum(line) for image in squares for line in image]  # one for each c and y
        height = [sum(column) for image in squares for column in zip(*image, strict=True)]
        expected = {
            "pixel": [v for image in squares for line in image for v in line],
            "channel": [
                sum(squares[c][y][x] for c in range(3)) for y in range(4) for x in range(5)
            ],
            "width": width,
            "height": height,
            "gap": [sum(map(sum, image)) / 20 for image in squares],
            "spatial": [*width, *height],
        }[pooling]
        torch.testing.assert_close(found[row], torch.tensor(expected))


def test_pooled_outputs_of_the_trained_model_are_kept(tmp_path):
    learner = PODER(context(), memory_size=5, **SIZES)
    learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "none", 0))
    chosen = learner.choose_memory()
    rows = chosen.selection.added
    inputs, _ = learner.new.__getitems__(rows)
    hidden = inputs
    for layer in learner.model.features:
        hidden = layer(hidden)
    last = chosen.added_fields["pooled"][:, -4:]
    np.testing.assert_allclose(last, F.normalize(hidden.detach() ** 2, dim=1), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (MLP(4, 2, hidden_size=[3, 5]), [(2, 3), (2, 5)]),
        (SmallCNN(1, 2, width=2), [(2, 2, 8, 8), (2, 4, 4, 4), (2, 8, 2, 2)]),
        (ResNet18(2, 1, width=2), [(2, 2, 8, 8), (2, 4, 4, 4), (2, 8, 2, 2), (2, 16, 1, 1)]),
    ],
    ids=["MLP", "SmallCNN", "ResNet18"],
)
def test_reference_models_name_the_last_layer_of_each_stage(model, shapes):
    for layer in model.layers_to_distil():
        model.register_intermediate_representation_caching_hook(layer)
    model(torch.rand(2, 4) if isinstance(model, MLP) else torch.rand(2, 1, 8, 8))
    assert [tuple(each.shape) for each in model.get_intermediate_representation()] == shapes


def test_hooks_of_the_user_are_used_and_a_model_without_any_is_refused(tmp_path):
    body = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    model = RenateWrapper(body)
    learner = PODER(context(model=model), **SIZES)
    with pytest.raises(
        errors.ModelMismatchError, match=r"Sequential names none(.|\n)*register_intermediate"
    ) as raised:
        learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "none", 0))
    assert "RenateWrapper" in str(raised.value)
    model.register_intermediate_representation_caching_hook(body[1])
    started(PODER(context(model=model), **SIZES), tmp_path / "two", 4)


def test_layer_of_another_rank_is_refused():
    with pytest.raises(errors.ModelMismatchError, match=r"found \(2, 3, 4\)"):
        pooled(torch.rand(2, 3, 4), "spatial")


@pytest.mark.parametrize("wrong", [{"alpha": -1}, {"distillation_type": "depth"}])
def test_hyperparameter_outside_its_range_is_refused(wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        PODER(context(), **wrong)
