"""Mistakes when examples are to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from renate_stages.errors.base import RenateStagesError


class InvalidPredicateError(RenateStagesError):
    """A condition on examples cannot be understood."""

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(
            f"condition {text!r}: {problem}; expected comparisons of a metadata name with a number "
            "or a text, joined by and, or, not: \"source == 'eu' and update < 3\""
        )


class InvalidForgetListError(RenateStagesError):
    """The list of examples to forget is not one."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path}: {problem}.\nTo mend it: `git checkout {path.name}`, and add to it with "
            "`renate-stages forget`."
        )


class NothingToForgetError(RenateStagesError):
    """`forget` was not told what to forget."""

    def __init__(self) -> None:
        super().__init__(
            "nothing to forget is named: give `--ids FILE`, a text file with an id a line, or "
            "`--where CONDITION`, such as --where \"source == 'eu'\""
        )


class StillHeldError(RenateStagesError):
    """Old versions are to be removed, but the present one holds rows to forget."""

    def __init__(self, rows: Mapping[str, int]) -> None:
        listed = ", ".join(f"{count} in {name}" for name, count in rows.items())
        super().__init__(
            f"rows to forget are still here: {listed}.\nTo mend it: finish the forget update "
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
