"""Replay learners: the loss of one step compared with the equation of the paper."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_learners import CLASSES, context, first_step, stored, take_steps
from torch import nn

from renate_stages import errors
from renate_stages.data import StoredDataset
from renate_stages.learners.base import Learner
from renate_stages.learners.base.averaging import averaged_copy
from renate_stages.learners.base.components import FeatureDistillation
from renate_stages.learners.base.masking import mask_classes
from renate_stages.learners.base.replay import ReplayLearner
from renate_stages.learners.cls_er import CLSER
from renate_stages.learners.der import DarkExperienceReplay, DarkExperienceReplayPlusPlus
from renate_stages.learners.er import ExperienceReplay
from renate_stages.learners.er_ace import ERACE
from renate_stages.learners.fine_tuning import FineTuning
from renate_stages.learners.offline_er import OfflineER
from renate_stages.learners.scratch import BudgetedReplay, GDumb
from renate_stages.learners.super_er import SuperER
from renate_stages.memory import ExampleStore

SIZES = {"batch_size": 4, "memory_batch_size": 6}


def logits_of(rows: int) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(rows, CLASSES)).astype(np.float32)


def started(learner: Learner, tmp_path, old: int = 20, new: int = 12, **metadata) -> Learner:
    if not (tmp_path / "new").exists():
        stored(tmp_path / "new", new)
        stored(tmp_path / "old", old, first=50, **metadata)
    stores = (StoredDataset(_open(tmp_path / name)) for name in ("new", "old"))
    learner.start_update(*stores)
    return learner


def _open(path):
    return ExampleStore.open(path)


@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_der_and_der_pp_losses_match_equations_5_and_6(tmp_path, forward):
    kept = {"logits": logits_of(20)}
    der = started(
        DarkExperienceReplay(context(), alpha=0.3, replay_forward=forward, **SIZES),
        tmp_path,
        **kept,
    )
    batch = first_step(der)
    (dark,) = batch.memory
    z = torch.from_numpy(kept["logits"])[torch.from_numpy(dark.rows)]
    expected = F.cross_entropy(der.model(batch.new.inputs), batch.new.targets)
    expected = expected + 0.3 * ((der.model(dark.inputs) - z) ** 2).mean()
    torch.testing.assert_close(der.loss(batch), expected)

    plus = started(
        DarkExperienceReplayPlusPlus(
            context(), alpha=0.2, beta=0.7, replay_forward=forward, **SIZES
        ),
        tmp_path,
    )
    batch = first_step(plus)
    dark, labelled = batch.memory
    assert not np.array_equal(dark.rows, labelled.rows), "two independent draws"
    z = torch.from_numpy(kept["logits"])[torch.from_numpy(dark.rows)]
    expected = F.cross_entropy(plus.model(batch.new.inputs), batch.new.targets)
    expected = expected + 0.2 * ((plus.model(dark.inputs) - z) ** 2).mean()
    expected = expected + 0.7 * F.cross_entropy(plus.model(labelled.inputs), labelled.targets)
    torch.testing.assert_close(plus.loss(batch), expected)


def test_der_pp_with_beta_zero_draws_one_replay_batch(tmp_path):
    plus = started(
        DarkExperienceReplayPlusPlus(context(), beta=0, **SIZES), tmp_path, logits=logits_of(20)
    )
    assert len(first_step(plus).memory) == 1


def test_stored_logits_are_those_of_the_updated_model(tmp_path):
    der = started(
        DarkExperienceReplay(context(), memory_size=1000, **SIZES), tmp_path, logits=logits_of(20)
    )
    take_steps(der, 3)
    der.end_training(None)
    (kept, added), fields, every = der.choose_memory()
    assert (len(kept), len(added), every) == (20, 12, {})
    inputs = torch.from_numpy(der.new.store.column("inputs")[added])
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(fields["logits"]), der.model(inputs))


def test_missing_memory_logits_are_computed_with_the_parents_model(tmp_path):
    messages: list[str] = []
    given = context(say=messages.append)
    der = started(DarkExperienceReplay(given, memory_size=1000, **SIZES), tmp_path)
    with torch.no_grad():
        expected = given.start.model(torch.from_numpy(der.memory.store.column("inputs")))
    assert messages == ["computed logits of 20 remembered examples with the parent's model"]
    drawn = der.working.read(np.arange(20))
    torch.testing.assert_close(drawn.fields["logits"], expected)
    take_steps(der, 2)
    _, added, every = der.choose_memory()
    assert added == {} and every["logits"].shape == (32, CLASSES)
    np.testing.assert_array_equal(every["logits"][:20], expected.numpy())


def test_stored_logits_are_not_compared_for_classes_added_later(tmp_path):
    old = logits_of(20)[:, :2]
    der = started(DarkExperienceReplay(context(), alpha=1.0, **SIZES), tmp_path, logits=old)
    batch = first_step(der)
    (dark,) = batch.memory
    z = torch.from_numpy(old)[torch.from_numpy(dark.rows)]
    expected = F.cross_entropy(der.model(batch.new.inputs), batch.new.targets)
    expected = expected + ((der.model(dark.inputs)[:, :2] - z) ** 2).mean()
    torch.testing.assert_close(der.loss(batch), expected)


def test_features_are_stored_and_distilled(tmp_path):
    class FeatureReplay(ReplayLearner):
        def __init__(self, given, **base):
            super().__init__(given, **base)
            self.components.append(FeatureDistillation(0.5))

    kept = np.random.default_rng(3).normal(size=(20, 4)).astype(np.float32)
    learner = started(FeatureReplay(context(), memory_size=99, **SIZES), tmp_path, features=kept)
    batch = first_step(learner)
    (drawn,) = batch.memory
    h = torch.from_numpy(kept)[torch.from_numpy(drawn.rows)]
    expected = F.cross_entropy(learner.model(batch.new.inputs), batch.new.targets)
    expected = expected + 0.5 * ((learner.model.features(drawn.inputs) - h) ** 2).mean()
    torch.testing.assert_close(learner.loss(batch), expected)
    learner.end_training(None)
    added = learner.choose_memory().added_fields["features"]
    new = torch.from_numpy(learner.new.store.column("inputs"))
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(added), learner.model.features(new))


@pytest.mark.parametrize("forward", ["joint", "separate"])
def test_er_ace_loss_restricts_new_examples_to_classes_of_their_batch(tmp_path, forward):
    stored(tmp_path / "new", 12, classes=(1, 2))
    stored(tmp_path / "old", 20, first=50)
    given = context(old_classes=(0, 1, 2))
    once = {"memory_update": "end", "replay_forward": forward}
    ace = started(ERACE(given, **once, **SIZES), tmp_path)
    batch = first_step(ace)
    (drawn,) = batch.memory
    present = sorted(set(batch.new.targets.tolist()))
    outputs = ace.model(batch.new.inputs)[:, present]
    places = torch.tensor([present.index(label) for label in batch.new.targets.tolist()])
    expected = F.cross_entropy(outputs, places)
    expected = expected + F.cross_entropy(ace.model(drawn.inputs), drawn.targets)
    torch.testing.assert_close(ace.loss(batch), expected)


def test_offline_er_loss_is_weighted_by_numbers_of_examples(tmp_path):
    learner = OfflineER(context(), **SIZES)
    learner.restore_learner({}, {"learner": "OfflineER", "examples": 100})
    started(learner, tmp_path)
    batch = first_step(learner)
    (drawn,) = batch.memory
    share = 12 / 112
    expected = share * F.cross_entropy(learner.model(batch.new.inputs), batch.new.targets)
    replayed = F.cross_entropy(learner.model(drawn.inputs), drawn.targets)
    torch.testing.assert_close(learner.loss(batch), expected + (1 - share) * replayed)
    assert learner.learner_state()[1]["examples"] == 112


# -- CLS-ER ----------------------------------------------------------------------------------------


def test_cls_er_loss_distills_from_the_more_confident_teacher(tmp_path):
    learner = started(CLSER(context(), consistency_weight=0.4, **SIZES), tmp_path)
    part = learner.consistency
    with torch.no_grad():
        for number, teacher in enumerate((part.stable, part.plastic)):
            for parameter in teacher.average.parameters():
                parameter.add_(torch.randn(parameter.shape) * (number + 1))
    batch = first_step(learner)
    (drawn,) = batch.memory
    z, rows = [], len(drawn)
    for row in range(rows):
        x, y = drawn.inputs[row : row + 1], int(drawn.targets[row])
        stable, plastic = (t.average.module(x)[0] for t in (part.stable, part.plastic))
        z.append(stable if stable.softmax(0)[y] > plastic.softmax(0)[y] else plastic)
    outputs = learner.model(torch.cat([batch.new.inputs, drawn.inputs]))
    expected = F.cross_entropy(outputs, torch.cat([batch.new.targets, drawn.targets]))
    expected = expected + 0.4 * ((outputs[-rows:] - torch.stack(z)) ** 2).mean()
    torch.testing.assert_close(learner.loss(batch), expected)


def test_cls_er_teachers_are_averaged_by_the_papers_rule(tmp_path):
    rule = {"stable_probability": 1.0, "plastic_probability": 1.0}
    learner = started(CLSER(context(), stable_decay=0.6, plastic_decay=0.5, **rule), tmp_path)
    expected = {
        name: [value.clone() for value in learner.model.parameters()] for name in ("s", "p")
    }
    for step in range(1, 5):
        take_steps(learner, 1)
        for name, decay in (("s", 0.6), ("p", 0.5)):
            a = min(1 - 1 / (step + 1), decay)
            pairs = zip(expected[name], learner.model.parameters(), strict=True)
            expected[name] = [a * old + (1 - a) * new.detach() for old, new in pairs]
    for name, teacher in (("s", learner.consistency.stable), ("p", learner.consistency.plastic)):
        for want, found in zip(expected[name], teacher.average.module.parameters(), strict=True):
            torch.testing.assert_close(found, want)


def test_cls_er_teachers_take_the_learners_dtype_and_stay_in_evaluation_mode(tmp_path):
    learner = started(CLSER(context(), **SIZES), tmp_path)
    learner.to(torch.float64).train()
    for teacher in (learner.consistency.stable, learner.consistency.plastic):
        assert all(p.dtype == torch.float64 for p in teacher.average.module.parameters())
        assert not any(module.training for module in teacher.average.modules())
    assert learner.model.training


def test_cls_er_teachers_are_restored_in_the_next_update(tmp_path):
    learner = started(CLSER(context(), memory_size=5, **SIZES), tmp_path)
    take_steps(learner, 3)
    learner.end_training(None)
    tensors, values = learner.learner_state()
    again = CLSER(context(update=2), memory_size=5, **SIZES)
    again.restore_learner(tensors, json.loads(json.dumps(values)))
    started(again, tmp_path)
    for name in ("stable", "plastic"):
        one, other = (getattr(each.consistency, name).state_dict() for each in (learner, again))
        assert one.keys() == other.keys()
        tensors = [key for key, value in one.items() if isinstance(value, torch.Tensor)]
        assert len(tensors) > 3 and all(torch.equal(one[key], other[key]) for key in tensors)


@pytest.mark.parametrize("kind", [CLSER, SuperER])
def test_cls_er_ships_the_model_that_validation_measures(tmp_path, kind):
    learner = started(kind(context(), memory_size=5, **SIZES), tmp_path)
    take_steps(learner, 3)
    served = [value.clone() for value in learner.served.parameters()]
    stable = learner.consistency.stable.average.parameters()
    learner.end_training(None)
    for found, before in zip(learner.model.parameters(), served, strict=True):
        assert torch.equal(found, before)
    assert not all(map(torch.equal, stable, served)), "the trained model, not a teacher"


def test_cls_er_plastic_teacher_slower_than_the_stable_one_is_refused():
    for wrong in ({"plastic_decay": 0.9999}, {"plastic_probability": 0.1}):
        with pytest.raises(errors.InvalidHyperparameterError, match=next(iter(wrong))):
            CLSER(context(), **wrong)


# -- online ----------------------------------------------------------------------------------------


def test_online_memory_adds_each_example_once_over_all_epochs(tmp_path):
    learner = DarkExperienceReplay(context(), memory_size=30, memory_update="online", **SIZES)
    started(learner, tmp_path)
    seen = set()
    for _ in range(3):  # epochs
        for batch in learner.train_dataloader():
            learner.loss(batch)
            seen |= set(learner.working._rows.tolist())
        learner.on_train_epoch_end()
    members = learner.working._rows
    assert len(members) == len(set(members.tolist())) == 30, "no example twice"
    assert seen > set(range(20, 32)), "every new example entered the memory"
    (kept, added), fields, every = learner.choose_memory()
    assert len(kept) + len(added) == 30 and fields == {}, "the old examples had no logits"
    assert np.isfinite(every["logits"]).all()
    assert learner.policy.seen == 32, "an example counts once, however many epochs"


def test_online_memory_stores_the_logits_of_the_current_step(tmp_path):
    learner = DarkExperienceReplay(context(), memory_size=99, memory_update="online", **SIZES)
    started(learner, tmp_path, logits=logits_of(20))
    expected = {}
    for batch in learner.train_dataloader():
        with torch.no_grad():
            outputs = learner.model(batch.new.inputs)
        expected |= dict(zip(batch.new.rows.tolist(), outputs, strict=True))
        learner.loss(batch)
        with torch.no_grad():
            learner.model.head.bias.add_(1)
    (_, added), fields, every = learner.choose_memory()
    assert every == {} and added.tolist() == list(range(12))
    for row, logits in zip(added.tolist(), fields["logits"], strict=True):
        np.testing.assert_allclose(logits, expected[row].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["reservoir", "class_balanced", "greedy"])
def test_online_memory_is_bounded_and_adds_only_keepable_examples(tmp_path, policy):
    learner = ExperienceReplay(
        context(), memory_size=9, memory_policy=policy, memory_update="online", **SIZES
    )
    stored(tmp_path / "new", 40)
    stored(tmp_path / "old", 12, first=50)
    datasets = (StoredDataset(_open(tmp_path / name)) for name in ("new", "old"))
    learner.start_update(*datasets, keepable=np.arange(0, 40, 2))
    for batch in learner.train_dataloader():
        learner.loss(batch)
        assert len(learner.working) == 9
    kept, added = learner.choose_memory().selection
    assert len(kept) + len(added) == 9 and np.all(added % 2 == 0)
    assert len(added) or policy == "greedy", "greedy skips classes that have their share"


def test_online_reservoir_is_uniform(tmp_path):
    new = stored(tmp_path / "new", 30)
    none = stored(tmp_path / "none", 0)
    counts = np.zeros(30)
    for update in range(300):
        learner = ExperienceReplay(
            context(update), memory_size=10, memory_update="online", batch_size=7
        )
        learner.start_update(new, none)
        for batch in learner.train_dataloader():
            learner._take_in(type("P", (), {"batch": batch.new, "outputs": None})())
        counts[learner.choose_memory().selection.added] += 1
    expected = 300 / 3
    assert ((counts - expected) ** 2 / (expected * 2 / 3)).sum() < 58, "chi squared, p = 0.001"


def test_memory_policy_that_cannot_work_online_is_refused():
    with pytest.raises(errors.InvalidHyperparameterError, match="herding"):
        ExperienceReplay(context(), memory_policy="herding", memory_update="online")


# -- GDumb and budgeted replay ---------------------------------------------------------------------


def test_gdumb_trains_an_untrained_model_on_the_balanced_memory_only(tmp_path):
    stored(tmp_path / "new", 60, classes=(2,))
    given = context()
    with torch.no_grad():
        given.start.model.head.bias.add_(5)
    stored(tmp_path / "old", 20, first=50, classes=(0, 1))
    gdumb = GDumb(given, memory_size=9, batch_size=4)
    gdumb.start_update(*(StoredDataset(_open(tmp_path / name)) for name in ("new", "old")))
    assert torch.equal(given.start.model.head.bias, given.start.untrained["head.bias"])
    batches = list(gdumb.train_dataloader())
    targets = torch.cat([batch.new.targets for batch in batches])
    assert torch.bincount(targets).tolist() == [3, 3, 3]
    chosen = gdumb.choose_memory()
    kept, added = chosen.selection
    assert (len(kept), len(added)) == (6, 3)


@pytest.mark.parametrize("sampling", ["uniform", "class_balanced"])
def test_budgeted_replay_draws_from_all_examples_within_its_budget(tmp_path, sampling):
    stored(tmp_path / "new", 12, classes=(2,))
    stored(tmp_path / "old", 108, first=50, classes=(0, 0, 0, 1))
    learner = BudgetedReplay(context(), sampling=sampling, **SIZES)
    learner.start_update(*(StoredDataset(_open(tmp_path / name)) for name in ("new", "old")))
    rows, targets, steps = [], [], 0
    for _ in range(40):
        for batch in learner.train_dataloader():
            steps += 1
            rows += batch.new.rows.tolist()
            targets += batch.new.targets.tolist()
    assert steps == 40 * 3 and len(rows) == steps * 10
    if sampling == "uniform":
        assert np.bincount(rows).tolist() == [10] * 120
    else:
        share = np.bincount(targets) / len(targets)
        np.testing.assert_allclose(share, 1 / 3, atol=0.05)
    kept, added = learner.choose_memory().selection
    assert (len(kept), len(added)) == (108, 12)


# -- every learner ---------------------------------------------------------------------------------


def test_update_returns_the_moving_average_of_the_weights(tmp_path):
    learner = started(FineTuning(context(), batch_size=4, ema_decay=0.7), tmp_path)
    expected = [value.clone() for value in learner.model.parameters()]
    for step in range(1, 6):
        take_steps(learner, 1)
        a = min(1 - 1 / (step + 1), 0.7)
        pairs = zip(expected, learner.model.parameters(), strict=True)
        expected = [a * old + (1 - a) * new.detach() for old, new in pairs]
    served = [value.clone() for value in learner.served.parameters()]
    learner.end_training(None)
    for want, found, before in zip(expected, learner.model.parameters(), served, strict=True):
        torch.testing.assert_close(found, want)
        assert torch.equal(found, before)


def test_moving_average_includes_batch_norm_statistics():
    """PyTorch averages tensors by dtype, and the batch counter is the only integer tensor."""
    model: Any = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = averaged_copy(model, 0.5)
    model(torch.randn(8, 2))
    before = [value.clone() for value in average.module.state_dict().values()]
    average.update_parameters(model)
    averaged = average.module.state_dict().values()
    for old, new, found in zip(before, model.state_dict().values(), averaged, strict=True):
        torch.testing.assert_close(found, (old + new) / 2 if new.is_floating_point() else new)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_masked_classes_give_no_nan_in_loss_or_gradients(dtype):
    logits = torch.randn(4, 5, dtype=dtype, requires_grad=True)
    masked = mask_classes(logits, [1, 3])
    loss = F.cross_entropy(masked.float(), torch.tensor([1, 3, 1, 3]), label_smoothing=0.0)
    loss.backward()
    expected = F.cross_entropy(logits[:, [1, 3]].float(), torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(loss, expected)
    assert torch.all(logits.grad[:, [0, 2, 4]] == 0) and torch.isfinite(logits.grad).all()
    assert torch.isfinite(masked - masked).all() and torch.isfinite(masked).all()


def test_ignored_labels_unmask_no_class():
    logits = torch.zeros(2, 120)
    masked = mask_classes(logits, torch.tensor([-100, 3]))
    assert (masked[0] == 0).nonzero().tolist() == [[3]]
    assert torch.equal(mask_classes(logits, torch.tensor([-100])), logits)


@pytest.mark.parametrize("kind", [DarkExperienceReplay, CLSER, ERACE])
def test_unused_classes_are_masked_in_training_without_nan(tmp_path, kind):
    stored(tmp_path / "new", 12, classes=(0, 1))
    stored(tmp_path / "old", 20, first=50, classes=(0, 1))
    learner = kind(context(old_classes=(0, 1)), mask_unused_classes=True, **SIZES)
    started(learner, tmp_path)
    before = learner.model.head.weight[2].clone()
    take_steps(learner, 3)
    assert all(torch.isfinite(value).all() for value in learner.model.state_dict().values()
               if isinstance(value, torch.Tensor))  # fmt: skip
    if kind is ERACE:
        assert torch.equal(learner.model.head.weight[2], before), "no gradient for an unused class"
