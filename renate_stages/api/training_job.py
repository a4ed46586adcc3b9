"""`run_training_job`: updates from Python without DVC, with Renate's arguments."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from renate_stages import files
from renate_stages.api.locations import InputState, OutputState, bring, link
from renate_stages.api.run_stages import run_stages
from renate_stages.api.workplace import lay_out, workplace
from renate_stages.errors import (
    InvalidHyperparameterError,
    StateExistsError,
    UnsupportedLocationError,
)
from renate_stages.evaluation.update_metrics import read_update_metrics
from renate_stages.params import Params
from renate_stages.params.domains import as_written
from renate_stages.params.remote import BACKENDS
from renate_stages.project import Outside
from renate_stages.reporting.plots import read_curves, read_tables
from renate_stages.state import State
from renate_stages.state.inputs import read_tuned
from renate_stages.storage.states import local_path
from renate_stages.storage.storage import Traffic
from renate_stages.tuning import outcome
from renate_stages.tuning.outcome import Search
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
    export_path: str | Path | None = None,
) -> TrainingJobResult:
    """Update a model once: search its hyperparameters where there is a space, and train it.

    It lays out a temporary folder as a generated project is, and runs the stages of the pipeline in
    it: `prepare`, `restore-state`, `tune`, `train`, and `export` if `export_path` is given. Training
    runs in this process, on several devices in a process for each; trials run in processes of their
    own. Nothing stays but the new state and the exported model; the working directory also keeps
    states and data that were downloaded, for the next job. A search that was killed continues from
    its trials when the job is started again. Nothing is logged to MLflow.

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

        export_path: Folder for the deployable model, as stage `export` writes it, where nothing must
            be yet; None exports nothing.

    Raises:
        StateExistsError: If there is something at `export_path`.
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
            "shift": {"enabled": False},
            "tracking": {"enabled": False},
        },
        "run_training_job",
    )
    if backend == "sagemaker":
        params.remote.check_sagemaker()
    config = Path(config_file)
    places = (data_path, input_state_url, output_state_url)
    passing = [working_directory, *(local_path(each) for each in places if each is not None)]
    if export_path is not None and Path(export_path).exists():
        raise StateExistsError(Path(export_path))
    ignored = [path.absolute() for path in passing]
    user = UserConfig.load(config, watch=UserFiles(config.parent, ignored=ignored))
    source, fetched_state = origin.bring(working_directory)
    incoming, fetched_data = bring(data_path, working_directory)
    outside = Outside(config.resolve(), incoming, tuple(ignored), user.files.imported())

    beside = target.folder.parent if target.folder is not None else working_directory
    root = working_directory / SEARCH if params.search_space else None
    written = None
    with workplace(root, beside, outside) as project:
        lay_out(project, params, source, may_go=origin.storage is not None)
        exports = export_path is not None
        run_stages(project, params, in_cloud=backend == "sagemaker", exports=exports)
        search = Search.read(project.tuning / outcome.SEARCH)
        result = TrainingJobResult(
            None,
            read_update_metrics(project.update_metrics),
            read_curves(project.plots),
            read_tuned(project.tuned),
            {"searched": True, **search.model_dump()} if search is not None else {},
            read_tables(project.plots),
            fetched_state + fetched_data,
        )
        if export_path is not None:
            with files.whole_directory(Path(export_path), replace=False) as folder:
                shutil.copytree(project.export, folder, copy_function=link, dirs_exist_ok=True)
        if output_state_url is not None:
            written = target.keep(project.state, working_directory)
    if written is None:
        return result
    new, sent = target.deliver(written, origin, working_directory)
    return replace(result, state=new, sent=sent)


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
