"""Updates with the state on disk in between give the same weights as Avalanche alone."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("avalanche", reason="needs the extra avalanche")

import torch
from alone import STRATEGIES, train
from avalanche_updates import parameters, updater, updates

from renate_stages.learners.avalanche import catalog

pytestmark = pytest.mark.filterwarnings("ignore")  # raised by Avalanche itself


@pytest.mark.parametrize("name", STRATEGIES)
def test_updates_from_disk_match_avalanche_bit_for_bit(name: str, tmp_path: Path) -> None:
    values, _ = STRATEGIES[name]
    ours = updates(tmp_path / "ours", name, 3, **values)[0][-1].model
    alone = train(name, updater(name, 1, values).build_model(None), 3)
    assert torch.equal(parameters(ours), parameters(alone))


def test_every_supported_strategy_is_compared_with_avalanche() -> None:
    assert set(catalog.PARTS) == set(STRATEGIES)
