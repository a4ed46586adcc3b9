"""Run updates with Avalanche learners, each from the state that the previous one wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from alone import BATCH, EPOCHS, MOMENTUM, RATE, model_fn, write
from small_updates import state_of

from renate_stages.params import Params
from renate_stages.state import State, state
from renate_stages.training.update_data import UpdateData
from renate_stages.training.updated_model import UpdatedModel
from renate_stages.training.updater import Updater
from renate_stages.user.config import UserConfig

COMMON = {"learning_rate": RATE, "batch_size": BATCH, "momentum": MOMENTUM}


def updater(
    name: str,
    number: int,
    values: dict,
    *,
    learner: str = "",
    functions: dict | None = None,
    task_id: str = "default_task",
    say: Any = print,
    **trainer: Any,
) -> Updater:
    params = {
        "learner": learner or f"Avalanche-{name}",
        "update": {"number": number, "task_id": task_id},
        "trainer": {"max_epochs": EPOCHS, **trainer},
    }
    user = UserConfig(Path("renate_config.py"), {"model_fn": model_fn, **(functions or {})})
    return Updater(user, Params.parse(params), {**COMMON, **values}, say=say)


def first_state(folder: Path) -> State:
    made = folder / "state-0"
    made.mkdir(parents=True)
    state.write_empty(made)
    return State.open(made)


def updates(
    folder: Path, name: str, count: int, *, again: bool = False, learner: str = "", **values: Any
) -> tuple[list[UpdatedModel], State]:
    """Run several updates, starting from the empty state."""
    parent = first_state(folder)
    found = []
    for number in range(1, count + 1):
        new = write(folder / f"new-{number}", number, again=again)
        found.append(updater(name, number, values, learner=learner).update(UpdateData(parent, new)))
        parent = _next_state(folder, found[-1], number, parent, new)
    return found, parent


def another_update(
    folder: Path, name: str, parent: State, number: int, **values: Any
) -> tuple[UpdatedModel, State]:
    """Run one more update."""
    folder.mkdir()
    new = write(folder / f"new-{number}", number)
    updated = updater(name, number, values).update(UpdateData(parent, new))
    return updated, _next_state(folder, updated, number, parent, new)


def _next_state(folder: Path, updated: UpdatedModel, number: int, parent: State, new: Any) -> State:
    classes = range(2 * number)
    return state_of(
        folder / f"state-{number}", updated, number, classes=classes, parent=parent, new=new
    )


def parameters(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()
