"""Batch loading: prefetching or data on the device does not change the result of an update."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
import torch
from small_updates import VALUES, state_of, updater, weights, write_examples
from torch.utils._pytree import tree_map

from renate_stages.data import Batched
from renate_stages.errors import InvalidParamsError, NotBatchedError
from renate_stages.learners.base import Learner
from renate_stages.params import Params
from renate_stages.state import State, state
from renate_stages.training.callbacks import Follower
from renate_stages.training.resume import SECONDS_VARIABLE, Resume
from renate_stages.training.update_data import UpdateData

CASES = {
    "FineTuning": ("FineTuning", {}),
    "ER": ("ER", {}),
    "ER online": ("ER", {"memory_update": "online"}),
    "DER++": ("DER++", {}),
    "DER++ online": ("DER++", {"memory_update": "online", "memory_policy": "class_balanced"}),
    "CLS-ER": ("CLS-ER", {}),
    "Budgeted": ("Budgeted", {}),
    "Joint": ("Joint", {}),
    "GDumb": ("GDumb", {}),
    "iCaRL": ("iCaRL", {}),
    "EWC": ("EWC", {}),
    "NCM": ("NCM", {}),
}
WAYS = {
    "prefetch 2": {"prefetch": 2},
    "prefetch 9": {"prefetch": 9},
    "on device": {"data_on_device": True},
}


def halved():
    return Batched(lambda inputs: inputs / 2)


def scaled_labels():
    return Batched(lambda labels: labels * 1)


FUNCTIONS = {"train_transform": halved, "train_target_transform": scaled_labels}


@pytest.fixture(params=CASES)
def case(request):
    learner, own = CASES[request.param]
    return learner, {**VALUES, **own}


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Return the examples of update 2, which tests must not change."""
    return write_examples(tmp_path_factory.mktemp("second") / "data", 45, first=300)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """Return the state after a first update with DER, which tests must not change."""
    folder = tmp_path_factory.mktemp("first")
    state.write_empty(folder / "empty")
    new = write_examples(folder / "new", 30)
    first = updater("DER", functions=FUNCTIONS).update(
        UpdateData(State.open(folder / "empty"), new)
    )
    return state_of(folder / "parent", first, 1, new=new)


def made(learner, values, **trainer):
    functions = {**FUNCTIONS, **trainer.pop("functions", {})}
    return updater(learner, values, number=2, functions=functions, **trainer)


def record_batches(monkeypatch) -> list[torch.Tensor]:
    """Record tensors and rows of every batch, online memory draws included, passed to the model."""
    found, pass_on = [], Learner.pass_on

    def noted(self, batch, *left_out):
        fields = [value.clone() for _, value in sorted(batch.fields.items())]
        found.extend([batch.inputs.clone(), torch.from_numpy(batch.rows.copy()), *fields])
        return pass_on(self, batch, *left_out)

    monkeypatch.setattr(Learner, "pass_on", noted)
    return found


def assert_equal(one, other):
    assert torch.equal(weights(one), weights(other)) and one.curves == other.curves
    (tensors, values), (expected, wanted) = (each.learner.learner_state() for each in (one, other))
    assert values == wanted and tensors.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in tensors.items())
    for part in ("kept", "added"):
        np.testing.assert_array_equal(getattr(one.selection, part), getattr(other.selection, part))
    for part in ("fields", "added_fields"):
        mine, its = getattr(one.chosen, part), getattr(other.chosen, part)
        assert mine.keys() == its.keys()
        assert all(np.array_equal(each, its[name]) for name, each in mine.items())


def as_lists(position):
    return tree_map(
        lambda each: each.tolist() if isinstance(each, torch.Tensor) else each, position
    )


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "prefetch" in thread.name]


@pytest.mark.parametrize("way", WAYS)
def test_batch_loading_mode_changes_neither_batches_nor_results_of_an_update(
    parent, second, case, way, monkeypatch
):
    learner, values = case
    seen = record_batches(monkeypatch)
    plain = made(learner, values).update(UpdateData(parent, second, {2: second}))
    count = len(seen)
    same = made(learner, values, **WAYS[way]).update(UpdateData(parent, second, {2: second}))
    assert_equal(same, plain)
    assert len(seen) == 2 * count
    assert all(torch.equal(*each) for each in zip(seen[:count], seen[count:], strict=True))
    assert not threads()
    assert all(dataset.resident is None for dataset in same.learner.datasets)


@pytest.mark.parametrize("way", WAYS)
def test_batches_are_loaded_in_the_requested_mode(parent, second, way, monkeypatch):
    """Otherwise the test above would compare a loading mode with itself."""
    ran, on_device = [], []
    after_step = Learner.after_step

    def noted(self):
        ran.extend(threads())
        on_device.extend(each.resident is not None for each in self.datasets)
        after_step(self)

    monkeypatch.setattr(Learner, "after_step", noted)
    made("ER", {**VALUES, "batch_size": 1}, **WAYS[way]).update(UpdateData(parent, second))
    assert bool(ran) == (way != "on device")
    assert all(on_device) == any(on_device) == (way == "on device")


@pytest.mark.parametrize("steps", [1, 4, 6, 8])
def test_training_stopped_within_an_epoch_saves_the_same_position_with_prefetch(
    parent, second, case, steps, tmp_path, monkeypatch
):
    monkeypatch.setenv(SECONDS_VARIABLE, "0")
    learner, values = case
    positions = []
    for number, way in enumerate(({}, {"prefetch": 2})):
        resume = Resume.of(tmp_path / str(number), "inputs", lambda _: None)
        stopped = made(learner, values, max_steps=steps, **way)
        stopped.update(UpdateData(parent, second), resume=resume)
        positions.append(torch.load(resume.file, weights_only=True)["renate_stages"]["position"])
        assert not threads()
    assert as_lists(positions[0]) == as_lists(positions[1])


class Fails:
    """A transform that raises when it is called for the `at`-th time."""

    def __init__(self, at: int, kind: type[BaseException]) -> None:
        self.left, self.kind = at, kind

    def __call__(self, inputs):
        self.left -= 1
        if self.left == 0:
            raise self.kind("within")
        return inputs


@pytest.mark.parametrize("kind", [ArithmeticError, KeyboardInterrupt])
def test_failing_transform_is_reported_and_leaves_no_prefetch_thread(parent, second, kind):
    functions = {"train_transform": lambda: Fails(30, kind)}
    with pytest.raises((kind, SystemExit)):
        made("ER", VALUES, prefetch=2, functions=functions).update(UpdateData(parent, second))
    assert not threads()


def test_failing_loss_leaves_no_prefetch_thread(parent, second):
    def loss_fn():
        def loss(outputs, targets):
            raise ArithmeticError("in the loss")

        return loss

    with pytest.raises(ArithmeticError) as caught:
        made("ER", VALUES, prefetch=2, functions={"loss_fn": loss_fn}).update(
            UpdateData(parent, second)
        )
    assert not threads() and caught.value.__traceback__ is not None, "the traceback keeps frames"


def test_callback_can_stop_prefetched_training_between_two_epochs(parent, second):
    class Ends(Follower):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    straight, ahead = (
        made("ER", VALUES, max_epochs=9, **way).train(UpdateData(parent, second), follower=Ends())
        for way in ({}, {"prefetch": 2})
    )
    assert len(straight.curves) == 1 and straight.curves == ahead.curves and not threads()
    assert as_lists(straight.learner.position()) == as_lists(ahead.learner.position())


def test_training_resumed_with_prefetch_is_identical(parent, second, case, tmp_path, monkeypatch):
    monkeypatch.setenv(SECONDS_VARIABLE, "0")
    learner, values = case
    if learner == "NCM":
        pytest.skip("NCM trains for one epoch only")
    resume = Resume.of(tmp_path / "resume", "inputs", lambda _: None)
    interrupt = Fails(0, KeyboardInterrupt)
    functions = {"train_transform": lambda: interrupt, "train_target_transform": scaled_labels}
    straight = made(learner, values, functions=functions, max_epochs=4).update(
        UpdateData(parent, second)
    )
    interrupt.left = -interrupt.left // 2
    trains = made(learner, values, functions=functions, max_epochs=4, prefetch=2)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trains.update(UpdateData(parent, second), resume=resume)
    interrupt.left = -1
    assert_equal(trains.update(UpdateData(parent, second), resume=resume), straight)


def test_per_example_transforms_are_refused_with_data_on_device():
    functions = {"train_transform": lambda: torch.abs}
    with pytest.raises(NotBatchedError, match="train_transform takes one example at a time"):
        updater("ER", functions=functions, data_on_device=True)
    functions = {"buffer_target_transform": lambda: torch.abs}
    with pytest.raises(NotBatchedError, match="buffer_target_transform"):
        updater("ER", functions=functions, data_on_device=True)
    updater("ER", functions=functions)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("num_workers: 2", "prefetch: 2"),
        ("num_workers: 2", "data_on_device: true"),
        ("prefetch: 1", "data_on_device: true"),
    ],
)
def test_batch_loading_options_are_mutually_exclusive(one, other):
    import yaml

    trainer = yaml.safe_load(f"{one}\n{other}")
    problem = f"{one.replace(':', '')} and {other.replace(':', '')} are mutually exclusive"
    with pytest.raises(InvalidParamsError, match=problem):
        Params.parse({"trainer": trainer})
    Params.parse({"trainer": {**trainer, one.split(":")[0]: 0}})


@pytest.mark.parametrize(
    ("device", "prefetch", "expected"),
    [("cpu", None, 0), ("cpu", 3, 3), ("cuda", None, 2), ("cuda", 0, 0), ("cuda", 5, 5)],
)
def test_prefetch_is_enabled_by_default_only_on_gpus(device, prefetch, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "renate_stages.learners.base.reading.step_loader", lambda *_, **given: asked.append(given)
    )
    made = updater("FineTuning", prefetch=prefetch)
    learner = made.learner(made.build_model(None), {})
    monkeypatch.setattr(type(learner), "device", torch.device(device))
    learner.step_loader(partial, partial)
    assert asked[0]["prefetch"] == expected and asked[0]["device"].type == device
