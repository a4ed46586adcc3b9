"""Mistakes in `params.yaml`, in `renate_config.py`, and in what its functions return."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from renate_stages.errors.base import RenateStagesError, did_you_mean


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


class UserCodeError(RenateStagesError):
    """A function of the user's that failed when it was called, or whose result cannot be used."""

    def __init__(self, what: str, reason: str, place: str = "") -> None:
        at = f" at {place}" if place else ""
        cure = "correct that line" if place else "correct what renate_config.py returns for it"
        super().__init__(f"{what} failed{at}: {reason}\nTo fix this: {cure}, or what it is given.")


class UserResultError(RenateStagesError):
    """A function of `renate_config.py` that returned something else than it should."""

    def __init__(self, function: str, found: object, expected: str) -> None:
        super().__init__(
            f"{function} of renate_config.py returned {found}; expected {expected}.\n"
            f"To fix this: correct what {function} returns."
        )


class NotBatchedError(RenateStagesError):
    """A transform of single examples where examples lie on the device."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"params.yaml, trainer.data_on_device: {name} takes one example at a time, which on a "
            "device is slower than reading the data from disk.\n"
            "To mend it: return `Batched(transform)` (renate_stages.data) with a transform of whole "
            "batches, (B, ...), or set data_on_device: false."
        )


class UnequalOnDeviceError(RenateStagesError):
    """Examples that cannot lie on the device as one tensor."""

    def __init__(self, field: str) -> None:
        super().__init__(
            f"params.yaml, trainer.data_on_device: the examples' field '{field}' differs in length "
            "or holds encoded images, and only tensors of one shape can lie on the device.\n"
            "To mend it: store it decoded and at one size, or set data_on_device: false."
        )


class DeviceMemoryError(RenateStagesError):
    """The examples do not fit in the device's memory."""

    def __init__(self, needed: int, free: int, device: str) -> None:
        super().__init__(
            f"params.yaml, trainer.data_on_device: the new data and the memory take "
            f"{needed / 2**30:.2f} GiB, and {device} has {free / 2**30:.2f} GiB free.\n"
            "To mend it: set data_on_device: false; batches are then read ahead from disk."
        )


class UnmeasuredMetricError(RenateStagesError):
    """The headline metric is not among those measured."""

    def __init__(self, metric: str, measured: Iterable[str]) -> None:
        names = sorted(measured)
        super().__init__(
            f"params.yaml, evaluation.metric: '{metric}' is not measured"
            f"{did_you_mean(metric, names)} (measured: {', '.join(names)}).\n"
            "To mend it: name one of these, or add it to metrics_fn in renate_config.py."
        )


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


class SliceError(RenateStagesError):
    """A field of `evaluation.slices` by which the holdouts cannot be divided."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(
            f"params.yaml, evaluation.slices: '{field}' divides no holdout: {problem}.\n"
            "To mend it: name fields of the metadata that the data module gives beside inputs and "
            "targets, each with few values, such as a region or a source."
        )


class TrackingUriError(RenateStagesError):
    """`MLFLOW_TRACKING_URI` names no store that MLflow can use."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(
            f"the MLflow store '{uri}' {reason}. Expected in MLFLOW_TRACKING_URI: an address "
            "(http://HOST:5000), a database (sqlite:////PATH/mlflow.db, postgresql://...), or "
            "nothing: unset it and runs are stored in mlflow.db in the project. "
            "To do without MLflow, set tracking.enabled: false in params.yaml"
        )


class UnknownLearnerError(RenateStagesError):
    """`learner` names a class that is not there, or is none."""

    def __init__(self, name: str, reason: str, known: Iterable[str]) -> None:
        super().__init__(
            f"learner '{name}': {reason}\nexpected one of {', '.join(known)}, a name that an "
            "installed package adds, or package.module:Class of a subclass of "
            "renate_stages.learners.base.Learner"
        )


class MissingExtraError(RenateStagesError):
    """Something is asked for that needs a package which is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs {package}, which is not installed.\n"
            f'To mend it: `pip install "renate-stages[{extra}]"`.'
        )
