"""Trainer settings that change a step: accumulation, gradient clipping and compilation."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from small_updates import RATE, VALUES, model_fn, updater, weights, write_examples

from renate_stages.learners.base import Learner
from renate_stages.params import TrainerParams
from renate_stages.training import trainer
from renate_stages.training.update_data import UpdateData


@pytest.fixture
def new(tmp_path):
    return write_examples(tmp_path / "new", 32)


def test_accumulated_batches_give_the_same_step_as_one_large_batch(make_state, new):
    values = {**VALUES, "ema_decay": 0.9}
    whole = updater("FineTuning", {**values, "batch_size": 8})
    parts = updater("FineTuning", {**values, "batch_size": 4}, accumulate_grad_batches=2)
    one, other = (made.update(UpdateData(make_state(), new)) for made in (whole, parts))
    assert one.steps == other.steps == 8
    torch.testing.assert_close(weights(other), weights(one), rtol=0, atol=1e-6)


def test_after_step_runs_only_after_optimizer_steps(make_state, new, monkeypatch):
    steps_followed: list[int] = []
    monkeypatch.setattr(Learner, "after_step", lambda self: steps_followed.append(self.global_step))
    made = updater("FineTuning", max_epochs=1, accumulate_grad_batches=3)  # 4 batches per epoch
    assert made.update(UpdateData(make_state(), new)).steps == 2 and steps_followed == [1, 2]


@pytest.mark.parametrize(("algorithm", "order"), [("norm", 2), ("value", float("inf"))])
def test_gradients_are_clipped_by_norm_or_by_value(make_state, new, algorithm, order):
    limit = 0.01
    settings = {"gradient_clip_val": limit, "gradient_clip_algorithm": algorithm}
    made = updater("FineTuning", max_steps=1, **settings)
    before = torch.nn.utils.parameters_to_vector(made.build_model(None).parameters()).detach()
    moved = (weights(made.update(UpdateData(make_state(), new))) - before) / RATE
    assert float(torch.linalg.vector_norm(moved, order)) == pytest.approx(limit, rel=1e-3)


def test_compiled_model_has_identical_weights_and_parameter_names(make_state, new, monkeypatch):
    called: list[bool] = []
    compiled = partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", lambda model: called.append(True) or compiled(model))
    plain = updater("DER++").update(UpdateData(make_state(10), new, {1: new}))
    same = updater("DER++", compile=True).update(UpdateData(make_state(10), new, {1: new}))
    assert called and torch.equal(weights(same), weights(plain))
    assert same.curves == plain.curves
    for each in (same.model, same.learner.model):
        assert list(each.state_dict()) == list(model_fn().state_dict())
    assert same.learner.state_dict().keys() == plain.learner.state_dict().keys()


def test_compiled_graph_of_another_learner_is_not_used_again(make_state, new, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    data = UpdateData(make_state(10), new)
    updater("ER", compile=True).update(data)  # its graph calls no hooks
    values = {**VALUES, "alpha": 0.02}
    same = updater("POD-ER", values, compile=True).update(data)
    assert torch.equal(weights(same), weights(updater("POD-ER", values).update(data)))


def test_checkpoint_is_written_without_cloud_packages_and_its_bytes_ignore_its_name(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("lightning_fabric.plugins.io.torch_io._atomic_save", None)
    strategy = trainer.make_trainer(TrainerParams()).strategy
    for name in ("one.ckpt", ".two.new"):
        strategy.save_checkpoint({"weights": torch.arange(3.0)}, tmp_path / name)
    assert (tmp_path / "one.ckpt").read_bytes() == (tmp_path / ".two.new").read_bytes()
    read = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert read["weights"].tolist() == [0, 1, 2]


def test_trainer_settings_are_checked_once(monkeypatch):
    made = []
    monkeypatch.setattr(trainer, "_accepted", set())
    monkeypatch.setattr(trainer, "make_trainer", made.append)
    for settings in ({}, {"max_epochs": 3}, {"precision": "64-true"}, {"precision": "64-true"}):
        trainer.check_trainer(TrainerParams(**settings))
    assert [each.precision for each in made] == ["32-true", "64-true"]
