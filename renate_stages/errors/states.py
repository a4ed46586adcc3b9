"""Errors of states and models: damaged, too new, or not matching each other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from renate_stages.errors.base import RenateStagesError, did_you_mean, sentence


class DamagedStateError(RenateStagesError):
    """The files of a state do not match its manifest."""

    def __init__(self, path: Path | str, problems: Iterable[str]) -> None:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        cure = "replace it with an intact copy, or start from another state"
        if isinstance(path, Path):  # and no URL
            target = "parent.dvc" if path.name == "parent-state" else path.name
            cure = (  # `state` is a stage's output
                f"run `dvc checkout --force {target}`; if the cache is damaged too, remove the "
                f"folder and run `dvc pull {target}`"
            )
        super().__init__(f"The state in {path} is damaged:\n{listed}\nTo fix this: {cure}.")


class NewerStateError(RenateStagesError):
    """A state was written by a newer version of this library."""

    def __init__(self, path: Path | str, found: object, known: int) -> None:
        super().__init__(
            f"{path} was written by a newer version of renate-stages: its schema is {found!r}, "
            f"but this version reads at most {known}.\nTo fix this: upgrade renate-stages."
        )


class StateExistsError(RenateStagesError):
    """The target of a new state or export already exists."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            f"{path} already exists, and nothing that exists is ever replaced.\n"
            "To fix this: name a new folder."
        )


class PlaceTakenError(RenateStagesError):
    """The URL for a new state contains other files."""

    def __init__(self, url: str, names: Iterable[str]) -> None:
        names = sorted(names)
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        super().__init__(
            f"{url} contains files that are not part of a state: {shown}.\n"
            f"To fix this: choose a separate folder for the new state, such as {url}/1."
        )


class StateNotSentError(RenateStagesError):
    """A new state could not be uploaded; it is complete on this machine."""

    def __init__(self, folder: Path, url: str, reason: str) -> None:
        super().__init__(
            f"The new state is complete in {folder}, but could not be uploaded completely to "
            f"{url}.\n"
            f"To fix this: upload the rest with `renate-stages copy-state {folder} {url}`.\n"
            f"The upload failed with: {reason}"
        )


class WrongParentError(RenateStagesError):
    """The parent's number differs from the one in `params.yaml`."""

    def __init__(self, found: int, expected: int, number: int) -> None:
        super().__init__(
            f"parent-state/ contains the state of update {found}, but update {number} starts from "
            f"update {expected} (update.parent in params.yaml).\nTo fix this: run `dvc checkout "
            "parent.dvc`. If you edited update.number or update.parent, undo that: only "
            "`renate-stages next` writes them."
        )


class ModelMismatchError(RenateStagesError):
    """The model of `model_fn` does not match the stored model or the learner's requirements."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(
            f"The model of renate_config.py cannot be used: {problem}.\nTo fix this: {cure}."
        )


LOWER = (
    "To fix this: lower hyperparameters.learning_rate, set trainer.gradient_clip_val, or lower the "
    "weights of the learner's own loss terms, such as hyperparameters.ewc_weight."
)


class NotFiniteError(RenateStagesError):
    """The training loss is not a finite number; no state is written."""

    def __init__(self, epoch: int, what: str = "The loss") -> None:
        super().__init__(
            f"{what} is not finite after epoch {epoch}, so no state was written.\n{LOWER[:-1]}, "
            "or check the inputs for NaN and infinite values."
        )


class NotFiniteRowError(RenateStagesError):
    """The loss of some rows is NaN, so a mean over all rows would be NaN too."""

    def __init__(self, place: str, row: int, count: int, rows: int) -> None:
        super().__init__(
            f"The model's loss on {place} is NaN for {count} of {rows} rows; the first one is row "
            f"{row}.\nTo fix this: if inputs of these rows contain NaN, correct them or leave the rows "
            "out in the data module. Otherwise training has diverged: lower "
            "hyperparameters.learning_rate, or set trainer.gradient_clip_val."
        )


class DivergedError(RenateStagesError):
    """The loss on the holdouts is many times that before training; no state is written."""

    def __init__(self, before: float, after: float) -> None:
        super().__init__(
            f"The loss on the holdouts rose from {before:.4g} to {after:.4g} in training, which has "
            f"diverged, so no state was written.\n{LOWER}"
        )


class NotFiniteImportanceError(RenateStagesError):
    """The importance of weights is not a finite number; no state is written."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(
            f"The importance of {', '.join(names)} is not finite after training, so no state was "
            "written.\nTo fix this: check the new data for NaN and infinite values, or lower "
            "hyperparameters.learning_rate or the weight of the learner's penalty, such as "
            "hyperparameters.ewc_weight."
        )


class FeaturesNotFiniteError(RenateStagesError):
    """A model's features of an example are not finite numbers; no state is written."""

    def __init__(self, learner: str) -> None:
        super().__init__(
            f"The model's features of some examples are not finite, and {learner} cannot learn "
            "from them, so no state was written.\nTo fix this: check the inputs (after "
            "test_transform) and the model's weights for NaN and infinite values."
        )


class UnfitHeadError(RenateStagesError):
    """The model's last layer is not suitable for a learner that solves for it.

    Args:
        learner: Class of the learner.
        model: Class of the model.
        problem: A clause about the model, such as "has no `head`"; `found` adds the model's name.
        cure: What the user should do.
    """

    def __init__(self, learner: str, model: str, problem: str, cure: str) -> None:
        self.found = f"{model} {problem}"
        super().__init__(
            f"{learner} solves for the last layer of the model, its submodule `head`, but "
            f"{self.found}.\nTo fix this: {cure}, or choose another learner."
        )


class StoredArgumentError(RenateStagesError):
    """A model's constructor argument, or a module's extra state, cannot be stored."""

    def __init__(self, where: str, value: object) -> None:
        super().__init__(
            f"{where} is {value!r} of type {type(value).__name__}, but it is stored with the model's "
            "state as a JSON value.\nTo fix this: use None, bool, int, float, str, or lists, tuples "
            "and string-keyed dicts of those (NumPy: `value.item()`, `.tolist()`), and build objects "
            "from them inside the model."
        )


class ModelArgumentError(RenateStagesError):
    """A model was built with an invalid argument."""

    def __init__(self, model: str, argument: str, found: object, expected: str) -> None:
        super().__init__(f"{model}: {argument} is {found!r}; expected {expected}")


class ModelStateError(RenateStagesError):
    """A state dict does not match the model it is loaded into."""

    def __init__(self, model: str, problem: str, cure: str) -> None:
        super().__init__(
            f"This state dict cannot be loaded as {model}: {problem}\nTo fix this: {cure}."
        )


class UnknownTaskError(RenateStagesError):
    """A model with parameters for each task does not have this task."""

    def __init__(self, task_id: object, known: Iterable[str]) -> None:
        known = list(known)
        listed = ", ".join(f"'{task}'" for task in known) or "none yet"
        hint = did_you_mean(task_id, known) if isinstance(task_id, str) else ""
        problem = sentence(
            f"This model has parameters for each task, but none for task {task_id!r}{hint}"
        )
        super().__init__(
            f"{problem} Its tasks: {listed}.\nTo fix this: set update.task_id in params.yaml to one "
            "of these, add the task with `model.add_task_params(task_id)`, or build the model with "
            "shared heads."
        )


class ModelInputsError(RenateStagesError):
    """A model cannot take inputs of this shape or type."""

    def __init__(self, model: str, found: object, expected: str) -> None:
        super().__init__(f"{model} was called with {found}; expected {expected}.")
