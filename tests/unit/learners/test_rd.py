"""RD: an expert on the new data, then its consolidation with the parent in a second phase."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_learners import context, stored
from small_updates import VALUES, state_of, updater, weights, write_examples
from torch import nn

from renate_stages import errors
from renate_stages.data import Batch
from renate_stages.learners.base import Learner
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.rd import RepeatedDistillation
from renate_stages.memory import ExampleStore
from renate_stages.state import State, state
from renate_stages.tasks.ranking import Ranking
from renate_stages.tasks.regression import Regression
from renate_stages.tasks.task import IGNORED
from renate_stages.training.resume import SECONDS_VARIABLE, Resume
from renate_stages.training.update_data import UpdateData

EPOCHS = 4
RD = {**VALUES, "memory_size": 30}


@pytest.fixture
def parent(tmp_path) -> State:
    """A state with a trained model and a memory of 30 examples."""
    folder = tmp_path / "empty"
    folder.mkdir()
    state.write_empty(folder)
    new = write_examples(tmp_path / "first", 40)
    updated = updater("ER", RD).update(UpdateData(State.open(folder), new))
    return state_of(tmp_path / "parent", updated, 1, new=new)


@pytest.fixture
def new(tmp_path) -> ExampleStore:
    return write_examples(tmp_path / "new", 24, first=100)


def made(values=(), functions=None, learner="RD", **trainer):
    return updater(
        learner,
        {**RD, **dict(values)},
        number=2,
        functions=functions,
        **{"max_epochs": EPOCHS, **trainer},
    )


@pytest.fixture
def steps(monkeypatch):
    """The inputs, targets, rows and losses of all steps, in order."""
    seen = []
    original = Learner.training_step

    def recorded(self, batch, number):
        loss = original(self, batch, number)
        seen.append((getattr(self, "trains_expert", False), batch.new, float(loss.detach())))
        return loss

    monkeypatch.setattr(Learner, "training_step", recorded)
    return seen


def test_update_equals_a_plain_loop_of_both_phases(parent, new, steps):
    update = made({"expert_share": 0.5})
    taught = update.build_model(parent.folder)
    expert = update.build_model(None)
    model = copy.deepcopy(expert)
    updated = update.update(UpdateData(parent, new))
    numbers = np.concatenate([batch.rows for _, batch, _ in steps[:3]])
    assert [phase for phase, *_ in steps] == 6 * [True] + 2 * -(-30 // 8) * [False]
    assert sorted(numbers) == list(range(24))

    kept, added = updated.selection
    rows = np.concatenate([batch.rows for phase, batch, _ in steps[:10] if not phase])
    assert sorted(rows) == list(range(30)) and len(kept) + len(added) == 30 and len(added)

    optimizer = torch.optim.SGD(expert.parameters(), lr=0.1)
    for _, batch, loss in steps[:6]:
        found = F.cross_entropy(expert(batch.inputs), batch.targets)
        assert float(found.detach()) == pytest.approx(loss, rel=1e-5)
        optimizer.zero_grad(), found.backward(), optimizer.step()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _, batch, loss in steps[6:]:
        targets = [
            (taught if row < len(kept) else expert)(one[None])[0].detach()
            for row, one in zip(batch.rows, batch.inputs, strict=True)
        ]
        centred = torch.stack([each - each.mean() for each in targets])
        found = ((model(batch.inputs) - centred) ** 2 / 2).mean(1).mean()
        assert float(found.detach()) == pytest.approx(loss, rel=1e-4)
        optimizer.zero_grad(), found.backward(), optimizer.step()
    expected = nn.utils.parameters_to_vector(model.parameters()).detach()
    torch.testing.assert_close(weights(updated), expected, rtol=1e-4, atol=1e-6)
    assert updated.learner.expert is None and updated.learner.teacher is None


def test_each_phase_begins_its_own_optimizer_and_schedule(parent, new):
    rates = []

    def optimizer_fn():
        return lambda parameters: torch.optim.Adam(parameters, lr=0.1)

    def lr_scheduler_fn():
        return lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), "epoch"

    functions = {"optimizer_fn": optimizer_fn, "lr_scheduler_fn": lr_scheduler_fn}
    values = {name: each for name, each in RD.items() if name != "learning_rate"}
    update = updater("RD", values, number=2, functions=functions, max_epochs=EPOCHS)
    original = RepeatedDistillation.after_step
    try:
        RepeatedDistillation.after_step = lambda self: (
            rates.append((self.optimizers_in_use[0].param_groups[0]["lr"], self.trains_expert)),
            original(self),
        )[-1]
        update.update(UpdateData(parent, new))
    finally:
        RepeatedDistillation.after_step = original
    assert rates[0] == (0.1, True) and rates[3] == (0.05, True)
    assert rates[6] == (0.1, False) and rates[-2] == (0.05, False)


@pytest.mark.parametrize(
    ("share", "epochs", "expected"),
    [(0.5, 4, 2), (0.5, 3, 2), (0.01, 4, 1), (0.99, 4, 3), (0.25, 8, 2), (0.5, 2, 1)],
)
def test_both_phases_have_at_least_one_epoch(parent, new, steps, share, epochs, expected):
    updated = made({"expert_share": share}, max_epochs=epochs).update(UpdateData(parent, new))
    assert sum(phase for phase, *_ in steps) == expected * 3
    assert len(updated.curves) == epochs


@pytest.mark.parametrize(
    ("epoch", "workers"), [(2, 0), (3, 0), (4, 0), (3, 1)]
)  # the second phase begins with epoch 3
def test_resumed_training_has_identical_bytes(parent, new, tmp_path, monkeypatch, epoch, workers):
    monkeypatch.setenv(SECONDS_VARIABLE, "0")
    functions = {"train_transform": lambda: noisy, "buffer_transform": lambda: noisy}
    update = made({"ema_decay": 0.5}, functions, num_workers=workers)
    data = UpdateData(parent, new, {2: new})
    straight = update.update(data)
    messages: list[str] = []
    resume = Resume.of(tmp_path / "resume", "inputs", messages.append)
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        patch.setattr(Learner, "training_step", _interrupted_in(epoch))
        update.update(data, resume=resume)
    torch.randn(3)
    resumed = update.update(data, resume=resume)
    assert messages == [f"training goes on after epoch {epoch - 1}"]
    assert torch.equal(weights(resumed), weights(straight))
    assert resumed.curves == straight.curves and resumed.steps == straight.steps
    assert all(map(np.array_equal, resumed.selection, straight.selection))


def noisy(inputs):
    return inputs + 0.1 * torch.randn(5)


def _interrupted_in(epoch: int):
    original = Learner.training_step

    def step(self, batch, number):
        if self.trainer.current_epoch + 1 == epoch and number == 1:
            raise KeyboardInterrupt
        return original(self, batch, number)

    return step


def test_only_epochs_of_consolidation_are_kept_or_end_training(parent, new, tmp_path, monkeypatch):
    measured = []
    original = RepeatedDistillation.on_train_epoch_end

    def seen(self):
        measured.append((self.is_final, copy.deepcopy(self.measured)))
        original(self)

    monkeypatch.setattr(RepeatedDistillation, "on_train_epoch_end", seen)
    validation = write_examples(tmp_path / "validation", 20, first=100)
    update = made(keep="best", patience=1, max_epochs=8)
    updated = update.update(UpdateData(parent, new, {2: validation}))
    assert [final for final, _ in measured[:5]] == 4 * [False] + [True]
    inputs, labels = (torch.tensor(validation.column(n)[:]) for n in ("inputs", "targets"))
    for (_, model), row in zip(measured, updated.curves, strict=True):
        loss = float(F.cross_entropy(model.eval()(inputs), labels).detach())
        assert row["val_loss"] == pytest.approx(loss, rel=1e-5)
    ranks = [(row["val_accuracy"], -row["val_loss"]) for row in updated.curves[4:]]
    best = max(range(len(ranks)), key=lambda n: (ranks[n], -n))
    assert len(ranks) == 8 - 4 or len(ranks) == best + 2
    kept = measured[4 + best][1].state_dict()
    found = dict(updated.model.named_parameters())
    assert all(torch.equal(each, kept[name]) for name, each in found.items())


def test_parents_model_stays_if_training_ends_before_the_second_phase(parent, new):
    said: list[str] = []
    update = made(max_steps=4)
    update.say = said.append
    before = update.build_model(parent.folder)
    updated = update.update(UpdateData(parent, new))
    assert torch.equal(
        weights(updated), nn.utils.parameters_to_vector(before.parameters()).detach()
    )
    assert "training ended before RD's consolidation: the parent's model stays" in said


def test_without_stored_examples_all_epochs_train_the_model(tmp_path, new, steps):
    folder = tmp_path / "empty"
    folder.mkdir()
    state.write_empty(folder)
    updated = made().update(UpdateData(State.open(folder), new))
    assert [phase for phase, *_ in steps] == 4 * 3 * [False]
    plain = made(learner="FineTuning").update(UpdateData(State.open(folder), new))
    assert torch.equal(weights(updated), weights(plain))
    assert len(updated.selection.added) == 24


def test_parent_without_memory_is_fine_tuned_and_this_is_said(tmp_path, new):
    learner = RepeatedDistillation(context(has_parent=True, say=(said := []).append))
    learner.start_update(stored(tmp_path / "few", 8), stored(tmp_path / "none", 0))
    assert learner.expert is None and not learner.trains_expert
    assert said == ["RD has no stored examples to consolidate: it fine-tunes the model"]


def test_outputs_of_a_regression_are_not_centred(tmp_path):
    torch.manual_seed(0)
    expected, found = _taught(tmp_path, Regression())
    torch.testing.assert_close(found, expected)


def test_ignored_items_are_not_taught(tmp_path):
    targets = torch.tensor([[2, 0, 1], [1, IGNORED, 1], [IGNORED, IGNORED, 1], [0, 1, 1]])
    expected, found = _taught(tmp_path, Ranking(), targets)
    counted = targets != IGNORED
    means = (expected * counted).sum(1) / counted.sum(1)
    torch.testing.assert_close(found[counted], (expected - means[:, None])[counted])
    assert found[~counted].isnan().all()


def _taught(tmp_path, task, targets=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the outputs of the parent for two old rows and of the expert for two new ones."""
    learner = RepeatedDistillation(context(has_parent=True, task=task), batch_size=4)
    learner.start_update(stored(tmp_path / "new", 8), stored(tmp_path / "old", 8, first=50))
    nn.init.normal_(learner.expert.head.weight)
    learner._consolidate()
    inputs, rows = torch.randn(4, 5), np.array([0, 7, 8, 15])
    teachers = 2 * [learner.teacher.model] + 2 * [learner.expert.model]
    expected = [each(one[None])[0] for each, one in zip(teachers, inputs, strict=True)]
    passed = ForwardResult(Batch(inputs, targets, rows), torch.zeros(4, 3))
    return torch.stack(expected), learner.taught(passed)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"expert_share": 0}, errors.InvalidHyperparameterError, r"expert_share.*\(0, 1\)"),
        ({"expert_share": 1.0}, errors.InvalidHyperparameterError, "expert_share"),
        ({"replacement_rate": 0.1}, errors.InvalidHyperparameterError, "trains two models"),
        (
            {"max_epochs": 1},
            errors.InvalidParamsError,
            "trainer.max_epochs: RD divides.* 2 or more",
        ),
        ({"max_epochs": None, "max_steps": 9}, errors.InvalidParamsError, "2 or more"),
    ],
)
def test_wrong_settings_are_refused_before_training(values, error, message):
    trainer = {n: values.pop(n) for n in ("max_epochs", "max_steps") if n in values}
    with pytest.raises(error, match=message):
        made(values, **trainer)
