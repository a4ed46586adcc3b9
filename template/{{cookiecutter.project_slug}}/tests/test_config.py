"""Check the model and the data of renate_config.py on a few examples in seconds: `make test`."""

import warnings
from pathlib import Path

import pytest
from renate_stages.actions.check import CheckedConfig, check_user_config
from renate_stages.errors import RenateStagesError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def checked() -> CheckedConfig:
    if not any((ROOT / "data" / "incoming").glob("*")):
        pytest.skip("no data in data/incoming: `dvc pull data/incoming.dvc`, or put some there")
    try:
        return check_user_config(ROOT, examples=64)
    except RenateStagesError as error:
        problem = str(error)  # it is enough, without a traceback
    pytest.fail(problem, pytrace=False)


def test_the_model_learns_from_the_incoming_data(checked):
    assert checked.loss_after < checked.loss_before, "a few training steps must lower the loss"
    for name, reason in checked.lacking.items():
        warnings.warn(f"export/ will have no {name}: {reason}")


def test_the_model_is_restored_from_its_state(checked):
    assert checked.restored_equals_saved


def test_padding_does_not_change_an_output(checked):
    assert checked.padding_change < 1e-4, "mask what is padded: batches are padded with zeros"
