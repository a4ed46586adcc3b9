"""Run all learners and seeds of a simulation side by side, and write its results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path

from renate_stages.errors import MissingFileError, SimulationProcessError
from renate_stages.errors.wording import counted
from renate_stages.params import TrainerParams
from renate_stages.processes import end_with_parent, heavy_imports
from renate_stages.simulation import one_run, results
from renate_stages.simulation.settings import Plan, Run, read_plan


def simulate(path: Path, say: Callable[[str], None] = print) -> bool:
    """Run what is left of a simulation, and write its table and pictures.

    Finished updates are not run again, so an interrupted simulation continues where it stopped.

    Args:
        path: The `simulate.yaml`.
        say: Prints a line.

    Returns:
        Whether all runs finished all updates.

    Raises:
        SimulationChangedError: If the folder has results of other settings, code or data.
        SimulationProcessError: If a process was killed; finished updates are kept.
        RenateStagesError: If the file, or a file that it names, cannot be used.
    """
    plan = read_plan(path)
    if not plan.config.is_file():
        cure = f"correct `config` in {path.name}"
        raise MissingFileError(plan.config, "it defines the model and the data", cure)
    for run in plan.runs:
        one_run.check_settings(plan, run)
    left = [run for run in plan.runs if len(one_run.results_of(plan, run)) < plan.updates]
    rows = len(plan.labels)
    say(
        f"{counted(rows, 'learner')}, {counted(len(plan.runs) // rows, 'seed')}, "
        f"{counted(plan.updates, 'update')}: {len(left)} of {counted(len(plan.runs), 'run')} left"
    )
    started = time.time()
    if left:
        _run_side_by_side(plan, left)
    say(results.write(plan, started))
    return all(len(one_run.results_of(plan, run)) == plan.updates for run in plan.runs)


def _run_side_by_side(plan: Plan, runs: Sequence[Run]) -> None:
    processes = min(plan.processes or default_processes(plan), len(runs))
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_begin)
    try:
        for each in as_completed([pool.submit(_run, plan, run) for run in runs]):
            each.result()
    except BrokenProcessPool as error:
        raise SimulationProcessError(plan.output) from error
    except BaseException:
        for process in active_children():  # else leaving would wait for hours of training
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def default_processes(plan: Plan) -> int:
    """Return how many runs fit on this machine: one on an accelerator, otherwise by CPU cores."""
    trainer = TrainerParams.model_validate(plan.blocks["trainer"])
    if trainer.accelerator != "cpu":
        return 1
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, cores // (trainer.threads * trainer.devices))


def _begin() -> None:
    end_with_parent()
    with heavy_imports():  # all that an update needs, else the first one would seem slow
        import renate_stages.api.training_job
        import renate_stages.training.measured_update  # noqa: F401


def _run(plan: Plan, run: Run) -> None:
    terminal = os.dup(1)
    try:
        one_run.run_updates(plan, run, terminal)
    finally:
        os.close(terminal)
