"""Rehearse an update on a few rows, so that what would fail after hours fails in seconds."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from renate_stages import files
from renate_stages.errors import (
    DivergedError,
    EmptyHoldoutError,
    NotFiniteError,
    NotFiniteImportanceError,
    NotFiniteRowError,
    RenateStagesError,
    shortage,
    user_code,
)
from renate_stages.evaluation.history import EvaluationHistory
from renate_stages.learners import registry
from renate_stages.memory import ExampleStore, evolve
from renate_stages.params import Params
from renate_stages.state import State
from renate_stages.state.retention import Kept
from renate_stages.state.state import SPLITS
from renate_stages.training.measured_update import MeasuredUpdate
from renate_stages.training.update_data import UpdateData
from renate_stages.training.updater import Updater
from renate_stages.user.config import UserConfig

ROWS = 16  # of each store
STEP = "a step of training"
NOTHING = np.empty(0, dtype=np.int64)


class RehearsalError(Exception):
    """A part of the update failed in a way that is not foreseen; its cause has the traceback.

    Args:
        part: What failed.
    """

    def __init__(self, part: str) -> None:
        super().__init__(
            f"{part} failed for a few rows, before the training, so nothing was trained"
        )
        self.part = part


def rehearse(
    user: UserConfig,
    params: Params,
    parent: State,
    kept: Kept,
    scratch: Path,
    splits: Collection[str] = SPLITS,
) -> State | None:
    """Run a whole update on a few rows: measure, take one step, choose a memory, write the state.

    Then read that state as the next update will. The update itself is not changed: it seeds all
    random generators again.

    Args:
        user: The user's functions.
        params: Parameters of the update, without search spaces.
        parent: The state to start from.
        kept: Its examples and the new ones; see `Retention.apply`.
        scratch: A folder for the few rows; it must not exist.
        splits: The parent's splits to use.

    Returns:
        The state that was written and read; None if the few rows cannot show whether it can be.

    Raises:
        RehearsalError: If a part fails in a way that is not foreseen, and not in the user's code.
        RenateStagesError: If an input cannot be used.
    """
    epochs = registry.learner_class(params.learner).min_epochs
    trainer = {"max_epochs": epochs, "max_steps": 1 if epochs == 1 else None, "compile": False}
    short = params.trainer.model_copy(update=trainer)
    params = params.model_copy(update={"trainer": short})
    few = _few(kept, scratch, splits)
    try:
        with _part(STEP):
            update = MeasuredUpdate.run(user, params, parent, few, key="", say=_silent)
    except (
        DivergedError,
        EmptyHoldoutError,
        NotFiniteError,
        NotFiniteImportanceError,
        NotFiniteRowError,
    ):
        return None  # may be due to the few rows
    with _part("writing the state"):
        update.write_state(scratch / "state")
    with _part("reading the state that was written"):
        state = State.open(scratch / "state")
        updater = Updater(user, params, params.hyperparameters, _silent, state.provenance.labels)
        updater.restored(UpdateData(state, few.data.train))
    return state


def _few(kept: Kept, scratch: Path, splits: Collection[str]) -> Kept:
    """Return a few rows of each store, and of earlier holdouts and validation data the latest."""
    new, update, folder = kept.data, kept.update, scratch / "parent"
    train, val, test = (
        evolve(scratch / name, None, NOTHING, store, _spread(store), update)
        for name, store in (("train", new.train), ("val", new.val), ("test", new.test))
    )
    memory = kept.parent.memory()
    rows = _spread(memory)
    evolve(folder / "memory", memory, rows, None, NOTHING, update)
    for name in SPLITS:
        latest = dict([*kept.parent.split(name).items()][-1:] if name in splits else ())
        for number, store in latest.items():
            evolve(folder / name / str(number), store, _spread(store), None, NOTHING, update)
        files.write_json(folder / name / "index.json", {"updates": sorted(latest)})
    history = kept.parent.evaluations() if "holdouts" in splits else EvaluationHistory()
    history.write(folder / "evaluations.csv")
    stays = np.zeros(len(kept.memory_rows), dtype=bool)
    stays[np.flatnonzero(kept.memory_rows)[rows]] = True
    return replace(
        kept,
        parent=replace(kept.parent, examples=folder),
        data=replace(new, train=train, val=val, test=test),
        keepable=np.arange(len(train)),
        memory_rows=stays,
    )


def _spread(store: ExampleStore) -> np.ndarray:
    """Return at most `ROWS` rows from everywhere in a store, ascending, int64."""
    return np.unique(np.linspace(0, len(store) - 1, min(ROWS, len(store))).astype(np.int64))


@contextmanager
def _part(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, RenateStagesError) or user_code.place(error):
            raise  # it says what is wrong, and where
        shortage.reraise(error)
        raise RehearsalError(name) from error


def _silent(message: str) -> None:
    pass
