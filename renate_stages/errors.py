"""Every mistake a user can make, one class each. The command line prints it and exits with 2.

A message says what is wrong, where, what was found, what was expected, and what mends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path


class RenateStagesError(Exception):
    """Base of all errors that a user can mend; shown without a traceback."""


class MissingFileError(RenateStagesError):
    """A file or folder that must be there is not."""

    def __init__(self, path: Path | str, what: str, cure: str) -> None:
        super().__init__(f"{path} is missing: {what}.\nTo mend it: {cure}.")


class MalformedFileError(RenateStagesError):
    """A file that cannot be read as what it should be."""

    def __init__(self, path: Path | str, kind: str, reason: str) -> None:
        super().__init__(f"{path} is not readable as {kind}: {reason}")


class InvalidParamsError(RenateStagesError):
    """`params.yaml` has wrong values; all problems at once."""

    def __init__(self, where: str, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{where} has {len(self.problems)} problem(s):\n{listed}")


class UnknownHyperparameterError(RenateStagesError):
    """A hyperparameter that nothing reads."""

    def __init__(self, names: Iterable[str], known: Iterable[str], learner: str) -> None:
        known = sorted(known)
        listed = "\n".join(f"  - '{name}'{did_you_mean(name, known)}" for name in sorted(names))
        super().__init__(
            f"params.yaml, hyperparameters: nothing reads\n{listed}\n"
            f"The learner {learner}, its optimizer and the functions of renate_config.py read: "
            f"{', '.join(known)}."
        )


class InvalidHyperparameterError(RenateStagesError):
    """A hyperparameter outside its range."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(
            f"params.yaml, hyperparameters.{name}: expected {allowed}, found {value!r}"
        )


class UserConfigError(RenateStagesError):
    """`renate_config.py` lacks a function, or one of its functions cannot be used."""

    def __init__(self, path: Path | str, problem: str, cure: str) -> None:
        super().__init__(f"{path}: {problem}.\nTo mend it: {cure}.")


class UndeclaredUserFileError(RenateStagesError):
    """The user's code imports a file of the project that the stage does not depend on."""

    def __init__(self, stage: str, imported: Iterable[str]) -> None:
        names = sorted(imported)
        super().__init__(
            f"renate_config.py imports {', '.join(names)}, on which stage '{stage}' does not "
            "depend: a change there would not rerun it.\nTo mend it: in dvc.yaml, add to the deps "
            f"of every stage that has renate_config.py: {', '.join(names)}."
        )


class EmptyIncomingError(RenateStagesError):
    """There is no new data."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} holds no file: there is no new data to learn from.\n"
            "To mend it: put the data of this update there and run `dvc add data/incoming` "
            "(with the digits example: `renate-stages example-data N`)."
        )


class DataModuleError(RenateStagesError):
    """The user's data module gave something that cannot be used."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"data_module_fn of renate_config.py: {problem}.\nTo mend it: {cure}.")


class UnmeasuredMetricError(RenateStagesError):
    """The headline metric is not among those measured."""

    def __init__(self, metric: str, measured: Iterable[str]) -> None:
        names = sorted(measured)
        super().__init__(
            f"params.yaml, evaluation.metric: '{metric}' is not measured"
            f"{did_you_mean(metric, names)} (measured: {', '.join(names)}).\n"
            "To mend it: name one of these, or add it to metrics_fn in renate_config.py."
        )


class DamagedStateError(RenateStagesError):
    """A state whose files are not those its manifest lists."""

    def __init__(self, path: Path, problems: Iterable[str]) -> None:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        target = "parent.dvc" if path.name == "parent" else path.name  # `state` is a stage's output
        super().__init__(
            f"The state in {path} is damaged:\n{listed}\n"
            f"To mend it: `dvc checkout --force {target}`; if the cache is damaged too, "
            f"remove the folder and run `dvc pull {target}`."
        )


class NewerStateError(RenateStagesError):
    """A state written by a later version of this library."""

    def __init__(self, path: Path, found: object, known: int) -> None:
        super().__init__(
            f"{path} was written by a newer version of renate-stages: its schema is {found!r}, "
            f"this version reads up to {known}.\nTo mend it: upgrade renate-stages."
        )


class WrongParentError(RenateStagesError):
    """The parent's number is not the one that `params.yaml` names."""

    def __init__(self, found: int, expected: int, number: int) -> None:
        super().__init__(
            f"parent/ holds the state of update {found}, but update {number} starts from update "
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

    def __init__(self, epoch: int) -> None:
        super().__init__(
            f"The loss is not finite after epoch {epoch}: no state was written.\n"
            "To mend it: lower hyperparameters.learning_rate, set trainer.gradient_clip_val, or "
            "look for invalid numbers in the inputs."
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


class NextRefusedError(RenateStagesError):
    """An update cannot be closed, or another not be opened, yet."""

    def __init__(self, number: int, reasons: Iterable[str], what: str = "closed") -> None:
        listed = "\n".join(f"  - {reason}" for reason in reasons)
        super().__init__(
            f"Update {number} cannot be {what} yet, and nothing was changed:\n{listed}"
        )


class UnknownUpdateError(RenateStagesError):
    """An update that has no tag."""

    def __init__(self, number: int, known: Iterable[int]) -> None:
        names = ", ".join(f"update-{each}" for each in known) or "none yet"
        super().__init__(f"There is no tag update-{number} (tagged: {names}).")


class NotExampleProjectError(RenateStagesError):
    """`example-data` in a project that has data of its own."""

    def __init__(self) -> None:
        super().__init__(
            "This project has data of its own: params.yaml names no `example`, so example-data "
            "writes nothing.\nTo mend it: only for a trial, set `example: digits` in params.yaml."
        )


class StateExistsError(RenateStagesError):
    """A place for a new state where something is already."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"output_state_url {path} is there already, and no state is ever replaced.\n"
            "To mend it: name a new folder."
        )


class UnsupportedLocationError(RenateStagesError):
    """A place to run in or to keep states that this version does not reach."""

    def __init__(self, what: str, found: str) -> None:
        super().__init__(
            f"{what} '{found}' is not on this machine, and this version works on this machine "
            "only.\nTo mend it: use a local folder and backend='local'."
        )


class ParentExistsError(RenateStagesError):
    """`init --model` where the project already starts from something."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is there already: this project has its first state, and `init --model` never "
            "replaces one.\nTo mend it: generate a fresh project for the model."
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


class EmptyHoldoutError(RenateStagesError):
    """A holdout without examples: no metric is defined on it."""

    def __init__(self, holdout: int) -> None:
        super().__init__(
            f"Holdout {holdout} has no examples, so no metric can be measured on it.\n"
            "To mend it: leave it out, or give update "
            f"{holdout} a test split (test_data() of the data module)."
        )


class LossShapeError(RenateStagesError):
    """A loss that is neither a scalar nor one value per row."""

    def __init__(self, shape: Iterable[int], rows: int) -> None:
        super().__init__(
            f"The loss of a batch of {rows} rows has shape {tuple(shape)}; expected a scalar (the "
            f"mean over rows) or ({rows}, ...).\nTo mend it: have loss_fn return a loss with "
            'reduction="none" or reduction="mean".'
        )


class MetricError(RenateStagesError):
    """A metric of `metrics_fn` that cannot be reported."""

    def __init__(self, name: str, problem: str, cure: str) -> None:
        super().__init__(f"metrics_fn, metric '{name}': {problem}.\nTo mend it: {cure}.")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `", did you mean 'x'?"` for the closest known name, or an empty string."""
    by_lower_case = {each.lower(): each for each in sorted(known)}
    close = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return f", did you mean '{by_lower_case[close[0]]}'?" if close else ""


# -- examples, memory and data -------------------------------------------------------------------


class DamagedStoreError(RenateStagesError):
    """A file of a store of examples is missing, cut short, or not what the index says."""

    def __init__(self, file: object, problem: str, cure: str | None = None) -> None:
        cure = cure or "`dvc checkout` restores it, or `dvc pull` where the cache lacks it"
        super().__init__(f"store of examples: {file}: {problem}; {cure}")


class ExampleStructureError(RenateStagesError):
    """An example has a part that cannot be named or stored, such as an empty or oddly named one."""

    def __init__(self, where: str, found: str, expected: str) -> None:
        super().__init__(f"example: {where} is {found}; expected {expected}")


class ExampleMismatchError(RenateStagesError):
    """Examples that must look alike differ in structure, dtype or shape."""

    def __init__(self, where: str, found: str, expected: str) -> None:
        super().__init__(
            f"{where}: found {found}, expected {expected} as in the examples before; "
            "let the data module return examples of one structure, dtype and shape"
        )


class ItemMismatchError(RenateStagesError):
    """An item of a dataset differs from item 0 in structure, dtype or shape."""

    def __init__(self, split: str, index: int, where: str, found: str, expected: str) -> None:
        super().__init__(
            f"{split} data, item {index}: {where} is {found}, but item 0 has {expected}; "
            "let the data module return items of one structure, dtype and shape "
            "(resize, pad or convert them there, or name in its ragged_fields what differs in length)"
        )


class NotAPairError(RenateStagesError):
    """An item of a dataset is not `(inputs, targets)`."""

    def __init__(self, split: str, index: int, found: str) -> None:
        super().__init__(
            f"{split} data, item {index} is {found}; expected a pair (inputs, targets), or these "
            "and a dict of metadata: end the dataset's __getitem__ with `return inputs, targets`"
        )


class UnstorableValueError(RenateStagesError):
    """An item of a dataset holds something that is not a tensor, an array or a number."""

    def __init__(self, split: str, index: int, where: str, found: str, cure: str) -> None:
        super().__init__(
            f"{split} data, item {index}: {where} is {found}; "
            f"expected a tensor, a numeric NumPy array or a number: {cure}"
        )


class InvalidMetadataError(RenateStagesError):
    """What an item says of itself cannot be kept beside it."""

    def __init__(self, where: str, found: object, expected: str) -> None:
        super().__init__(f"{where} is {found!r}; expected {expected}")


class UnknownFieldError(RenateStagesError):
    """A part of an example is named that examples do not have."""

    def __init__(self, where: str, name: str, known: Iterable[str]) -> None:
        super().__init__(
            f"{where}: examples have no '{name}'{did_you_mean(name, known)} "
            f"(known: {', '.join(known)})"
        )


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


class UndecodableError(RenateStagesError):
    """A stored example cannot be decoded."""

    def __init__(self, decoder: str, problem: object) -> None:
        super().__init__(
            f"a stored example cannot be decoded as {decoder}: {problem}; look at the file it came "
            "from, leave it out in the data module, and run `dvc repro`"
        )


class UnequalExamplesError(RenateStagesError):
    """Examples that must be stacked to a batch differ in shape."""

    def __init__(self, shapes: Iterable[object]) -> None:
        super().__init__(
            f"the examples of a batch have shapes {', '.join(sorted(map(str, shapes)))}, which "
            "cannot be stacked: let the transforms in renate_config.py resize or crop to one shape"
        )


class EmptyDatasetError(RenateStagesError):
    """A split that must hold examples has none."""

    def __init__(self, split: str) -> None:
        super().__init__(
            f"{split} data: found 0 items, expected at least 1; "
            "check what the data module reads from its data_path"
        )


class MissingSplitError(RenateStagesError):
    """A data module was asked for a split that its `setup()` did not set."""

    def __init__(self, module: str, split: str) -> None:
        super().__init__(
            f"{module}.{split}() has no data; expected `self._{split}` to be set by setup(): "
            f"call setup() first, and set `self._{split}` in it"
        )


class InvalidShareError(RenateStagesError):
    """A share of the data is outside [0, 1)."""

    def __init__(self, name: str, value: object) -> None:
        super().__init__(f"{name}: found {value!r}, expected a share from 0 up to, not with, 1")


class UnknownPolicyError(RenateStagesError):
    """No selection policy has this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(
            f"memory policy: found {name!r}, expected one of {', '.join(known)}"
            f"{did_you_mean(name, known)}"
        )


class InvalidMemorySizeError(RenateStagesError):
    """A memory that must be bounded was given no size, or one below 1."""

    def __init__(self, policy: str, size: object) -> None:
        super().__init__(
            f"memory_size: found {size!r}, expected a whole number of examples >= 1, or bytes such "
            f"as '500 MB' or 20GiB, for policy '{policy}'; set memory_size, or take policy 'infinite' to keep all"
        )


class LabelsNeededError(RenateStagesError):
    """A policy that balances classes met examples without integer labels."""

    def __init__(self, policy: str) -> None:
        super().__init__(
            f"memory policy '{policy}' balances classes, but the targets are not one integer "
            "for each example; let the data module return integer labels, or take policy "
            "'reservoir', which needs none"
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


class TrackingUriError(RenateStagesError):
    """`MLFLOW_TRACKING_URI` names no store that MLflow can use."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(
            f"the MLflow store '{uri}' {reason}. Expected in MLFLOW_TRACKING_URI: an address "
            "(http://HOST:PORT), a database (sqlite:////PATH/mlflow.db, postgresql://...), or "
            "nothing: unset it and runs are stored in mlflow.db in the project. "
            "To do without MLflow, set tracking.enabled: false in params.yaml"
        )
