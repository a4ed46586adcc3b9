"""Errors are unchanged when they are pickled between processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from renate_stages import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFiniteError(3),
        errors.InvalidParamsError("params.yaml", ["one", "two"]),
        errors.MissingFileError(Path("state"), "it is not there", "make one"),
        errors.AvalancheRefusedError("EWC", "this", "because", "do that"),
    ],
)
def test_error_is_unchanged_by_pickling(error: errors.RenateStagesError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)
