"""Shared helpers of shift tests: update 1 on half of the digits, new data from the rest."""

from __future__ import annotations

import shutil

import numpy as np
from small_project import edit_params

from renate_stages.actions.digits import read_digits
from renate_stages.project import Project
from renate_stages.stages import prepare, restore_state, train, tune


def quiet(message: str) -> None:
    assert message


def digits(half: int, rotated: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return half of the digits, of all classes: images (n, 8, 8) uint8, and labels."""
    rows = read_digits()[np.random.default_rng(0).permutation(1797)][half::2]
    images = rows[:, :-1].reshape(-1, 8, 8).astype(np.uint8)
    return np.rot90(images, axes=(1, 2)) if rotated else images, rows[:, -1].astype(np.int64)


def put_incoming(project: Project, images: np.ndarray, labels: np.ndarray) -> None:
    shutil.rmtree(project.incoming, ignore_errors=True)
    project.incoming.mkdir(parents=True)
    np.save(project.incoming / "inputs.npy", images)
    np.save(project.incoming / "targets.npy", labels)


def first_update(project: Project) -> None:
    """Run update 1 on the first half, and open update 2."""
    put_incoming(project, *digits(0))
    edit_params(project, trainer__max_epochs=8)
    for stage in (prepare, restore_state, tune, train):
        stage.run(project, quiet)
    shutil.rmtree(project.parent)
    project.state.rename(project.parent)
    edit_params(project, update__number=2, update__parent=1)
