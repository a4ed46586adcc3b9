"""States and models that are damaged, newer, or do not fit together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from renate_stages.errors.base import RenateStagesError, did_you_mean


class DamagedStateError(RenateStagesError):
    """A state whose files are not those its manifest lists."""

    def __init__(self, path: Path | str, problems: Iterable[str]) -> None:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        cure = "put a copy there that is whole, or start from another state"
        if isinstance(path, Path):  # and no URL
            target = "parent.dvc" if path.name == "parent-state" else path.name
            cure = (  # `state` is a stage's output
                f"`dvc checkout --force {target}`; if the cache is damaged too, remove the folder "
                f"and run `dvc pull {target}`"
            )
        super().__init__(f"The state in {path} is damaged:\n{listed}\nTo mend it: {cure}.")


class NewerStateError(RenateStagesError):
    """A state written by a later version of this library."""

    def __init__(self, path: Path | str, found: object, known: int) -> None:
        super().__init__(
            f"{path} was written by a newer version of renate-stages: its schema is {found!r}, "
            f"this version reads up to {known}.\nTo mend it: upgrade renate-stages."
        )


class StateExistsError(RenateStagesError):
    """A place for a new state where something is already."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            f"{path} is there already, and no state is ever replaced.\n"
            "To mend it: name a new folder for the new state."
        )


class PlaceTakenError(RenateStagesError):
    """A URL for a new state under which lies what is of no state."""

    def __init__(self, url: str, names: Iterable[str]) -> None:
        names = sorted(names)
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        super().__init__(
            f"Under {url} lie files that are of no state: {shown}.\n"
            f"To mend it: name a folder for the new state alone, such as {url}/1."
        )


class StateNotSentError(RenateStagesError):
    """A new state could not be sent; it is whole on this machine."""

    def __init__(self, folder: Path, url: str, reason: str) -> None:
        super().__init__(
            f"The new state lies whole in {folder}, and not, or not fully, at {url}.\n"
            f"To send it, from where that stopped: `renate-stages copy-state {folder} {url}`.\n"
            f"What failed: {reason}"
        )


class WrongParentError(RenateStagesError):
    """The parent's number is not the one that `params.yaml` names."""

    def __init__(self, found: int, expected: int, number: int) -> None:
        super().__init__(
            f"parent-state/ holds the state of update {found}, but update {number} starts from update "
            f"{expected} (params.yaml, update.parent).\nTo mend it: `dvc checkout parent.dvc`; the "
            "numbers are written by `renate-stages next`, not by hand."
        )


class ModelMismatchError(RenateStagesError):
    """The model that `model_fn` builds is not the one the state holds."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(
            f"The model of renate_config.py does not fit the parent's: {problem}.\n"
            f"To mend it: {cure}."
        )


class NotFiniteError(RenateStagesError):
    """Training gave a loss that is not a finite number; no state is written."""

    def __init__(self, epoch: int, what: str = "The loss") -> None:
        super().__init__(
            f"{what} is not finite after epoch {epoch}: no state was written.\n"
            "To mend it: lower hyperparameters.learning_rate, set trainer.gradient_clip_val, lower "
            "what weighs the learner's own terms, such as hyperparameters.ewc_weight, or look for "
            "invalid numbers in the inputs."
        )


class NotFiniteFisherError(RenateStagesError):
    """The importance of weights is not a finite number; no state is written."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(
            f"The Fisher information of {', '.join(names)} is not finite after training: no state "
            "was written.\nTo mend it: look for invalid numbers in the new data, or lower "
            "hyperparameters.learning_rate or hyperparameters.ewc_weight."
        )


class FeaturesNotFiniteError(RenateStagesError):
    """A model's features of an example are no finite numbers; no state is written."""

    def __init__(self, learner: str) -> None:
        super().__init__(
            f"The model's features of some examples are not finite, and {learner} cannot learn from "
            "them: no state was written.\nTo mend it: look for invalid numbers in the inputs, after "
            "test_transform, and in the weights of the model."
        )


class UnfitHeadError(RenateStagesError):
    """A learner that solves for the model's last layer was given a model without a fitting one."""

    def __init__(self, learner: str, model: str, problem: str, cure: str) -> None:
        super().__init__(
            f"{learner} solves for the last layer of the model, its submodule `head`, and {model} "
            f"{problem}.\nTo mend it: {cure}, or take another learner."
        )


class StoredArgumentError(RenateStagesError):
    """A model's constructor argument that cannot be stored with its state."""

    def __init__(self, where: str, value: object) -> None:
        super().__init__(
            f"{where} is {value!r} of type {type(value).__name__}: a model's arguments are stored "
            "with its state as JSON values.\nTo mend it: pass None, bool, int, float, str, or "
            "lists, tuples and string-keyed dicts of those (NumPy: `value.item()`, `.tolist()`), "
            "and build objects from them inside the model's constructor."
        )


class ModelArgumentError(RenateStagesError):
    """A reference model was asked for something it cannot be."""

    def __init__(self, model: str, argument: str, found: object, expected: str) -> None:
        super().__init__(f"{model}: {argument} is {found!r}; expected {expected}")


class ModelStateError(RenateStagesError):
    """A state dict that does not fit the model it is loaded into."""

    def __init__(self, model: str, problem: str, cure: str) -> None:
        super().__init__(
            f"This state dict cannot be loaded as {model}: {problem}\nTo mend it: {cure}."
        )


class UnknownTaskError(RenateStagesError):
    """A model with parameters per task was asked for a task it does not have."""

    def __init__(self, task_id: object, known: Iterable[str]) -> None:
        known = list(known)
        listed = ", ".join(f"'{task}'" for task in known) or "none yet"
        hint = did_you_mean(task_id, known) if isinstance(task_id, str) else ""
        super().__init__(
            f"This model has parameters per task, and none for task {task_id!r}{hint}; it has: "
            f"{listed}.\nTo mend it: name the task (params.yaml, update.task_id), add it first "
            "with `model.add_task_params(task_id)`, or build the model with shared heads."
        )


class ModelInputsError(RenateStagesError):
    """Inputs of a shape or kind that a model cannot take."""

    def __init__(self, model: str, found: object, expected: str) -> None:
        super().__init__(f"{model} was called with {found}; expected {expected}.")
