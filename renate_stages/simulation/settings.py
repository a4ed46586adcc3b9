"""`simulate.yaml`: which learners, seeds and hyperparameters run over which updates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from renate_stages.errors import InvalidParamsError, MissingFileError
from renate_stages.files import yaml_file
from renate_stages.params import Params
from renate_stages.params.blocks import Block, validated
from renate_stages.params.scenario import ScenarioParams

BLOCKS = ("data", "evaluation", "retention", "trainer", "tuning")
"""Blocks of `params.yaml` that a simulation reads, and that `simulate.yaml` can change."""


class LearnerParams(Block):
    """One row of the table: a learner with its own hyperparameters."""

    name: str | None = Field(default=None, description="name in the table; null: the learner's")
    learner: Any = Field(description="as `learner` in params.yaml")
    hyperparameters: dict[str, Any] = Field(default={}, description="of this learner alone")
    retention: dict[str, Any] = Field(
        default={}, description="changes of the block for this learner alone, such as a window"
    )


class SimulationParams(Block):
    """The content of `simulate.yaml`; paths are relative to its folder."""

    config: str = Field(default="renate_config.py", description="file with your functions")
    params: str | None = Field(
        default="params.yaml", description="file with all other settings; null: the defaults"
    )
    data_path: str = Field(default="data/incoming", description="folder or URL of the data")
    output: str = Field(default="simulation", description="folder for the results")
    scenario: ScenarioParams | None = Field(
        default=None,
        description="cuts the data into updates; null: data_module_fn does, by its chunk_id",
    )
    updates: int | None = Field(
        default=None, ge=1, description="number of updates; null: all parts of the scenario"
    )
    learners: list[str | LearnerParams] = Field(min_length=1, description="the rows of the table")
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, description="one run for each")
    hyperparameters: dict[str, Any] = Field(
        default={}, description="for all learners, in addition to those of params.yaml"
    )
    grid: dict[str, list[Any]] = Field(
        default={}, description="values to combine with each learner, by hyperparameter"
    )
    processes: int | None = Field(
        default=None,
        ge=1,
        description="runs at the same time; null: one on a GPU, otherwise one for each CPU core",
    )
    keep_states: Literal["last", "all"] = Field(
        default="last", description="states to keep of each run"
    )
    experiment: str | None = Field(
        default=None, description="experiment in MLflow; null: nothing is logged"
    )
    data: dict[str, Any] = Field(default={}, description="changes of the block in params.yaml")
    evaluation: dict[str, Any] = Field(default={}, description="as `data`")
    retention: dict[str, Any] = Field(default={}, description="as `data`")
    trainer: dict[str, Any] = Field(default={}, description="as `data`")
    tuning: dict[str, Any] = Field(default={}, description="as `data`")
    task: str | None = Field(default=None, description="as in params.yaml; null: the one there")

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is listed more than once")
        return seeds


@dataclass(frozen=True, eq=False)
class Run:
    """One learner with one seed over all updates.

    Args:
        label: Name of the row in the table.
        learner: As `learner` in `params.yaml`.
        hyperparameters: All of them.
        seed: The seed.
        retention: Changes of the block `retention` for this learner.
    """

    label: str
    learner: Any
    hyperparameters: dict[str, Any]
    seed: int
    retention: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The run's name in messages."""
        return f"{self.label}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """The name of the run's folder."""
        plain = "".join(c if c.isalnum() or c in "+-.=" else "_" for c in self.label)
        return f"{plain}-seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A simulation, with all files resolved.

    Args:
        runs: All runs, learners in order and seeds within them.
        updates: Number of updates of each run.
        config: The user's `renate_config.py`.
        data_path: Folder or URL of the data.
        output: Folder for the results.
        blocks: Blocks of `params.yaml` for each update, by name.
        task: As in `params.yaml`.
        metric: The headline metric.
        lower_is_better: Whether a lower headline metric is better.
        passes_chunk_id: Whether `data_module_fn` cuts the data, and gets `chunk_id`.
        processes: Runs at the same time; None: as many as fit on this machine.
        keep_all: Whether states of all updates are kept.
        experiment: Experiment in MLflow; None: nothing is logged.
    """

    runs: tuple[Run, ...]
    updates: int
    config: Path
    data_path: str
    output: Path
    blocks: Mapping[str, Mapping[str, Any]]
    task: str
    metric: str
    lower_is_better: bool
    passes_chunk_id: bool
    processes: int | None = None
    keep_all: bool = False
    experiment: str | None = None

    @property
    def labels(self) -> list[str]:
        """Names of the rows, in order."""
        return list(dict.fromkeys(run.label for run in self.runs))

    def blocks_of(self, run: Run) -> dict[str, dict[str, Any]]:
        """Return copies of the blocks of `params.yaml` for one run, by name."""
        blocks = {name: dict(block) for name, block in self.blocks.items()}
        blocks["retention"] |= run.retention
        return blocks


def read_plan(path: Path) -> Plan:
    """Read `simulate.yaml`, and the `params.yaml` that it names.

    Raises:
        MissingFileError: If a file is missing.
        InvalidParamsError: If a key or value cannot be used; lists all problems.
    """
    if not path.is_file():
        cure = "write it (docs/scenarios.md has an example), or name another file"
        raise MissingFileError(path, "it says what to simulate", cure)
    given = validated(SimulationParams, yaml_file.read(path), path.name)
    root = path.absolute().parent
    base = _base(root, given, path.name)
    changed = {name: {**base.get(name, {}), **getattr(given, name)} for name in BLOCKS}
    scenario = given.scenario
    if scenario is not None:
        changed["data"]["scenario"] = scenario.model_dump(mode="json", exclude={"chunk_id"})
    elif block := changed["data"].get("scenario"):
        scenario = ScenarioParams.model_validate(block)
    updates = given.updates or (scenario.updates if scenario is not None else None)
    problems = [] if updates else ["updates: missing; set the number of updates"]
    if scenario is not None and scenario.chunk_id is not None:
        problems.append("scenario.chunk_id: remove it; each update gets the next part")
    runs = _runs(given, base, problems)
    if problems or updates is None:
        raise InvalidParamsError(path.name, problems)
    rows = {run.label: run for run in runs}.values()
    params, *_ = [Params.parse(_content(changed, run), path.name) for run in rows]
    return Plan(
        runs=runs,
        updates=updates,
        config=root / given.config,
        data_path=given.data_path if "://" in given.data_path else str(root / given.data_path),
        output=root / given.output,
        blocks=changed,
        task=given.task or base.get("task", "auto"),
        metric=params.evaluation.metric,
        lower_is_better=params.evaluation.mode == "min",
        passes_chunk_id=scenario is None,
        processes=given.processes,
        keep_all=given.keep_states == "all",
        experiment=given.experiment,
    )


def _content(blocks: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Return what `params.yaml` would contain for a run."""
    retention = {**blocks["retention"], **run.retention}
    own = {"learner": run.learner, "hyperparameters": run.hyperparameters, "retention": retention}
    return {**blocks, **own}


def _base(root: Path, given: SimulationParams, name: str) -> dict[str, Any]:
    """Return the content of `params.yaml`, which has been checked."""
    if given.params is None:
        return {}
    path = root / given.params
    if not path.is_file() and "params" in given.model_fields_set:
        raise MissingFileError(path, f"{name} names it", "correct `params`, or set it to null")
    if not path.is_file():
        return {}
    Params.load(path)
    return yaml_file.read(path)


def _runs(given: SimulationParams, base: Mapping[str, Any], problems: list[str]) -> tuple[Run, ...]:
    """Return a run for each learner, combination of the grid, and seed."""
    combinations = [
        dict(zip(given.grid, values, strict=True))
        for values in itertools.product(*given.grid.values())
    ]
    runs = []
    for each in given.learners:
        row = LearnerParams(learner=each) if isinstance(each, str) else each
        if row.name is None and not isinstance(row.learner, str):
            problems.append("learners: set `name` for a learner that is not a plain name")
        for combination in combinations:
            values = {
                **base.get("hyperparameters", {}),
                **given.hyperparameters,
                **combination,
                **row.hyperparameters,
            }
            words = [row.name or str(row.learner), *(f"{k}={v}" for k, v in combination.items())]
            label = " ".join(words)
            runs += [Run(label, row.learner, values, seed, row.retention) for seed in given.seeds]
    folders = [run.folder for run in runs]
    if repeated := sorted({each for each in folders if folders.count(each) > 1}):
        problems.append(f"learners: two have the name of {repeated[0]}; set different `name`s")
    return tuple(runs)
