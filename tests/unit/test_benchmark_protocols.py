"""The protocols of `benchmarks/learners.py` on few digits, so that each row runs on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DIGITS = 200


@pytest.fixture
def protocols(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import protocols

    monkeypatch.setattr(protocols, "HOLDOUT", 10)
    monkeypatch.setattr(protocols, "SMALL", DIGITS)
    for name, rows in (("BASE", 60), ("NEW", 40), ("VALIDATION", 20)):
        monkeypatch.setattr(protocols, name, rows)
    return protocols


def digits() -> tuple:
    from mnist import Images

    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (DIGITS, 28, 28), np.uint8)
    return Images(images, np.arange(DIGITS) % 10), Images(images, np.arange(DIGITS) % 10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_learner_of_the_rotated_update_accepts_its_model(protocols):
    found = protocols.run_rotated(protocols.ROTATED, 0, digits())
    assert found.keys() == {row.name for row in protocols.ROTATED}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_row_with_a_method_runs_on_both_sides(protocols):
    from method_rows import METHOD_ROWS

    for row in METHOD_ROWS:
        record = protocols.run_row(row, 0, digits(), False)
        assert 0 <= record["ours"] <= 100 and 0 <= record["plain"] <= 100, row.name
        assert record["rows kept"] == min(row.recipe.memory, DIGITS), row.name


def test_views_are_the_images_moved_by_up_to_two_pixels(protocols):
    from plain_contrast import SHIFT, shifted

    images = torch.zeros(50, 28, 28)
    images[:, 14, 10] = 1
    rows, columns = shifted(images).flatten(1).argmax(1) // 28, shifted(images).sum(1).argmax(1)
    assert {*rows.tolist()} == {14 + move for move in range(-SHIFT, SHIFT + 1)}
    assert {*columns.tolist()} == {10 + move for move in range(-SHIFT, SHIFT + 1)}
    assert shifted(images.to(torch.uint8)).dtype == torch.uint8
