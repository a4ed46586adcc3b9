"""Write the data of an example project: digits, customers, patients, pictures of digits, tickets."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from renate_stages.errors import ForeignDataError, UnknownExampleUpdateError
from renate_stages.files import whole_directory

UPDATES = (1, 2, 3)  # of every example

Files = dict[str, bytes]

EXAMPLES = {
    "digits": "renate_stages.actions.digits:digit_files",
    "images": "renate_stages.actions.example_images:image_files",
    "table": "renate_stages.actions.example_tables:customer_files",
    "table-regression": "renate_stages.actions.example_tables:patient_files",
    "text": "renate_stages.actions.example_text:ticket_files",
}
"""The function that returns the files of an update by their names, or those of all updates for None."""


def write(example: str, target: Path, update: int | None) -> None:
    """Write the data of one update of an example, or of all updates.

    The files are written to a new folder that then replaces `target`, because DVC may link files to
    its cache, and those must not be opened for writing. If the folder already has the data of this
    update, nothing is written; data of another update of the example is replaced.

    Args:
        example: A name in `EXAMPLES`.
        target: Folder for the files.
        update: 1, 2 or 3; None: all of them.

    Raises:
        UnknownExampleUpdateError: If the number is not 1, 2 or 3.
        ForeignDataError: If the folder contains other data; nothing is changed.
    """
    if update is not None and update not in UPDATES:
        raise UnknownExampleUpdateError(update, max(UPDATES))
    target, files_of = Path(target).resolve(), _files_of(example)
    wanted = files_of(update)
    if target.exists():
        known = [wanted, *(files_of(each) for each in (*UPDATES, None) if each != update)]
        found = _read(target, known)
        if found == wanted:
            return
        if found and found not in known:
            raise ForeignDataError(target, found)
    with whole_directory(target) as new:
        for name, content in wanted.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)


def holds(example: str, target: Path, update: int) -> bool:
    """Return whether a folder contains the data of an update of an example, and nothing else."""
    wanted = _files_of(example)(update)
    return target.is_dir() and _read(target, [wanted]) == wanted


def write_digits(target: Path, update: int | None) -> None:
    """Write the handwritten digits of one update, or all of them; see `write`."""
    write("digits", target, update)


def _files_of(example: str) -> Callable[[int | None], Files]:
    module, name = EXAMPLES[example].split(":")
    return getattr(import_module(module), name)


def _read(folder: Path, known: list[Files]) -> dict[str, bytes | None]:
    """Return the content of a folder by name; None instead of bytes for files that are not known.

    Args:
        folder: The folder, or a file.
        known: Files that it may contain; larger ones are not read.
    """
    if not folder.is_dir():
        return {folder.name: None}
    most: dict[str, int] = {}
    for files in known:
        for name, content in files.items():
            most[name] = max(most.get(name, 0), len(content))
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.stat().st_size <= most.get(name, -1):
            found[name] = path.read_bytes()
        elif not path.is_dir():
            found[name] = None
    return found
