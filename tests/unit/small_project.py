"""What tests do to a small project: change its files, and look whether they changed."""

from __future__ import annotations

from pathlib import Path

from renate_stages import yaml_file
from renate_stages.project import Project

REPOSITORY = Path(__file__).parents[2]


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
    """Replace a part of renate_config.py, which must be there."""
    text = project.user_config.read_text()
    assert old in text
    project.user_config.write_text(text.replace(old, new))


def snapshot(project: Project) -> dict[str, bytes]:
    """Return the bytes of every file of a project, but of locks and compiled code."""
    return {
        path.relative_to(project.root).as_posix(): path.read_bytes()
        for path in project.root.rglob("*")
        if path.is_file() and not {".renate", "__pycache__"} & set(path.parts)
    }
