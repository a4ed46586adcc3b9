"""Read steps ahead in a thread while another step computes, and copy them to the GPU."""

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

from renate_stages.data.steps import EpochRows, StepBatch, StepRows, Steps


class Ahead:
    """Reads steps ahead: the same batches in the same order as `InProcess`, to the bit.

    The first step of an epoch is read in place. If that drew from a global generator (Python's,
    NumPy's or torch's on the CPU), as random transforms do, the whole epoch is: read ahead, they
    would draw between what else draws there, such as dropout, as chance has it.

    An epoch that ends before its time, or fails, is to be closed: what was read too much counts as
    not drawn.

    Args:
        steps: Reads them.
        rows: Says which.
        depth: Most steps that are read and not yet asked for, >= 1.
        device: A GPU that steps are copied to; None leaves them where they are.
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
        self._running = weakref.ref(epoch)  # dropped by who iterates, it is closed
        return epoch

    def close(self) -> None:
        """End the running epoch, if there is one; its thread has ended when this returns."""
        epoch = self._running() if self._running is not None else None
        if epoch is not None:
            epoch.close()

    def _epoch(self) -> Generator[StepBatch]:
        copies, source, rows = self._copies, self._rows.source, iter(self._rows)
        stood = None if source is None else source.state_dict()

        def read(each: StepRows) -> Any:
            return copies.send(self._steps[each])

        before = _global_generators()
        first = next(rows, None)
        if first is None:
            return
        step = read(first)
        if _global_generators() != before:
            yield copies.receive(step)
            yield from (copies.receive(read(each)) for each in rows)
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
            if source is not None and stood is not None and taken < 1 + reader.drawn:
                source.load_state_dict(stood)
                for _ in range(taken * self._rows.draws):
                    next(source)


class _Reader(threading.Thread):
    """Reads steps until it is as far ahead as it may be, and goes on when one is taken."""

    def __init__(
        self, rows: Iterator[StepRows], read: Callable[[StepRows], Any], depth: int
    ) -> None:
        super().__init__(name="renate-stages reads ahead", daemon=True)
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
            except BaseException as error:  # noqa: BLE001 -- it is raised where steps are taken
                self._found.put((None, error))
                return

    def take(self) -> Any:
        """Return the next step; what reading it raised is raised here, with its traceback."""
        step, error = self._found.get()
        if error is not None:
            raise error
        self._free.release()
        return step

    def end(self) -> None:
        """Read no further; the thread has ended when this returns."""
        self._ended = True
        self._free.release()
        if self.ident is not None:
            self.join()


class NoCopies:
    """Leaves steps where they are."""

    def send(self, step: StepBatch) -> StepBatch:
        """Return the step."""
        return step

    def receive(self, sent: StepBatch) -> StepBatch:
        """Return the step."""
        return sent


class Copies:
    """Copies steps to a GPU on a stream of its own, so that kernels of other streams go on.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def send(self, step: StepBatch) -> tuple[StepBatch, torch.cuda.Event]:
        """Begin to copy a step; return it on the GPU, and what tells that it has arrived."""

        def copied(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(self._device, non_blocking=True)

        with torch.cuda.stream(self._stream):
            there = step.mapped(copied)
        arrived = torch.cuda.Event()
        arrived.record(self._stream)
        return there, arrived

    def receive(self, sent: tuple[StepBatch, torch.cuda.Event]) -> StepBatch:
        """Return a step to be used on the current stream, which waits until it has arrived."""
        step, arrived = sent
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(arrived)

        def used(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)  # its memory is not given away before that has used it
            return tensor

        return step.mapped(used)


def _global_generators() -> tuple[Any, ...]:
    """Return where the global generators stand that transforms may draw from."""
    algorithm, keys, *rest = np.random.get_state()
    return (
        random.getstate(),
        (algorithm, np.asarray(keys).tobytes(), *rest),
        torch.get_rng_state().numpy().tobytes(),
    )
