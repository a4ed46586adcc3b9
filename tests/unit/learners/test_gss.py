"""GSS: scores against their equation, which examples enter the memory, and scores over updates."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_learners import CLASSES, Noisy, context, first_step, stored, take_steps, undisturbed
from small_updates import VALUES, state_of, updater, write_examples
from torch import nn

from renate_stages import errors
from renate_stages.data import StoredDataset
from renate_stages.learners.base import example_gradients
from renate_stages.learners.gss import GSS, SCORE, enter
from renate_stages.memory import evolve
from renate_stages.memory.spec import METADATA
from renate_stages.models import RenateModule
from renate_stages.state import State
from renate_stages.training.update_data import UpdateData


def started(tmp_path, *, given=None, old=20, transform=None, keepable=None, **values) -> GSS:
    learner = GSS(given or context(), **{"batch_size": 4, "memory_batch_size": 3, **values})
    new, memory = stored(tmp_path / "new", 12), stored(tmp_path / "old", old, first=50)
    new, memory = (StoredDataset(each.store, None, transform) for each in (new, memory))
    learner.start_update(new, memory, keepable)
    return learner


def gradient(model, inputs, target) -> torch.Tensor:
    """Return the gradient of the loss of one example, as one vector."""
    model = copy.deepcopy(model).eval()
    F.cross_entropy(model(inputs[None]), target[None]).backward()
    return torch.cat([each.grad.flatten() for each in model.parameters()])


def cosine(one, other) -> float:
    return float(one @ other / (one.norm() * other.norm()))


def expected_scores(learner, examples, drawn, members, itself=()) -> list[float]:
    """Return 1 + the largest cosine of each example's gradient with those of the drawn members."""
    (inputs, targets), (others, their_targets) = examples, members
    gradients = {n: gradient(learner.model, others[n], their_targets[n]) for n in drawn}
    scores = []
    for number, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        g = gradient(learner.model, x, y)
        compared = [n for n in drawn if not len(itself) or n != itself[number]]
        scores.append(1 + max((cosine(g, gradients[n]) for n in compared), default=0.0))
    return scores


def plain(dataset, rows=None):
    return StoredDataset(dataset.store).__getitems__(
        np.arange(len(dataset)) if rows is None else rows
    )


# -- scores ----------------------------------------------------------------------------------------


def test_scores_of_new_examples_are_those_of_algorithm_2(tmp_path):
    learner = started(tmp_path, gss_examples=3, transform=lambda inputs: inputs + torch.randn(5))
    batch = first_step(learner).new
    drawn = copy.deepcopy(learner.policy.generator).choice(20, 3, replace=False)
    scores = learner.remember_online(learner.pass_on(batch))[SCORE]
    assert scores.shape == (4, 1) and scores.dtype == torch.float32
    expected = expected_scores(
        learner, plain(learner.new, batch.rows), drawn, plain(learner.memory)
    )
    torch.testing.assert_close(scores[:, 0], torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert (scores < 1.5).any() and (scores > 1.5).any()


def test_examples_of_the_first_batch_are_compared_with_each_other(tmp_path):
    learner = started(tmp_path, old=0, gss_examples=2)
    batch = first_step(learner).new
    drawn = copy.deepcopy(learner.policy.generator).choice(4, 2, replace=False)
    scores = learner.remember_online(learner.pass_on(batch))[SCORE]
    same = plain(learner.new, batch.rows)
    expected = expected_scores(learner, same, drawn, same, itself=range(4))
    torch.testing.assert_close(scores[:, 0], torch.tensor(expected), rtol=1e-4, atol=1e-5)
    alone = learner._scores(learner.plain(learner.new, np.array([5])))
    assert alone.tolist() == [[1.0]], "there is nothing to compare it with"


def test_missing_scores_of_remembered_examples_are_computed_with_the_parents_model(tmp_path):
    messages: list[str] = []
    learner = started(tmp_path, given=context(say=messages.append), old=9, gss_examples=9)
    assert messages == [f"computed {SCORE} of 9 remembered examples with the parent's model"]
    members = plain(learner.memory)
    expected = expected_scores(learner, members, range(9), members, itself=range(9))
    found = learner.working.values(SCORE)[:, 0]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_scoring_changes_neither_model_nor_random_numbers_nor_gradients(tmp_path):
    noise = {"transform": lambda inputs: inputs + torch.randn(5)}
    learner = started(tmp_path, given=context(model=Noisy()), memory_size=32, **noise)
    batch = first_step(learner)
    learner.loss(batch).backward()
    passed = learner.pass_on(batch.new)
    with undisturbed(learner):
        learner._take_in(passed)
    assert len(learner.working) == 28, "both batches have entered"


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_scores_do_not_depend_on_the_precision(tmp_path, precision):
    learner = started(tmp_path)
    rows, generator = np.arange(8), learner.policy.generator
    state = copy.deepcopy(generator.bit_generator.state)
    expected = learner._scores(learner.plain(learner.new, rows))
    generator.bit_generator.state = state
    with torch.autocast("cpu", dtype=precision):
        assert torch.equal(learner._scores(learner.plain(learner.new, rows)), expected)


class Branching(RenateModule):
    """Model that cannot be vectorized, because its control flow depends on the inputs."""

    def __init__(self) -> None:
        super().__init__({})
        self.one, self.other = nn.Linear(5, CLASSES), nn.Linear(5, CLASSES)
        self.unused = nn.Linear(1, 1)

    def forward(self, x, task_id=None):
        return torch.cat(
            [self.one(row[None]) if row.sum() > 0 else self.other(row[None]) for row in x]
        )


def test_gradients_of_a_model_that_cannot_be_vectorized_are_computed_one_by_one(tmp_path):
    learner = started(tmp_path, given=context(model=Branching()), old=6, gss_examples=6)
    inputs, _ = members = plain(learner.memory)
    opposite = inputs.sum(1) > 0
    found = learner.working.values(SCORE)[:, 0]
    assert opposite.any() and not opposite.all()
    gradients = torch.cat(
        [*learner._gradients.vectors(learner.plain(learner.memory, np.arange(6)))]
    )
    unit = F.normalize(gradients, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-1)
    torch.testing.assert_close(found, 1 + cosines.amax(1), rtol=1e-4, atol=1e-5)
    for row, (x, y) in enumerate(zip(*members, strict=True)):
        p = learner.model(x[None]).softmax(1)[0].detach() - F.one_hot(y, CLASSES)
        used = p[:, None] * x
        parts = (used, p, 0 * used, 0 * p) if opposite[row] else (0 * used, 0 * p, used, p)
        expected = torch.cat([each.flatten() for each in (*parts, torch.zeros(2))])
        torch.testing.assert_close(gradients[row], expected)


def test_large_models_are_differentiated_in_blocks(tmp_path, monkeypatch):
    learner = started(tmp_path, old=20, gss_examples=20)
    whole = learner.working.values(SCORE)
    monkeypatch.setattr(example_gradients, "MOST_NUMBERS", 150)
    assert learner._gradients.block == 2
    again = started(tmp_path / "again", old=20, gss_examples=20)
    torch.testing.assert_close(again.working.values(SCORE), whole)


def test_unused_classes_are_masked_in_the_loss_of_scores(tmp_path):
    scores = []
    for values in ({}, {"mask_unused_classes": True}):
        learner = started(tmp_path / str(values), old=20, gss_examples=20, **values)
        learner.classes = [0, 1]
        scores.append(learner._scores(learner.plain(learner.new, np.array([0, 1, 3]))))
    assert not torch.allclose(*scores)
    loss = learner._loss_of_one(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([0]))
    torch.testing.assert_close(loss, torch.tensor([1.0, 2.0]).logsumexp(0) - 1)


# -- memory ----------------------------------------------------------------------------------------


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_examples_enter_while_there_is_room_and_then_only_with_a_score_below_1():
    old, new = np.array([1.0, 1.9]), np.array([1.9, 1.0, 1.2, 2.0, 1.0])
    assert enter(old, new, 5, generator()) == {2: 0, 3: 1, 4: 2}
    assert enter(old, new, 2, generator()) == {}
    assert enter(old, np.array([]), 2, generator()) == {}
    entered = [enter(old, np.array([1.5, 0.3]), 2, generator(seed)) for seed in range(20)]
    assert {*entered[0].values(), *entered[1].values()} <= {1} and any(entered)


def test_members_are_replaced_with_the_probabilities_of_the_paper():
    scores, new, trials = np.array([0.5, 1.0, 2.0]), 0.4, 4000
    draws = generator()
    counts = np.zeros(4)  # the last: not replaced
    for _ in range(trials):
        (place,) = enter(scores, np.array([new]), 3, draws) or (3,)
        counts[place] += 1
    expected = scores / scores.sum() * scores / (scores + new)
    expected = np.array([*expected, 1 - expected.sum()]) * trials
    assert ((counts - expected) ** 2 / expected).sum() < 16.3, "chi squared, p = 0.001"


def test_example_that_has_just_entered_can_be_replaced_by_a_later_one():
    found = [enter(np.array([1.0]), np.array([0.2, 0.2]), 1, generator(n)) for n in range(50)]
    assert {0: 1} in found and {0: 0} in found and {} in found
    old, both = np.array([2.0]), np.array([0.1, 0.9])
    first = sum(enter(old, both, 1, generator(n)).get(0) == 0 for n in range(2000)) / 2000
    assert first == pytest.approx(2 / 2.1 * 0.9, abs=0.03), "by its own score, 0.1"


def test_each_new_example_is_offered_once_in_the_first_epoch(tmp_path, monkeypatch):
    offered = []
    offer = GSS.offer
    monkeypatch.setattr(
        GSS, "offer", lambda self, rows, fields: offered.extend(rows) or offer(self, rows, fields)
    )
    learner = started(tmp_path, keepable=np.delete(np.arange(12), 7), memory_size=100)
    for _ in range(2):
        take_steps(learner, 3)
        learner.on_train_epoch_end()
    assert sorted(offered) == [row for row in range(12) if row != 7]
    (kept, added), _, fields = learner.choose_memory()
    assert len(kept) == 20 and added.tolist() == sorted(offered)
    assert fields[SCORE].shape == (31, 1) and np.isfinite(fields[SCORE]).all()
    assert learner.learner_state()[1]["policy"]["seen"] == 31


@pytest.mark.parametrize(("size", "rows"), [(6, 6), ("1 kB", 35)])
def test_memory_has_at_most_its_size_in_rows_or_bytes(tmp_path, size, rows):
    learner = started(tmp_path, old=30, memory_size=size)
    take_steps(learner, 3)
    (kept, added), *_ = learner.choose_memory()
    assert len(kept) + len(added) == len(learner.working) == rows


def test_scores_stay_with_their_examples_over_updates_forgetting_and_other_learners(
    tmp_path, make_state
):
    def scores(state) -> dict[int, float]:
        memory = state.memory()
        numbers = (memory.column("inputs")[:, 0] * 100).round().astype(int)
        return dict(
            zip(numbers.tolist(), memory.column(METADATA + SCORE)[:, 0].tolist(), strict=True)
        )

    def update(number: int, learner: str, parent, memory_size=20, memory_rows=None):
        new = write_examples(tmp_path / f"new-{number}", 25, first=300 * number)
        made = updater(learner, {**VALUES, "memory_size": memory_size}, number=number)
        updated = made.update(UpdateData(parent, new, memory_rows=memory_rows))
        return state_of(tmp_path / f"state-{number}", updated, number, parent=parent, new=new)

    first = update(1, "GSS", make_state())
    second = update(2, "GSS", first, memory_size=30)
    before, after = scores(first), scores(second)
    assert len(after) == 30 and {*before} & {*after}
    assert all(after[each] == before[each] for each in {*before} & {*after})
    left = np.arange(30) % 4 > 0
    shutil.copytree(second.folder, tmp_path / "left", ignore=shutil.ignore_patterns("memory"))
    nothing = np.empty(0, dtype=np.int64)
    memory = tmp_path / "left" / "memory"
    evolve(memory, second.memory(), np.flatnonzero(left), None, nothing, 2)
    third = update(3, "ER", State.open(tmp_path / "left"), memory_rows=left)
    carried = scores(third)
    kept = {each for each in carried if each in after}
    assert kept <= {each for each, is_left in zip(after, left, strict=True) if is_left}
    assert kept and all(carried[each] == after[each] for each in kept)
    fourth = update(4, "GSS", third, memory_size=60)
    known = scores(fourth)
    assert len(known) == len(carried) + 25 and np.isfinite([*known.values()]).all()
    assert all(known[each] == after[each] for each in kept)


# -- requirements ----------------------------------------------------------------------------------


def test_memory_is_always_updated_online_and_a_policy_has_no_effect():
    messages: list[str] = []
    learner = GSS(context(say=messages.append), memory_update="end", memory_policy="herding")
    assert learner.memory_update == "online" and learner.policy.name == "reservoir"
    assert messages == ["GSS chooses the memory itself: memory_policy herding has no effect"]
    with pytest.raises(errors.UnknownPolicyError, match="newest"):
        GSS(context(), memory_policy="newest")
    for name, wrong in (("gss_examples", 0), ("memory_size", 1.5)):
        with pytest.raises(errors.InvalidHyperparameterError, match=name):
            GSS(context(), **{name: wrong})
