"""Helpers for a small project: edit its files, run its stages and compare its content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from renate_stages.files import yaml_file
from renate_stages.memory import ExampleStore
from renate_stages.project import Project
from renate_stages.state import State

REPOSITORY = Path(__file__).parents[2]
WITH_SOURCES = """
class Sourced(torch.utils.data.Dataset):
    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        known = {"id": f"digit-{i}", "source": ("eu", "us")[i % 2]}
        return self.images[i], int(self.labels[i]), known


class DigitsDataModule"""


def edit_params(project: Project, **changes) -> None:
    """Set values in params.yaml; `a__b` names the key b of block a."""

    def change(content):
        for path, value in changes.items():
            *blocks, key = path.split("__")
            block = content
            for name in blocks:
                block = block[name]
            block[key] = value

    yaml_file.edit(project.params, change)


def edit_config(project: Project, old: str, new: str) -> None:
    """Replace a part of renate_config.py; fail if the part is missing."""
    text = project.user_config.read_text()
    assert old in text
    project.user_config.write_text(text.replace(old, new))


def quiet(message: str) -> None:
    """Ignore a message."""


def run(project: Project, *, say: Callable[[str], None] = quiet) -> State:
    """Run the stages of an update up to `train`; return the state that they wrote."""
    from renate_stages.stages import prepare, restore_state, train, tune

    for stage in (prepare, restore_state, tune, train):
        stage.run(project, say)
    return State.open(project.state)


def sources(store: ExampleStore) -> set:
    """Return the sources of all stored rows, dead ones included."""
    return set(store.stored_column("meta.source").tolist())


def snapshot(project: Project) -> dict[str, bytes]:
    """Return the bytes of every file of a project, except locks and compiled code."""
    return {
        path.relative_to(project.root).as_posix(): path.read_bytes()
        for path in project.root.rglob("*")
        if path.is_file() and not {".renate", "__pycache__"} & set(path.parts)
    }


def move_on(project: Project, **changes) -> None:
    """Make the state the parent of the next update, as `next` and `dvc checkout` do."""
    number = State.open(project.state).provenance.update
    project.parent.rename(project.root / f"parent-{number}")
    project.state.rename(project.parent)
    changes = {"update__number": number + 1, "update__parent": number, **changes}
    edit_params(project, **changes)
