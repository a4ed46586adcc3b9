"""Mistakes when examples are to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from renate_stages.errors.base import RenateStagesError


class InvalidPredicateError(RenateStagesError):
    """A condition on examples cannot be understood, or not be applied to the examples."""

    def __init__(self, text: str, problem: str) -> None:
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        super().__init__(
            f"condition {shown!r}: {problem}; expected comparisons of a metadata name with a number "
            "or a text, joined by and, or, not.\nTo fix this: write a condition such as "
            "\"source == 'eu' and update < 3\"."
        )


class InvalidIdFileError(RenateStagesError):
    """A file of ids cannot be read."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path}: {problem}; expected a text file in UTF-8 with an id a line.\n"
            "To fix this: save the list as UTF-8 text, one id a line."
        )


class NeverKeepError(RenateStagesError):
    """A value of `retention.never_keep` cannot be the source of any example."""

    def __init__(self, value: object, sources: Sequence[str]) -> None:
        super().__init__(
            f"params.yaml, retention.never_keep: no source can equal {value!r}, so it would bar "
            f"nothing; the sources of the examples are {' and '.join(sources)}.\n"
            "To fix this: write the value as the data module gives it in the metadata `source`, "
            "a text in quotes and a number without."
        )


class InvalidForgetListError(RenateStagesError):
    """The list of examples to forget is not one."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path}: {problem}.\nTo fix this: `git checkout {path.name}`, and add to it with "
            "`renate-stages forget`."
        )


class NothingToForgetError(RenateStagesError):
    """`forget` was not given what to forget."""

    def __init__(self) -> None:
        super().__init__(
            "forget: no examples are named.\nTo fix this: give `--ids FILE`, a text file with an id "
            "a line, or `--where CONDITION`, such as --where \"source == 'eu'\"."
        )


class StillHeldError(RenateStagesError):
    """Old versions are to be removed, but the present one holds rows to forget."""

    def __init__(self, rows: Mapping[str, int | str]) -> None:
        listed = ", ".join(f"{count} in {name}" for name, count in rows.items())
        super().__init__(
            f"rows to forget are still here: {listed}.\nTo fix this: finish the forget update "
            "(`dvc repro`, `git commit -am ...`, `renate-stages next`), then erase."
        )


class AllForgottenError(RenateStagesError):
    """Of the new data nothing is left to learn from."""

    def __init__(self, rows: int) -> None:
        super().__init__(
            f"all {rows} training rows of data/incoming are named in forget.yaml: put other data "
            "there and `dvc add data/incoming`"
        )


class NotCountedError(RenateStagesError):
    """Examples whose share in a closed-form head is to be taken out have none in it."""

    def __init__(self, label: int, counted: int, to_forget: int) -> None:
        super().__init__(
            f"{to_forget} examples of class {label} in the memory are to be forgotten, but the "
            f"learner has counted {counted} of it: their share in the model cannot be taken out.\n"
            "To mend it: give them the labels again that they had when they were learned "
            "(target transforms in renate_config.py)."
        )


class ShallowHistoryError(RenateStagesError):
    """The whole history is needed, and the clone has only a part of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"{root} is a shallow clone: which objects earlier updates name cannot be seen.\n"
            "To fix this: `git fetch --unshallow --tags`."
        )


class StorageUnreadableError(RenateStagesError):
    """DVC's cache or a remote cannot be listed, read or written."""

    def __init__(self, name: str, location: str, reason: object) -> None:
        super().__init__(
            f"{name} ({location}): {reason}.\nTo fix this: make it reachable, with the right to list, "
            f"read and delete; or, if it is not used any more, `dvc remote remove {name}`."
        )


class DamagedObjectError(RenateStagesError):
    """An object of DVC does not have the bytes that its hash says."""

    def __init__(self, place: str, md5: str) -> None:
        super().__init__(
            f"{place} is damaged: its bytes do not have the hash {md5}.\n"
            "To fix this: delete this file, then `dvc fetch --all-commits`."
        )
