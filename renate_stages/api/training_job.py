"""`run_training_job`: run an update from Python without DVC, with Renate's arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from renate_stages import files
from renate_stages.api.arguments import named_as_arguments
from renate_stages.api.job_arguments import (
    also_in_renates_order,
    files_for_jobs,
    params_of,
    with_optimizer,
)
from renate_stages.api.locations import InputState, OutputState, bring, link_folder
from renate_stages.api.run_stages import run_export, run_stages
from renate_stages.api.workplace import lay_out, workplace
from renate_stages.errors import (
    MissingFileError,
    StateExistsError,
    UnsupportedLocationError,
    UserConfigError,
)
from renate_stages.evaluation.update_metrics import read_update_metrics
from renate_stages.params import Params
from renate_stages.params.remote import BACKENDS
from renate_stages.project import Outside, Project
from renate_stages.reporting.plots import read_curves, read_tables
from renate_stages.state import State
from renate_stages.state.inputs import read_tuned
from renate_stages.storage.states import local_path
from renate_stages.storage.storage import Traffic
from renate_stages.tuning import outcome
from renate_stages.tuning.outcome import Search
from renate_stages.user.config import UserConfig
from renate_stages.user.used_files import UserFiles

if TYPE_CHECKING:
    from renate_stages.models import RenateModule

SEARCH = "search"  # folder in the working directory from which an interrupted search continues


@dataclass(frozen=True)
class TrainingJobResult:
    """The results of a training job.

    Args:
        state: The new state; None without `output_state_url`. If that is a URL, this is the copy in
            the working directory, which later jobs may remove.
        metrics: As in `metrics/update.json`.
        curves: Losses and metrics of each epoch.
        hyperparameters: The values that the model was trained with, including `learner` and
            `max_epochs` if they were searched.
        search: The outcome of the search, as in `work/tuning/search.json`; empty without a search.
        tables: The learner's own figures, rows by table name, as in `plots/<name>.csv`.
        data: Figures of the new data, as in `metrics/data.json`; `shift` if it was asked for.
        model: The new model, on the CPU and in evaluation mode.
        fetched: Number and size of the files downloaded for the input state and the data.
        sent: Number and size of the files uploaded to `output_state_url`.
    """

    state: State | None
    metrics: dict[str, Any]
    curves: list[dict[str, float]]
    hyperparameters: Mapping[str, Any]
    search: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, list[dict[str, float]]] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    model: RenateModule | None = None
    fetched: Traffic = field(default_factory=Traffic)
    sent: Traffic = field(default_factory=Traffic)


@also_in_renates_order
@named_as_arguments()
def run_training_job(
    config_space: Mapping[str, Any],
    mode: Literal["max", "min"] = "max",
    metric: str = "val_accuracy",
    backend: Literal["local", "sagemaker"] = "local",
    updater: Any = "ER",
    max_epochs: int = 50,
    task_id: str = "default_task",
    config_file: str | Path = "renate_config.py",
    input_state_url: str | Path | None = None,
    output_state_url: str | Path | None = None,
    working_directory: str | Path = "renate_working_dir",
    *,
    data_path: str | Path | None = None,
    task: str = "auto",
    seed: int = 0,
    accelerator: str | None = None,
    devices: int = 1,
    strategy: str | None = None,
    precision: str | int | None = None,
    deterministic_trainer: bool | None = None,
    gradient_clip_val: float | None = None,
    gradient_clip_algorithm: str | None = None,
    scheduler: str | type | None = None,
    scheduler_kwargs: Mapping[str, Any] | None = None,
    max_time: float | str | None = None,
    max_num_trials_started: int | None = None,
    max_num_trials_completed: int | None = None,
    max_num_trials_finished: int | None = None,
    max_cost: float | None = None,
    n_workers: int = 1,
    chunk_id: int | None = None,
    dependencies: Sequence[str | Path] | None = None,
    requirements_file: str | Path | None = None,
    role: str | None = None,
    instance_type: str | None = None,
    instance_count: int | None = None,
    instance_max_time: float | None = None,
    volume_size: int | None = None,
    job_name: str | None = None,
    compat: Literal["renate"] | None = None,
    tuning: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    retention: Mapping[str, Any] | None = None,
    shift: Mapping[str, Any] | None = None,
    remote: Mapping[str, Any] | None = None,
    export_path: str | Path | None = None,
) -> TrainingJobResult:
    """Update a model once: search its hyperparameters if there is a search space, then train it.

    The job creates a temporary folder with the layout of a generated project and runs the stages of
    the pipeline in it: `prepare`, `restore-state`, `tune`, `train`, and `export` if `export_path`
    is given. Training runs in this process, or in one process per device if there are several.
    Trials run in their own processes. The job keeps only the new state and the exported model; the
    working directory also keeps downloaded states and data for the next job. If a search is
    interrupted, start the job again to continue from its trials. Nothing is logged to MLflow.

    Renate's arguments are accepted by name, and by position in Renate's order: `mode` first.

    Args:
        config_space: Hyperparameters: constants, search spaces in the notation of `params.yaml`,
            such as `{"uniform": [0, 1]}`, or Syne Tune domains. The mapping is not changed.
            Renate's `batch_memory_frac` is translated: this share of `batch_size` becomes
            `memory_batch_size`.
        mode: "max" if larger values of the metric are better, otherwise "min".
        metric: The headline metric, with or without Renate's prefix `val_`.
        backend: Where the search and the training run.
        updater: Name of the learner, or a search space of names.
        max_epochs: Passes over the new data, >= 1.
        task_id: Name of the task, for models with per-task parameters.
        config_file: File with your functions, `renate_config.py`.
        input_state_url: Folder or URL of the state to start from; None starts from the empty state.
            A URL is `s3://bucket/folder`, or uses another protocol that fsspec supports.
        output_state_url: Folder or URL for the new state, which must not exist yet; None does not
            keep the state. At a URL, the state becomes valid only when its upload has finished.
        working_directory: Its folder `data` is passed to `data_module_fn` if there is no
            `data_path`. Its folder `search` exists while a search runs; only one job at a time can
            search in it. The working directory also keeps downloads for the next job, and a new
            state until it has been uploaded.
        data_path: Folder or URL of the new data.
        task: What targets and outputs mean: a name in `renate_stages.tasks.TASKS`,
            `package.module:Class`, or `auto`, which decides by the first rows.
        seed: Seed of all random generators.
        accelerator: As in Lightning's Trainer; None: `cpu`.
        devices: Number of devices on this machine, with one process each; they share each batch.
        strategy: As in Lightning's Trainer: `ddp` for several devices.
        precision: As in Lightning's Trainer, also `32`, `16`, `bf16` and `64`; None: `32-true`.
        deterministic_trainer: Whether to refuse nondeterministic kernels; None: yes.
        gradient_clip_val: Maximum norm of the gradient; None does not clip.
        gradient_clip_algorithm: `value` limits each element of the gradient instead of the norm.
        scheduler: Name of a scheduler, a Syne Tune class, or the dotted name of one.
        scheduler_kwargs: Keyword arguments of the scheduler.
        max_time: Time limit of a search, in seconds or as text such as "30 min"; None: no limit. The
            best trial so far is used. The training with its values is not part of this time.
        max_num_trials_started: Maximum number of trials; 20 if no other limit is set.
        max_num_trials_completed: Maximum number of trials that are trained to their end.
        max_num_trials_finished: As `max_num_trials_started`, because every started trial finishes.
        max_cost: Refused, because trials do not report a cost.
        n_workers: Number of trials that run at the same time.
        chunk_id: Passed to `data_module_fn`, which must have an argument of that name.
        dependencies: Files and folders that jobs in SageMaker get, in addition to those that
            `config_file` imports.
        requirements_file: Additional packages to install in these jobs.
        role: Role of these jobs, as `remote.sagemaker.role`.
        instance_type: Their type of instance, as `remote.sagemaker.instance_type`.
        instance_count: Instances that share each batch of the training.
        instance_max_time: Time limit of a job in seconds, as `remote.sagemaker.max_runtime`.
        volume_size: Disk of each instance in GiB, as `remote.sagemaker.volume_gb`.
        job_name: A tag of these jobs; they are named after their stage and inputs.
        compat: `renate`: names of updaters and hyperparameters are Renate's, and so are the
            defaults of what is not given. See docs/migration.md.
        tuning: Further keys of the block `tuning` in `params.yaml`.
        trainer: Further keys of the block `trainer`, such as `{"num_nodes": 2}`.
        data: The block `data` of `params.yaml`, such as `{"validation_fraction": 0.2, "arguments":
            {...}}`.
        evaluation: Further keys of the block `evaluation`, such as `{"slices": ["source"]}`.
        retention: The block `retention`.
        shift: The block `shift`; None does not compare the new data with the parent's.
        remote: The block `remote` of `params.yaml`, with bucket, image and machine; required for
            `sagemaker`. Jobs receive `config_file` and the files in its folder that it imports.
        export_path: Folder for the deployable model, as stage `export` writes it, which must not
            exist yet; None does not export the model.

    Raises:
        StateExistsError: If `export_path` already exists.
        UnsupportedArgumentError: If an argument of Renate cannot be honoured.
        StateNotSentError: If the upload of the new state fails; the message names the local copy.
        StageProcessError: If the export fails; the new state is kept.
        RenateStagesError: If an argument, the user's functions, the data or the state cannot be
            used, or `output_state_url` already holds a state.

    Example:
        >>> first = run_training_job({"learning_rate": {"loguniform": [0.01, 1]}},
        ...                          data_path="week-1", output_state_url="states/1")
        >>> first.hyperparameters["learning_rate"]
        >>> second = run_training_job({"learning_rate": 0.05}, data_path="week-2",
        ...                           input_state_url="states/1", output_state_url="states/2")
        >>> second.metrics["accuracy"]["forgetting"]
    """
    given = dict(locals())  # so that one function can turn all arguments into parameters
    if backend not in BACKENDS:
        raise UnsupportedLocationError(backend, BACKENDS)
    working_directory, config = Path(working_directory), Path(config_file)
    if not config.is_file():
        raise MissingFileError(config, "it defines the model and the data", "correct config_file")
    target, origin = OutputState.at(output_state_url), InputState.at(input_state_url)
    sent_files = files_for_jobs(given)
    params = params_of(given, origin.update, sent_files)
    places = (data_path, input_state_url, output_state_url)
    job_paths = [working_directory, *(local_path(each) for each in places if each is not None)]
    if export_path is not None and Path(export_path).exists():
        raise StateExistsError(Path(export_path))
    ignored = [path.absolute() for path in job_paths]
    # Importing torch reads the files of all calling functions, which are no inputs of the job.
    import torch  # noqa: F401

    user = UserConfig.load(config, watch=UserFiles(config.parent, ignored=ignored))
    params = with_optimizer(params, given, "optimizer_fn" in user.functions)
    check_settings(user, params)
    source, fetched_state = origin.bring(working_directory)
    incoming, fetched_data = bring(data_path, working_directory)
    outside = Outside(config.resolve(), incoming, tuple(ignored), user.files.imported())

    parent_folder = target.folder.parent if target.folder is not None else working_directory
    root = working_directory / SEARCH if params.search_space else None
    with workplace(root, parent_folder, outside) as project:
        lay_out(project, params, source, removable=origin.storage is not None)
        run_stages(project, params, in_cloud=backend == "sagemaker", files_for_jobs=sent_files)
        search = Search.read(project.tuning / outcome.SEARCH)
        result = TrainingJobResult(
            None,
            read_update_metrics(project.update_metrics),
            read_curves(project.plots),
            read_tuned(project.tuned),
            {"searched": True, **search.model_dump()} if search is not None else {},
            read_tables(project.plots),
            files.read_json(project.data_metrics),
            _model(user, project, task_id),
            fetched_state + fetched_data,
        )
        if output_state_url is not None:
            written = target.keep(project.state, working_directory)
            new, sent = target.deliver(written, origin, working_directory)
            result = replace(result, state=new, sent=sent)
        if export_path is not None:  # last: if it fails, the new state is kept
            run_export(project, output_state_url)
            link_folder(project.export, Path(export_path))
    return result


def check_settings(user: UserConfig, params: Params) -> None:
    """Check hyperparameters, trainer and the user's functions before any data is read.

    Raises:
        RenateStagesError: If something cannot be used.
    """
    from renate_stages.training.updater import Updater
    from renate_stages.user import optimization

    if "chunk_id" in params.data.arguments and "chunk_id" not in user.arguments_of(
        "data_module_fn"
    ):
        raise UserConfigError(
            user.path,
            "chunk_id is given, but data_module_fn has no such argument",
            "add `chunk_id: int` to its signature, or do not pass chunk_id",
        )
    space = params.search_space.read_by(optimization.shared_hyperparameters(user))
    fixed = params.fixed(space.middle())
    Updater(user, fixed, fixed.hyperparameters, say=lambda _: None)


def _model(user: UserConfig, project: Project, task_id: str) -> RenateModule:
    from renate_stages.models.stored import build_model

    return build_model(user, read_tuned(project.tuned), project.state, task_id).eval()
