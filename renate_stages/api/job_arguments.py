"""Turn the arguments of `run_training_job` into the content of `params.yaml`.

Some arguments exist because Renate has them. They go to the block where a project sets the same; one
printed line names each that has no effect, and one that cannot be honoured is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from renate_stages.errors import InvalidParamsError, MissingFileError, UnsupportedArgumentError
from renate_stages.params import Params, renate
from renate_stages.params.domains import as_written

Arguments = Mapping[str, Any]
P = ParamSpec("P")
R = TypeVar("R")

RENATES_ORDER = (
    *("mode", "config_space", "metric", "backend", "updater", "max_epochs", "task_id"),
    *("chunk_id", "input_state_url", "output_state_url", "working_directory", "dependencies"),
    *("config_file", "requirements_file", "role", "instance_type", "instance_count"),
    *("instance_max_time", "max_time", "max_num_trials_started", "max_num_trials_completed"),
    *("max_num_trials_finished", "max_cost", "n_workers", "scheduler", "scheduler_kwargs", "seed"),
    *("accelerator", "devices", "strategy", "precision", "deterministic_trainer"),
    *("gradient_clip_val", "gradient_clip_algorithm", "job_name"),
)
"""The order of arguments in Renate 0.5.2."""

PRECISIONS = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}
"""Renate's names of precisions."""

SAGEMAKER = {
    "role": "role",
    "instance_type": "instance_type",
    "instance_count": "instance_count",
    "instance_max_time": "max_runtime",
    "volume_size": "volume_gb",
}
"""Keys of `remote.sagemaker` by Renate's arguments."""
FOR_JOBS = (*SAGEMAKER, "job_name", "dependencies", "requirements_file")


def also_in_renates_order(function: Callable[P, R]) -> Callable[P, R]:
    """Accept positional arguments in Renate's order, too: a call whose first argument is a mode."""

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        if not args or not isinstance(args[0], str):
            return function(*args, **named)
        if len(args) > len(RENATES_ORDER):
            many = f"at most {len(RENATES_ORDER)} positional arguments, but {len(args)} were given"
            raise TypeError(f"run_training_job() takes {many}")
        ordered = dict(zip(RENATES_ORDER, args, strict=False))
        for name in ordered.keys() & named.keys():
            raise TypeError(f"run_training_job() got multiple values for argument '{name}'")
        return function(**{n: each for n, each in ordered.items() if each is not None}, **named)  # pyright: ignore[reportCallIssue]

    return call


def params_of(given: Arguments, parent: int, files: Mapping[str, Path]) -> Params:
    """Check the arguments and return the parameters of the update.

    Args:
        given: The arguments, by name.
        parent: Number of the update to start from.
        files: What `files_for_jobs` returned.

    Raises:
        RenateStagesError: If an argument cannot be used.
    """
    _refuse_cost(given)
    space = {name: as_written(each) for name, each in given["config_space"].items()}
    learner, trainer, blocks = as_written(given["updater"]), {}, {}
    if given["compat"] is None:
        space = renate.split_batch(space)
    elif given["compat"] == "renate":
        found = renate.translated(learner, space, given)
        learner, space, trainer = found.learner, found.hyperparameters, found.trainer
        blocks = renate.BLOCKS
        for line in (*found.notes, *_filled(found)):
            print(line)
    else:
        cure = 'leave it out, or set compat="renate"'
        raise UnsupportedArgumentError("compat", given["compat"], "unknown name", cure)
    content = {
        "seed": given["seed"],
        "update": {"number": parent + 1, "parent": parent, "task_id": given["task_id"]},
        "task": given["task"],
        "learner": learner,
        "hyperparameters": space,
        "trainer": {
            **blocks.get("trainer", {}),
            **_trainer(given),
            **trainer,
            **(given["trainer"] or {}),
        },
        "tuning": {**blocks.get("tuning", {}), **_tuning(given)},
        "data": {**blocks.get("data", {}), **_data(given)},
        "evaluation": {
            "metric": given["metric"].removeprefix("val_"),
            "mode": given["mode"],
            **(given["evaluation"] or {}),
        },
        "retention": dict(given["retention"] or {}),
        "remote": _remote(given, files),
        "shift": {"enabled": given["shift"] is not None, **(given["shift"] or {})},
        "tracking": {"enabled": False},
    }
    params = Params.parse(content, "run_training_job")
    if given["backend"] == "sagemaker":
        params.remote.check_sagemaker()
    return params


def with_optimizer(params: Params, given: Arguments, defined: bool) -> Params:
    """Return parameters with Renate's default optimizer, if the config defines none.

    Args:
        params: The parameters.
        given: The arguments.
        defined: Whether the user's file defines `optimizer_fn`.
    """
    if given["compat"] is None or defined:
        return params
    values = {**renate.OPTIMIZER, **params.hyperparameters}
    filled = {n: each for n, each in renate.OPTIMIZER.items() if n not in params.hyperparameters}
    if filled:
        print(f"Renate's default optimizer: {_listed(filled)}")
    return params.model_copy(update={"hyperparameters": values})


def files_for_jobs(given: Arguments) -> dict[str, Path]:
    """Return the files and folders of `dependencies` and `requirements_file` for jobs in the cloud.

    Returns:
        Their absolute paths, by the path in a job's project folder: relative to the folder of
        `config_file` if they are in it, otherwise their name.

    Raises:
        MissingFileError: If one does not exist.
    """
    if given["backend"] != "sagemaker":
        return {}
    folder, found = Path(given["config_file"]).resolve().parent, {}
    asked = [*(given["dependencies"] or ()), given["requirements_file"]]
    for path in (Path(each).absolute() for each in asked if each is not None):
        if not path.exists():
            what = "dependencies or requirements_file names it for jobs"
            raise MissingFileError(path, what, "correct the path, or leave it out")
        source = path.resolve()
        inside = source.is_relative_to(folder) and source != folder
        found[str(source.relative_to(folder)) if inside else source.name] = source
    return found


def _filled(found: renate.Translation) -> Iterator[str]:
    if found.filled:
        values = {name: found.hyperparameters[name] for name in sorted(found.filled)}
        yield f"Renate's defaults: {_listed(values)}"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {each}" for name, each in values.items())


def _refuse_cost(given: Arguments) -> None:
    if given["max_cost"] is not None:
        reason = "trials do not report a cost, so it cannot end a search"
        cure = "set max_time, max_num_trials_started, or tuning={'max_epochs_total': ...}"
        raise UnsupportedArgumentError("max_cost", given["max_cost"], reason, cure)


def _trainer(given: Arguments) -> dict[str, Any]:
    strategy, precision = given["strategy"], given["precision"]
    if strategy == "ddp_find_unused_parameters_false":
        print(f"strategy {strategy}: ddp finds out itself whether parameters are unused")
        strategy = "ddp"
    own = {
        "max_epochs": given["max_epochs"],
        "devices": given["devices"],
        "accelerator": given["accelerator"],
        "strategy": strategy,
        "precision": PRECISIONS.get(str(precision), precision),
        "deterministic": given["deterministic_trainer"],
        "gradient_clip_val": given["gradient_clip_val"],
        "gradient_clip_algorithm": given["gradient_clip_algorithm"],
    }
    nodes = given["instance_count"] if given["backend"] == "sagemaker" else None
    if nodes is not None and nodes != 1:
        print(f"instance_count {nodes}: the instances share each batch (trainer.num_nodes {nodes})")
        own["num_nodes"] = nodes
    written = {name: each for name, each in own.items() if each is not None}
    return {**written, "max_epochs": given["max_epochs"]}


def _tuning(given: Arguments) -> dict[str, Any]:
    started, finished = given["max_num_trials_started"], given["max_num_trials_finished"]
    budget = {
        "max_time": given["max_time"],
        "max_trials": min((n for n in (started, finished) if n is not None), default=None),
        "max_completed": given["max_num_trials_completed"],
    }
    scheduler = given["scheduler"]
    return {
        **(budget if any(each is not None for each in budget.values()) else {}),
        **({"scheduler": _name_of(scheduler)} if scheduler is not None else {}),
        "scheduler_arguments": dict(given["scheduler_kwargs"] or {}),
        "n_workers": given["n_workers"],
        **(given["tuning"] or {}),
    }


def _data(given: Arguments) -> dict[str, Any]:
    data = dict(given["data"] or {})
    if given["chunk_id"] is None:
        return data
    return {**data, "arguments": {**data.get("arguments", {}), "chunk_id": given["chunk_id"]}}


def _remote(given: Arguments, files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the block `remote` with the arguments that Renate has for SageMaker."""
    remote = dict(given["remote"] or {})
    asked = [name for name in FOR_JOBS if given[name] is not None]
    if given["backend"] != "sagemaker":
        if asked:
            print(f"{', '.join(asked)}: used only with backend='sagemaker'")
        return remote
    own = {SAGEMAKER[name]: given[name] for name in SAGEMAKER if given[name] is not None}
    block = dict(remote.get("sagemaker") or {})
    twice = [f"sagemaker.{name}" for name in own if block.get(name, own[name]) != own[name]]
    if given["requirements_file"] is not None and "requirements" in remote:
        twice.append("requirements")
    if twice:
        problems = [f"remote.{name}: also set by an argument of its own" for name in twice]
        raise InvalidParamsError("run_training_job", problems)
    if given["job_name"] is not None:
        print(
            "job_name: jobs are named after their stage and inputs; the name is their tag job_name"
        )
        block["tags"] = {**block.get("tags", {}), "job_name": given["job_name"]}
    if "max_runtime" in own:
        own["max_runtime"] = float(own["max_runtime"])
    requirements = given["requirements_file"]
    if requirements is not None:
        source = Path(requirements).resolve()
        remote["requirements"] = next(name for name, each in files.items() if each == source)
    return {**remote, "sagemaker": {**block, **own}}


def _name_of(scheduler: str | type) -> str:
    if isinstance(scheduler, str):
        return scheduler
    return f"{scheduler.__module__}:{scheduler.__qualname__}"
