"""Replay learners run by the updater: stored states, resume, precision, changes of learner."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_updates import VALUES, Interrupt, in_memory, state_of, updater, weights, write_examples

from renate_stages.learners import registry
from renate_stages.memory.spec import METADATA
from renate_stages.models import MLP
from renate_stages.state import State, state
from renate_stages.training.resume import SECONDS_VARIABLE, Resume
from renate_stages.training.update_data import UpdateData

CASES = {
    "ER": ("ER", {}),
    "ER online": ("ER", {"memory_update": "online"}),
    "ER separate": ("ER", {"replay_forward": "separate"}),
    "ER averaged": ("ER", {"ema_decay": 0.9}),
    "DER": ("DER", {}),
    "DER online": ("DER", {"memory_update": "online", "memory_policy": "class_balanced"}),
    "DER++": ("DER++", {}),
    "DER++ online": ("DER++", {"memory_update": "online"}),
    "CLS-ER": ("CLS-ER", {}),
    "CLS-ER online": ("CLS-ER", {"memory_update": "online"}),
    "POD-ER": ("POD-ER", {"alpha": 0.02}),
    "POD-ER online": ("POD-ER", {"memory_update": "online", "replay_forward": "separate"}),
    "Super-ER": ("Super-ER", {"pod_alpha": 0.02}),
    "WA": ("WA", {}),
    "BiC": ("BiC", {}),
    "LUCIR": ("LUCIR", {}),
    "LUCIR online": ("LUCIR", {"memory_update": "online", "replay_forward": "separate"}),
    "PODNet": ("PODNet", {"learning_rate": 0.02}),
    "PODNet online": (
        "PODNet",
        {"learning_rate": 0.02, "memory_update": "online", "replay_forward": "separate"},
    ),
    "LatentReplay": ("LatentReplay", {"latent_layer": "features.2"}),
    "A-GEM": ("A-GEM", {}),
    "A-GEM online": ("A-GEM", {"memory_update": "online"}),
    "MIR": ("MIR", {"candidate_factor": 2}),
    "MIR online": ("MIR", {"candidate_factor": 2, "memory_update": "online"}),
    "ASER": ("ASER", {"candidate_factor": 2, "aser_examples": 6}),
    "ASER online": (
        "ASER",
        {"candidate_factor": 2, "memory_update": "online", "shapley_form": "extreme"},
    ),
    "GSS": ("GSS", {"gss_examples": 2}),
    "ER-ACE": ("ER-ACE", {}),
    "Offline-ER": ("Offline-ER", {}),
    "Budgeted": ("Budgeted", {}),
    "Joint": ("Joint", {}),
    "GDumb": ("GDumb", {}),
    "RD": ("RD", {}),
}
RESETTING = ("Joint", "GDumb", "RD")  # these learners start from untrained weights


@pytest.fixture(params=CASES)
def case(request):
    learner, own = CASES[request.param]
    return learner, {**VALUES, **own}


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """Return the examples of update 1, which tests must not change."""
    return write_examples(tmp_path_factory.mktemp("new") / "data", 30)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Return the examples of update 2, which tests must not change."""
    return write_examples(tmp_path_factory.mktemp("second") / "data", 25, first=300)


@pytest.fixture(scope="module")
def after(new, tmp_path_factory):
    """Return a function that runs each first update once and returns its result and its state."""
    known = {}

    def make(learner: str, values=VALUES, functions=None):
        key = f"{learner} {values} {functions}"
        if key not in known:
            folder = tmp_path_factory.mktemp("after")
            state.write_empty(folder / "empty")
            empty = State.open(folder / "empty")
            updated = updater(learner, values, functions=functions).update(UpdateData(empty, new))
            known[key] = updated, state_of(folder / "after", updated, 1, new=new)
        return known[key]

    return make


def assert_equal(one, other):
    """Compare weights, curves, learner states, and memories including their extra fields."""
    assert torch.equal(weights(one), weights(other)) and one.curves == other.curves
    (tensors, values), (expected, expected_values) = (
        each.learner.learner_state() for each in (one, other)
    )
    assert values == expected_values and tensors.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in tensors.items())
    for part in ("kept", "added"):
        np.testing.assert_array_equal(getattr(one.selection, part), getattr(other.selection, part))
    for part in ("fields", "added_fields"):
        found, wanted = getattr(one.chosen, part), getattr(other.chosen, part)
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(each, wanted[name]) for name, each in found.items())


def test_second_update_from_a_stored_state_equals_an_update_from_live_objects(
    after, new, second, case
):
    learner, values = case
    first, parent = after(learner, values)
    stored = updater(learner, values, number=2).update(
        UpdateData(parent, second, {1: new, 2: second})
    )
    made = in_memory(updater(learner, values, number=2), first, parent)
    assert_equal(stored, made.update(UpdateData(parent, second, {1: new, 2: second})))
    if learner not in RESETTING:
        plain = updater("FineTuning", VALUES, number=2).update(UpdateData(parent, second))
        assert not torch.equal(weights(stored), weights(plain)), "the memory influences the result"


def test_update_without_training_passes_on_what_the_learner_knows(after, case):
    """Such as the counts of earlier examples; an update that only forgets does not train."""
    learner, values = case
    first, parent = after(learner, values)
    kept = np.ones(len(parent.memory()), dtype=bool)
    carried = updater(learner, values, number=2).carry_over(UpdateData(parent, kept))
    (tensors, found), (expected, wanted) = (
        each.learner.learner_state() for each in (carried, first)
    )
    assert found == wanted and tensors.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in tensors.items())


def test_resumed_training_has_identical_bytes(after, second, tmp_path, monkeypatch, case):
    monkeypatch.setenv(SECONDS_VARIABLE, "0")
    learner, values = case
    values = {**values, "dropout": 0.3}
    _, parent = after(learner, values)
    interrupt, said = Interrupt(), []
    functions = {"train_transform": lambda: interrupt}
    made = updater(learner, values, number=2, functions=functions, max_epochs=5)
    interrupt.left = -1
    straight = made.update(UpdateData(parent, second, {2: second}))
    taken = -1 - interrupt.left
    resume = Resume.of(tmp_path / "resume", "inputs", said.append)
    interrupt.left = taken // 2
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        made.update(UpdateData(parent, second, {2: second}), resume=resume)
    interrupt.left = -1
    resumed = made.update(UpdateData(parent, second, {2: second}), resume=resume)
    assert len(said) == 1 and said[0].startswith("training goes on after epoch")
    assert_equal(resumed, straight)


def test_mixed_precision_weights_are_finite_and_close_to_single_precision(after, second, case):
    learner, values = case
    _, parent = after(learner, values)
    found = [
        updater(learner, values, number=2, precision=each).update(
            UpdateData(parent, second, {2: second})
        )
        for each in ("bf16-mixed", "32-true")
    ]
    half, single = map(weights, found)
    assert half.dtype == torch.float32 and half.isfinite().all() and not torch.equal(half, single)
    torch.testing.assert_close(half, single, rtol=0.05, atol=0.03)
    for row in found[0].curves:
        assert all(np.isfinite(value) for value in row.values())
    for values in (*found[0].chosen.fields.values(), *found[0].chosen.added_fields.values()):
        assert values.dtype == np.float32 and np.isfinite(values).all()


@pytest.mark.parametrize("size", [7, 45])
def test_memory_size_can_change_between_updates(after, second, tmp_path, case, size):
    learner, values = case
    first, parent = after(learner, values)
    updated = updater(learner, {**values, "memory_size": size}, number=2).update(
        UpdateData(parent, second)
    )
    child = state_of(tmp_path / "child", updated, 2, parent=parent, new=second)
    had, new = len(first.selection.added), 25
    rows = had + new if learner in ("Joint", "Budgeted") else min(size, had + new)
    if learner == "GDumb":  # no class exceeds its share, even if the memory has room
        counts = np.bincount(child.memory().column("targets"))
        assert counts.max() <= -(-size // 3) and rows - 5 < len(child.memory()) <= rows
    else:
        assert len(child.memory()) == rows
    third = write_examples(tmp_path / "third", 9, first=600)
    again = updater(learner, values, number=3).update(UpdateData(child, third))
    assert weights(again).isfinite().all()
    assert len(state_of(tmp_path / "last", again, 3, parent=child, new=third).memory()) > 0


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("FineTuning", "DER"),
        ("ER", "DER++"),
        ("DER", "ER"),
        ("DER", "CLS-ER"),
        ("CLS-ER", "DER++"),
        ("Joint", "ER"),
        ("ER", "Joint"),
        ("GDumb", "ER-ACE"),
        ("DER++", "Budgeted"),
        ("ER", "POD-ER"),
        ("CLS-ER", "Super-ER"),
        ("ER", "LatentReplay"),
    ],
)
def test_learner_can_change_between_updates(after, second, tmp_path, capsys, before, now):
    values = {**VALUES, "memory_size": 12}
    first, parent = after(before, values)
    updated = updater(now, values, number=2).update(UpdateData(parent, second, {2: second}))
    child = state_of(tmp_path / "child", updated, 2, parent=parent, new=second)
    said = capsys.readouterr().out
    assert f"the parent's learner was {registry.learner_class(before).__name__}" in said
    remembered = len(first.selection.added)
    if now.startswith("DER") and remembered:
        assert (
            f"computed logits of {remembered} remembered examples with the parent's model" in said
        )
    logits = child.memory().metadata("logits")
    if now.startswith("DER"):
        assert logits is not None and np.isfinite(logits).all()
    kept_all = now in ("Joint", "Budgeted")
    assert len(child.memory()) == (remembered + 25 if kept_all else 12)


@pytest.mark.parametrize("name", ["DER", "DER online", "DER++", "CLS-ER", "ER-ACE", "Joint"])
def test_model_can_gain_outputs_between_updates(after, second, tmp_path, name):
    def grown_fn(model_state_url=None, dropout=0.0):
        model = MLP(num_inputs=5, num_outputs=4, hidden_size=4)
        if model_state_url is not None:
            state = torch.load(model_state_url, weights_only=True)
            own = model.state_dict()
            for each in ("head.weight", "head.bias"):
                own[each][:3] = state[each]
            model.load_state_dict({**own, **{n: v for n, v in state.items() if "features" in n}})
        return model

    learner, own = CASES[name]
    values = {**VALUES, **own}
    _, parent = after(learner, values)
    grown = updater(learner, values, number=2, functions={"model_fn": grown_fn})
    updated = grown.update(UpdateData(parent, second, {2: second}))
    assert weights(updated).isfinite().all()
    child = state_of(tmp_path / "child", updated, 2, parent=parent, new=second)
    field = child.memory().spec.metadata.get(METADATA + "logits")
    assert field is None or field.shape == (4,)


def test_masked_unused_classes_keep_their_head_weights(after, second, case):
    def wide_fn(model_state_url=None, dropout=0.0):
        model = MLP(num_inputs=5, num_outputs=6, hidden_size=4)
        if model_state_url is not None:
            model.load_state_dict(torch.load(model_state_url, weights_only=True))
        return model

    learner, values = case
    values, functions = {**values, "mask_unused_classes": True}, {"model_fn": wide_fn}
    first, parent = after(learner, values, functions)
    made = updater(learner, values, number=2, functions=functions)
    updated = made.update(UpdateData(parent, second, {2: second}))
    assert weights(updated).isfinite().all()
    assert all(np.isfinite(each) for row in updated.curves for each in row.values())
    if "DER" in learner or learner in ("CLS-ER", "Super-ER", "RD"):
        return  # these learners distill the outputs of unmet classes too
    start = made.build_model(None) if learner in RESETTING else first.model
    unmet = [each.head.weight[3:].detach() for each in (updated.model, start)]
    torch.testing.assert_close(*unmet, rtol=0, atol=1e-7)  # averaging rounds
    if learner not in ("LUCIR", "PODNet"):  # which fix the rows of old classes
        assert not torch.equal(updated.model.head.weight[:3], start.head.weight[:3])


class PartlyFrozen(MLP):
    """A model whose batch norm never trains: its statistics and mode stay."""

    def __init__(self) -> None:
        super().__init__(num_inputs=5, num_outputs=3, hidden_size=4)
        self.features.insert(0, torch.nn.BatchNorm1d(5).eval())


@pytest.mark.parametrize(
    ("learner", "own"),
    [("DER++", {}), ("ER", {"memory_policy": "herding"}), ("BiC", {}), ("EWC", {})],
)
def test_part_of_the_model_in_evaluation_mode_stays_there(tmp_path, new, second, learner, own):
    def model_fn(model_state_url=None):
        model = PartlyFrozen()
        if model_state_url is not None:
            model.load_state_dict(torch.load(model_state_url, weights_only=True))
        return model

    functions = {"model_fn": model_fn}
    folder = tmp_path / "empty"
    folder.mkdir()
    state.write_empty(folder)
    parent, values = State.open(folder), {**VALUES, **own}
    for number, examples in ((1, new), (2, second)):
        made = updater(learner, values, number=number, functions=functions)
        updated = made.update(UpdateData(parent, examples, {number: examples}))
        assert int(updated.model.features[0].num_batches_tracked) == 0
        parent = state_of(tmp_path / str(number), updated, number, (0, 1), parent, examples)
