"""Updates from Python, without DVC: `run_training_job`, with the arguments Renate gave it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from renate_stages import files, prepared, state
from renate_stages.errors import (
    InvalidHyperparameterError,
    InvalidParamsError,
    StateExistsError,
    UnsupportedLocationError,
)
from renate_stages.params import Params
from renate_stages.prepared import PreparedData
from renate_stages.randomness import Generators
from renate_stages.stages import prepare
from renate_stages.state import State
from renate_stages.user_config import UserConfig


@dataclass(frozen=True)
class TrainingJobResult:
    """What a training job gave.

    Args:
        state: The new state; None where no `output_state_url` was given.
        metrics: As in `metrics/update.json`.
        curves: Losses and metrics of each epoch.
        tables: What the learner has to show, rows by name, as in `plots/<name>.csv`.
    """

    state: State | None
    metrics: dict[str, Any]
    curves: list[dict[str, float]]
    tables: Mapping[str, list[dict[str, float]]] = field(default_factory=dict)


def run_training_job(
    config_space: Mapping[str, Any],
    mode: Literal["max", "min"] = "max",
    metric: str = "val_accuracy",
    backend: Literal["local"] = "local",
    updater: str = "ER",
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
) -> TrainingJobResult:
    """Update a model once, in this process.

    Renate ran each job in a process of its own and shared a working directory between jobs; here
    nothing is written but the new state and, for a passing time, the prepared data.

    Args:
        config_space: Hyperparameters, as constants; not changed. Renate's `batch_memory_frac` is
            translated: of `batch_size` that share becomes `memory_batch_size`.
        mode: Whether more of the metric is better.
        metric: The headline metric, with or without Renate's `val_` before it.
        backend: Where it runs; `local`.
        updater: Name of the learner.
        max_epochs: Passes over the new data, >= 1.
        task_id: Names the model's parameters of this task.
        config_file: The user's functions.
        input_state_url: Folder with the state to start from; None starts from nothing.
        output_state_url: Folder for the new state, which must not be there yet; None keeps none.
        working_directory: Its folder `data` is given to `data_module_fn` unless `data_path` is.
        data_path: Folder with the new data.
        seed: The one source of randomness.
        accelerator: As Lightning's Trainer names it.
        devices: One.
        precision: As Lightning's Trainer names it.
        deterministic_trainer: Refuse kernels that differ from run to run.
        gradient_clip_val: Largest norm of the gradient; None does not clip.

    Raises:
        RenateStagesError: If an argument, the user's functions, the data or the state cannot be
            used, or there is a state at `output_state_url`.

    Example:
        >>> first = run_training_job({"learning_rate": 0.05}, data_path="week-1",
        ...                          output_state_url="states/1")
        >>> second = run_training_job({"learning_rate": 0.05}, data_path="week-2",
        ...                           input_state_url="states/1", output_state_url="states/2")
        >>> second.metrics["accuracy"]["forgetting"]
    """
    source, target = _folder(input_state_url), _folder(output_state_url)
    if backend != "local":
        raise UnsupportedLocationError("backend", backend)
    if target is not None and target.exists():
        raise StateExistsError(target)
    working_directory = Path(working_directory)
    incoming = Path(data_path) if data_path is not None else working_directory / "data"
    incoming.mkdir(parents=True, exist_ok=True)  # Renate's data modules fetch their data into it
    parent_update = State.open(source).provenance.update if source is not None else 0
    hyperparameters = _translated(config_space)
    trainer = {
        "max_epochs": max_epochs,
        "accelerator": accelerator,
        "devices": devices,
        "precision": precision,
        "deterministic": deterministic_trainer,
        "gradient_clip_val": gradient_clip_val,
    }
    params = Params.parse(
        {
            "seed": seed,
            "update": {"number": parent_update + 1, "parent": parent_update, "task_id": task_id},
            "learner": updater,
            "hyperparameters": hyperparameters,
            "trainer": trainer,
            "evaluation": {"metric": metric.removeprefix("val_"), "mode": mode},
        },
        "run_training_job",
    )
    if params.search_space:
        problem = "config_space: a search runs in a project, by `renate-stages tune`; give values"
        raise InvalidParamsError("run_training_job", [problem])
    if source is not None:
        state.check(source)
    user = UserConfig.load(Path(config_file))

    from renate_stages.measured_update import MeasuredUpdate

    beside = target.parent if target is not None else working_directory
    beside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".update-", dir=beside) as scratch:
        parent = State.open(source if source is not None else _empty(Path(scratch) / "parent"))
        data = _prepare(user, params, incoming, Path(scratch) / "prepared")
        inputs = files.digest([params.model_dump(mode="json"), parent.identity, data.digest])
        kept = Path(scratch) / "kept"
        kept.mkdir()
        update = MeasuredUpdate.run(user, params, hyperparameters, parent, data, inputs, kept)
        if target is not None:
            update.write_state(target)
    written = State.open(target) if target is not None else None
    updated = update.updated
    return TrainingJobResult(written, update.summary(), updated.curves, updated.tables)


def _folder(url: str | Path | None) -> Path | None:
    if url is None:
        return None
    if "://" in str(url) and not str(url).startswith("file://"):
        raise UnsupportedLocationError("state", str(url))
    return Path(str(url).removeprefix("file://"))


def _translated(config_space: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters in our terms: Renate's batch held new and replayed examples."""
    ours = dict(config_space)
    if "batch_memory_frac" in ours:
        share, batch = ours.pop("batch_memory_frac"), ours.get("batch_size", 32)
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise InvalidHyperparameterError("batch_memory_frac", share, "a share in [0, 1)")
        ours["memory_batch_size"] = max(1, int(share * batch))
        ours["batch_size"] = max(1, batch - int(share * batch))
    return ours


def _empty(folder: Path) -> Path:
    folder.mkdir()
    state.write_empty(folder)
    return folder


def _prepare(user: UserConfig, params: Params, incoming: Path, folder: Path) -> PreparedData:
    generators = Generators(params.seed, params.update.number)
    generators.seed_global("prepare")
    splits = prepare.read_splits(user, incoming, params.data, generators)
    prepare.ingest_splits(splits, folder, params.update.number)
    prepared.write_manifest(folder, params.update.number)
    return PreparedData.open(folder)
