"""`renate.training.training`: `run_training_job` with Renate's signature and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from renate_stages.api.job_arguments import SAGEMAKER
from renate_stages.api.training_job import TrainingJobResult
from renate_stages.api.training_job import run_training_job as run_job
from renate_stages.compat.renate import defaults


def run_training_job(
    mode: Literal["min", "max"],
    config_space: dict[str, Any],
    metric: str | None,
    backend: Literal["local", "sagemaker"],
    updater: str = defaults.LEARNER,
    max_epochs: int = defaults.MAX_EPOCHS,
    task_id: str = defaults.TASK_ID,
    chunk_id: int | None = None,
    input_state_url: str | Path | None = None,
    output_state_url: str | Path | None = None,
    working_directory: str | Path | None = defaults.WORKING_DIRECTORY,
    dependencies: Sequence[str | Path] | None = None,
    config_file: str | Path | None = None,
    requirements_file: str | Path | None = None,
    role: str | None = None,
    instance_type: str = defaults.INSTANCE_TYPE,
    instance_count: int = defaults.INSTANCE_COUNT,
    instance_max_time: float = defaults.INSTANCE_MAX_TIME,
    max_time: float | None = None,
    max_num_trials_started: int | None = None,
    max_num_trials_completed: int | None = None,
    max_num_trials_finished: int | None = None,
    max_cost: float | None = None,
    n_workers: int = defaults.N_WORKERS,
    scheduler: str | type | None = None,
    scheduler_kwargs: dict[str, Any] | None = None,
    seed: int = defaults.SEED,
    accelerator: str = defaults.ACCELERATOR,
    devices: int = defaults.DEVICES,
    strategy: str = defaults.DISTRIBUTED_STRATEGY,
    precision: str = defaults.PRECISION,
    deterministic_trainer: bool = defaults.DETERMINISTIC_TRAINER,
    gradient_clip_val: float | None = defaults.GRADIENT_CLIP_VAL,
    gradient_clip_algorithm: str | None = defaults.GRADIENT_CLIP_ALGORITHM,
    job_name: str = defaults.JOB_NAME,
    **ours: Any,
) -> TrainingJobResult:
    """Update a model once, with Renate's defaults.

    The call waits until the update is complete, also with `backend="sagemaker"`.

    Args:
        mode: As in `renate_stages.run_training_job`, like all arguments that are not listed here.
        config_space: Hyperparameters under Renate's names. The dict is not changed.
        metric: The metric for the search and the best epoch; None: the loss.
        backend: Where the search and the training run.
        updater: Renate's name of an updater, or the name of a learner.
        max_epochs: Passes over the new data.
        task_id: Name of the task.
        chunk_id: Passed to `data_module_fn`.
        input_state_url: The state to start from.
        output_state_url: Where to write the new state.
        working_directory: Its folder `data` is the data, unless `data_path` is given.
        dependencies: Further files and folders for SageMaker.
        config_file: The file with your functions; None: `renate_config.py`.
        requirements_file: Further packages for SageMaker.
        role: Role of jobs in SageMaker.
        instance_type: Type of their instance.
        instance_count: Number of instances.
        instance_max_time: Time limit of a job in seconds.
        max_time: Time limit of the search in seconds.
        max_num_trials_started: Maximum number of trials.
        max_num_trials_completed: Maximum number of trials that are trained to their end.
        max_num_trials_finished: Maximum number of trials.
        max_cost: Refused.
        n_workers: Trials that run at the same time.
        scheduler: Name of a scheduler, or a Syne Tune class; None: random search.
        scheduler_kwargs: Keyword arguments of the scheduler.
        seed: Seed of all random generators.
        accelerator: As in Lightning's Trainer.
        devices: Number of devices.
        strategy: `ddp`, for several devices.
        precision: `32`, `16`, `bf16` or `64`.
        deterministic_trainer: Whether to refuse nondeterministic kernels.
        gradient_clip_val: Limit of the gradient.
        gradient_clip_algorithm: `norm` or `value`.
        job_name: A tag of jobs in SageMaker.
        **ours: Other arguments of `renate_stages.run_training_job`: `data_path`, `remote`, ...

    Raises:
        RenateStagesError: As `renate_stages.run_training_job`.

    Example:
        >>> run_training_job("max", config_space("ER"), "val_accuracy", "local", "ER", max_epochs=5,
        ...                  config_file="renate_config.py", output_state_url="states/1")
    """
    in_cloud = backend == "sagemaker"
    for_jobs = {
        "instance_type": (instance_type, defaults.INSTANCE_TYPE),
        "instance_count": (instance_count, defaults.INSTANCE_COUNT),
        "instance_max_time": (instance_max_time, defaults.INSTANCE_MAX_TIME),
        "volume_size": (ours.pop("volume_size", defaults.VOLUME_SIZE), defaults.VOLUME_SIZE),
    }
    block = (ours.get("remote") or {}).get("sagemaker") or {}
    given = {
        name: value
        for name, (value, usual) in for_jobs.items()
        if value != usual or (in_cloud and SAGEMAKER[name] not in block)
    }
    if job_name != defaults.JOB_NAME:
        given["job_name"] = job_name
    if devices == 1 and strategy == defaults.DISTRIBUTED_STRATEGY:
        strategy = "auto"  # Renate does not use it with one device
    return run_job(
        config_space,
        mode if metric is not None else "min",
        metric or "loss",
        backend,
        updater,
        max_epochs,
        task_id,
        config_file or "renate_config.py",
        input_state_url,
        output_state_url,
        working_directory or defaults.WORKING_DIRECTORY,
        chunk_id=chunk_id,
        dependencies=dependencies,
        requirements_file=requirements_file,
        role=role,
        max_time=max_time,
        max_num_trials_started=max_num_trials_started,
        max_num_trials_completed=max_num_trials_completed,
        max_num_trials_finished=max_num_trials_finished,
        max_cost=max_cost,
        n_workers=n_workers,
        scheduler=scheduler,
        scheduler_kwargs=scheduler_kwargs,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        precision=precision,
        deterministic_trainer=deterministic_trainer,
        gradient_clip_val=gradient_clip_val,
        gradient_clip_algorithm=gradient_clip_algorithm,
        compat="renate",
        **{**given, **ours},
    )
