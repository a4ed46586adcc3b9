"""Run one learner with one seed over all updates, each by `run_training_job`; resumable."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages._version import __version__
from renate_stages.errors import RenateStagesError, SimulationChangedError
from renate_stages.simulation.settings import Plan, Run

SETTINGS = "settings.json"
FAILURE = "failure.txt"


def folder_of(plan: Plan, run: Run) -> Path:
    """Return the folder of a run."""
    return plan.output / "runs" / run.folder


def results_of(plan: Plan, run: Run) -> list[dict[str, Any]]:
    """Return the results of the finished updates of a run, in order."""
    paths = [_result(folder_of(plan, run), n) for n in range(1, plan.updates + 1)]
    finished = []
    for path in paths:
        if not path.is_file():
            break
        finished.append(files.read_json(path))
    return finished


def failure_of(plan: Plan, run: Run) -> str | None:
    """Return why a run failed, or None."""
    path = folder_of(plan, run) / FAILURE
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def check_settings(plan: Plan, run: Run) -> None:
    """Record the settings of a run, and compare them with those of its finished updates.

    Raises:
        SimulationChangedError: If the folder has results of other settings, code or data.
    """
    path = folder_of(plan, run) / SETTINGS
    settings = json.loads(json.dumps(_settings(plan, run)))
    if path.is_file():
        known = files.read_json(path)
        changed = sorted(name for name in settings if known.get(name) != settings[name])
        changed += [f"code ({name})" for name in _changed_files(plan, run)]
        if changed:
            raise SimulationChangedError(path.parent, changed)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, settings)


def run_updates(plan: Plan, run: Run, terminal: int) -> None:
    """Run the updates that are left; a user's mistake ends the run, and is written to its folder.

    Args:
        plan: The simulation.
        run: The run.
        terminal: File descriptor for a line after each update; the output of the updates goes to
            `log.txt`.
    """
    folder = folder_of(plan, run)
    (folder / FAILURE).unlink(missing_ok=True)
    for number in range(1, plan.updates + 1):
        if _result(folder, number).is_file():
            continue
        try:
            with _logged(folder / "log.txt"):
                result = _update(plan, run, number, folder)
        except RenateStagesError as error:
            files.write_text(folder / FAILURE, f"update {number}: {error}\n")
            _say(terminal, f"{run.title}: update {number} failed: {str(error).splitlines()[0]}")
            return
        files.write_json(_result(folder, number), result)
        if number > 1 and not plan.keep_all:
            shutil.rmtree(_state(folder, number - 1), ignore_errors=True)
        _say(terminal, f"{run.title}: {_line(plan, number, result)}")


def _update(plan: Plan, run: Run, number: int, folder: Path) -> dict[str, Any]:
    from renate_stages.api.training_job import run_training_job

    target = _state(folder, number)
    if target.exists():  # its results are missing: the run was killed between the two
        shutil.rmtree(target)
    blocks = plan.blocks_of(run)
    if plan.passes_chunk_id:
        arguments = {**blocks["data"].get("arguments", {}), "chunk_id": number - 1}
        blocks["data"]["arguments"] = arguments
    code = _code_of(plan)
    started = time.perf_counter()
    result = run_training_job(
        run.hyperparameters,
        updater=run.learner,
        config_file=plan.config,
        data_path=plan.data_path,
        input_state_url=_state(folder, number - 1) if number > 1 else None,
        output_state_url=target,
        working_directory=folder / "work",
        seed=run.seed,
        task=plan.task,
        **blocks,  # pyright: ignore[reportArgumentType]
    )
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return {
        "update": number,
        "metrics": result.metrics,
        "hyperparameters": dict(result.hyperparameters),
        "seconds": round(seconds, 3),
        "state_bytes": size,
        "code": code,
    }


def _code_of(plan: Plan) -> dict[str, str]:
    """Return the SHA-256 of the files that importing the config uses, by path below its folder.

    Raises:
        StaleImportError: If a module has changed since this process imported it.
    """
    from renate_stages.user.config import UserConfig
    from renate_stages.user.used_files import UserFiles

    watch = UserFiles(plan.config.parent, ignored=[plan.output, Path(plan.data_path)])
    return UserConfig.load(plan.config, watch=watch).files.imported()


def _changed_files(plan: Plan, run: Run) -> list[str]:
    """Return the files that the finished updates of a run used and that differ now."""
    used = [entry for result in results_of(plan, run) for entry in result.get("code", {}).items()]
    paths = {name: plan.config.parent / name for name, _ in used}
    now = {name: files.sha256(path) if path.is_file() else "" for name, path in paths.items()}
    return sorted({name for name, sha256 in used if now[name] != sha256})


def _settings(plan: Plan, run: Run) -> dict[str, Any]:
    """Return what the results of a run depend on, apart from the number of updates."""
    data = Path(plan.data_path)
    listed = sorted(path for path in data.rglob("*") if path.is_file()) if data.is_dir() else []
    stats = [(str(path.relative_to(data)), path.stat()) for path in listed]
    found = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    return {
        **{f"block {name}": block for name, block in plan.blocks_of(run).items()},
        "files of the data": hashlib.sha256(json.dumps(found).encode()).hexdigest(),
        "hyperparameters": run.hyperparameters,
        "learner": run.learner,
        "who cuts the data": "data_module_fn" if plan.passes_chunk_id else "scenario",
        "seed": run.seed,
        "task": plan.task,
        "version": __version__,
    }


def _line(plan: Plan, number: int, result: dict[str, Any]) -> str:
    figures = result["metrics"].get(plan.metric, {})
    average, forgetting = (figures.get(name) for name in ("average", "forgetting"))
    parts = [f"update {number} of {plan.updates}"]
    parts += [f"{plan.metric} {average:.4f}"] if average is not None else []
    parts += [f"forgetting {forgetting:.4f}"] if forgetting is not None and number > 1 else []
    return ", ".join([*parts, f"{result['seconds']:.1f} s"])


def _result(folder: Path, number: int) -> Path:
    return folder / f"update-{number}.json"


def _state(folder: Path, number: int) -> Path:
    return folder / f"state-{number}"


def _say(terminal: int, line: str) -> None:
    os.write(terminal, f"{line}\n".encode())


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write all output of this process and its children to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    with path.open("ab") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
