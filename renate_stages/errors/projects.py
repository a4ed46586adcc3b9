"""Errors of a project: its folders, updates, champion and Git repository."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from renate_stages.errors.base import RenateStagesError, did_you_mean, sentence

MOST_SHOWN = 10  # problems to list in a message


class NotAProjectError(RenateStagesError):
    """There is no project in this folder or above it."""

    def __init__(self, start: Path) -> None:
        super().__init__(
            f"No project in {start} or above it: expected a folder with dvc.yaml, params.yaml and "
            "renate_config.py.\nTo fix this: generate one with `cookiecutter <this repository> "
            "--directory template`, or change into the folder of a project."
        )


class NestedProjectError(RenateStagesError):
    """The project is inside another Git repository that does not ignore it."""

    def __init__(self, root: Path, outer: Path) -> None:
        super().__init__(
            f"{root} is inside the Git repository {outer}, but a project needs a repository of its "
            "own.\nTo fix this: generate the project in another place, or add it to that "
            "repository's .gitignore."
        )


class BusyError(RenateStagesError):
    """Another process is using this project."""

    def __init__(self, root: Path, holder: str) -> None:
        super().__init__(
            f"Another command is running in {root} ({holder}). If you killed `dvc repro`, its "
            "stage may still be running.\nTo fix this: wait for that process, or end it."
        )


class CommandError(RenateStagesError):
    """A Git or DVC command failed."""

    def __init__(self, command: Iterable[str], output: str) -> None:
        self.output = output
        super().__init__(f"`{' '.join(command)}` failed:\n{output.strip()}")


class NextRefusedError(RenateStagesError):
    """An update cannot be closed or opened yet."""

    def __init__(self, number: int, reasons: Iterable[str], what: str = "closed") -> None:
        listed = "\n".join(f"  - {reason}" for reason in reasons)
        super().__init__(
            f"Update {number} cannot be {what} yet, and nothing was changed:\n{listed}"
        )


class NoVerdictError(RenateStagesError):
    """The gate has written no verdict yet."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"The gate has no verdict on this update: {problem}.\nTo fix this: run `dvc repro`, "
            "which writes reports/verdict.json. If your project was generated before the gate "
            "existed, copy the stage `export` from the dvc.yaml of a newly generated project and "
            "run `renate-stages init`."
        )


class StaleVerdictError(RenateStagesError):
    """The verdict belongs to another update than the open one."""

    def __init__(self, found: int, number: int) -> None:
        super().__init__(
            f"reports/verdict.json belongs to update {found}, but update {number} is open and "
            "has no verdict yet.\nTo fix this: run `dvc repro`."
        )


class ForeignVerdictError(RenateStagesError):
    """The verdict is not the one that the last `dvc repro` wrote."""

    def __init__(self) -> None:
        super().__init__(
            "reports/verdict.json does not match dvc.lock: it was changed after `dvc repro`, or "
            "the two files come from different commits.\nTo fix this: run `dvc repro`, which "
            "writes both."
        )


class PromotionRefusedError(RenateStagesError):
    """An update cannot become champion."""

    def __init__(self, number: int, reasons: Iterable[str]) -> None:
        listed = "\n".join(f"  - {reason}" for reason in reasons)
        super().__init__(
            f"Update {number} cannot become champion, and nothing was changed:\n{listed}"
        )


class NoEarlierChampionError(RenateStagesError):
    """`demote` was run, but no champion has been replaced yet."""

    def __init__(self, champion: str) -> None:
        super().__init__(
            f"There is no earlier champion to go back to; the champion is {champion}.\n"
            "To fix this: choose a champion with `renate-stages promote update-K`."
        )


class NoChampionPointerError(RenateStagesError):
    """The project has no `champion.dvc`."""

    def __init__(self) -> None:
        super().__init__(
            "champion.dvc, which records the champion, is missing.\n"
            "To fix this: restore it from Git; if the project never had one, run "
            "`renate-stages init`."
        )


class ChangedPointerError(RenateStagesError):
    """`champion.dvc` differs from its committed version."""

    def __init__(self) -> None:
        super().__init__(
            "champion.dvc differs from its committed version; only promote and demote may write "
            "it.\n"
            "To fix this: run `git checkout HEAD -- champion.dvc && dvc checkout champion.dvc`."
        )


class UnknownUpdateError(RenateStagesError):
    """The update has no tag."""

    def __init__(self, number: int, known: Iterable[int]) -> None:
        names = ", ".join(f"update-{each}" for each in known) or "none yet"
        super().__init__(
            f"There is no tag update-{number} (tagged: {names}).\n"
            "To fix this: choose a tagged update, or run `git fetch --tags`."
        )


class EmptyIncomingError(RenateStagesError):
    """There is no new data."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} contains no files: there is no new data to learn from.\n"
            "To fix this: put the data of this update there and run `dvc add data/incoming` "
            "(in an example project: `renate-stages example-data N`)."
        )


class NotExampleProjectError(RenateStagesError):
    """`example-data` was run in a project that has its own data."""

    def __init__(self) -> None:
        super().__init__(
            "This project uses your own data (`example` is not set in params.yaml), so "
            "example-data writes nothing.\nTo fix this: put your data in data/incoming; to try the "
            "example, set `example: digits` in params.yaml."
        )


class ParentExistsError(RenateStagesError):
    """`init --model` was run in a project that already has a first state."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} already exists: `init --model` writes the first state of a project and never "
            "replaces one.\nTo fix this: generate a new project for the model."
        )


class UnsupportedLocationError(RenateStagesError):
    """`backend` is not the name of a backend."""

    def __init__(self, found: str, known: Iterable[str]) -> None:
        problem = sentence(f"unknown backend {found!r}{did_you_mean(found, known)}")
        super().__init__(f"{problem}\nTo fix this: choose one of {', '.join(known)}.")


class UnknownExampleUpdateError(RenateStagesError):
    """The example data has no such update."""

    def __init__(self, update: object, last: int) -> None:
        super().__init__(
            f"example data: found update {update!r}, expected a number from 1 to {last}, because "
            f"it has {last} updates"
        )


class ForeignDataError(RenateStagesError):
    """Example data would replace data that is not example data."""

    def __init__(self, folder: object, names: Iterable[str]) -> None:
        names = sorted(names)
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        super().__init__(
            f"example data: {folder} contains data that is not example data ({shown}); "
            "nothing was changed.\nTo fix this: move that data away first, or give another folder."
        )


class ChangedFolderError(RenateStagesError):
    """A folder tracked by DVC differs from the version in Git."""

    def __init__(self, folder: str, source: str, problems: Collection[str]) -> None:
        shown = "\n".join(f"  - {problem}" for problem in list(problems)[:MOST_SHOWN])
        more = len(problems) - MOST_SHOWN
        rest = f"\n  - and {more} more" if more > 0 else ""
        super().__init__(
            f"{folder}/ does not match the hash in {source}, and nothing was "
            f"written:\n{shown}{rest}\n"
            "To fix this: run `renate-stages verify --repair`, which restores the recorded files."
        )


class UncommittedPointerError(RenateStagesError):
    """`parent.dvc` or `champion.dvc` is not committed."""

    def __init__(self, pointer: str) -> None:
        super().__init__(
            f"{pointer} is not committed, so there is no committed hash to check its folder "
            "against.\n"
            "To fix this: run `renate-stages init`, which commits it."
        )


class GitNotReadyError(RenateStagesError):
    """Git cannot make the commit or the tag that a command needs."""

    def __init__(self, output: str, signs: bool) -> None:
        cure = (
            "make signing work without a prompt (test it with `git commit --allow-empty -m test`), "
            "or turn off commit.gpgSign and tag.gpgSign in this repository"
            if signs
            else "run `git config user.name NAME` and `git config user.email ADDRESS`"
        )
        super().__init__(
            f"Git cannot make a commit here, so nothing was changed:\n{output.strip()}\n"
            f"To fix this: {cure}."
        )


class GitBusyError(RenateStagesError):
    """A Git process holds locks that are needed to undo an interrupted command."""

    def __init__(self, root: Path, locks: Iterable[Path]) -> None:
        super().__init__(
            f"A Git process is running in {root} and holds the locks "
            f"{', '.join(map(str, locks))}.\n"
            "To fix this: wait for it, or end it; then run the command again."
        )


class NoConflictError(RenateStagesError):
    """`resolve --ours` or `--theirs` was run, but there is no merge to resolve."""

    def __init__(self) -> None:
        super().__init__(
            "There is no merge to resolve: `--ours` and `--theirs` keep one side of a merge that "
            "Git could not finish.\nTo fix this: run `git merge` or `git pull --no-rebase` first."
        )


class MergeError(RenateStagesError):
    """Files are in conflict, but not because of a merge."""

    def __init__(self, work: str | None) -> None:
        cause = f"a {work}, not of a merge" if work else "something other than a merge"
        how = f"run `git {work} --abort`" if work else "undo it as `git status` describes"
        super().__init__(
            f"Files are in conflict because of {cause}, so `ours` and `theirs` are not the "
            "versions of two clones.\n"
            f"To fix this: {how}, then `git merge` the other branch and run `renate-stages status`."
        )


class MissingObjectsError(RenateStagesError):
    """Neither DVC's cache nor its remote has all files of a folder."""

    def __init__(self, folder: str, pointer: str) -> None:
        super().__init__(
            f"Some files of {folder}/ that {pointer} refers to are neither in DVC's cache nor in "
            "its remote.\n"
            "To fix this: run `dvc push` in a clone that has them, then run the command again. "
            "Files that `renate-stages forget --erase` removed cannot be restored; in that case, "
            "choose an update that still has all its files."
        )


class InterruptedCommandError(RenateStagesError):
    """A command that changes the lineage was interrupted before it finished."""

    def __init__(self, command: str) -> None:
        super().__init__(
            f"`{command}` was interrupted before it finished.\n"
            "To fix this: run `renate-stages resolve`, which undoes or completes it."
        )


class HalfDoneError(RenateStagesError):
    """A command failed and could not undo its earlier steps."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(
            f"{first}\nThe earlier steps of the command could not be undone: {second}\n"
            "To fix this: remove the cause, then run `renate-stages resolve`."
        )


class StillDamagedError(RenateStagesError):
    """A folder cannot be restored: neither DVC's cache nor its remote has intact files."""

    def __init__(self, folder: str, source: str, problems: Collection[str], problem: str) -> None:
        shown = "\n".join(f"  - {each}" for each in list(problems)[:MOST_SHOWN])
        more = len(problems) - MOST_SHOWN
        rest = f"\n  - and {more} more" if more > 0 else ""
        reported = f"\nDVC reports: {problem}" if problem else ""
        super().__init__(
            f"{folder}/ cannot be restored to the hash in {source}: in DVC's cache and in the "
            "remote, its files are missing or damaged:\n"
            f"{shown}{rest}{reported}\n"
            "To fix this: remove the damaged objects from the remote, because DVC does not replace "
            "existing objects; then run `dvc push` in a clone where `renate-stages verify --deep` "
            "finds no problems."
        )
