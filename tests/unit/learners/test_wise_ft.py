"""WiSE-FT: interpolation between the parent's weights and the fine-tuned weights."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_learners import CLASSES, context, stored, take_steps
from torch import Tensor, nn

from renate_stages import errors
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.er import ExperienceReplay
from renate_stages.learners.ewc import EWC
from renate_stages.learners.fine_tuning import FineTuning
from renate_stages.learners.wise_ft import WiSEFT, interpolate, tensors_of
from renate_stages.models import MLP, RenateModule
from renate_stages.models.module import RenateWrapper

GRID = np.linspace(0, 1, 11)


def tensors(model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tensors_of(model).items()}


def trained(tmp_path, kind=WiSEFT, given=None, **values):
    """Return a fine-tuned learner, its parent's weights and the fine-tuned weights."""
    given = given or context(has_parent=True)
    old = tensors(given.start.model)
    start = replace(given.start, parent_weights=lambda: old)
    learner = kind(replace(given, start=start), batch_size=4, **values)
    learner.start_update(stored(tmp_path / "new", 24), stored(tmp_path / "none", 0))
    take_steps(learner, 6)
    return learner, old, tensors(learner.model)


def at(old, new, coefficient: float) -> dict[str, Tensor]:
    return {name: (1 - coefficient) * old[name] + coefficient * new[name] for name in new}


def assert_near(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def measure_of(tmp_path, metrics, updates=(1, 2), **changes) -> Measure:
    """Return a measure that applies `metrics` per update; for the union, the mean over updates."""

    def evaluate(model, datasets):
        each = {number: metrics(model, number) for number in datasets}
        names = next(iter(each.values()))
        return {k: float(np.mean([e[k] for e in each.values()])) for k in names}, each

    data = {number: stored(tmp_path / f"val-{number}", 5) for number in updates}
    return Measure(evaluate, data, update=2, **changes)


def distance(to: float, old, new):
    """Return a metric that is best for weights at coefficient `to`; the loss is 0."""

    def metrics(model, number: int) -> dict[str, float]:
        weight = model.head.weight.detach()
        place = ((weight - old["head.weight"]).norm() / (new["head.weight"] - old["head.weight"]).norm())  # fmt: skip
        return {"accuracy": -abs(float(place) - to) + number, "loss": 0.0}

    return metrics


@pytest.mark.parametrize("coefficient", [0, 0.3, 0.75, 1])
def test_weights_are_interpolated_between_parent_and_fine_tuned_model(tmp_path, coefficient):
    learner, old, new = trained(tmp_path, interpolation=coefficient)
    learner.end_training(None)
    found = tensors(learner.model)
    assert_near(found, at(old, new, coefficient))
    exact = {0: old, 1: new}.get(coefficient)
    if exact is not None:
        assert all(torch.equal(found[name], exact[name]) for name in new), "to the bit"
    assert not torch.equal(old["head.weight"], new["head.weight"])


@pytest.mark.parametrize("best", [0.0, 0.42, 0.7, 1.0])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_chosen_coefficient_has_the_best_metric(tmp_path, best, mode):
    learner, old, new = trained(tmp_path)
    metrics = distance(best, old, new)
    sign = 1 if mode == "max" else -1
    measure = measure_of(
        tmp_path, lambda *a: {k: sign * v for k, v in metrics(*a).items()}, mode=mode
    )
    copied, by_force = copy.deepcopy(learner.model), []
    for coefficient in GRID:
        interpolate(copied, old, new, float(coefficient))
        by_force.append(sign * measure(copied)["accuracy"])
    expected = float(GRID[int(np.argmax(by_force))])
    assert abs(expected - best) < 0.051
    learner.end_training(measure)
    assert_near(tensors(learner.model), at(old, new, expected))
    (chosen,) = [row for row in learner.tables()["interpolation"] if row["chosen"]]
    assert chosen["coefficient"] == expected


def test_ties_between_coefficients_are_resolved_by_the_smaller_loss(tmp_path):
    learner, old, new = trained(tmp_path, num_coefficients=5)
    place = distance(0.75, old, new)
    measure = measure_of(
        tmp_path, lambda *a: {"accuracy": 0.9, "loss": -place(*a)["accuracy"]}, updates=(2,)
    )
    learner.end_training(measure)
    assert_near(tensors(learner.model), at(old, new, 0.75))


def test_coefficient_with_a_nan_metric_is_never_chosen(tmp_path):
    learner, old, new = trained(tmp_path, num_coefficients=3)
    place = distance(0.5, old, new)

    def metrics(*of):
        value = place(*of)["accuracy"] - of[1]
        return {"accuracy": float("nan") if value > -0.1 else value, "loss": float("nan")}

    learner.end_training(measure_of(tmp_path, metrics))
    assert_near(tensors(learner.model), old)


def test_interpolation_table_separates_metrics_of_old_and_new_data(tmp_path):
    learner, old, new = trained(tmp_path, num_coefficients=3)
    place = distance(0.5, old, new)

    def metrics(model, number):
        return {"accuracy": place(model, number)["accuracy"], "loss": 10.0 * number}

    learner.end_training(measure_of(tmp_path, metrics, updates=(0, 1, 2)))
    rows = learner.tables()["interpolation"]
    assert [row["coefficient"] for row in rows] == [0, 0.5, 1]
    assert [row["chosen"] for row in rows] == [0, 1, 0]
    assert {(row["old_loss"], row["new_loss"]) for row in rows} == {(5.0, 20.0)}
    assert [row["old_accuracy"] for row in rows] == pytest.approx([0, 0.5, 0], abs=1e-5)
    assert [row["new_accuracy"] for row in rows] == pytest.approx([1.5, 2, 1.5], abs=1e-5)


def test_fixed_coefficient_is_used_and_listed_in_the_interpolation_table(tmp_path):
    learner, old, new = trained(tmp_path, interpolation=0.35, num_coefficients=3)
    learner.end_training(measure_of(tmp_path, distance(1, old, new)))
    assert_near(tensors(learner.model), at(old, new, 0.35))
    rows = learner.tables()["interpolation"]
    assert [(row["coefficient"], row["chosen"]) for row in rows] == [
        (0, 0), (0.35, 1), (0.5, 0), (1, 0)
    ]  # fmt: skip


def test_coefficient_is_one_half_and_reported_without_validation_data(tmp_path):
    messages = []
    learner, old, new = trained(tmp_path, given=context(has_parent=True, say=messages.append))
    learner.end_training(None)
    assert_near(tensors(learner.model), at(old, new, 0.5))
    assert messages == ["no validation data, so the interpolation coefficient is 0.5"]
    assert learner.tables() == {}


def test_first_wise_ft_update_equals_fine_tuning(tmp_path):
    found = []
    for kind in (WiSEFT, FineTuning):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        learner, _, new = trained(folder, kind, context())
        learner.end_training(measure_of(folder, lambda *_: {"accuracy": 0.0, "loss": 0.0}))
        assert all(torch.equal(value, new[n]) for n, value in tensors(learner.model).items())
        found.append(new["head.weight"])
        assert learner.tables() == {}
    assert torch.equal(*found)


class Normed(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(5), nn.Linear(5, outputs)

    def forward(self, x):
        return self.head(self.norm(x))


def test_batch_norm_statistics_are_interpolated_but_counts_are_not(tmp_path):
    model: RenateModule = RenateWrapper(Normed(CLASSES))
    learner, old, new = trained(
        tmp_path, given=context(model=model, has_parent=True), interpolation=0.4
    )
    assert set(old) == set(Normed(1).state_dict()), "names match the stored tensors"
    learner.end_training(None)
    found = tensors(learner.model)
    assert found["norm.num_batches_tracked"] == new["norm.num_batches_tracked"] == 6
    assert old["norm.num_batches_tracked"] == 0
    for name in ("norm.running_mean", "norm.running_var", "head.weight"):
        torch.testing.assert_close(found[name], 0.6 * old[name] + 0.4 * new[name])
        assert not torch.equal(old[name], new[name])


@pytest.mark.parametrize("missing", [True, False])
def test_weights_missing_or_reshaped_in_the_parent_are_not_interpolated(tmp_path, missing):
    learner, old, new = trained(tmp_path, interpolation=0.4)
    if missing:
        del old["head.weight"], old["head.bias"]
    else:
        old["head.weight"], old["head.bias"] = old["head.weight"][:2], old["head.bias"][:2]
    learner.end_training(None)
    found = tensors(learner.model)
    for name in ("head.weight", "head.bias"):
        assert torch.equal(found[name], new[name])
    assert_near(
        {n: v for n, v in found.items() if "head" not in n},
        {n: 0.6 * old[n] + 0.4 * v for n, v in new.items() if "head" not in n},
    )


def test_interpolation_can_be_combined_with_replay(tmp_path):
    class InterpolatedReplay(WiSEFT, ExperienceReplay):
        pass

    learner, old, new = trained(tmp_path, InterpolatedReplay, interpolation=0.3, memory_size=5)
    learner.end_training(None)
    assert_near(tensors(learner.model), at(old, new, 0.3))
    assert len(learner.choose_memory().selection.added) == 5


def test_ewc_penalty_is_anchored_to_the_interpolated_weights(tmp_path):
    class InterpolatedEWC(WiSEFT, EWC):
        pass

    learner, old, new = trained(tmp_path, InterpolatedEWC, interpolation=0.3)
    learner.end_training(None)
    (penalty,) = learner.parts
    anchor = penalty.get_buffer("anchor/head/weight")
    assert torch.equal(anchor, learner.model.head.weight)
    torch.testing.assert_close(anchor, at(old, new, 0.3)["head.weight"])


def test_moving_average_is_interpolated_with_the_parents_weights(tmp_path):
    learner, old, new = trained(tmp_path, ema_decay=0.5, interpolation=0.3)
    average = tensors(learner.served)
    assert not torch.equal(average["head.weight"], new["head.weight"])
    learner.end_training(None)
    assert_near(tensors(learner.model), at(old, average, 0.3))


def test_unmeasured_headline_metric_is_refused_with_a_suggestion(tmp_path):
    learner, _, _ = trained(tmp_path)
    measure = measure_of(tmp_path, lambda *_: {"acuracy": 0.0, "loss": 0.0})
    with pytest.raises(errors.UnmeasuredMetricError, match="did you mean 'acuracy'"):
        learner.end_training(measure)


@pytest.mark.parametrize(
    "wrong",
    [{"interpolation": 1.1}, {"interpolation": "test"}, {"interpolation": True},
     {"num_coefficients": 1}, {"num_coefficients": 2.5}],
)  # fmt: skip
def test_hyperparameter_outside_its_range_is_refused(wrong):
    with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
        WiSEFT(context(), **wrong)


def test_half_precision_interpolation_is_exact_for_coefficients_0_and_1():
    model = MLP(num_inputs=5, num_outputs=CLASSES, hidden_size=4).to(torch.bfloat16)
    old, new = tensors(model), {n: v + 0.37 for n, v in tensors(model).items()}
    for coefficient, expected in ((0.0, old), (1.0, new)):
        interpolate(model, old, new, coefficient)
        assert all(torch.equal(v, expected[n]) for n, v in tensors(model).items())
