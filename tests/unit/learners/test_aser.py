"""ASER: Shapley values against their definition, which candidates a step replays, balanced draws."""

from __future__ import annotations

import copy
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_learners import CLASSES, Noisy, context, first_step, stored, undisturbed

from renate_stages import errors
from renate_stages.data import Batch
from renate_stages.learners.aser import ASER
from renate_stages.learners.base.balanced_draw import BalancedDraw
from renate_stages.learners.base.knn_shapley import knn_shapley
from renate_stages.learners.base.working_memory import WorkingMemory
from renate_stages.learners.er import ExperienceReplay
from renate_stages.models import RenateWrapper
from renate_stages.tasks.regression import Regression


def started(tmp_path, *, given=None, old=40, **values) -> ASER:
    values = {"batch_size": 4, "memory_batch_size": 3, "aser_examples": 7, **values}
    learner = ASER(given or context(), candidate_factor=4, **values)
    learner.start_update(stored(tmp_path / "new", 12), stored(tmp_path / "old", old, first=50))
    return learner


def definition(distances: list[float], same: list[bool], neighbors: int) -> list[float]:
    """Return each candidate's mean contribution over all sets of the others."""
    number = len(distances)

    def value(chosen) -> float:
        nearest = sorted(chosen, key=lambda each: distances[each])[:neighbors]
        return sum(same[each] for each in nearest) / neighbors

    found = []
    for candidate in range(number):
        others = [each for each in range(number) if each != candidate]
        total = 0.0
        for size in range(number):
            sets = list(combinations(others, size))
            gains = sum(value((*each, candidate)) - value(each) for each in sets)
            total += gains / comb(number - 1, size)
        found.append(total / number)
    return found


@pytest.mark.parametrize("number", [1, 2, 6])
@pytest.mark.parametrize("neighbors", [1, 3, 5])
def test_shapley_values_equal_their_definition_over_all_sets(number, neighbors):
    generator = torch.Generator().manual_seed(number)
    distances = torch.rand(5, number, generator=generator)
    same = torch.rand(5, number, generator=generator) > 0.5
    expected = [
        definition(*each, neighbors) for each in zip(distances.tolist(), same.tolist(), strict=True)
    ]
    found = knn_shapley(distances, same, neighbors)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def values_of_the_paper(model, evaluated, candidates, neighbors=3) -> torch.Tensor:
    """Return s_j(i) by the recursion, one example and one candidate after the other."""
    model = copy.deepcopy(model).eval()
    features, others = (model.features(each.inputs).detach() for each in (evaluated, candidates))
    number = len(others)
    found = torch.zeros(len(features), number, dtype=torch.float64)
    for j, label in enumerate(evaluated.targets):
        order = sorted(range(number), key=lambda i, j=j: float((features[j] - others[i]).norm()))
        match = [float(candidates.targets[i] == label) for i in order]
        value = match[-1] / number
        found[j, order[-1]] = value
        for m in range(number - 1, 0, -1):
            value += (match[m - 1] - match[m]) / neighbors * min(neighbors, m) / m
            found[j, order[m - 1]] = value
    return found


@pytest.mark.parametrize("form", ["mean", "extreme"])
def test_candidates_with_the_largest_value_are_replayed_as_in_er(tmp_path, form, monkeypatch):
    learner = started(tmp_path, shapley_form=form)
    read, evaluated = learner.plain_members, []
    monkeypatch.setattr(
        learner, "plain_members", lambda places: evaluated.append(read(places)) or evaluated[-1]
    )
    batch, state = first_step(learner), learner.position()["evaluation"]
    (candidates,) = batch.memory
    assert len(candidates) == 12
    _, (drawn,) = learner.pass_all(*batch)
    (old,) = evaluated
    assert not {*old.rows} & {*candidates.rows} and len(old) == 7
    cooperative, adversarial = (
        values_of_the_paper(learner.model, each, candidates) for each in (old, batch.new)
    )
    if form == "mean":
        expected = cooperative.mean(0) - adversarial.mean(0)
    else:
        expected = cooperative.max(0).values - adversarial.min(0).values
    assert len(expected.unique()) > 3
    learner._balanced.generator.set_state(state)
    with learner.evaluating():
        (found,) = learner.values_of(batch.new, [candidates])
    torch.testing.assert_close(found, expected)
    least_chosen = expected.topk(3).values[-1]
    chosen = [list(candidates.rows).index(row) for row in drawn.batch.rows]
    assert len(chosen) == 3 and (expected[chosen] >= least_chosen - 1e-12).all()
    inputs = torch.cat([batch.new.inputs, candidates.inputs[chosen]])
    targets = torch.cat([batch.new.targets, candidates.targets[chosen]])
    loss = learner.total(*learner.pass_all(batch.new, (drawn.batch,)))
    torch.testing.assert_close(loss, F.cross_entropy(learner.model(inputs), targets))


def test_choice_changes_neither_model_nor_random_numbers_nor_gradients(tmp_path, monkeypatch):
    learner = started(tmp_path, given=context(model=Noisy()))
    batch = first_step(learner)
    learner.loss(batch).backward()
    chosen = []
    # Without the forward pass that trains, which does change them.
    monkeypatch.setattr(ExperienceReplay, "pass_all", lambda _, new, drawn: chosen.extend(drawn))
    with undisturbed(learner):
        learner.pass_all(*batch)
    assert [len(each) for each in chosen] == [3]


def test_choice_does_not_depend_on_the_precision(tmp_path):
    learner = started(tmp_path)
    batch = first_step(learner)
    state = learner.position()["evaluation"]
    _, (expected,) = learner.pass_all(*batch)
    learner._balanced.generator.set_state(state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, (drawn,) = learner.pass_all(*batch)
    assert drawn.outputs.dtype == torch.bfloat16
    assert drawn.batch.rows.tolist() == expected.batch.rows.tolist()


def test_without_a_choice_a_step_is_that_of_er(tmp_path):
    learner = started(tmp_path, memory_batch_size=40)
    er = ExperienceReplay(context(), batch_size=4, memory_batch_size=40)
    er.start_update(learner.new, learner.memory)
    assert torch.equal(learner.loss(first_step(learner)), er.loss(first_step(er)))


def test_ignored_examples_have_no_influence_on_the_choice(tmp_path):
    learner = started(tmp_path)
    new, (candidates,) = first_step(learner)
    state = learner.position()["evaluation"]
    (expected,) = learner.values_of(
        Batch(new.inputs[:3], new.targets[:3], new.rows[:3]), [candidates]
    )
    ignored = torch.where(torch.arange(4) < 3, new.targets, -100)
    learner._balanced.generator.set_state(state)
    (found,) = learner.values_of(Batch(new.inputs, ignored, new.rows), [candidates])
    torch.testing.assert_close(found, expected)
    learner._balanced.generator.set_state(state)
    (alone,) = learner.values_of(Batch(new.inputs, ignored * 0 - 100, new.rows), [candidates])
    assert alone.isfinite().all() and not torch.equal(alone, found)


# -- balanced draws --------------------------------------------------------------------------------


def balanced(tmp_path, labels) -> BalancedDraw:
    old = stored(tmp_path / "old", len(labels), classes=tuple(labels))
    working = WorkingMemory(old, stored(tmp_path / "new", 3))
    return BalancedDraw(working, torch.Generator().manual_seed(0))


def test_every_class_has_its_share_of_a_draw(tmp_path):
    labels = np.array([0] * 50 + [1] * 5 + [2] * 2 + [-100] * 9)
    draw = balanced(tmp_path, labels)
    seen = np.zeros(len(labels), int)
    for _ in range(40):
        places = draw.places(10, np.array([0, 1, 50]))
        assert len({*places}) == len(places)
        counts = np.bincount(labels[places], minlength=3)
        assert counts[2] == 2 and counts[:2].min() >= 3 and counts[:2].max() <= 4
        seen[places] += 1
    assert not seen[[0, 1, 50]].any() and not seen[labels < 0].any()
    assert seen[51:55].all() and (seen[2:50] > 0).mean() > 0.5


def test_avoided_members_are_drawn_only_if_their_class_has_no_others(tmp_path):
    draw = balanced(tmp_path, [0, 0, 0, 1, 1, 1])
    assert {*draw.places(4, np.array([0, 3, 4, 5]))} <= {1, 2, 3, 4, 5}
    assert len(draw.places(4, np.arange(6))) == 4
    assert [*draw.places(2, np.array([0, 1, 3, 5]))] == [2, 4]


def test_fewer_draws_than_classes_take_random_classes(tmp_path):
    draw = balanced(tmp_path, [0, 1, 2, 3])
    drawn = [tuple(sorted(draw.places(2, np.empty(0, np.int64)))) for _ in range(60)]
    assert {len(each) for each in drawn} == {2} and len({*drawn}) == 6


def test_members_that_enter_during_training_are_drawn(tmp_path):
    draw, none = balanced(tmp_path, [0, 0, 1, 1]), np.empty(0, np.int64)
    draw.places(2, none)
    draw._working.put(np.array([0]), np.array([2]), {})  # an example of class 2
    for _ in range(9):
        assert sorted(draw.places(3, none))[:2] == [0, 1], "the only ones of their classes"


# -- requirements ----------------------------------------------------------------------------------


def test_requirements_and_ranges_are_checked():
    with pytest.raises(errors.ClassLabelsNeededError, match="ASER"):
        ASER(context(task=Regression()))
    with pytest.raises(errors.ModelMismatchError, match="features"):
        ASER(context(model=RenateWrapper(torch.nn.Linear(5, CLASSES))))
    for name, wrong in (("num_neighbors", 0), ("aser_examples", 1.5), ("shapley_form", "max")):
        with pytest.raises(errors.InvalidHyperparameterError, match=name):
            ASER(context(), **{name: wrong})
