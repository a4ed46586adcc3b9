"""`params.yaml` as typed, frozen models, with every default and check.

All problems of a file are reported at once, each with its path, the value found and the allowed
values; for an unknown key the closest known key is suggested.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from renate_stages.errors import InvalidParamsError, MissingFileError, did_you_mean
from renate_stages.files import yaml_file
from renate_stages.params import schedulers
from renate_stages.params.blocks import Block, OptionalSeconds, problems_in
from renate_stages.params.data_module import DataModuleParams
from renate_stages.params.remote import RemoteParams
from renate_stages.params.rules import Rule, read_rules
from renate_stages.params.scenario import ScenarioParams
from renate_stages.params.search_space import SearchSpace
from renate_stages.params.shift import ShiftParams, ShouldUpdateParams
from renate_stages.tasks import AUTO, LOWER_IS_BETTER, MEASURED, TASKS, is_known
from renate_stages.user.named import Named

Fraction = Annotated[float, Field(ge=0, lt=1)]


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


class LabelParams(Block):
    """Names of labels; labels in the data may be texts."""

    order: list[str] = Field(
        default=[],
        description="names in the order of the model's outputs; new names are added at the end",
    )
    rename: dict[str, str] = Field(
        default={}, description="what to call labels instead, by their name in the data"
    )

    @model_validator(mode="after")
    def _each_once(self) -> LabelParams:
        for name in self.order:
            if self.order.count(name) > 1:
                raise ValueError(f"order lists {name!r} more than once")
        return self


class DataParams(Block):
    """How `prepare` splits the incoming data if the data module does not, and names of labels."""

    module: DataModuleParams | None = Field(
        default=None, description="a data module in place of data_module_fn, and its arguments"
    )
    max_rejected: Fraction = Field(
        default=0.01,
        description="share of the rows that a data module may leave out because it cannot read them",
    )
    validation_fraction: Fraction = Field(
        default=0.1,
        description="share of the training rows, if the data module has no validation data",
    )
    test_fraction: Fraction = Field(
        default=0.2, description="share of the training rows, if the data module has no test data"
    )
    split: Literal["random", "stratified", "newest", "grouped"] = Field(
        default="random",
        description="which rows become test and validation data: random ones; random ones with the "
        "same share of each label; the newest by split_by; or all rows of some groups by split_by",
    )
    split_by: str | None = Field(
        default=None, description="metadata field for split: a time for newest, a group for grouped"
    )
    arguments: dict[str, Any] = Field(
        default={}, description="keyword arguments for data_module_fn"
    )
    num_workers: int = Field(
        default=0,
        ge=0,
        description="processes that read items of the data module; 0: the main process reads them",
    )
    scenario: ScenarioParams | None = Field(
        default=None, description="to try updates: cut one dataset into the data of several"
    )
    labels: LabelParams = Field(default=LabelParams(), description="names of labels")
    fingerprint: list[str] = Field(
        default=[],
        description="files, such as a vocabulary, that must not change; relative to renate_config.py",
    )
    accepted_fingerprint: str | None = Field(
        default=None, description="digest of a changed fingerprint that old examples still fit"
    )

    @model_validator(mode="after")
    def _names_the_field(self) -> DataParams:
        if (self.split in ("newest", "grouped")) != (self.split_by is not None):
            raise ValueError(
                f"split is {self.split} and split_by is {self.split_by}; name a metadata field in "
                "split_by if, and only if, split is newest or grouped"
            )
        return self


class TrainerParams(Block):
    """Length of the training, hardware, and data loading."""

    max_epochs: int | None = Field(default=50, ge=1, description="passes over the new data")
    max_steps: int | None = Field(
        default=None,
        ge=1,
        description="optimizer steps; training ends at the first limit that is reached",
    )
    threads: int = Field(
        default=1, ge=1, description="CPU threads; another number changes results slightly"
    )
    accelerator: str = Field(default="cpu", description="the accelerator of Lightning's Trainer")
    devices: int = Field(
        default=1,
        ge=1,
        description="devices, with a process each; not `auto`, because the number changes results",
    )
    num_nodes: int = Field(default=1, ge=1, description="machines, each with `devices` devices")
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = Field(
        default="auto", description="Lightning's strategy for several devices; auto: ddp"
    )
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] = Field(
        default="32-true",
        description="mixed: the weights stay float32; 64-true: trains in float64; the state is "
        "float32 in any case",
    )
    accumulate_grad_batches: int = Field(
        default=1, ge=1, description="batches whose gradients are averaged for one step"
    )
    gradient_clip_val: float | None = Field(
        default=None, gt=0, description="largest gradient norm, or value, of a step"
    )
    gradient_clip_algorithm: Literal["norm", "value"] = Field(
        default="norm", description="value: gradient_clip_val limits each element of the gradient"
    )
    compile: bool = Field(default=False, description="train with torch.compile")
    deterministic: bool = Field(
        default=True, description="refuse kernels that differ from run to run"
    )
    num_workers: int = Field(default=0, ge=0, description="worker processes that load batches")
    prefetch: int | None = Field(
        default=None,
        ge=0,
        description="steps that a thread loads ahead; none: 2 on a GPU, else 0; results are equal",
    )
    data_on_device: bool = Field(
        default=False, description="store new data and memory on the device during training"
    )
    keep: Literal["last", "best", "auto"] = Field(
        default="last",
        description="epoch whose model is kept; best: the best one on the validation data; auto: "
        "best if there is validation data",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="epochs without a better result on the validation data that end the training",
    )

    @property
    def num_processes(self) -> int:
        """Number of training processes."""
        return self.devices * self.num_nodes

    def on_one_device(self) -> TrainerParams:
        """Return the settings for one process that takes the same steps on whole batches."""
        return self.model_copy(update={"devices": 1, "num_nodes": 1, "strategy": "auto"})

    @field_validator("strategy", mode="before")
    @classmethod
    def _weights_are_whole(cls, strategy: Any) -> Any:
        if str(strategy).startswith(("fsdp", "deepspeed", "model_parallel")):
            raise ValueError(
                f"{strategy} splits the weights among processes, but learners need all weights, "
                "for example for averages, importances and teachers; use ddp"
            )
        return strategy

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainerParams:
        if self.max_epochs is None and self.max_steps is None:
            raise ValueError("max_epochs and max_steps are both null; set at least one of them")
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
            raise ValueError(f"{' and '.join(given)} are mutually exclusive; set only one")
        return self


class TuningParams(Block):
    """The search for hyperparameters; used only if a hyperparameter is a space."""

    scheduler: str = Field(
        default="rush",
        description="a name in `schedulers.SCHEDULERS`, or package.module:Class of a Syne Tune "
        "scheduler",
    )
    scheduler_arguments: dict[str, Any] = Field(
        default={}, description="keyword arguments for the scheduler"
    )
    metric: str | None = Field(
        default=None, min_length=1, description="metric to optimize; none: evaluation.metric"
    )
    mode: Literal["max", "min"] | None = Field(
        default=None, description="whether to maximize or minimize it; none: as in evaluation"
    )
    objective: Literal["union", "new", "weighted"] = Field(
        default="union",
        description="validation data to measure on: of all updates, of the new one, or a mix",
    )
    new_weight: float | None = Field(
        default=None, gt=0, lt=1, description="weight of the new data if objective is weighted"
    )
    max_trials: int | None = Field(
        default=20, ge=1, description="trials; the search ends at the first limit that is reached"
    )
    max_completed: int | None = Field(
        default=None, ge=1, description="trials that were trained to their end"
    )
    max_epochs_total: int | None = Field(
        default=None, ge=1, description="epochs of all trials together"
    )
    max_time: OptionalSeconds = Field(
        default=None, gt=0, description="seconds, or a text such as '30 min'"
    )
    n_workers: int = Field(default=1, ge=1, description="trials that run at the same time")
    processes: Literal["fork", "fresh"] = Field(
        default="fork",
        description="fresh: a new interpreter for each trial, for code that cannot be forked",
    )
    reuse_best: bool = Field(
        default=True,
        description="keep the best trial's model instead of training again, if it trained in full",
    )
    use_history: bool = Field(
        default=True, description="use the results of the searches of past updates"
    )

    @model_validator(mode="after")
    def _is_whole(self) -> TuningParams:
        if (self.objective == "weighted") != (self.new_weight is not None):
            raise ValueError(
                f"objective is {self.objective} and new_weight is {self.new_weight}; set "
                "new_weight if, and only if, objective is weighted"
            )
        limits = ("max_trials", "max_completed", "max_epochs_total", "max_time")
        if all(getattr(self, limit) is None for limit in limits):
            raise ValueError(f"{', '.join(limits)} are all null; set at least one of them")
        return self


class EvaluationParams(Block):
    """What to measure on every holdout."""

    metric: str = Field(
        default="accuracy",
        min_length=1,
        description="the headline metric, which is summarized over holdouts",
    )
    mode: Literal["max", "min"] = Field(
        default="max", description="whether higher or lower values are better"
    )
    batch_size: int = Field(default=256, ge=1, description="examples per forward pass")
    slices: list[str] = Field(
        default=[], description="metadata fields; accuracy is reported for each of their values"
    )
    reference: dict[int, float] = Field(
        default={},
        description="headline metric by holdout of a model trained on all data at once",
    )

    @field_validator("reference", mode="before")
    @classmethod
    def _keys_of_json(cls, reference: Any) -> Any:
        """Accept holdout numbers as text, as they are in JSON, which is passed to other processes."""
        if not isinstance(reference, dict):
            return reference
        numbers = {k: int(k) for k in reference if isinstance(k, str) and k.isdecimal()}
        return {numbers.get(key, key): value for key, value in reference.items()}

    @property
    def lower_is_better(self) -> set[str]:
        """Names of the metrics for which lower values are better."""
        return {*LOWER_IS_BETTER} | ({self.metric} if self.mode == "min" else set())

    @model_validator(mode="before")
    @classmethod
    def _has_the_known_mode(cls, given: Any) -> Any:
        """Set the mode of a metric of ours, and refuse the wrong one: it would invert verdicts."""
        metric = given.get("metric", "accuracy") if isinstance(given, dict) else None
        if metric not in (*LOWER_IS_BETTER, *(name for some in MEASURED.values() for name in some)):
            return given
        known = "min" if metric in LOWER_IS_BETTER else "max"
        mode = given.get("mode", known)
        if mode not in ("min", "max"):
            return given
        if mode != known:
            better = "lower" if known == "min" else "higher"
            raise ValueError(f"mode is {mode}, but a {better} {metric} is better: set {known}")
        return {**given, "mode": known}


class RetentionParams(Block):
    """How much data to keep, and for how long. No byte of other rows remains in the state."""

    holdout_rows: int | None = Field(
        default=None, ge=1, description="maximum rows to keep of an update's test split"
    )
    holdout_updates: int | None = Field(
        default=None, ge=1, description="latest updates, with this one, whose holdouts are kept"
    )
    validation_rows: int | None = Field(
        default=None, ge=1, description="maximum rows to keep of an update's validation split"
    )
    validation_updates: int | None = Field(
        default=None,
        ge=1,
        description="latest updates, with this one, whose validation splits are kept",
    )
    memory_updates: int | None = Field(
        default=None, ge=1, description="updates after which a row is removed from the memory"
    )
    never_keep: list[str | int | float | bool] = Field(
        default=[],
        description="sources whose rows are used for this update only and are not stored",
    )


class ExportParams(Block):
    """The content of `export/`, the gate's rules, and who promotes."""

    promote: Any = Field(
        default={}, description="the gate's rules: limits by figure, as in `params.rules`"
    )
    promotion: Literal["manual", "auto"] = Field(
        default="manual",
        description="auto: `next` promotes the update if its committed verdict passed",
    )
    onnx: bool = Field(default=False, description="also write model.onnx; needs the extra onnx")
    files: list[str] = Field(
        default=[],
        description="project files and folders that the model needs, in addition to those that "
        "model_fn and the test transforms read",
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
