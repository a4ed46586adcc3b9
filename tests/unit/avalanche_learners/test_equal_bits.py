"""Every strategy over updates of their own, with its state on disk between: Avalanche's own bits."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("avalanche", reason="needs the extra avalanche")

import torch
from alone import STRATEGIES, train
from avalanche_updates import parameters, updater, updates

from renate_stages.learners.avalanche import catalog

pytestmark = pytest.mark.filterwarnings("ignore")  # of Avalanche alone


@pytest.mark.parametrize("name", STRATEGIES)
def test_updates_from_disk_give_the_bits_of_avalanche_alone(name: str, tmp_path: Path) -> None:
    values, _ = STRATEGIES[name]
    ours = updates(tmp_path / "ours", name, 3, **values)[0][-1].model
    alone = train(name, updater(name, 1, values).build_model(None), 3)
    assert torch.equal(parameters(ours), parameters(alone))


def test_every_part_is_compared() -> None:
    assert set(catalog.PARTS) == set(STRATEGIES)
