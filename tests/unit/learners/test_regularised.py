"""Learners without memory run by the updater: stored states, resume and changes of learner."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_learners import context, stored
from small_updates import VALUES, Interrupt, in_memory, state_of, updater, weights, write_examples

from renate_stages import errors
from renate_stages.learners import registry
from renate_stages.learners.ewc import EWC
from renate_stages.models import MLP
from renate_stages.models.stored import read_tensors
from renate_stages.training.resume import SECONDS_VARIABLE, Resume
from renate_stages.training.update_data import UpdateData

PENALTIES = ["EWC", "MAS", "SI"]
NAMES = ["LwF", "WiSE-FT", "L2-SP", "L2-Init", *PENALTIES]
OWN = {"ewc_weight": 5.0, "num_coefficients": 5, "init_weight": 0.1}
EACH = {**VALUES, **OWN}


@pytest.fixture
def second(tmp_path):
    return write_examples(tmp_path / "second", 25, first=300)


@pytest.fixture
def after(make_state, new, tmp_path):
    """Return a function that runs a first update and returns its result and its state."""

    def make(learner: str, values=EACH):
        updated = updater(learner, values).update(UpdateData(make_state(), new))
        return updated, state_of(tmp_path / f"after-{learner}", updated, 1)

    return make


def assert_equal_state(one, other):
    (tensors, values), (expected, expected_values) = (
        each.learner.learner_state() for each in (one, other)
    )
    assert values == expected_values and tensors.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in tensors.items())


@pytest.mark.parametrize("learner", NAMES)
def test_second_update_from_a_stored_state_equals_an_update_from_live_objects(
    after, new, second, learner
):
    values = {**EACH, "interpolation": 0.6}
    first, parent = after(learner, values)
    validation = {1: new, 2: second}
    made = updater(learner, values, number=2)
    stored_one = made.update(UpdateData(parent, second, validation))
    made = in_memory(updater(learner, values, number=2), first, parent)
    uninterrupted = made.update(UpdateData(parent, second, validation))
    assert torch.equal(weights(stored_one), weights(uninterrupted))
    assert stored_one.curves == uninterrupted.curves
    assert stored_one.tables == uninterrupted.tables
    assert_equal_state(stored_one, uninterrupted)
    plain = updater("FineTuning", VALUES, number=2).update(UpdateData(parent, second, validation))
    assert not torch.equal(weights(stored_one), weights(plain)), "the parent influences the result"


@pytest.mark.parametrize("learner", [name for name in NAMES if name != "L2-Init"])
def test_first_update_equals_fine_tuning(make_state, new, learner):
    found = updater(learner, EACH).update(UpdateData(make_state(), new, {1: new}))
    expected = updater("FineTuning", VALUES).update(UpdateData(make_state(), new, {1: new}))
    assert torch.equal(weights(found), weights(expected)) and found.tables == {}


@pytest.mark.parametrize("learner", NAMES)
def test_resumed_training_has_identical_bytes(after, second, tmp_path, monkeypatch, learner):
    monkeypatch.setenv(SECONDS_VARIABLE, "0")
    values = {**EACH, "dropout": 0.3}
    _, parent = after(learner, values)
    interrupt, messages = Interrupt(), []
    functions = {"train_transform": lambda: interrupt}
    made = updater(learner, values, number=2, functions=functions, max_epochs=5)
    straight = made.update(UpdateData(parent, second, {2: second}))
    resume = Resume.of(tmp_path / "resume", "inputs", messages.append)
    interrupt.left = 70  # 25 examples per epoch
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        made.update(UpdateData(parent, second, {2: second}), resume=resume)
    interrupt.left = -1
    resumed = made.update(UpdateData(parent, second, {2: second}), resume=resume)
    assert messages == ["training goes on after epoch 2"]
    assert torch.equal(weights(resumed), weights(straight)) and resumed.curves == straight.curves
    assert_equal_state(resumed, straight)


@pytest.mark.parametrize("learner", NAMES)
def test_mixed_precision_weights_are_finite_and_close_to_single_precision(after, second, learner):
    _, parent = after(learner)
    found = [
        updater(learner, EACH, number=2, precision=precision).update(
            UpdateData(parent, second, {2: second})
        )
        for precision in ("bf16-mixed", "32-true")
    ]
    half, single = map(weights, found)
    assert half.dtype == torch.float32 and half.isfinite().all()
    assert not torch.equal(half, single)
    torch.testing.assert_close(half, single, rtol=0.05, atol=0.02)
    for row in found[0].curves:
        assert all(np.isfinite(value) for value in row.values())


@pytest.mark.parametrize(
    ("before", "now"),
    [("ER", "EWC"), ("EWC", "LwF"), ("LwF", "WiSE-FT"), ("EWC", "ER"), ("SI", "MAS")],
)
def test_learner_can_change_between_updates(after, second, tmp_path, capsys, before, now):
    _, parent = after(before)
    updated = updater(now, EACH, number=2).update(UpdateData(parent, second, {2: second}))
    state_of(tmp_path / "next", updated, 2)
    assert f"the parent's learner was {registry.learner_class(before).__name__}" in (
        capsys.readouterr().out
    )


def test_model_can_gain_outputs_between_updates(after, second, tmp_path, capsys):
    def grown_fn(model_state_url=None, dropout=0.0):
        model = MLP(num_inputs=5, num_outputs=4, hidden_size=4)
        if model_state_url is not None:
            state = torch.load(model_state_url, weights_only=True)
            own = model.state_dict()
            for name in ("head.weight", "head.bias"):
                own[name][:3] = state[name]
            fits = {n: v for n, v in state.items() if "features" in n}
            model.load_state_dict({**own, **fits})
        return model

    for learner in NAMES:
        _, parent = after(learner)
        made = updater(learner, EACH, number=2, functions={"model_fn": grown_fn})
        updated = made.update(UpdateData(parent, second, {2: second}))
        assert weights(updated).isfinite().all()
        messages = capsys.readouterr().out
        assert ("new or reshaped: head.weight, head.bias" in messages) == (learner in PENALTIES)
        state_of(tmp_path / f"grown-{learner}", updated, 2)


def test_fisher_is_kept_by_an_update_without_training(after, tmp_path):
    first, parent = after("EWC")
    made = updater("EWC", EACH, number=2)
    carried = made.carry_over(UpdateData(parent, np.ones(0, dtype=bool)))
    assert_equal_state(carried, first)
    tensors = read_tensors(
        state_of(tmp_path / "carried", carried, 2).folder / "learner.safetensors"
    )
    assert tensors["QuadraticPenalty.fisher/head/weight"].sum() > 0


def test_exploding_penalty_error_names_the_hyperparameter_to_lower(after, second):
    _, parent = after("EWC")
    with pytest.raises(errors.NotFiniteError, match="ewc_weight"):
        updater("EWC", {**EACH, "ewc_weight": 1e9}, number=2, max_epochs=9).update(
            UpdateData(parent, second)
        )


@pytest.mark.parametrize("metric", [{"metric": "accuracy"}, {"metric": "loss", "mode": "min"}])
def test_interpolation_coefficient_is_the_best_on_all_validation_data(after, new, second, metric):
    from renate_stages.params import Params
    from renate_stages.training.updater import Updater

    _, parent = after("WiSE-FT")
    made = updater("WiSE-FT", EACH, number=2, max_epochs=6)
    params = Params.parse(
        {
            **made.params.model_dump(exclude={"evaluation"}),
            "evaluation": metric,
            "learner": "WiSE-FT",
        }
    )
    made = Updater(made.user, params, made.hyperparameters)
    validation = {1: new, 2: second}
    updated = made.update(UpdateData(parent, second, validation))
    tuned = (
        updater("FineTuning", VALUES, number=2, max_epochs=6)
        .update(UpdateData(parent, second))
        .model
    )
    old = read_tensors(parent.folder / "model.safetensors")
    model, found = made.build_model(None), []
    for coefficient in (0, 0.25, 0.5, 0.75, 1):
        own = {n: torch.lerp(old[n], v.detach(), coefficient) for n, v in tuned.named_parameters()}
        model.load_state_dict(own, strict=False)
        sets = {n: made.test_set(store) for n, store in validation.items()}
        by_update = {n: each.metrics for n, each in made.examine(model, sets).items()}
        rows = {n: len(store) for n, store in validation.items()}
        union = {
            name: sum(rows[n] * by_update[n][name] for n in rows) / sum(rows.values())
            for name in ("accuracy", "loss")
        }
        sign = 1 if metric.get("mode") != "min" else -1
        found.append((sign * union[metric["metric"]], -union["loss"], coefficient, own, by_update))
    best = max(found, key=lambda each: each[:2])
    assert all(torch.equal(v, best[3][n]) for n, v in updated.model.named_parameters())
    for row, (_, _, coefficient, _, by_update) in zip(
        updated.tables["interpolation"], found, strict=True
    ):
        assert row["coefficient"] == coefficient
        assert row["chosen"] == (coefficient == best[2])
        for side, number in (("old", 1), ("new", 2)):
            for name in ("accuracy", "loss"):
                assert row[f"{side}_{name}"] == pytest.approx(by_update[number][name])


def test_ewc_state_keeps_two_values_per_weight_over_many_updates(tmp_path):
    learner = EWC(context(), batch_size=4)
    sizes = []
    for number in (1, 2, 3):
        learner.start_update(stored(tmp_path / f"{number}", 9), stored(tmp_path / f"n{number}", 0))
        learner.end_training(None)
        tensors, values = learner.learner_state()
        sizes.append(sum(value.numel() for value in tensors.values()))
        learner = EWC(context(update=number + 1, has_parent=True), batch_size=4)
        learner.restore_learner(tensors, values)
    parameters = sum(parameter.numel() for parameter in learner.model.parameters())
    assert sizes == [2 * parameters] * 3


def test_regularised_learners_are_registered_without_needs():
    for name in NAMES:
        entry = registry.LEARNERS[name]
        assert registry.learner_class(name).__module__ == entry.place.split(":")[0]
        assert entry.needs == (), "no memory, no labels"
