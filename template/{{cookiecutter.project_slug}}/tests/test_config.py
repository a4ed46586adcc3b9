"""Check the model and the data of renate_config.py on a few examples in seconds: `make test`."""

import warnings
from pathlib import Path

import pytest
from renate_stages.actions.check import check_user_config

ROOT = Path(__file__).parents[1]


def test_the_model_learns_from_the_incoming_data():
    if not any((ROOT / "data" / "incoming").glob("*")):
        pytest.skip("no data in data/incoming: `dvc pull data/incoming.dvc`, or put some there")
    checked = check_user_config(ROOT, examples=64)
    assert checked.loss_after < checked.loss_before, "a few training steps must lower the loss"
    for name, reason in checked.lacking.items():
        warnings.warn(f"export/ will have no {name}: {reason}")


def test_the_model_is_restored_from_its_state():
    if not any((ROOT / "data" / "incoming").glob("*")):
        pytest.skip("no data in data/incoming: `dvc pull data/incoming.dvc`, or put some there")
    assert check_user_config(ROOT, examples=8).restored_equals_saved
