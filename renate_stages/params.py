"""`params.yaml` as typed, frozen models: every default and every check of a parameter lives here.

All problems of a file are reported at once, each with its path, the value found and what is
allowed; an unknown key names the closest known one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from renate_stages import yaml_file
from renate_stages.errors import InvalidParamsError, MissingFileError, did_you_mean
from renate_stages.learners import registry

Fraction = Annotated[float, Field(ge=0, lt=1)]
Constant = bool | int | float | str | None

SEARCH_SPACES = ("choice", "finrange", "lograndint", "loguniform", "randint", "uniform")


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class UpdateParams(_Block):
    """Which update this is. `renate-stages next` writes the two numbers."""

    number: int = Field(default=1, ge=1, description="running number of the update")
    parent: int = Field(
        default=0, ge=0, description="number of the update it starts from, 0: the initial"
    )
    kind: Literal["update", "forget"] = Field(
        default="update", description="forget: no new data and no training, rows leave the stores"
    )
    task_id: str = Field(
        default="default_task", min_length=1, description="names the model's parameters"
    )

    @model_validator(mode="after")
    def _parent_is_earlier(self) -> UpdateParams:
        if self.parent >= self.number:
            raise ValueError(f"parent {self.parent} must be smaller than number {self.number}")
        return self


class DataParams(_Block):
    """How `prepare` divides the incoming data where the data module does not."""

    validation_fraction: Fraction = Field(
        default=0.1,
        description="share of the training rows, where the module gives no validation data",
    )
    test_fraction: Fraction = Field(
        default=0.2, description="share of the training rows, where the module gives no test data"
    )
    arguments: dict[str, Any] = Field(default={}, description="arguments of data_module_fn")


class TrainerParams(_Block):
    """How long and on what a model trains."""

    max_epochs: int | None = Field(default=50, ge=1, description="passes over the new data")
    max_steps: int | None = Field(
        default=None, ge=1, description="optimiser steps; whichever ends first"
    )
    threads: int = Field(
        default=1, ge=1, description="CPU threads; their number changes sums, so bytes"
    )
    accelerator: str = Field(default="cpu", description="as Lightning's Trainer names it")
    devices: int = Field(
        default=1, ge=1, le=1, description="one; several come with remote execution"
    )
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    gradient_clip_val: float | None = Field(default=None, gt=0, description="largest gradient norm")
    deterministic: bool = Field(
        default=True, description="refuse kernels that differ from run to run"
    )
    num_workers: int = Field(default=0, ge=0, description="loader processes")
    keep: Literal["last", "best"] = Field(
        default="last", description="the epoch an update ships; best: on the validation data"
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainerParams:
        if self.max_epochs is None and self.max_steps is None:
            raise ValueError("max_epochs and max_steps are both null: give at least one of them")
        return self


class EvaluationParams(_Block):
    """What is measured on every holdout."""

    metric: str = Field(
        default="accuracy", min_length=1, description="the headline metric, with summary"
    )
    mode: Literal["max", "min"] = Field(default="max", description="whether more of it is better")
    batch_size: int = Field(default=256, ge=1, description="examples per forward pass")

    @property
    def lower_is_better(self) -> set[str]:
        """Names of the metrics of which less is better."""
        return {"loss"} | ({self.metric} if self.mode == "min" else set())


class RetentionParams(_Block):
    """What is kept of the data, and how long. Rows that may not be kept leave no byte."""

    holdout_rows: int | None = Field(
        default=None, ge=1, description="most rows kept of an update's test split"
    )
    holdout_updates: int | None = Field(
        default=None, ge=1, description="of how many latest updates, this one included"
    )
    validation_rows: int | None = Field(
        default=None, ge=1, description="most rows kept of an update's validation split"
    )
    validation_updates: int | None = Field(
        default=None, ge=1, description="of how many latest updates, this one included"
    )
    memory_updates: int | None = Field(
        default=None, ge=1, description="updates after which a row leaves the memory"
    )
    never_keep: list[str] = Field(
        default=[], description="sources to learn from and measure on once, but not to keep"
    )


class TrackingParams(_Block):
    """Where runs are logged. Read by no stage as an input: it changes no output."""

    enabled: bool = True
    experiment: str = Field(default="renate-stages", min_length=1, description="MLflow experiment")


class Params(_Block):
    """The whole of `params.yaml`."""

    example: Literal["digits"] | None = Field(
        None, description="the data that `init` and `example-data` write; none: your own"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="the one source of randomness")
    update: UpdateParams = UpdateParams()
    data: DataParams = DataParams()
    learner: str = "ER"
    hyperparameters: dict[str, Any] = {}
    trainer: TrainerParams = TrainerParams()
    evaluation: EvaluationParams = EvaluationParams()
    retention: RetentionParams = RetentionParams()
    tracking: TrackingParams = TrackingParams()

    @classmethod
    def load(cls, path: Path) -> Params:
        """Read and check a parameter file.

        Raises:
            MissingFileError: If there is no such file.
            InvalidParamsError: With all problems of the file at once.
        """
        if not path.is_file():
            raise MissingFileError(path, "the project's parameters", "run this in a project folder")
        return cls.parse(yaml_file.read(path), str(path.name))

    @classmethod
    def parse(cls, content: Any, where: str = "params.yaml") -> Params:
        """Check parameters that are already read.

        Raises:
            InvalidParamsError: With all problems at once.
        """
        if not isinstance(content, dict):
            raise InvalidParamsError(where, [f"expected blocks of keys, found {content!r}"])
        problems: list[str] = []
        params = None
        try:
            params = cls.model_validate(content)
        except ValidationError as error:
            problems += [_describe(problem) for problem in error.errors()]
        problems += _learner_problems(content.get("learner", "ER"))
        problems += _hyperparameter_problems(content.get("hyperparameters"))
        if problems or params is None:
            raise InvalidParamsError(where, problems)
        return params


def _learner_problems(name: Any) -> list[str]:
    if not isinstance(name, str) or registry.is_known(name):
        return []
    known = registry.names()
    hint = did_you_mean(name, known)
    return [f"learner: unknown learner '{name}'{hint} (known: {', '.join(known)})"]


def _hyperparameter_problems(values: Any) -> list[str]:
    """Hyperparameters are constants, or lists of constants."""
    if not isinstance(values, dict):
        return []
    problems = []
    for name, value in values.items():
        path = f"hyperparameters.{name}"
        if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in SEARCH_SPACES:
            problems.append(
                f"{path}: {dict(value)} is a search space, and this version does not search yet: "
                "write one value, and compare values with `dvc exp run -S "
                f"{path}=VALUE`"
            )
        elif isinstance(value, dict):
            problems.append(f"{path}: expected a constant or a list, found {dict(value)}")
    return problems


def _describe(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _keys_of(problem["loc"][:-1])
        hint = did_you_mean(str(problem["loc"][-1]), known)
        return f"{path}: unknown key{hint} (known here: {', '.join(sorted(known))})"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "value_error":
        return f"{path}: {message}"
    return f"{path}: {message}, found {problem['input']!r}"


def _keys_of(path: tuple[Any, ...]) -> list[str]:
    """Return the keys that the block at a path knows."""
    model: Any = Params
    for part in path:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
