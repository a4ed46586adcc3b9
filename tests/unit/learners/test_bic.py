"""BiC: the loss of a step, the held-out examples, and the correction that they lead to."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_learners import context, first_step, stored, take_steps
from small_updates import VALUES, Interrupt, state_of, updater, weights
from torch import nn

from renate_stages import errors
from renate_stages.learners.bic import BiC, fitted_correction
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import MLP, RenateWrapper
from renate_stages.models.stored import read_tensors
from renate_stages.state import State, state
from renate_stages.tasks.regression import Regression
from renate_stages.training.resume import SECONDS_VARIABLE, Resume
from renate_stages.training.update_data import UpdateData


def started(tmp_path, *, old=(0, 1), classes=(2,), known=(0, 1), memory=40, model=None, **values):
    """Return a learner that has started an update; `known` are the labels of the memory."""
    more = {} if model is None else {"model": model}
    given = context(has_parent=bool(old), old_classes=old, **more)
    learner = BiC(given, batch_size=4, memory_batch_size=6, **values)
    new = stored(tmp_path / "new", 24, classes=classes)
    learner.start_update(new, stored(tmp_path / "old", memory, first=50, classes=known))
    return learner


def test_loss_weighs_distillation_by_the_number_of_old_classes(tmp_path):
    learner = started(tmp_path, temperature=1.5)
    parent = copy.deepcopy(learner.model)
    take_steps(learner, 3)
    batch = first_step(learner)
    (drawn,) = batch.memory
    inputs, targets = (
        torch.cat([getattr(each, part) for each in (batch.new, drawn)])
        for part in ("inputs", "targets")
    )
    outputs, taught = learner.model(inputs), parent(inputs).detach()
    p, log_q = (taught[:, :2] / 1.5).softmax(1), (outputs[:, :2] / 1.5).log_softmax(1)
    kl = (p * (p.log() - log_q)).sum(1).mean()
    expected = F.cross_entropy(outputs, targets) / 3 + 2 / 3 * kl
    assert kl > 0
    torch.testing.assert_close(learner.loss(batch), expected)


def test_held_out_examples_are_balanced_and_never_trained_on(tmp_path):
    learner = started(tmp_path, holdout_fraction=0.2, old=(0, 1), classes=(1, 2))
    held_new, held_old = learner._held_new, learner._held_old
    assert learner.new.labels()[held_new].tolist() == [2] * 4  # class 1 is held out in the memory
    assert sorted(learner.memory.labels()[held_old]) == [0] * 4 + [1] * 4
    new, old = set(), set()
    for _ in range(10):
        for batch in learner.train_dataloader():
            new |= {*batch.new.rows.tolist()}
            old |= {row for each in batch.memory for row in each.rows.tolist()}
    assert new == {*range(24)} - {*held_new.tolist()}
    assert old == {*range(40)} - {*held_old.tolist()}
    assert len(learner.train_dataloader()) == 5  # 20 rows in batches of 4


def test_held_out_examples_may_enter_the_memory(tmp_path):
    learner = started(tmp_path, memory_size=64)
    chosen = learner.choose_memory().selection
    assert len(chosen.kept) == 40 and len(chosen.added) == 24


@pytest.mark.parametrize(("number", "expected"), [(1, 0), (2, 1), (3, 1), (40, 10)])
def test_at_least_one_and_at_most_half_of_a_class_is_held_out(tmp_path, number, expected):
    learner = started(tmp_path, memory=2 * number, holdout_fraction=0.25)
    counts = np.bincount(learner.memory.labels()[learner._held_old], minlength=2)
    assert counts.tolist() == [expected, expected]
    assert (learner.trained_rows is None) == (expected == 0)


@pytest.mark.parametrize(
    "values",
    [{"old": (), "classes": (0, 1, 2)}, {"old": (0, 1, 2), "classes": (0, 1, 2)}, {"memory": 0}],
    ids=["first update", "no new class", "no memory"],
)
def test_without_old_or_new_classes_nothing_is_held_out_or_corrected(tmp_path, values):
    learner = started(tmp_path, **values)
    assert sum(len(each.new) for each in learner.train_dataloader()) == 24
    take_steps(learner, 3)
    before = copy.deepcopy(learner.model.state_dict())
    learner.end_training(None)
    after = learner.model.state_dict()
    assert all(torch.equal(after[name], each) for name, each in before.items() if name[0] != "_")


def balanced_loss(outputs, labels, new, alpha, beta) -> float:
    """Return the mean over classes of the mean cross-entropy, plus the penalty."""
    corrected = outputs.clone()
    corrected[:, new] = alpha * outputs[:, new] + beta
    losses = F.cross_entropy(corrected, labels, reduction="none")
    means = torch.stack([losses[labels == each].mean() for each in labels.unique()])
    penalty = ((math.log(alpha) / 0.5) ** 2 + (beta / 5) ** 2) / (2 * len(labels))
    return float(means.mean() + penalty)


def test_correction_minimizes_the_balanced_loss():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 8 + [1] * 5 + [2] * 9 + [3] * 3)
    outputs = torch.randn(25, 4, generator=generator, dtype=torch.float64)
    outputs[torch.arange(25), labels] += 2
    outputs[:, 2:] = 0.6 * outputs[:, 2:] + 1.5  # a bias towards the new classes
    alpha, beta = fitted_correction(outputs, labels, [0, 1, 2, 3], [2, 3])
    assert alpha > 1.2 and beta < -1
    least = balanced_loss(outputs, labels, [2, 3], alpha, beta)
    assert least < balanced_loss(outputs, labels, [2, 3], 1.0, 0.0) - 0.05
    for a in np.linspace(0.05, 4, 40):
        for b in np.linspace(-6, 4, 41):
            assert balanced_loss(outputs, labels, [2, 3], a, b) > least
    for a, b in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01), (0.01, 0.01), (-0.01, 0.01)):
        assert balanced_loss(outputs, labels, [2, 3], alpha + a, beta + b) > least


def test_correction_from_few_examples_stays_small_and_keeps_the_order_of_new_classes():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        outputs = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        alpha, beta = fitted_correction(outputs, torch.tensor([0, 1, 2]), [0, 1, 2], [2])
        assert 0.1 < alpha < 5 and abs(beta) < 10


def test_correction_is_finite_if_classes_can_be_separated_completely():
    outputs = torch.tensor([[5.0, -5.0], [4.0, -6.0], [-5.0, 5.0], [-4.0, 6.0]]).double()
    alpha, beta = fitted_correction(outputs, torch.tensor([0, 0, 1, 1]), [0, 1], [1])
    assert 0.5 < alpha < 5 and abs(beta) < 5


def test_labels_of_unseen_classes_do_not_affect_the_correction():
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    labels = torch.tensor([3, 7] * 6)
    expected = fitted_correction(outputs, labels, [3, 7], [7])
    more = torch.cat([outputs, outputs[:4]]), torch.cat([labels, torch.tensor([5, -100, 0, 9])])
    assert fitted_correction(*more, [3, 7], [7]) == expected


def test_correction_becomes_part_of_the_last_layer(tmp_path):
    said = []
    learner = started(tmp_path, holdout_fraction=0.5)
    object.__setattr__(learner.context, "say", said.append)
    take_steps(learner, 5)
    trained = copy.deepcopy(learner.model).eval()
    held = [
        each.__getitems__(rows)
        for each, rows in ((learner.memory, learner._held_old), (learner.new, learner._held_new))
    ]
    inputs, labels = (torch.cat(each) for each in zip(*held, strict=True))
    alpha, beta = fitted_correction(trained(inputs).detach().double(), labels, [0, 1, 2], [2])
    learner.end_training(None)
    others = torch.randn(50, 5)
    before, after = trained(others), learner.model.eval()(others)
    assert torch.equal(after[:, :2], before[:, :2])
    torch.testing.assert_close(after[:, 2], alpha * before[:, 2] + beta)
    assert abs(alpha - 1) + abs(beta) > 0.05
    assert len(said) == 1 and f"{len(labels)} held-out examples" in said[0]
    assert learner.teacher is None and learner.learner_state()[0] == {}


class Scaled(nn.Module):
    """A model that changes the outputs of its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return 2 * self.layer(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: MLP(num_inputs=5, num_outputs=3, heads="per_task"), "last linear layer"),
        (lambda: RenateWrapper(nn.Linear(5, 3, bias=False)), "has no bias"),
        (lambda: RenateWrapper(Scaled()), "changes them afterwards"),
    ],
    ids=["per-task heads", "no bias", "scaled outputs"],
)
def test_model_whose_logits_cannot_be_corrected_is_refused_before_training(
    tmp_path, model, message
):
    with pytest.raises(errors.ModelMismatchError, match=message):
        started(tmp_path, model=model())


def test_other_tasks_and_values_outside_their_range_are_refused():
    with pytest.raises(errors.ClassLabelsNeededError, match="BiC"):
        BiC(context(task=Regression()))
    for wrong in ({"temperature": 0}, {"holdout_fraction": 0}, {"holdout_fraction": 0.6}):
        with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
            BiC(context(), **wrong)


# -- two updates with new classes, run by the updater ----------------------------------------------


def written(path: Path, rows: int, classes, seed: int) -> ExampleStore:
    draw = np.random.default_rng(seed)
    labels = draw.choice(classes, rows)
    inputs = draw.normal(size=(rows, 5)).astype(np.float32)
    inputs[np.arange(rows), labels] += 2
    with StoreWriter(path, update=1) as writer:
        writer.append((inputs, labels))
    return ExampleStore.open(path)


@pytest.fixture
def first(tmp_path) -> State:
    """Return the state after an update with the classes 0 and 1."""
    state.write_empty(tmp_path / "empty")
    new = written(tmp_path / "new", 60, (0, 1), 1)
    updated = updater("BiC", {**VALUES, "memory_size": 40}).update(
        UpdateData(State.open(tmp_path / "empty"), new)
    )
    return state_of(tmp_path / "first", updated, 1, (0, 1), new=new)


@pytest.mark.parametrize("trainer", [{}, {"precision": "bf16-mixed", "keep": "best"}])
def test_resumed_update_with_a_new_class_has_identical_bytes(
    first, tmp_path, monkeypatch, capsys, trainer
):
    monkeypatch.setenv(SECONDS_VARIABLE, "0")
    second, interrupt = written(tmp_path / "second", 40, (2,), 2), Interrupt()
    made = updater(
        "BiC", VALUES, number=2, functions={"train_transform": lambda: interrupt}, max_epochs=5,
        **trainer,
    )  # fmt: skip
    data = UpdateData(first, second, {2: written(tmp_path / "validation", 20, (0, 1, 2), 3)})
    straight = made.update(data)
    said = [each for each in capsys.readouterr().out.splitlines() if "held-out" in each]
    interrupt.left = (-1 - interrupt.left) // 2
    resume = Resume.of(tmp_path / "resume", "inputs", lambda _: None)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        made.update(data, resume=resume)
    interrupt.left = -1
    resumed = made.update(data, resume=resume)
    assert torch.equal(weights(resumed), weights(straight)) and resumed.curves == straight.curves
    assert len(said) == 1 and said[0] in capsys.readouterr().out
    folder = state_of(tmp_path / "child", straight, 2, (0, 1, 2), first, second).folder
    stored_weights = read_tensors(folder / "model.safetensors")
    assert torch.equal(stored_weights["head.bias"], straight.model.head.bias)
