"""A project, its updates and its states in a place or an order that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from renate_stages.errors.base import RenateStagesError, did_you_mean


class NotAProjectError(RenateStagesError):
    """No project here or above."""

    def __init__(self, start: Path) -> None:
        super().__init__(
            f"No project in {start} or above it: expected a folder with dvc.yaml, params.yaml and "
            "renate_config.py.\nTo mend it: generate one with `cookiecutter <this repository> "
            "--directory template`, or change into it."
        )


class NestedProjectError(RenateStagesError):
    """The project lies inside another Git repository that does not ignore it."""

    def __init__(self, root: Path, outer: Path) -> None:
        super().__init__(
            f"{root} lies inside the Git repository {outer}; a project is a repository of its "
            "own.\nTo mend it: generate it elsewhere, or add it to that repository's .gitignore."
        )


class BusyError(RenateStagesError):
    """Another process works in this project."""

    def __init__(self, root: Path, holder: str) -> None:
        super().__init__(
            f"Another stage is at work in {root} ({holder}). Killing `dvc repro` leaves its stage "
            "running.\nTo mend it: wait for it, or end that process."
        )


class CommandError(RenateStagesError):
    """Git or DVC refused what was asked of it."""

    def __init__(self, command: Iterable[str], output: str) -> None:
        super().__init__(f"`{' '.join(command)}` failed:\n{output.strip()}")


class NextRefusedError(RenateStagesError):
    """An update cannot be closed, or another not be opened, yet."""

    def __init__(self, number: int, reasons: Iterable[str], what: str = "closed") -> None:
        listed = "\n".join(f"  - {reason}" for reason in reasons)
        super().__init__(
            f"Update {number} cannot be {what} yet, and nothing was changed:\n{listed}"
        )


class NoVerdictError(RenateStagesError):
    """There is no verdict of the gate to read."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"The gate has said nothing of this update: {problem}.\nTo mend it: `dvc repro` writes "
            "metrics/verdict.json. In a project generated before there was a gate, take the stage "
            "`export` of a newly generated project's dvc.yaml, and run `renate-stages init`."
        )


class StaleVerdictError(RenateStagesError):
    """The verdict is of another update than the open one."""

    def __init__(self, found: int, number: int) -> None:
        super().__init__(
            f"metrics/verdict.json is of update {found}, and update {number} is open and has no "
            "verdict yet.\nTo mend it: `dvc repro`."
        )


class PromotionRefusedError(RenateStagesError):
    """An update cannot become champion."""

    def __init__(self, number: int, reasons: Iterable[str]) -> None:
        listed = "\n".join(f"  - {reason}" for reason in reasons)
        super().__init__(
            f"Update {number} cannot become champion, and nothing was changed:\n{listed}"
        )


class NoEarlierChampionError(RenateStagesError):
    """`demote` where no champion was replaced."""

    def __init__(self, champion: str) -> None:
        super().__init__(
            f"There is nothing to go back to: the champion is {champion}, and champion.dvc lists "
            "none that was replaced.\nTo mend it: `renate-stages promote update-K` names one."
        )


class NoChampionPointerError(RenateStagesError):
    """A project without `champion.dvc`."""

    def __init__(self) -> None:
        super().__init__(
            "champion.dvc is missing: it says which update is champion.\n"
            "To mend it: `renate-stages init` makes one that names none, or restore it from Git."
        )


class ChangedPointerError(RenateStagesError):
    """`champion.dvc` differs from what is committed."""

    def __init__(self) -> None:
        super().__init__(
            "champion.dvc is not as it is committed; only promote and demote write it.\n"
            "To mend it: `git checkout HEAD -- champion.dvc && dvc checkout champion.dvc`."
        )


class UnknownUpdateError(RenateStagesError):
    """An update that has no tag."""

    def __init__(self, number: int, known: Iterable[int]) -> None:
        names = ", ".join(f"update-{each}" for each in known) or "none yet"
        super().__init__(f"There is no tag update-{number} (tagged: {names}).")


class EmptyIncomingError(RenateStagesError):
    """There is no new data."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} holds no file: there is no new data to learn from.\n"
            "To mend it: put the data of this update there and run `dvc add data/incoming` "
            "(with the digits example: `renate-stages example-data N`)."
        )


class NotExampleProjectError(RenateStagesError):
    """`example-data` in a project that has data of its own."""

    def __init__(self) -> None:
        super().__init__(
            "This project has data of its own: params.yaml names no `example`, so example-data "
            "writes nothing.\nTo mend it: only for a trial, set `example: digits` in params.yaml."
        )


class ParentExistsError(RenateStagesError):
    """`init --model` where the project already starts from something."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is there already: this project has its first state, and `init --model` never "
            "replaces one.\nTo mend it: generate a fresh project for the model."
        )


class UnsupportedLocationError(RenateStagesError):
    """A place to run in that there is not."""

    def __init__(self, found: str, known: Iterable[str]) -> None:
        super().__init__(
            f"backend {found!r} is none that jobs run on{did_you_mean(found, known)}.\n"
            f"To mend it: name one of {', '.join(known)}."
        )


class UnknownDigitsUpdateError(RenateStagesError):
    """The example data has no such update."""

    def __init__(self, update: object, last: int) -> None:
        super().__init__(
            f"example data: found update {update!r}, expected a number from 1 to {last}: "
            f"the digits arrive in {last} updates"
        )


class ForeignDataError(RenateStagesError):
    """Example data would replace data that is not example data."""

    def __init__(self, folder: object, names: Iterable[str]) -> None:
        names = sorted(names)
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        super().__init__(
            f"example data: {folder} holds data that is not example data ({shown}); "
            "nothing was changed: move it away first, or give another folder"
        )
