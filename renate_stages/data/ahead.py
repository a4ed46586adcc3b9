"""Prefetch step batches in a background thread, and copy them to the GPU."""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renate_stages.data.batch import StepBatch
from renate_stages.data.steps import EpochRows, StepRows, Steps


class Ahead:
    """Prefetches steps; its batches and their order are bit-identical to those of `InProcess`.

    The first step of an epoch is read without the thread. If that draws from a global generator
    (Python's, NumPy's or torch's on the CPU), as random transforms do, the whole epoch is read
    without the thread. Otherwise the thread's draws would mix in random order with other draws
    from the same generator, such as those of dropout.

    Call `close` if an epoch ends early or fails: rows that were prefetched but not used then count
    as not drawn.

    Args:
        steps: Reads the steps.
        rows: Chooses the rows of each step.
        depth: Maximum number of prefetched steps, >= 1.
        device: The GPU to copy steps to; None does not copy them.
    """

    def __init__(
        self, steps: Steps, rows: EpochRows, depth: int, device: torch.device | None = None
    ) -> None:
        self._steps = steps
        self._rows = rows
        self._depth = depth
        self._copies = NoCopies() if device is None else Copies(device)
        self._running: weakref.ref[Generator[StepBatch]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[StepBatch]:
        self.close()
        epoch = self._epoch()
        self._running = weakref.ref(epoch)  # weak, so that a dropped iterator is closed
        return epoch

    def close(self) -> None:
        """End the running epoch, if any, and wait until its thread has ended."""
        epoch = self._running() if self._running is not None else None
        if epoch is not None:
            epoch.close()

    def _epoch(self) -> Generator[StepBatch]:
        copies, source, rows = self._copies, self._rows.source, iter(self._rows)
        initial = None if source is None else source.state_dict()

        def read(step_rows: StepRows) -> Any:
            return copies.send(self._steps[step_rows])

        before = _global_generators()
        first = next(rows, None)
        if first is None:
            return
        step = read(first)
        if _global_generators() != before:
            yield copies.receive(step)
            yield from (copies.receive(read(step_rows)) for step_rows in rows)
            return
        reader = _Reader(rows, read, self._depth)
        taken, total = 1, len(self)
        try:
            if total > 1:
                reader.start()
            yield copies.receive(step)
            while taken < total:
                step = reader.take()
                taken += 1
                if taken == total:
                    reader.end()
                yield copies.receive(step)
        finally:
            reader.end()
            if source is not None and initial is not None and taken < 1 + reader.drawn:
                source.load_state_dict(initial)
                for _ in range(taken * self._rows.draws):
                    next(source)


class _Reader(threading.Thread):
    """Reads steps until `depth` of them are waiting, and continues when one is taken."""

    def __init__(
        self, rows: Iterator[StepRows], read: Callable[[StepRows], Any], depth: int
    ) -> None:
        super().__init__(name="renate-stages prefetch", daemon=True)
        self.drawn = 0
        self._rows = rows
        self._read = read
        self._free = threading.Semaphore(depth)
        self._found: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._ended = False

    def run(self) -> None:
        while self._free.acquire() and not self._ended:
            try:
                rows = next(self._rows, None)
                if rows is None:
                    return
                self.drawn += 1
                self._found.put((self._read(rows), None))
            except BaseException as error:  # noqa: BLE001 -- `take` raises it again
                self._found.put((None, error))
                return

    def take(self) -> Any:
        """Return the next step, or raise the error of reading it, with its traceback."""
        step, error = self._found.get()
        if error is not None:
            raise error
        self._free.release()
        return step

    def end(self) -> None:
        """Stop reading, and wait until the thread has ended."""
        self._ended = True
        self._free.release()
        if self.ident is not None:
            self.join()


class NoCopies:
    """Does not copy steps."""

    def send(self, step: StepBatch) -> StepBatch:
        """Return the step unchanged."""
        return step

    def receive(self, sent: StepBatch) -> StepBatch:
        """Return the step unchanged."""
        return sent


class Copies:
    """Copies steps to a GPU on a separate stream, so that kernels of other streams can run.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def send(self, step: StepBatch) -> tuple[StepBatch, torch.cuda.Event]:
        """Start to copy a step; return the copy, and an event for the end of copying."""

        def copied(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(self._device, non_blocking=True)

        with torch.cuda.stream(self._stream):
            copy = step.mapped(copied)
        copied_event = torch.cuda.Event()
        copied_event.record(self._stream)
        return copy, copied_event

    def receive(self, sent: tuple[StepBatch, torch.cuda.Event]) -> StepBatch:
        """Return a step for use on the current stream, which waits for the copy."""
        step, arrived = sent
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(arrived)

        def used(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)  # keeps the memory until the stream has used it
            return tensor

        return step.mapped(used)


def _global_generators() -> tuple[Any, ...]:
    """Return the states of the global generators that transforms may use."""
    algorithm, keys, *rest = np.random.get_state()
    return (
        random.getstate(),
        (algorithm, np.asarray(keys).tobytes(), *rest),
        torch.get_rng_state().numpy().tobytes(),
    )
