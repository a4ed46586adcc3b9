"""Write the outputs of `tune` in `work/tuning`.

    search.json            whether there was a search, and its summary
    tuning_history.csv     the trials of all updates so far
    checkpoints/<key>/     the best trial's checkpoint, completed or paused, which `train` can use
    failures/<trial>.log   the last lines that a failed trial printed

The outputs contain no times, so that equal searches write equal bytes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from renate_stages import files
from renate_stages.files import typed
from renate_stages.files.typed import Content, Count
from renate_stages.state import TUNING_HISTORY

if TYPE_CHECKING:
    from renate_stages.params import Params
    from renate_stages.params.auto_learner import SuitedLearners
    from renate_stages.tuning.history import History
    from renate_stages.tuning.records import TrialRecord
    from renate_stages.tuning.search import SearchResult
    from renate_stages.tuning.trial_folder import TrialFolder

SEARCH = "search.json"


class _Objective(Content):
    metric: str
    mode: Literal["max", "min"]
    over: Literal["union", "new", "weighted"]


class _Best(Content):
    trial: Count
    epoch: Count
    value: float
    configuration: dict[str, Any]


class _AutoLearner(Content):
    learners: list[str]
    reasons: list[str]


class Search(Content):
    """The content of `search.json` after a search; see `summary`."""

    scheduler: str
    objective: _Objective
    trials: dict[str, Count]
    epochs: Count
    ended_by: str
    best: _Best
    auto_learner: _AutoLearner | None = None
    learners: dict[str, float] = Field(default={})
    history: list[str]
    not_repeatable_because: list[str]

    @classmethod
    def read(cls, path: Path) -> Search | None:
        """Read the file; None if there was no search, or if an older release wrote no file.

        Raises:
            MalformedFileError: If the file is not one that `tune` writes.
        """
        if not path.is_file():
            return None
        content = files.read_json(path, typed.RUN_AGAIN)
        what = "the outcome of a search"
        if not typed.checked(_Searched, content, path, what, typed.RUN_AGAIN).searched:
            return None
        return typed.checked(cls, content, path, what, typed.RUN_AGAIN)


class _Searched(Content):
    searched: bool


def write_unsearched(folder: Path, history: Path) -> None:
    """Record that nothing was searched, and pass on the history.

    Args:
        folder: An empty folder.
        history: File with the trials of earlier updates; may be missing.
    """
    files.write_json(folder / SEARCH, {"searched": False})
    if history.is_file():
        files.link_or_copy(history, folder / TUNING_HISTORY)
    else:
        files.write_text(folder / TUNING_HISTORY, "")


def write_search(
    folder: Path,
    params: Params,
    result: SearchResult,
    history: History,
    notes: Sequence[str],
    suited: SuitedLearners | None = None,
) -> None:
    """Write the outcome of a search.

    Args:
        folder: An empty folder.
        params: Parameters of the update.
        result: The trials.
        history: Trials of earlier updates.
        notes: One line about each part of the history that was used or not used.
        suited: The learners of `learner: auto`.
    """
    records = [record_of(trial, params) for trial in result.trials]
    history.with_trials(records).write(folder / TUNING_HISTORY)
    files.write_json(folder / SEARCH, summary(params, result, notes, suited))
    for trial in result.trials:
        if trial.status == "failed":
            lines = [trial.reason, *trial.log()]
            files.write_text(folder / "failures" / f"{trial.number}.log", "\n".join(lines) + "\n")
    shared = params.trainer.num_processes > 1  # sums in another order than a trial
    whole = result.best.status in ("completed", "paused")
    if params.tuning.reuse_best and whole and not shared:
        for path in sorted((result.best.folder / "checkpoints").rglob("*.ckpt")):
            target = folder / "checkpoints" / path.parent.name / path.name
            files.link_or_copy(path, target)


def summary(
    params: Params,
    result: SearchResult,
    notes: Sequence[str],
    suited: SuitedLearners | None = None,
) -> dict[str, Any]:
    """Return a summary of a search, for the report and for `search.json`; see `write_search`."""
    tuning, (metric, mode) = params.tuning, params.objective
    best = result.best.seen[-1]
    return {
        "searched": True,
        "scheduler": tuning.scheduler,
        "objective": {"metric": metric, "mode": mode, "over": tuning.objective},
        "trials": dict(sorted(Counter(trial.status for trial in result.trials).items())),
        "epochs": sum(trial.shown for trial in result.trials),
        "ended_by": result.ended_by,
        "best": {
            "trial": result.best.number,
            "epoch": best.epoch,
            "value": best.metrics[metric],
            "configuration": dict(result.best.configuration),
        },
        "auto_learner": None if suited is None else asdict(suited),
        "learners": _best_of_learners(result, metric, mode),
        "history": list(notes),
        "not_repeatable_because": unrepeatable(params),
    }


def _best_of_learners(result: SearchResult, metric: str, mode: str) -> dict[str, float]:
    """Return the value of each learner's best trial; empty if the learner was not searched.

    As for the chosen trial, the last report of a trial counts.
    """
    values: dict[str, list[float]] = {}
    for trial in result.trials:
        value = trial.seen[-1].metrics[metric] if trial.shown else math.nan
        if "learner" in trial.configuration and trial.status != "failed" and math.isfinite(value):
            values.setdefault(trial.configuration["learner"], []).append(value)
    best = max if mode == "max" else min
    return {name: best(each) for name, each in sorted(values.items())}


def unrepeatable(params: Params) -> list[str]:
    """Return the reasons why the same search could give another result; [] if it cannot."""
    tuning, reasons = params.tuning, []
    if tuning.max_time is not None:
        reasons.append("its budget is a time (tuning.max_time)")
    if tuning.n_workers > 1:
        reasons.append(f"{tuning.n_workers} trials ran at a time (tuning.n_workers)")
    if params.trainer.accelerator != "cpu":
        reasons.append("it did not run on CPUs (trainer.accelerator)")
    return reasons


def record_of(trial: TrialFolder, params: Params) -> TrialRecord:
    """Convert a trial to a record of the history."""
    from renate_stages.tuning.records import TrialEpoch, TrialRecord

    epochs = tuple(TrialEpoch(each.epoch, each.steps, each.metrics) for each in trial.seen)
    learner = params.fixed(trial.configuration).learner
    configuration = {"learner": learner, **trial.configuration}
    return TrialRecord(params.update.number, trial.number, trial.status, configuration, epochs)
