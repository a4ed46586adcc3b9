"""Every strategy over updates of their own, with its state on disk between: Avalanche's own bits."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("avalanche", reason="needs the extra avalanche")

import torch
from alone import (
    BATCH,
    EPOCHS,
    MOMENTUM,
    RATE,
    STRATEGIES,
    model_fn,
    train,
    write,
)
from small_updates import state_of

from renate_stages import state
from renate_stages.learners.avalanche import catalog
from renate_stages.params import Params
from renate_stages.state import State
from renate_stages.updater import ModelUpdater, UpdatedModel
from renate_stages.user_config import UserConfig

pytestmark = pytest.mark.filterwarnings("ignore")  # of Avalanche alone

COMMON = {"learning_rate": RATE, "batch_size": BATCH, "momentum": MOMENTUM}


def updater(name: str, number: int, values: dict, **trainer) -> ModelUpdater:
    params = {
        "learner": f"Avalanche-{name}",
        "update": {"number": number},
        "trainer": {"max_epochs": EPOCHS, **trainer},
    }
    user = UserConfig(Path("renate_config.py"), {"model_fn": model_fn})
    return ModelUpdater(user, Params.parse(params), {**COMMON, **values})


def updates(
    folder: Path, name: str, count: int, *, again: bool = False, **values
) -> tuple[list[UpdatedModel], State]:
    """Run updates, each from the state on disk that the one before left."""
    folder.mkdir()
    (folder / "state-0").mkdir()
    state.write_empty(folder / "state-0")
    parent = State.open(folder / "state-0")
    found = []
    for number in range(1, count + 1):
        new = write(folder / f"new-{number}", number, again=again)
        found.append(updater(name, number, values).update(parent, new, {}))
        parent = state_of(
            folder / f"state-{number}",
            found[-1],
            number,
            classes=range(2 * number),
            parent=parent,
            new=new,
        )
    return found, parent


def parameters(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("name", STRATEGIES)
def test_updates_from_disk_give_the_bits_of_avalanche_alone(name: str, tmp_path: Path) -> None:
    values, _ = STRATEGIES[name]
    ours = updates(tmp_path / "ours", name, 3, **values)[0][-1].model
    alone = train(name, updater(name, 1, values).build_model(None), 3)
    assert torch.equal(parameters(ours), parameters(alone))


def test_every_part_is_compared() -> None:
    assert set(catalog.PARTS) == set(STRATEGIES)
