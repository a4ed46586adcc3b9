"""`UpdateData`: the state and the examples that an update starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from renate_stages.data import StoredDataset
from renate_stages.memory import ExampleStore
from renate_stages.state import State
from renate_stages.state.retention import Kept


@dataclass(frozen=True)
class UpdateData:
    """The state and the examples that an update starts from; nothing changes them.

    Args:
        parent: The state to start from.
        new: The new training examples.
        validation: Validation examples by update, of this update and earlier ones; may be empty.
        keepable: Rows of `new` that may enter the memory, int64; None: all.
        memory_rows: Which rows of the memory that the parent's learner left are still in
            `parent`, bool; None: all.
        forgotten: Examples of that memory to forget; None: no examples.
    """

    parent: State
    new: ExampleStore
    validation: Mapping[int, ExampleStore] = field(default_factory=dict)
    keepable: np.ndarray | None = None
    memory_rows: np.ndarray | None = None
    forgotten: StoredDataset | None = None

    @classmethod
    def of(cls, kept: Kept, parent: State) -> UpdateData:
        """Return the data that an update may use.

        Args:
            kept: The examples, without those that must not be kept.
            parent: The state before their removal, which still has the forgotten examples.
        """
        return cls(
            kept.parent,
            kept.data.train,
            kept.splits("validation"),
            kept.keepable,
            kept.memory_rows,
            StoredDataset(parent.memory(), kept.forgotten),
        )
