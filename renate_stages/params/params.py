"""`params.yaml` as typed, frozen models, with every default and check.

All problems of a file are reported at once, each with its path, the value found and what is
allowed; an unknown key names the closest known one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from renate_stages.errors import InvalidParamsError, MissingFileError, did_you_mean
from renate_stages.files import yaml_file
from renate_stages.params import schedulers
from renate_stages.params.blocks import Block, OptionalSeconds
from renate_stages.params.remote import RemoteParams
from renate_stages.params.rules import Rule, read_rules
from renate_stages.params.search_space import SearchSpace

Fraction = Annotated[float, Field(ge=0, lt=1)]


class UpdateParams(Block):
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


class DataParams(Block):
    """How `prepare` divides the incoming data where the data module does not."""

    validation_fraction: Fraction = Field(
        default=0.1,
        description="share of the training rows, where the module gives no validation data",
    )
    test_fraction: Fraction = Field(
        default=0.2, description="share of the training rows, where the module gives no test data"
    )
    arguments: dict[str, Any] = Field(default={}, description="arguments of data_module_fn")


class TrainerParams(Block):
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
        default=1,
        ge=1,
        description="a process for each; no `auto`: their number changes sums, so bytes",
    )
    num_nodes: int = Field(default=1, ge=1, description="machines with so many devices each")
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = Field(
        default="auto", description="of several devices, as Lightning names it; auto: ddp"
    )
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = Field(
        default="32-true", description="mixed: weights, and so the state, stay float32"
    )
    accumulate_grad_batches: int = Field(
        default=1, ge=1, description="batches whose mean gradient makes a step"
    )
    gradient_clip_val: float | None = Field(default=None, gt=0, description="largest gradient norm")
    gradient_clip_algorithm: Literal["norm", "value"] = Field(
        default="norm", description="value: gradient_clip_val bounds each number of it"
    )
    compile: bool = Field(default=False, description="train the model as torch.compile makes it")
    deterministic: bool = Field(
        default=True, description="refuse kernels that differ from run to run"
    )
    num_workers: int = Field(default=0, ge=0, description="loader processes")
    prefetch: int | None = Field(
        default=None,
        ge=0,
        description="steps that a thread reads ahead, none: 2 for a GPU, else 0; changes no byte",
    )
    data_on_device: bool = Field(
        default=False, description="the new data and the memory lie on the device while it trains"
    )
    keep: Literal["last", "best"] = Field(
        default="last", description="which epoch's model an update ships, best: on validation data"
    )

    @property
    def num_processes(self) -> int:
        """How many processes share a training."""
        return self.devices * self.num_nodes

    def on_one_device(self) -> TrainerParams:
        """Return the same for one process, which takes the same steps with whole batches."""
        return self.model_copy(update={"devices": 1, "num_nodes": 1, "strategy": "auto"})

    @field_validator("strategy", mode="before")
    @classmethod
    def _weights_are_whole(cls, strategy: Any) -> Any:
        if str(strategy).startswith(("fsdp", "deepspeed", "model_parallel")):
            raise ValueError(
                f"{strategy} gives each process a piece of the weights, and learners read whole "
                "ones (averages, importance, teachers, what is kept beside examples): take ddp"
            )
        return strategy

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainerParams:
        if self.max_epochs is None and self.max_steps is None:
            raise ValueError("max_epochs and max_steps are both null: give at least one of them")
        return self

    @model_validator(mode="after")
    def _reads_in_one_way(self) -> TrainerParams:
        ways = {
            "num_workers": self.num_workers,
            "prefetch": self.prefetch,
            "data_on_device": self.data_on_device,
        }
        given = [f"{name} {str(value).lower()}" for name, value in ways.items() if value]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are ways to one end: give one of them")
        return self


class TuningParams(Block):
    """How hyperparameters are searched, where one of them is a space."""

    scheduler: str = Field(
        default="rush",
        description="a name of `schedulers.SCHEDULERS`, or package.module:Class of Syne Tune's",
    )
    scheduler_arguments: dict[str, Any] = Field(default={}, description="keyword arguments of it")
    metric: str | None = Field(
        default=None, min_length=1, description="what is tuned for; none: evaluation.metric"
    )
    mode: Literal["max", "min"] | None = Field(
        default=None, description="whether more of it is better; none: as in evaluation"
    )
    objective: Literal["union", "new", "weighted"] = Field(
        default="union",
        description="validation data that counts: of all updates, of the new one, or a mix",
    )
    new_weight: float | None = Field(
        default=None, gt=0, lt=1, description="of the new data's metric where weighted"
    )
    max_trials: int | None = Field(
        default=20, ge=1, description="trials; the search ends at the first limit it reaches"
    )
    max_epochs_total: int | None = Field(
        default=None, ge=1, description="epochs of all trials together"
    )
    max_time: OptionalSeconds = Field(default=None, gt=0, description="or such as '30 min'")
    n_workers: int = Field(default=1, ge=1, description="trials at a time")
    processes: Literal["fork", "fresh"] = Field(
        default="fork", description="fresh: an interpreter for each trial, for what cannot fork"
    )
    reuse_best: bool = Field(
        default=True, description="ship the best trial's model where it was trained as an update is"
    )
    use_history: bool = Field(default=True, description="learn from the searches of past updates")

    @model_validator(mode="after")
    def _is_whole(self) -> TuningParams:
        if (self.objective == "weighted") != (self.new_weight is not None):
            raise ValueError(
                f"objective {self.objective} with new_weight {self.new_weight}: new_weight is "
                "given where objective is weighted, and only there"
            )
        if self.max_trials is None and self.max_epochs_total is None and self.max_time is None:
            raise ValueError(
                "max_trials, max_epochs_total and max_time are all null: give at least one of them"
            )
        return self


class ShiftParams(Block):
    """How `prepare` tests whether the new data is drawn like the parent's."""

    enabled: bool = True
    tests: list[Literal["mmd", "ks", "c2st", "label_chi2", "bbse"]] = Field(
        default=["mmd", "ks", "label_chi2"], min_length=1, description="see docs/shift.md"
    )
    features: Literal["auto", "raw", "model", "feature_fn"] = Field(
        default="auto", description="what of an example is compared; auto: the first that can be"
    )
    reference: Literal["holdouts", "memory", "both"] = Field(
        default="holdouts", description="the parent's examples to compare with"
    )
    alpha: float = Field(
        default=0.01, gt=0, lt=1, description="chance of a false alarm, all tests together"
    )
    max_rows: int = Field(default=1000, ge=4, description="rows of either side, drawn at random")
    permutations: int = Field(default=1000, ge=1, description="of the tests that permute")


class ShouldUpdateParams(Block):
    """When `should-update` says yes. A rule that is null, or false, is not looked at."""

    when: Literal["any", "all"] = Field(default="any", description="how many rules must fire")
    shift: bool = Field(default=True, description="a shift test is significant")
    performance_drop: float | None = Field(
        default=0.05,
        ge=0,
        description="evaluation.metric of the parent's model is worse by more on the new data",
    )
    amount_of_data: int | None = Field(
        default=None, ge=1, description="at least so many new training rows"
    )
    age: float | None = Field(
        default=None, gt=0, description="the parent was committed at least so many days ago"
    )


class EvaluationParams(Block):
    """What is measured on every holdout."""

    metric: str = Field(
        default="accuracy", min_length=1, description="the headline metric, with summary"
    )
    mode: Literal["max", "min"] = Field(default="max", description="whether more of it is better")
    batch_size: int = Field(default=256, ge=1, description="examples per forward pass")
    slices: list[str] = Field(
        default=[], description="metadata fields; the accuracy is told for each of their values"
    )
    reference: dict[int, float] = Field(
        default={},
        description="the headline metric, by holdout, of a model trained on all data so far at once",
    )

    @property
    def lower_is_better(self) -> set[str]:
        """Names of the metrics of which less is better."""
        return {"loss"} | ({self.metric} if self.mode == "min" else set())


class RetentionParams(Block):
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
    never_keep: list[str | int | float | bool] = Field(
        default=[], description="sources to learn from and measure on once, but not to keep"
    )


class ExportParams(Block):
    """What lies in `export/`, what an update must reach to become champion, and who makes it so."""

    promote: Any = Field(
        default={}, description="the gate's rules: limits by figure, as in `gate.rules`"
    )
    promotion: Literal["manual", "auto"] = Field(
        default="manual", description="auto: `next` promotes where the committed verdict passed"
    )
    onnx: bool = Field(default=False, description="also model.onnx; needs the extra onnx")
    files: list[str] = Field(
        default=[],
        description="more files and folders of the project that the model needs, in addition to those that "
        "model_fn and the test transforms are seen to read",
    )

    @field_validator("files")
    @classmethod
    def _lie_in_the_project(cls, names: list[str]) -> list[str]:
        for name in names:
            plain = PurePosixPath(name)
            if (
                plain.is_absolute()
                or ".." in plain.parts
                or name.startswith("~")
                or not plain.parts
            ):
                raise ValueError(f"{name!r}: expected a path inside the project, such as vocab.txt")
        return [str(PurePosixPath(name)) for name in names]


class TrackingParams(Block):
    """Where runs are logged. Read by no stage as an input: it changes no output."""

    enabled: bool = True
    experiment: str = Field(default="renate-stages", min_length=1, description="MLflow experiment")
    model: str | None = Field(
        default=None, min_length=1, description="registered model; none: named as the experiment"
    )

    @property
    def registered_model(self) -> str:
        """Name of the registered model that versions are published to."""
        return self.model or self.experiment


class Params(Block):
    """The whole of `params.yaml`."""

    example: Literal["digits"] | None = Field(
        None, description="the data that `init` and `example-data` write; none: your own"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="the one source of randomness")
    update: UpdateParams = UpdateParams()
    data: DataParams = DataParams()
    learner: Any = Field("ER", description="a name, or {choice: [...]} of names")
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

    @property
    def search_space(self) -> SearchSpace:
        """What is searched, and the constants beside it."""
        return SearchSpace.of(self.learner, self.hyperparameters)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What the gate asks."""
        evaluation = self.evaluation
        return read_rules(
            self.export.promote, evaluation.metric, evaluation.mode, evaluation.slices
        )

    @property
    def objective(self) -> tuple[str, Literal["max", "min"]]:
        """The metric that is tuned for, and whether more or less of it is better."""
        metric = self.tuning.metric or self.evaluation.metric
        lower = metric in self.evaluation.lower_is_better
        return metric, self.tuning.mode or ("min" if lower else "max")

    def fixed(self, configuration: Mapping[str, Any] | None = None) -> Params:
        """Return parameters without spaces, to train one model.

        Args:
            configuration: What `search_space.complete` gave; None: the middle of the space.
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
            MissingFileError: If there is no such file.
            InvalidParamsError: With all problems of the file at once.
        """
        if not path.is_file():
            raise MissingFileError(
                path, "it holds the project's parameters", "run this in a project folder"
            )
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
        try:
            SearchSpace.of(content.get("learner", "ER"), content.get("hyperparameters", {}))
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
    """Return what of the blocks does not go together."""
    problems = schedulers.problems_of(params.tuning.scheduler, params.tuning.scheduler_arguments)
    space, tuning, evaluation = params.search_space, params.tuning, params.evaluation
    if tuning.metric not in (None, "loss", evaluation.metric) and tuning.mode is None:
        problems.append(
            f"tuning.mode: expected max or min beside tuning.metric {tuning.metric}, found none"
        )
    if space and space.most_epochs(params.trainer.max_epochs) is None:
        problems.append(
            "trainer.max_epochs: expected a number where hyperparameters are searched, found none"
        )
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
