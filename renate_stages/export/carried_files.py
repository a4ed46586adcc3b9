"""Copy the user's files that the model needs to `export/`.

These are the user's code, the files that `model_fn` and the test transforms have read, and the files
listed in `export.files` in params.yaml. They keep their paths relative to the project.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from renate_stages import files
from renate_stages.errors import ChangedInputsError, ExportFileError, UndeclaredUserFileError
from renate_stages.export import exported, program_files
from renate_stages.params import Params
from renate_stages.preprocessing.base import FILE, FOLDER
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
BUILDING = {
    IMPORT,
    "model_fn",
    "test_transform",
    "test_target_transform",
    "",
}  # "" is a call of the model


def check_files(project: Project, params: Params) -> None:
    """Check the files listed in `export.files` before any work.

    Raises:
        ExportFileError: If a file is missing, or has the name of one of export's own files.
        UndeclaredUserFileError: If a file is not a dependency of the stage `export`.
    """
    declared = DeclaredFiles.read(project.root)
    lacking = []
    for name in params.export.files:
        names = _files_of(project, name)
        if not names:
            where, cure = "params.yaml, export.files", "correct the path or remove it"
            raise ExportFileError(where, f"the project has no file {name}", cure)
        _refuse_ours(names)
        if declared is not None and not all(declared.allows("export", each) for each in names):
            lacking.append(name)
    if lacking:
        uses = [f"params.yaml, export.files, lists {', '.join(lacking)}"]
        raise UndeclaredUserFileError(uses, {"export": lacking})


def carry_files(project: Project, params: Params, user: UserConfig, folder: Path) -> list[str]:
    """Copy the files, and return the names of those that are not code.

    They are copied instead of linked, because users edit them while DVC links its outputs.

    Args:
        project: The project with the files.
        params: Parameters with `export.files`.
        user: The user's functions, after they have built and called the model.
        folder: Folder in which `export/` is being written.

    Raises:
        ExportFileError: If a file has the name of one of export's own files.
        ChangedInputsError: If a file has been edited since it was used.
    """
    root, code = project.user_config.parent.resolve(), _code(project)
    read = {name for name, use in user.files.used.items() if use.functions & BUILDING}
    named = {each for name in params.export.files for each in _files_of(project, name)}
    names = {*code, *read, *named, project.user_config.name}
    _refuse_ours(names, preprocessing=(folder / FOLDER).exists())
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


def check_folder(project: Project, params: Params) -> None:
    """Check that no file that the model needs has the place of a preprocessing in `export/`.

    `prepare` calls this when the data module has one, before hours of training.

    Raises:
        ExportFileError: If there is such a file.
    """
    named = {each for name in params.export.files for each in _files_of(project, name)}
    _refuse_ours({*_code(project), *named}, preprocessing=True)


def card_section(carried: list[str]) -> str:
    """Return the model card's section on the files, as Markdown; empty without files."""
    if not carried:
        return ""
    listed = "\n".join(f"- `{name}`" for name in carried)
    about = "`renate_config.py` reads these files from its own folder:"
    return f"\n## Files\n\n{about}\n\n{listed}\n"


def _files_of(project: Project, name: str) -> list[str]:
    """Return a named file, or all files of a named folder except temporary files of tools."""
    path = project.user_config.parent / name
    if path.is_file():
        return [name]
    inside = (each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file())
    return sorted(f"{name}/{each}" for each in inside if not is_passing(each))


def _code(project: Project) -> set[str]:
    """Return the names of the user's modules that are imported."""
    root = project.user_config.parent.resolve()
    return {path.relative_to(root).as_posix() for path in project_modules(root).values()}


def _refuse_ours(names: Collection[str], preprocessing: bool = False) -> None:
    if taken := sorted(OURS.intersection(names)):
        problem = "the model needs this file, but export/ has another file of this name"
        raise ExportFileError(taken[0], problem, "rename it or move it to a folder")
    inside = sorted(name for name in names if name.split("/")[0] == FOLDER)
    if inside and (preprocessing or f"{FOLDER}/{FILE}" in inside):
        problem = f"the model needs this file, but export/ has its own folder {FOLDER}"
        raise ExportFileError(inside[0], problem, f"rename {FOLDER} of the project")
