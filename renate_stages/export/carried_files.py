"""Copy the user's files that the model needs into `export/`.

They are the user's code, what `model_fn` and the test transforms were seen to read, and what
`export.files` in params.yaml names, at the same relative paths as in the project.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from renate_stages import files
from renate_stages.errors import ChangedInputsError, ExportFileError, UndeclaredUserFileError
from renate_stages.export import exported, program_files
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.state import MODEL_FILES
from renate_stages.user.config import UserConfig
from renate_stages.user.declared_files import IMPORT, DeclaredFiles, is_passing
from renate_stages.user.modules import project_modules

CHECKPOINT, CARD = "model.ckpt", "MODEL_CARD.md"
OURS = {
    *(*MODEL_FILES, CHECKPOINT, CARD, exported.DESCRIPTION, program_files.PROGRAM),
    *(program_files.DESCRIPTION, program_files.LABELS, program_files.ONNX),
}
BUILDING = {IMPORT, "model_fn", "test_transform", "test_target_transform", ""}  # "": when called


def check_files(project: Project, params: Params) -> None:
    """Refuse files that `export.files` names and `export` cannot carry, before any work.

    Raises:
        ExportFileError: If one is missing, or `export/` has a file of its own of that name.
        UndeclaredUserFileError: If the stage `export` does not depend on one.
    """
    declared = DeclaredFiles.read(project.root)
    lacking = []
    for name in params.export.files:
        found = _files_of(project, name)
        if not found:
            where, cure = "params.yaml, export.files", "correct the path or remove it"
            raise ExportFileError(where, f"there is no file {name} in the project", cure)
        _refuse_ours(found)
        if declared is not None and not all(declared.allows("export", each) for each in found):
            lacking.append(name)
    if lacking:
        uses = [f"params.yaml, export.files, names {', '.join(lacking)}"]
        raise UndeclaredUserFileError(uses, {"export": lacking})


def carry_files(project: Project, params: Params, user: UserConfig, folder: Path) -> list[str]:
    """Copy the files; return the names of those that are no code.

    Copied, not linked: a user edits them, and DVC links its outputs.

    Args:
        project: Whose files they are.
        params: Of which `export.files` counts.
        user: The user's functions, after they have built the model and called it.
        folder: Where `export/` is being written.

    Raises:
        ExportFileError: If `export/` has a file of its own of the name of one.
        ChangedInputsError: If one was edited since it was used.
    """
    root = project.user_config.parent.resolve()
    code = {path.relative_to(root).as_posix() for path in project_modules(root).values()}
    read = {name for name, use in user.files.used.items() if use.functions & BUILDING}
    named = {each for name in params.export.files for each in _files_of(project, name)}
    names = {*code, *read, *named, project.user_config.name}
    _refuse_ours(names)
    changed = []
    for name in sorted(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, folder / name)
        use = user.files.used.get(name)
        if use is not None and use.sha256 != files.sha256(folder / name):
            changed.append(name)
    if changed:
        raise ChangedInputsError("export", changed)
    return sorted(name for name in names if not name.endswith(".py"))


def card_section(carried: list[str]) -> str:
    """Return what a model card says of the files, as Markdown; nothing without any."""
    if not carried:
        return ""
    listed = "\n".join(f"- `{name}`" for name in carried)
    about = "`renate_config.py` reads these files, from its own folder:"
    return f"\n## Files\n\n{about}\n\n{listed}\n"


def _files_of(project: Project, name: str) -> list[str]:
    """Return the file that a name means, or all files of a folder but those of tools."""
    path = project.user_config.parent / name
    if path.is_file():
        return [name]
    inside = (each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file())
    return sorted(f"{name}/{each}" for each in inside if not is_passing(each))


def _refuse_ours(names: Iterable[str]) -> None:
    if taken := sorted(OURS.intersection(names)):
        problem = "the model needs this file, but export/ has another file of this name"
        raise ExportFileError(taken[0], problem, "rename it, or put it into a folder")
