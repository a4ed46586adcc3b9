"""`run_training_job`: updates from Python without DVC, with Renate's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from renate_stages import files
from renate_stages.api import in_cloud, one_update
from renate_stages.api.locations import InputState, OutputState, bring
from renate_stages.api.workplace import lay_out, workplace
from renate_stages.errors import InvalidHyperparameterError, UnsupportedLocationError
from renate_stages.params import Params
from renate_stages.params.domains import as_written
from renate_stages.params.remote import BACKENDS
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.state import State, new_data, prepared
from renate_stages.storage.states import local_path
from renate_stages.storage.storage import Traffic
from renate_stages.user.config import UserConfig
from renate_stages.user.used_files import UserFiles

SEARCH = "search"  # folder of the working directory, where a search goes on after a kill


@dataclass(frozen=True)
class TrainingJobResult:
    """What a training job gave.

    Args:
        state: The new state; None where no `output_state_url` was given. Of one at a URL, the copy
            that the working directory keeps, until later jobs displace it.
        metrics: As in `metrics/update.json`.
        curves: Losses and metrics of each epoch.
        hyperparameters: Those that the model was trained with; `learner` and `max_epochs` too, where
            they were searched.
        search: What the search found, as in `work/tuning/search.json`; empty without one.
        tables: What the learner has to show, rows by name, as in `plots/<name>.csv`.
        fetched: What travelled here from URLs, of state and data.
        sent: What travelled to `output_state_url`.
    """

    state: State | None
    metrics: dict[str, Any]
    curves: list[dict[str, float]]
    hyperparameters: Mapping[str, Any]
    search: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, list[dict[str, float]]] = field(default_factory=dict)
    fetched: Traffic = field(default_factory=Traffic)
    sent: Traffic = field(default_factory=Traffic)


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
    seed: int = 0,
    accelerator: str = "cpu",
    devices: int = 1,
    precision: str = "32-true",
    deterministic_trainer: bool = True,
    gradient_clip_val: float | None = None,
    scheduler: str | type | None = None,
    scheduler_kwargs: Mapping[str, Any] | None = None,
    max_time: float | str | None = None,
    max_num_trials_started: int | None = None,
    max_num_trials_finished: int | None = None,
    n_workers: int = 1,
    tuning: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    remote: Mapping[str, Any] | None = None,
) -> TrainingJobResult:
    """Update a model once: search its hyperparameters where there is a space, and train it.

    Renate ran each job in a process of its own and shared a working directory between jobs; here
    training is in this process, or on several devices in a process for each, trials are in processes
    of their own, and nothing is written but the new state and, for a passing time, what they read; of
    states and data at URLs the working directory keeps what the next job would fetch again. A search
    that is killed goes on from its
    trials when the job is started again.

    Args:
        config_space: Hyperparameters: constants, spaces as `params.yaml` has them, such as
            `{"uniform": [0, 1]}`, or domains of Syne Tune; not changed. Renate's `batch_memory_frac`
            is translated: of `batch_size` that share becomes `memory_batch_size`.
        mode: Whether more of the metric is better.
        metric: The headline metric, with or without Renate's `val_` before it.
        backend: Where it runs; `local`.
        updater: Name of the learner, or a space of names.
        max_epochs: Passes over the new data, >= 1.
        task_id: Names the model's parameters of this task.
        config_file: The user's functions.
        input_state_url: Folder or URL with the state to start from; None starts from nothing. A
            URL is `s3://bucket/folder`, or of another protocol of fsspec.
        output_state_url: Folder or URL for the new state, where none must be yet; None keeps none.
            At a URL it is a state when all of it has arrived, and not before.
        working_directory: Its folder `data` is given to `data_module_fn` unless `data_path` is; its
            folder `search` is there while a search is. One job at a time searches in it. What comes
            from URLs is kept in it, for the next job, and a new state until it has been sent.
        data_path: Folder or URL with the new data.
        seed: The one source of randomness.
        accelerator: As Lightning's Trainer names it.
        devices: A process for each, all on this machine; they share each batch.
        precision: As Lightning's Trainer names it.
        deterministic_trainer: Refuse kernels that differ from run to run.
        gradient_clip_val: Largest norm of the gradient; None does not clip.
        scheduler: Name of a scheduler, a class of Syne Tune's, or its dotted name.
        scheduler_kwargs: Keyword arguments of it.
        max_time: Of a search, seconds or such as "30 min"; no limit by default.
        max_num_trials_started: Most trials, 20 by default where there is no other limit.
        max_num_trials_finished: The same: each trial that is started finishes, soon or late.
        n_workers: Trials at a time.
        tuning: What else the block `tuning` of `params.yaml` takes.
        trainer: What else its block `trainer` takes, such as `{"num_nodes": 2}`.
        remote: What the block `remote` of `params.yaml` takes: bucket, image, machine; needed by
            `sagemaker`. Jobs get `config_file` and the files in its folder that importing it used.

    Raises:
        StateNotSentError: If the new state could not be sent; it says where it lies on this machine.
        RenateStagesError: If an argument, the user's functions, the data or the state cannot be
            used, or there is a state at `output_state_url`.

    Example:
        >>> first = run_training_job({"learning_rate": {"loguniform": [0.01, 1]}},
        ...                          data_path="week-1", output_state_url="states/1")
        >>> first.hyperparameters["learning_rate"]
        >>> second = run_training_job({"learning_rate": 0.05}, data_path="week-2",
        ...                           input_state_url="states/1", output_state_url="states/2")
        >>> second.metrics["accuracy"]["forgetting"]
    """
    if backend not in BACKENDS:
        raise UnsupportedLocationError(backend, BACKENDS)
    working_directory = Path(working_directory)
    target, origin = OutputState.at(output_state_url), InputState.at(input_state_url)
    training = {
        "max_epochs": max_epochs,
        "accelerator": accelerator,
        "devices": devices,
        "precision": precision,
        "deterministic": deterministic_trainer,
        "gradient_clip_val": gradient_clip_val,
        **(trainer or {}),
    }
    most_trials = [n for n in (max_num_trials_started, max_num_trials_finished) if n is not None]
    budget = {"max_time": max_time, "max_trials": min(most_trials, default=None)}
    params = Params.parse(
        {
            "seed": seed,
            "update": {"number": origin.update + 1, "parent": origin.update, "task_id": task_id},
            "learner": as_written(updater),
            "hyperparameters": _translated(config_space),
            "trainer": training,
            "tuning": {
                **(budget if any(each is not None for each in budget.values()) else {}),
                **({"scheduler": _name_of(scheduler)} if scheduler is not None else {}),
                "scheduler_arguments": dict(scheduler_kwargs or {}),
                "n_workers": n_workers,
                **(tuning or {}),
            },
            "evaluation": {"metric": metric.removeprefix("val_"), "mode": mode},
            "remote": dict(remote or {}),
        },
        "run_training_job",
    )
    if backend == "sagemaker":
        params.remote.check_sagemaker()
    config = Path(config_file)
    places = (data_path, input_state_url, output_state_url)
    passing = [working_directory, *(local_path(each) for each in places if each is not None)]
    user = UserConfig.load(config, watch=UserFiles(config.parent, ignored=passing))
    source, fetched_state = origin.bring(working_directory)
    incoming, fetched_data = bring(data_path, working_directory)

    beside = target.folder.parent if target.folder is not None else working_directory
    root = working_directory / SEARCH if params.search_space else None
    with workplace(root, beside, Path(config_file)) as project:
        lay_out(project, params, source, may_go=origin.storage is not None)
        _prepare(user, params, incoming, project.prepared)
        folder = target.passing(project.root)
        if backend == "sagemaker":
            found = in_cloud.run(project, user, params, folder)
        else:
            found = _run_here(project, user, params, folder)
        written = folder and target.keep(folder, working_directory)
    new, sent = None, Traffic()
    if written is not None:
        new, sent = target.deliver(written, origin, working_directory)
    return TrainingJobResult(
        new,
        found["summary"],
        found["curves"],
        found["chosen"],
        found["search"],
        found["tables"],
        fetched_state + fetched_data,
        sent,
    )


def _translated(config_space: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters in our terms: Renate's batch held new and replayed examples."""
    ours = {name: as_written(each) for name, each in config_space.items()}
    if "batch_memory_frac" in ours:
        share, batch = ours.pop("batch_memory_frac"), ours.get("batch_size", 32)
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise InvalidHyperparameterError("batch_memory_frac", share, "a share in [0, 1)")
        if not isinstance(batch, int):
            allowed = "a whole number beside batch_memory_frac; or search memory_batch_size too"
            raise InvalidHyperparameterError("batch_size", batch, allowed)
        ours["memory_batch_size"] = max(1, int(share * batch))
        ours["batch_size"] = max(1, batch - int(share * batch))
    return ours


def _name_of(scheduler: str | type) -> str:
    if isinstance(scheduler, str):
        return scheduler
    return f"{scheduler.__module__}:{scheduler.__qualname__}"


def _prepare(user: UserConfig, params: Params, incoming: Path, folder: Path) -> None:
    generators = Generators(params.seed, params.update.number)
    generators.seed_global("prepare")
    splits = new_data.read_splits(user, incoming, params.data, generators)
    with new_data.reading(user):
        new_data.ingest_splits(splits, folder, params.update.number)
    prepared.write_manifest(folder, params.update.number)


def _run_here(
    project: Project, user: UserConfig, params: Params, target: Path | None
) -> dict[str, Any]:
    """Search where there is a space, and train; return what `training_job.run` does."""
    search: Mapping[str, Any] = {}
    chosen = params.hyperparameters
    if params.search_space:
        search, chosen = _search(project, params)
    fixed = params.fixed(chosen)
    found = one_update.run(project, user, fixed, target, searched=bool(search))
    return {**found, "chosen": chosen, "search": search}


def _search(project: Project, params: Params) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a search found, and the configuration that it chose."""
    from renate_stages.tuning.outcome import summary, write_search
    from renate_stages.tuning.update_search import UpdateSearch, started_processes

    with started_processes(project, params) as processes:
        search = UpdateSearch.open(project, params, print)
        found = search.run(processes)
    with files.whole_directory(project.tuning) as folder:
        write_search(folder, params, found, search.history, search.past.notes)
    return summary(params, found, search.past.notes), dict(found.best.configuration)
