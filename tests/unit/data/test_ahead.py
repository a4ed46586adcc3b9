"""Prefetching in a thread: the same batches as inline loading, and no thread left afterwards."""

from __future__ import annotations

import random
import threading
import time
import traceback
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from renate_stages.data import Batch, ConcatStored, StepBatch, StoredDataset
from renate_stages.data.ahead import Ahead, Copies
from renate_stages.data.loading import step_loader
from renate_stages.data.steps import (
    BalancedRows,
    Budget,
    InOrder,
    InProcess,
    Pass,
    RandomRows,
    Steps,
)
from renate_stages.learners.base.working_memory import WorkingMemory
from renate_stages.memory import ExampleStore, StoreWriter


def write(path, rows: int) -> StoredDataset:
    """Store examples whose values are their row number, with logits as an extra field."""
    numbers = np.arange(rows)
    with StoreWriter(path, update=1) as writer:
        logits = np.stack([numbers, -numbers], 1).astype(np.float32)
        writer.append((np.float32(numbers)[:, None] + [0, 0.5], numbers), {"logits": logits})
    return StoredDataset(ExampleStore.open(path))


@pytest.fixture
def new(tmp_path) -> StoredDataset:
    return write(tmp_path / "new", 22)


@pytest.fixture
def old(tmp_path) -> StoredDataset:
    return write(tmp_path / "old", 13)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(
    params=["new only", "replay", "two draws", "budget", "balanced", "in order", "one step"]
)
def make_steps(request, new, old):
    """Return a function that builds the same steps and row order on every call."""

    def make():
        memory, kind = WorkingMemory(old, new, ["logits"]), request.param
        if kind in ("budget", "balanced"):
            pool, labels = ConcatStored([old, new]), np.arange(35) % 3
            balanced = BalancedRows(labels, 5, seeded(2))
            rows = balanced if kind == "balanced" else RandomRows(35, 5, seeded(2))
            return Steps(pool), Budget(rows, 6)
        if kind == "in order":
            return Steps(new), InOrder(len(new), 4)
        if kind in ("new only", "one step"):
            return Steps(new), Pass(len(new), 4 if kind == "new only" else 30, seeded(1))
        replay = RandomRows(len(old), 5, seeded(2))
        return Steps(new, memory), Pass(len(new), 4, seeded(1), replay, 1 + (kind == "two draws"))

    return make


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "prefetch" in thread.name]


def assert_equal(one: StepBatch, other: StepBatch) -> None:
    assert len(one.memory) == len(other.memory)
    for mine, its in zip((one.new, *one.memory), (other.new, *other.memory), strict=True):
        np.testing.assert_array_equal(mine.rows, its.rows)
        assert torch.equal(mine.inputs, its.inputs) and torch.equal(mine.targets, its.targets)
        assert mine.fields.keys() == its.fields.keys()
        assert all(torch.equal(value, its.fields[name]) for name, value in mine.fields.items())


def source_state(rows) -> list:
    return [] if rows.source is None else [v.tolist() for v in rows.source.state_dict().values()]


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_prefetched_batches_equal_inline_batches_for_three_epochs(make_steps, depth):
    (steps, rows), (same_steps, same_rows) = make_steps(), make_steps()
    plain, ahead = InProcess(steps, rows), Ahead(same_steps, same_rows, depth)
    assert len(plain) == len(ahead)
    for _ in range(3):
        for one, other in zip(plain, ahead, strict=True):
            assert_equal(one, other)
        assert source_state(rows) == source_state(same_rows), "nothing drawn past the epoch's end"
        assert not threads()


def test_row_sources_stop_at_the_last_step_when_an_epoch_ends_early(make_steps):
    (steps, rows), (same_steps, same_rows) = make_steps(), make_steps()
    plain, ahead = InProcess(steps, rows), Ahead(same_steps, same_rows, 3)
    for count in (1, 2, 4, 100):
        for _, one, other in zip(range(count), plain, ahead, strict=False):
            assert_equal(one, other)
        ahead.close()
        assert source_state(rows) == source_state(same_rows) and not threads()


def test_abandoned_epoch_iterator_ends_its_thread(new):
    iterator = iter(Ahead(Steps(new), Pass(22, 2, seeded(0)), 2))
    next(iterator)
    assert threads()
    del iterator
    assert not threads()


def test_no_rows_are_drawn_and_no_thread_starts_before_the_first_step(new):
    generator = seeded(3)
    before = generator.get_state()
    ahead = Ahead(Steps(new), Pass(22, 4, generator), 2)
    iter(ahead)
    iter(ahead)
    assert torch.equal(generator.get_state(), before) and not threads()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_prefetching_reads_at_most_depth_steps_ahead(new, depth):
    read = []
    steps = Steps(StoredDataset(new.store, transform=lambda x: read.append(1) or x))
    iterator = iter(Ahead(steps, Pass(22, 1, seeded(0)), depth))
    for taken in range(1, 6):
        next(iterator)
        until = time.monotonic() + 5
        while len(read) < taken + depth and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(read) == taken + depth


def test_error_in_the_prefetching_thread_is_raised_with_its_traceback(new):
    calls = []

    def fails_at_the_third_step(example):
        calls.append(1)
        if len(calls) > 8:
            raise ArithmeticError("nine")
        return example

    steps = Steps(StoredDataset(new.store, transform=fails_at_the_third_step))
    taken = []
    with pytest.raises(ArithmeticError, match="nine") as caught:
        taken.extend(Ahead(steps, Pass(22, 4, seeded(0)), 2))
    assert len(taken) == 2 and not threads()
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "fails_at_the_third_step" in frames


def from_python(inputs):
    return inputs + random.random()


def from_numpy(inputs):
    return inputs + np.float32(np.random.rand())


def from_torch(inputs):
    return inputs + torch.rand(2)


@pytest.mark.parametrize("transform", [from_python, from_numpy, from_torch])
def test_random_transforms_are_not_prefetched(new, transform):
    def seen(make):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        steps = Steps(StoredDataset(new.store, transform=transform))
        found = []
        for step in make(steps, Pass(22, 4, seeded(0))):
            assert not threads()
            found += [
                step.new.inputs,
                torch.tensor([random.random(), np.random.rand()]),
                torch.rand(1),
            ]
        return torch.cat([each.flatten() for each in found])

    assert torch.equal(seen(InProcess), seen(lambda steps, rows: Ahead(steps, rows, 2)))


def test_prefetch_option_selects_the_prefetching_loader(new):
    rows, cpu = Pass(22, 4, seeded(0)), torch.device("cpu")
    assert isinstance(step_loader(Steps(new), rows, seeded(0)), InProcess)
    assert isinstance(step_loader(Steps(new), rows, seeded(0), device=cpu), InProcess)
    assert isinstance(step_loader(Steps(new), rows, seeded(0), prefetch=2, device=cpu), Ahead)


def test_compute_stream_waits_for_the_copy_of_a_step(new, monkeypatch):
    """Replaces CUDA streams and events by stand-ins that log calls, as there is no GPU."""
    recorded: list[str] = []
    side = SimpleNamespace(name="side")
    computing = SimpleNamespace(wait_event=lambda event: recorded.append(f"wait for {event.of}"))

    class Event:
        def record(self, stream):
            self.of = f"copy {recorded.count('arrive')} on {stream.name}"
            recorded.append("arrive")

    for name, stand_in in {
        "Stream": lambda device: side,
        "Event": Event,
        "stream": lambda stream: recorded.append(f"enter {stream.name}") or nullcontext(),
        "current_stream": lambda device: computing,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: recorded.append("pin") or self)
    used = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: used.append(stream))
    copies, fields = Copies(torch.device("cpu")), {"logits": torch.ones(1, 2)}
    step = StepBatch(
        Batch(torch.ones(2), torch.ones(2), np.arange(2)),
        (Batch({"a": torch.ones(1)}, (torch.ones(1),), np.arange(1), fields),),
    )
    sent = copies.send(step)
    assert recorded == ["enter side", *["pin"] * 5, "arrive"] and not used
    received = copies.receive(sent)
    assert recorded[-1] == "wait for copy 0 on side" and used == [computing] * 5
    assert received.memory[0].inputs.keys() == {"a"} and received.memory[0].rows.tolist() == [0]
