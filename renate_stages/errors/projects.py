"""A project, its updates and its states in a place or an order that cannot be used."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from renate_stages.errors.base import RenateStagesError, did_you_mean

MOST_SHOWN = 10  # problems that a message lists


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
            f"Another command is at work in {root} ({holder}). Killing `dvc repro` leaves its stage "
            "running.\nTo fix this: wait for it, or end that process."
        )


class CommandError(RenateStagesError):
    """Git or DVC refused what was asked of it."""

    def __init__(self, command: Iterable[str], output: str) -> None:
        self.output = output
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


class ForeignVerdictError(RenateStagesError):
    """The verdict is not the one that the last `dvc repro` wrote."""

    def __init__(self) -> None:
        super().__init__(
            "metrics/verdict.json is not the file that dvc.lock names: it was changed since `dvc repro`, "
            "or the two files are of different commits.\nTo fix this: `dvc repro` writes both."
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


class ChangedFolderError(RenateStagesError):
    """A folder under DVC that is not what Git names."""

    def __init__(self, folder: str, source: str, problems: Collection[str]) -> None:
        shown = "\n".join(f"  - {problem}" for problem in list(problems)[:MOST_SHOWN])
        more = len(problems) - MOST_SHOWN
        rest = f"\n  - and {more} more" if more > 0 else ""
        super().__init__(
            f"{folder}/ is not what {source} names, and nothing was written:\n{shown}{rest}\n"
            "To fix this: `renate-stages verify --repair`, which puts back what Git names."
        )


class UncommittedPointerError(RenateStagesError):
    """`parent.dvc` or `champion.dvc` that no commit has."""

    def __init__(self, pointer: str) -> None:
        super().__init__(
            f"{pointer} is not committed, so nothing says which folder it should name.\n"
            "To fix this: `renate-stages init`, which commits it."
        )


class GitNotReadyError(RenateStagesError):
    """Git cannot make the commit or the tag that a command ends with."""

    def __init__(self, output: str, signs: bool) -> None:
        cure = (
            "make signing work without a question (`git commit --allow-empty -m test` shows whether "
            "it does), or switch off commit.gpgSign and tag.gpgSign in this repository"
            if signs
            else "`git config user.name NAME` and `git config user.email ADDRESS`"
        )
        super().__init__(
            f"Git cannot make a commit here, so nothing was changed:\n{output.strip()}\n"
            f"To fix this: {cure}."
        )


class GitBusyError(RenateStagesError):
    """A git process works in a repository that an interrupted command has to be taken back in."""

    def __init__(self, root: Path, locks: Iterable[Path]) -> None:
        super().__init__(
            f"A git process is at work in {root} and holds {', '.join(map(str, locks))}.\n"
            "To fix this: wait for it, or end it; then run the command again."
        )


class NoConflictError(RenateStagesError):
    """A side of a merge is to be taken, and Git has not stopped in a merge."""

    def __init__(self) -> None:
        super().__init__(
            "There is no merge to resolve: `--ours` and `--theirs` take one side of a merge that Git "
            "could not finish.\nTo fix this: run `git merge` or `git pull --no-rebase` first."
        )


class MergeError(RenateStagesError):
    """Files are in conflict, but not by a merge."""

    def __init__(self, work: str | None) -> None:
        how = f"`git {work} --abort`" if work else "`git status` says how to go back"
        super().__init__(
            f"Files are in conflict, and not by a merge{f' but by a {work}' if work else ''}, where "
            "`ours` and `theirs` do not mean two clones.\n"
            f"To fix this: {how}, then `git merge` the other branch and run `renate-stages status`."
        )


class MissingObjectsError(RenateStagesError):
    """Files that Git names, and that neither DVC's cache nor its remote has."""

    def __init__(self, folder: str, pointer: str) -> None:
        super().__init__(
            f"Files of {folder}/ that {pointer} names are neither in DVC's cache nor in its remote.\n"
            "To fix this: `dvc push` in a clone that has them, then run the command again. What "
            "`renate-stages forget --erase` removed is gone: start from an update that has all files."
        )


class InterruptedCommandError(RenateStagesError):
    """A command that changes the lineage was interrupted, and is half done."""

    def __init__(self, command: str) -> None:
        super().__init__(
            f"`{command}` was interrupted, and is half done.\n"
            "To fix this: `renate-stages resolve`, which takes it back or completes it."
        )


class HalfDoneError(RenateStagesError):
    """A command that failed, and could not take back what it had done."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(
            f"{first}\nWhat was done before that could not be taken back: {second}\n"
            "To fix this: remove the cause, then `renate-stages resolve`."
        )


class StillDamagedError(RenateStagesError):
    """A folder that cannot be put back: neither DVC's cache nor its remote has what Git names."""

    def __init__(self, folder: str, source: str, problems: Collection[str], problem: str) -> None:
        shown = "\n".join(f"  - {each}" for each in list(problems)[:MOST_SHOWN])
        more = len(problems) - MOST_SHOWN
        rest = f"\n  - and {more} more" if more > 0 else ""
        said = f"\nDVC says: {problem}" if problem else ""
        super().__init__(
            f"{folder}/ cannot be put back as {source} names it: DVC's cache lacks it, and the remote "
            f"lacks it too or holds something else under its name:\n{shown}{rest}{said}\n"
            "To fix this: in a clone where `renate-stages verify --deep` finds nothing, run `dvc "
            "push`; remove the damaged objects from the remote before, for DVC sends none that is "
            "there."
        )
