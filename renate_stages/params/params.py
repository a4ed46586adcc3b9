"""`params.yaml` as typed, frozen models, with every default and check.

All problems of a file are reported at once, each with its path, the value found and the allowed
values; for an unknown key the closest known key is suggested.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from renate_stages.errors import InvalidParamsError, MissingFileError, did_you_mean
from renate_stages.files import yaml_file
from renate_stages.params import schedulers
from renate_stages.params.blocks import Block, problems_in
from renate_stages.params.data import DataParams
from renate_stages.params.evaluation import EvaluationParams
from renate_stages.params.remote import RemoteParams
from renate_stages.params.results import ExportParams, RetentionParams
from renate_stages.params.rules import Rule, read_rules
from renate_stages.params.search_space import SearchSpace
from renate_stages.params.shift import ShiftParams, ShouldUpdateParams
from renate_stages.params.trainer import TrainerParams
from renate_stages.params.tuning import TuningParams
from renate_stages.tasks import AUTO, TASKS, is_known
from renate_stages.user.named import Named


class UpdateParams(Block):
    """The open update; `renate-stages next` writes its two numbers."""

    number: int = Field(default=1, ge=1, description="running number of the update")
    parent: int = Field(
        default=0, ge=0, description="number of the update it starts from; 0: the first state"
    )
    kind: Literal["update", "forget"] = Field(
        default="update",
        description="forget: only remove stored examples, without new data and training",
    )
    task_id: str = Field(
        default="default_task",
        min_length=1,
        description="task of the update, for models with parameters for each task",
    )

    @model_validator(mode="after")
    def _parent_is_earlier(self) -> UpdateParams:
        if self.parent >= self.number:
            raise ValueError(f"parent {self.parent} must be smaller than number {self.number}")
        return self


class TrackingParams(Block):
    """Logging to MLflow. It changes no output, so no stage depends on it."""

    enabled: bool = True
    experiment: str = Field(default="renate-stages", min_length=1, description="MLflow experiment")
    model: str | None = Field(
        default=None,
        min_length=1,
        description="name of the registered model; none: the experiment's name",
    )

    @property
    def registered_model(self) -> str:
        """Name of the registered model that versions are published to."""
        return self.model or self.experiment


class Params(Block):
    """The content of `params.yaml`."""

    example: Literal["digits", "images", "table", "table-regression", "text"] | None = Field(
        None, description="example data that `init` and `example-data` write; none: your own data"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of all random number generators")
    update: UpdateParams = UpdateParams()
    data: DataParams = DataParams()
    task: str = Field(
        default=AUTO,
        description="what targets and outputs mean: a name in `tasks.TASKS`, package.module:Class, "
        "or auto, which decides by the first rows",
    )
    model: str | None = Field(
        default=None, description="name of a model in place of model_fn; docs/models.md lists them"
    )
    learner: Any = Field(
        "ER", description="a name, {choice: [...]} of names, or auto: a choice suited to the update"
    )
    hyperparameters: Any = Field(
        {}, description="constants and spaces by name, or auto: default spaces of the learner"
    )
    trainer: TrainerParams = TrainerParams()
    tuning: TuningParams = TuningParams()
    shift: ShiftParams = ShiftParams()
    should_update: ShouldUpdateParams = ShouldUpdateParams()
    evaluation: EvaluationParams = EvaluationParams()
    retention: RetentionParams = RetentionParams()
    export: ExportParams = ExportParams()
    tracking: TrackingParams = TrackingParams()
    remote: RemoteParams = RemoteParams()

    @field_validator("task")
    @classmethod
    def _is_a_task(cls, name: str) -> str:
        if not is_known(name):
            known = (AUTO, *TASKS)
            raise ValueError(
                f"unknown task '{name}'{did_you_mean(name, known)} (known: {', '.join(known)})"
            )
        return name

    @property
    def named(self) -> Named:
        """The model and the data module that replace functions of `renate_config.py`."""
        module = self.data.module
        if module is None:
            return Named(self.model, task=self.task)
        return Named(self.model, module.name, module.arguments, self.task)

    @property
    def named_model(self) -> Named:
        """The model alone, for stages that do not read the new data."""
        return Named(self.model, reads_data=False)

    @property
    def search_space(self) -> SearchSpace:
        """The hyperparameters to search, and the constants."""
        return SearchSpace.of(self.learner, self.hyperparameters, self.task)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The gate's rules."""
        evaluation = self.evaluation
        return read_rules(
            self.export.promote, evaluation.metric, evaluation.mode, evaluation.slices
        )

    @property
    def objective(self) -> tuple[str, Literal["max", "min"]]:
        """The metric to optimize, and whether to maximize or minimize it."""
        metric = self.tuning.metric or self.evaluation.metric
        lower = metric in self.evaluation.lower_is_better
        return metric, self.tuning.mode or ("min" if lower else "max")

    def fixed(self, configuration: Mapping[str, Any] | None = None) -> Params:
        """Return parameters without spaces, to train one model.

        Args:
            configuration: A result of `search_space.complete`; None: the middle of the space.
        """
        space = self.search_space
        values = dict(space.middle() if configuration is None else configuration)
        learner = values.pop("learner", space.learner)
        max_epochs = values.pop("max_epochs", self.trainer.max_epochs)
        trainer = self.trainer.model_copy(update={"max_epochs": max_epochs})
        changed = {"learner": learner, "hyperparameters": values, "trainer": trainer}
        return self.model_copy(update=changed)

    @classmethod
    def load(cls, path: Path) -> Params:
        """Read and check a parameter file.

        Raises:
            MissingFileError: If the file does not exist.
            InvalidParamsError: If there are problems; lists all of them.
        """
        if not path.is_file():
            raise MissingFileError(
                path,
                "this file contains the project's parameters",
                "run the command in a project folder",
            )
        return cls.parse(yaml_file.read(path), str(path.name))

    @classmethod
    def parse(cls, content: Any, where: str = "params.yaml") -> Params:
        """Check the parsed content of a parameter file.

        Raises:
            InvalidParamsError: If there are problems; lists all of them.
        """
        if not isinstance(content, dict):
            raise InvalidParamsError(where, [f"expected blocks of keys, found {content!r}"])
        problems: list[str] = []
        params = None
        try:
            params = cls.model_validate(content)
        except ValidationError as error:
            problems += problems_in(error, cls)
        try:
            SearchSpace.of(
                content.get("learner", "ER"),
                content.get("hyperparameters", {}),
                content.get("task", AUTO),
            )
        except InvalidParamsError as error:
            problems += error.problems
        if params is not None and not problems:
            problems += _tuning_problems(params)
            try:
                _ = params.rules
            except InvalidParamsError as error:
                problems += error.problems
        if problems or params is None:
            raise InvalidParamsError(where, problems)
        return params


def _tuning_problems(params: Params) -> list[str]:
    """Return contradictions between blocks."""
    problems = schedulers.problems_of(params.tuning.scheduler, params.tuning.scheduler_arguments)
    space, tuning, evaluation = params.search_space, params.tuning, params.evaluation
    if tuning.metric not in (None, "loss", evaluation.metric) and tuning.mode is None:
        problems.append(
            f"tuning.mode: expected max or min, because tuning.metric is {tuning.metric}; found none"
        )
    if space and space.most_epochs(params.trainer.max_epochs) is None:
        problems.append(
            "trainer.max_epochs: expected a number, because hyperparameters are searched; found none"
        )
    return problems
