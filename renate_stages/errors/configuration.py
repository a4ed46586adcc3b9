"""Errors in `params.yaml`, in `renate_config.py` and in the return values of its functions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from renate_stages.errors.base import RenateStagesError, did_you_mean, sentence
from renate_stages.errors.wording import counted


class InvalidParamsError(RenateStagesError):
    """`params.yaml` has wrong values; all problems are reported at once."""

    def __init__(self, where: str, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{where} has {counted(len(self.problems), 'problem')}:\n{listed}")


class UnsupportedArgumentError(RenateStagesError):
    """An argument of Renate's `run_training_job` cannot be honoured."""

    def __init__(self, name: str, value: object, reason: str, cure: str) -> None:
        super().__init__(f"run_training_job, {name}={value!r}: {reason}.\nTo fix this: {cure}.")


class UnknownHyperparameterError(RenateStagesError):
    """Nothing uses a hyperparameter that params.yaml sets."""

    def __init__(
        self, names: Iterable[str], known: Iterable[str], own: Iterable[str], learner: str
    ) -> None:
        known = sorted(known)
        listed = "\n".join(f"  - '{name}'{did_you_mean(name, known)}" for name in sorted(names))
        super().__init__(
            f"params.yaml, hyperparameters: these are set, but nothing uses them:\n{listed}\n"
            f"The learner {learner}, its optimizer and the functions of renate_config.py use: "
            f"{', '.join(sorted(own))}."
        )


class InvalidHyperparameterError(RenateStagesError):
    """A hyperparameter is outside its range."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(
            f"params.yaml, hyperparameters.{name}: expected {allowed}, found {value!r}"
        )


class UserConfigError(RenateStagesError):
    """`renate_config.py` lacks a function, or one of its functions cannot be used."""

    def __init__(self, path: Path | str, problem: str, cure: str) -> None:
        super().__init__(f"{path}: {sentence(problem)}\nTo fix this: {cure}.")


class UserCodeError(RenateStagesError):
    """A user's function failed, or its result cannot be used."""

    def __init__(self, what: str, reason: str, place: str = "") -> None:
        at = f" at {place}" if place else ""
        cure = "correct that line" if place else "correct the code in renate_config.py"
        super().__init__(
            f"{what} failed{at}: {reason}\nTo fix this: {cure}, or the data passed to it."
        )


class UserResultError(RenateStagesError):
    """A function of `renate_config.py` returned a value of the wrong type or shape."""

    def __init__(self, function: str, found: object, expected: str) -> None:
        super().__init__(
            f"renate_config.py: {function} returned {found}; expected {expected}.\n"
            f"To fix this: change {function} so that it returns {expected}."
        )


class NotBatchedError(RenateStagesError):
    """A transform takes single examples, but `data_on_device` needs transforms of batches."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"params.yaml, trainer.data_on_device: {name} takes one example at a time; on a "
            "device this is slower than reading the data from disk.\n"
            "To fix this: return `Batched(transform)` (renate_stages.data) with a transform that "
            "takes whole batches, (B, ...), or set data_on_device: false."
        )


class UnequalOnDeviceError(RenateStagesError):
    """The examples cannot be stored on the device as one tensor."""

    def __init__(self, field: str) -> None:
        super().__init__(
            f"params.yaml, trainer.data_on_device: the examples' field '{field}' differs in length "
            "or contains encoded images, but the device can only store tensors of one shape.\n"
            "To fix this: store this field decoded and in one size, or set data_on_device: false."
        )


class DeviceMemoryError(RenateStagesError):
    """The examples do not fit in the device's memory."""

    def __init__(self, needed: int, free: int, device: str) -> None:
        super().__init__(
            f"params.yaml, trainer.data_on_device: the new data and the memory need "
            f"{needed / 2**30:.2f} GiB, but {device} has only {free / 2**30:.2f} GiB free.\n"
            "To fix this: set data_on_device: false; batches are then prefetched from disk."
        )


class UnmeasuredMetricError(RenateStagesError):
    """The headline metric is not among those measured."""

    def __init__(self, metric: str, measured: Iterable[str]) -> None:
        names = sorted(measured)
        super().__init__(
            f"params.yaml, evaluation.metric: '{metric}' is not measured"
            f"{did_you_mean(metric, names)} (measured: {', '.join(names)}).\n"
            "To fix this: choose one of these, with its evaluation.mode (lower is better for loss, mae "
            "and mse), or add it to metrics_fn in renate_config.py."
        )


class EmptyHoldoutError(RenateStagesError):
    """A holdout has no examples that count, so no metric is defined on it."""

    def __init__(self, holdout: int, ignored: int = 0) -> None:
        found = f"only examples with ignored targets ({ignored})" if ignored else "no examples"
        super().__init__(
            f"Holdout {holdout} has {found}, so no metric can be measured on it.\n"
            f"To fix this: leave it out, or return examples from test_data() of the data module in "
            f"update {holdout}."
        )


class LossShapeError(RenateStagesError):
    """The loss is neither a scalar nor one value per row."""

    def __init__(self, shape: Iterable[int], rows: int) -> None:
        super().__init__(
            f"The loss of a batch of {rows} rows has shape {tuple(shape)}; expected a scalar (the "
            f"mean over rows) or ({rows}, ...).\nTo fix this: in renate_config.py, let loss_fn "
            'return a loss with reduction="none" or reduction="mean".'
        )


class MetricError(RenateStagesError):
    """A metric of `metrics_fn` cannot be reported."""

    def __init__(self, name: str, problem: str, cure: str) -> None:
        super().__init__(f"metrics_fn, metric '{name}': {problem}.\nTo fix this: {cure}.")


class SliceError(RenateStagesError):
    """The holdouts cannot be sliced by a field of `evaluation.slices`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(
            f"params.yaml, evaluation.slices: the holdouts cannot be sliced by '{field}': "
            f"{problem}.\n"
            "To fix this: list metadata fields that the data module returns with inputs and "
            "targets and that have few different values, such as a region or a source."
        )


class TrackingUriError(RenateStagesError):
    """MLflow cannot use the store in `MLFLOW_TRACKING_URI`."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(
            f"environment variable MLFLOW_TRACKING_URI: '{uri}' {reason}. Expected the URL of an "
            "MLflow server (http://HOST:5000) or of a database (sqlite:////PATH/mlflow.db, "
            "postgresql://...).\n"
            "To fix this: correct the variable, or unset it to store runs in mlflow.db in the "
            "project. To work without MLflow, set tracking.enabled: false in params.yaml."
        )


class UnknownLearnerError(RenateStagesError):
    """`learner` names a class that does not exist or is not a learner."""

    def __init__(self, name: str, reason: str, known: Iterable[str]) -> None:
        super().__init__(
            f"learner '{name}': {reason}\nExpected one of {', '.join(known)}, the name of a "
            "learner from an installed package, or package.module:Class for a subclass of "
            "renate_stages.learners.base.Learner."
        )


class MissingExtraError(RenateStagesError):
    """A feature needs a package that is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs {package}, which is not installed.\n"
            f'To fix this: `pip install "renate-stages[{extra}]"`.'
        )


class MissingPackageError(RenateStagesError):
    """A class for users of another library needs a package that is not installed."""

    def __init__(self, what: str, package: str) -> None:
        super().__init__(
            f"{what} needs the package {package}, which is not installed.\n"
            f"To fix this: `pip install {package}`, and add it to requirements.txt."
        )


class NoCounterpartError(RenateStagesError, ImportError):
    """A name of Renate has no counterpart in `renate_stages.compat.renate`."""

    def __init__(self, name: str, cure: str) -> None:
        super().__init__(f"{name} does not exist here.\nTo fix this: {cure}.")
