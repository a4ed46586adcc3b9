"""Errors of `forget`: conditions, id files, forget lists, and storage to erase from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from renate_stages.errors.base import RenateStagesError
from renate_stages.errors.wording import counted


class InvalidPredicateError(RenateStagesError):
    """A condition on examples cannot be parsed, or cannot be applied to the examples."""

    def __init__(self, text: str, problem: str) -> None:
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        super().__init__(
            f"condition {shown!r}: {problem}; expected comparisons of a metadata name with a "
            "number or a string, joined by and, or, not.\nTo fix this: write a condition such as "
            "\"source == 'eu' and update < 3\"."
        )


class InvalidIdFileError(RenateStagesError):
    """A file of ids cannot be read."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path}: {problem}; expected a UTF-8 text file with one id per line.\n"
            "To fix this: save the list as UTF-8 text with one id per line."
        )


class NeverKeepError(RenateStagesError):
    """A value of `retention.never_keep` cannot match the source of any example."""

    def __init__(self, value: object, sources: Sequence[str]) -> None:
        super().__init__(
            f"params.yaml, retention.never_keep: {value!r} cannot match any source; "
            f"the sources of the examples are {' and '.join(sources)}.\n"
            "To fix this: write the value as the data module returns it in the metadata `source`, "
            "a string in quotes and a number without quotes."
        )


class InvalidForgetListError(RenateStagesError):
    """The list of examples to forget is not valid."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path}: {problem}.\nTo fix this: run `git checkout {path.name}`, then add entries "
            "with `renate-stages forget`."
        )


class NothingToForgetError(RenateStagesError):
    """`forget` was run without ids and without a condition."""

    def __init__(self) -> None:
        super().__init__(
            "forget: there are no examples to forget.\nTo fix this: give `--ids FILE`, a text file "
            "with one id per line, or `--where CONDITION`, such as --where \"source == 'eu'\"."
        )


class StillHeldError(RenateStagesError):
    """`forget --erase` was run, but the current version still contains rows to forget."""

    def __init__(self, rows: Mapping[str, int | str]) -> None:
        listed = ", ".join(f"{count} in {name}" for name, count in rows.items())
        super().__init__(
            f"rows to forget are still stored: {listed}.\nTo fix this: finish the forget update "
            "(`dvc repro`, `git commit -am ...`, `renate-stages next`), then erase again."
        )


class AllForgottenError(RenateStagesError):
    """All rows of the new data are to be forgotten."""

    def __init__(self, rows: int) -> None:
        super().__init__(
            f"forget.yaml excludes all {rows} training rows of data/incoming.\n"
            "To fix this: put other data in data/incoming and run `dvc add data/incoming`."
        )


class AllHeldOutError(RenateStagesError):
    """All training rows of the new data are in holdouts of earlier updates."""

    def __init__(self, rows: int) -> None:
        super().__init__(
            f"all {rows} training rows of data/incoming are in holdouts or validation splits of "
            "earlier updates, and rows that measure a model must not train it.\n"
            "To fix this: put new data in data/incoming and run `dvc add data/incoming`."
        )


class ReusedNamesError(RenateStagesError):
    """New rows have the names of rows of earlier updates, but other inputs; names are ids."""

    def __init__(self, names: Sequence[str]) -> None:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        super().__init__(
            f"data/incoming has {counted(len(names), 'row')} with the name of a row of an earlier "
            f"update, but other content: {', '.join(names[:3])}{more}. Names are ids, so these rows "
            "would be taken for the earlier ones.\n"
            "To fix this: give new rows names of their own, for example in a folder for each update, "
            "such as week-48/0001.jpg; or name in data.module.id what identifies a row."
        )


class NotCountedError(RenateStagesError):
    """A closed-form head has counted fewer examples of a class than it must forget."""

    def __init__(self, label: int, counted: int, to_forget: int) -> None:
        super().__init__(
            f"{to_forget} examples of class {label} in the memory are to be forgotten, but the "
            f"learner has only counted {counted} of this class, so it cannot subtract them.\n"
            "To fix this: restore the target transforms in renate_config.py that were used when "
            "these examples were learned, so that they get the same labels."
        )


class ShallowHistoryError(RenateStagesError):
    """A command needs the whole Git history, but the clone is shallow."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"{root} is a shallow clone, so the files of earlier updates are unknown.\n"
            "To fix this: run `git fetch --unshallow --tags`."
        )


class StorageUnreadableError(RenateStagesError):
    """DVC's cache or a remote cannot be listed, read or written."""

    def __init__(self, name: str, location: str, reason: object) -> None:
        super().__init__(
            f"DVC's storage {name} ({location}) cannot be used: {reason}.\nTo fix this: check the "
            "connection, and your permission to list, read and delete. If you no longer use it, "
            f"run `dvc remote remove {name}`."
        )


class DamagedObjectError(RenateStagesError):
    """The content of a DVC object does not match its hash."""

    def __init__(self, place: str, md5: str) -> None:
        super().__init__(
            f"{place} is damaged: its content does not match the hash {md5}.\n"
            "To fix this: delete this file, then run `dvc fetch --all-commits`."
        )
