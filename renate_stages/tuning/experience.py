"""Select the trials of earlier updates that the present search can use."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from renate_stages.params.search_space import SearchSpace

if TYPE_CHECKING:
    from renate_stages.tuning.records import TrialRecord


@dataclass(frozen=True)
class PastTrial:
    """A trial of an earlier update as a point of the present search space.

    Args:
        update: Number of the update.
        point: A value for each domain, encoded as for `SearchSpace.syne_tune`.
        value: The metric after the last epoch.
        rows: Number of epochs it ran.
    """

    update: int
    point: Mapping[str, Any]
    value: float
    rows: int


@dataclass(frozen=True)
class Experience:
    """The usable trials of earlier updates, and notes about the others.

    Args:
        trials: The usable trials, ordered by update and trial.
        notes: Lines for the user: a summary, then the trials that are not used, or are used with
            changes, with reasons.
        mode: `max` or `min`.
    """

    trials: tuple[PastTrial, ...]
    notes: tuple[str, ...]
    mode: str

    @classmethod
    def of(
        cls, records: Iterable[TrialRecord], space: SearchSpace, metric: str, mode: str
    ) -> Experience:
        """Select the usable trials of a history; `History.usable` calls this."""
        records, trials, log = list(records), [], _Log()
        for record in records:
            value = record.value(metric)
            problem = _problem(record, space, metric)
            if value is None or problem:
                log.add(record, f"not used: {problem}")
                continue
            for remark in _remarks(record, space):
                log.add(record, remark)
            point = space.encode(space.accepts(record.configuration))
            trials.append(PastTrial(record.update, point, value, len(record.epochs)))
        return cls(tuple(trials), _summary(trials, records) + log.lines(), mode)

    @property
    def updates(self) -> dict[int, list[PastTrial]]:
        """The trials of each update, best first; the latest update first."""
        sign = -1 if self.mode == "max" else 1
        by_update: dict[int, list[PastTrial]] = {}
        for past in sorted(self.trials, key=lambda trial: (-trial.update, sign * trial.value)):
            by_update.setdefault(past.update, []).append(past)
        return by_update

    def best(self, most: int) -> list[dict[str, Any]]:
        """Return at most `most` points: the best of each update, latest first, then the second."""
        rounds = itertools.zip_longest(*self.updates.values())
        points = [dict(each.point) for trials in rounds for each in trials if each is not None]
        distinct = {json.dumps(point, sort_keys=True): point for point in points}
        return list(distinct.values())[:most]


class _Log:
    """Collects remarks, to print each once with the number of rows, trials and updates."""

    def __init__(self) -> None:
        self._remarks: dict[str, list[TrialRecord]] = {}

    def add(self, record: TrialRecord, remark: str) -> None:
        self._remarks.setdefault(remark, []).append(record)

    def lines(self) -> tuple[str, ...]:
        return tuple(f"{_counted(records)} {remark}" for remark, records in self._remarks.items())


def _problem(record: TrialRecord, space: SearchSpace, metric: str) -> str | None:
    """Return why a trial cannot be used, or None if it can."""
    if record.status == "failed":
        return "they failed"
    if record.value(metric) is None:
        return f"{metric} was not measured"
    outside = [
        name
        for name in space.domains
        if name in record.configuration and name not in space.accepts(record.configuration)
    ]
    if not outside:
        return None
    return f"{' and '.join(outside)} not in the present search space"


def _remarks(record: TrialRecord, space: SearchSpace) -> list[str]:
    """Return remarks about the values of a trial that differ from the present search."""
    past, remarks = record.configuration, []
    learner = past.get("learner", space.learner)
    now: dict[str, Any] = space.constants | ({"learner": space.learner} if space.learner else {})
    for name, domain in space.domains.items():
        if name not in past and space.is_active(name, learner):
            remarks.append(f"have no {name}: {domain.middle()!r} is assumed")
    for name, value in past.items():
        if name in now and now[name] != value:
            remarks.append(f"had {name} {value!r}, which is now {now[name]!r}: used anyway")
        elif name not in now and name not in space.domains:
            remarks.append(f"had {name}, which is no longer in params.yaml: used without it")
    return remarks


def _summary(trials: list[PastTrial], records: list[TrialRecord]) -> tuple[str, ...]:
    if not records:
        return ()
    rows, updates = sum(each.rows for each in trials), {each.update for each in trials}
    total = sum(_rows(each) for each in records)
    known = {each.update for each in records}
    used = f"{rows} of {total} rows, {len(trials)} of {len(records)} trials"
    return (f"history: {used} and {len(updates)} of {len(known)} updates can be used",)


def _counted(records: list[TrialRecord]) -> str:
    updates = sorted({each.update for each in records})
    listed = ", ".join(map(str, updates))
    rows = sum(map(_rows, records))
    return (
        f"{rows} row{'s' * (rows != 1)} ({len(records)} trial{'s' * (len(records) != 1)}) of "
        f"update{'s' * (len(updates) != 1)} {listed}"
    )


def _rows(record: TrialRecord) -> int:
    return max(len(record.epochs), 1)
