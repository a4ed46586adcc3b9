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
    """A trial of an earlier update, as a point of the space searched now.

    Args:
        update: Number of the update.
        point: A value for each domain, as `SearchSpace.syne_tune` has them.
        value: What the metric was after its last epoch.
        rows: Epochs it ran.
    """

    update: int
    point: Mapping[str, Any]
    value: float
    rows: int


@dataclass(frozen=True)
class Experience:
    """Past trials that can be used, and what is to be said of the others.

    Args:
        trials: In the order of updates and trials.
        notes: What was used, then what was not, or not wholly, and why: a line each.
        mode: `max` or `min`.
    """

    trials: tuple[PastTrial, ...]
    notes: tuple[str, ...]
    mode: str

    @classmethod
    def of(
        cls, records: Iterable[TrialRecord], space: SearchSpace, metric: str, mode: str
    ) -> Experience:
        """Sort out the trials of a history; `History.usable` calls it."""
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
        found: dict[int, list[PastTrial]] = {}
        for each in sorted(self.trials, key=lambda trial: (-trial.update, sign * trial.value)):
            found.setdefault(each.update, []).append(each)
        return found

    def best(self, most: int) -> list[dict[str, Any]]:
        """Return the best points: of the latest update, of the one before …, then their second."""
        rounds = itertools.zip_longest(*self.updates.values())
        points = [dict(each.point) for trials in rounds for each in trials if each is not None]
        distinct = {json.dumps(point, sort_keys=True): point for point in points}
        return list(distinct.values())[:most]


class _Log:
    """Gathers remarks, to tell each once with the number of rows, trials and updates."""

    def __init__(self) -> None:
        self._found: dict[str, list[TrialRecord]] = {}

    def add(self, record: TrialRecord, remark: str) -> None:
        self._found.setdefault(remark, []).append(record)

    def lines(self) -> tuple[str, ...]:
        return tuple(f"{_counted(records)} {said}" for said, records in self._found.items())


def _problem(record: TrialRecord, space: SearchSpace, metric: str) -> str | None:
    """Say why a trial is no measured point of the space, None where it is one."""
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
    return f"{' and '.join(outside)} not among the values searched now"


def _remarks(record: TrialRecord, space: SearchSpace) -> list[str]:
    """Say what of a trial is used otherwise than it was."""
    had, remarks = record.configuration, []
    learner = had.get("learner", space.learner)
    now: dict[str, Any] = space.constants | ({"learner": space.learner} if space.learner else {})
    for name, domain in space.domains.items():
        if name not in had and space.is_active(name, learner):
            remarks.append(f"without {name}: taken as {domain.middle()!r}")
    for name, value in had.items():
        if name in now and now[name] != value:
            remarks.append(f"with {name} {value!r}, which is {now[name]!r} now: used all the same")
        elif name not in now and name not in space.domains:
            remarks.append(f"with {name}, which params.yaml has no more: used without it")
    return remarks


def _summary(trials: list[PastTrial], records: list[TrialRecord]) -> tuple[str, ...]:
    if not records:
        return ()
    rows, updates = sum(each.rows for each in trials), {each.update for each in trials}
    total = sum(_rows(each) for each in records)
    known = {each.update for each in records}
    used = f"{rows} of {total} rows, {len(trials)} of {len(records)} trials"
    return (f"history: {used}, of {len(updates)} of {len(known)} updates can be used",)


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
