"""`trainer.keep: best` keeps the weights of the epoch with the best validation metric."""

from __future__ import annotations

import pytest
import torch
from small_updates import updater, weights

from renate_stages.errors import InvalidParamsError
from renate_stages.training.resume import SECONDS_VARIABLE, Resume
from renate_stages.training.update_data import UpdateData

DIVERGING = {"learning_rate": 3.0, "batch_size": 8}


def losses(updated) -> list[float]:
    return [row["val_loss"] for row in updated.curves]


def trained(make_state, new, epochs: int, keep: str = "last", **more):
    made = updater("FineTuning", DIVERGING, max_epochs=epochs, keep=keep)
    return made.update(UpdateData(make_state(), new, {1: new}), **more)


def best_epoch(updated) -> int:
    ranked = [(row["val_accuracy"], -row["val_loss"]) for row in updated.curves]
    return ranked.index(max(ranked)) + 1


def test_keep_best_weights_equal_those_of_a_training_that_ends_at_the_best_epoch(make_state, new):
    kept = trained(make_state, new, 8, "best")
    best = best_epoch(kept)
    assert 1 <= best < 8, "the test needs a training that gets worse"
    assert torch.equal(weights(kept), weights(trained(make_state, new, best)))
    assert kept.curves == trained(make_state, new, 8).curves, "all epochs are recorded"


def test_resumed_training_keeps_the_best_epoch(make_state, new, tmp_path, monkeypatch):
    monkeypatch.setenv(SECONDS_VARIABLE, "0")
    straight = trained(make_state, new, 8, "best")
    resume = Resume.of(tmp_path, "inputs", lambda line: None)
    trained(make_state, new, 8, "best", resume=resume)
    again = trained(make_state, new, 8, "best", resume=resume)  # no epoch is left
    assert torch.equal(weights(again), weights(straight))
    assert again.curves == straight.curves


def test_keep_best_without_validation_data_is_refused(make_state, new):
    made = updater("FineTuning", DIVERGING, keep="best")
    with pytest.raises(InvalidParamsError, match="finding the best epoch needs validation data"):
        made.update(UpdateData(make_state(), new))


def test_checkpoint_of_a_complete_training_is_reproducible_and_restores_it(
    make_state, new, tmp_path
):
    straight = updater("ER", max_epochs=20, max_steps=10).update(
        UpdateData(make_state(10), new, {1: new})
    )
    for folder, limits in (("once", {}), ("again", {})):
        resume = Resume(tmp_path / folder, lambda line: None, whole=True)
        made = updater("ER", max_epochs=20, max_steps=10, **limits)
        made.update(UpdateData(make_state(10), new, {1: new}), resume=resume)
    once, again = ((tmp_path / name / "last.ckpt").read_bytes() for name in ("once", "again"))
    assert once == again
    resume = Resume(tmp_path / "once", lambda line: None)
    resumed = updater("ER", max_epochs=20, max_steps=10).update(
        UpdateData(make_state(10), new, {1: new}), resume=resume
    )
    assert torch.equal(weights(resumed), weights(straight)) and resumed.steps == 10
    assert resumed.curves == straight.curves


def test_keep_auto_keeps_the_best_epoch_only_with_validation_data(make_state, new):
    best = trained(make_state, new, 8, "best")
    assert torch.equal(weights(trained(make_state, new, 8, "auto")), weights(best))
    ends = [
        updater("FineTuning", DIVERGING, max_epochs=8, keep=keep).update(
            UpdateData(make_state(), new)
        )
        for keep in ("auto", "last")
    ]
    assert torch.equal(*map(weights, ends))


def test_patience_ends_training_after_epochs_without_a_better_one(
    make_state, new, tmp_path, monkeypatch
):
    monkeypatch.setenv(SECONDS_VARIABLE, "0")
    whole = trained(make_state, new, 8)
    made = updater("FineTuning", DIVERGING, max_epochs=8, patience=2)
    resume = Resume.of(tmp_path, "inputs", lambda line: None)
    data = UpdateData(make_state(), new, {1: new})
    stopped = made.update(data, resume=resume)
    ranks = [(row["val_accuracy"], -row["val_loss"]) for row in whole.curves]
    last = next(
        n for n in range(2, 9) if max(ranks[n - 2 : n]) <= max(ranks[: n - 2], default=(-1, 0))
    )
    assert 3 <= last < 8, "the test needs a training that gets worse"
    assert stopped.curves == whole.curves[:last]
    again = updater("FineTuning", DIVERGING, max_epochs=8, patience=2).update(data, resume=resume)
    assert again.curves == stopped.curves, "a resumed training does not go on"


def test_patience_without_validation_data_is_refused(make_state, new):
    made = updater("FineTuning", DIVERGING, patience=1)
    with pytest.raises(InvalidParamsError, match="finding the best epoch"):
        made.update(UpdateData(make_state(), new))


@pytest.mark.parametrize("learner", ["ER", "DER++", "CLS-ER", "EWC"])
def test_training_in_float64_gives_a_float32_model_close_to_that_of_float32(
    make_state, new, learner
):
    online = {"memory_update": "online"} if learner in ("ER", "DER++") else {}
    results = []
    for precision in ("32-true", "64-true"):
        made = updater(learner, online, max_epochs=2, precision=precision, keep="best")
        results.append(made.update(UpdateData(make_state(10), new, {1: new})))
    single, double = results
    assert {each.dtype for each in double.model.parameters()} == {torch.float32}
    assert single.curves != double.curves
    torch.testing.assert_close(weights(single), weights(double), rtol=1e-3, atol=1e-4)
    assert not double.model._forward_hooks and not double.model._forward_pre_hooks
