"""Open an update that forgets examples, and say which stored examples it will remove.

An update of kind `forget` takes no new data and no gradient step: `dvc repro` writes a state whose
memory, holdouts and validation no longer hold the examples. Editing `state/` in place would be
undone, for DVC's run cache restores the old output. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from renate_stages import lineage
from renate_stages.errors import NothingToForgetError, UnknownFieldError
from renate_stages.memory import ExampleStore
from renate_stages.memory.forget_list import ForgetList, names, stored_truth
from renate_stages.memory.identity import (
    IdSet,
    given_id,
    id_of,
    is_hash,
    stored_content_ids,
    stored_ids,
    to_array,
)
from renate_stages.memory.predicate import Predicate
from renate_stages.project import Project
from renate_stages.state import State
from renate_stages.state.prepared import SPLITS, PreparedData

UNMATCHED = "forget-unmatched.txt"  # in .renate/: ids as their user wrote them are not for Git
MOST_SHOWN = 10
_BLOCK = 2**16  # ids that are hashed at once


@dataclass(frozen=True)
class IdMatches:
    """Which ids of a request some stored example has.

    Args:
        given: How many different ids there are in the request.
        unmatched: How many of them no stored example has.
        examples: The first of these, as their user wrote them, at most `MOST_SHOWN`.
        listed: The file that lists all of them; None where `examples` does.
    """

    given: int
    unmatched: int
    examples: tuple[str, ...]
    listed: Path | None = None


@dataclass(frozen=True)
class ConditionMatches:
    """Which stored examples a condition names.

    Args:
        rows: By store, of how many rows it is true.
        unknown: By store, of how many it is neither true nor false, because they lack metadata.
    """

    rows: Mapping[str, int]
    unknown: Mapping[str, int]


@dataclass(frozen=True)
class Opened:
    """A forget update that is open now.

    Args:
        number: Of the update.
        rows: By store of the state it starts from, how many rows will leave, and of how many that
            were dropped before the bytes are still there, and will leave as well.
        ids: What the ids of the request match; None without any.
        conditions: What each condition of the request matches.
        by_update: Whether a condition asks for the update that rows came with.
    """

    number: int
    rows: Mapping[str, tuple[int, int]]
    ids: IdMatches | None = None
    conditions: Mapping[str, ConditionMatches] = field(default_factory=dict)
    by_update: bool = False


def open_update(project: Project, ids: Iterable[str], where: Iterable[str]) -> Opened:
    """Add examples to `forget.yaml` and open an update that forgets them.

    Args:
        project: Its update must be finished and committed, or open and not yet run.
        ids: As their user calls them, or as `renate-stages memory --ids` prints them; may be read
            more than once. Besides a text as it is, the one without surrounding white space counts.
        where: Conditions on metadata.

    Raises:
        NothingToForgetError: If neither names anything.
        InvalidPredicateError: If a condition cannot be understood.
        UnknownFieldError: If a condition names metadata that no example has.
        MissingFileError: If the state to start from is not here.
        NextRefusedError: If the update is neither finished nor fresh.
    """
    asked, hashed = _asked(ids)
    new = [Predicate.parse(text) for text in dict.fromkeys(where)]
    if not len(asked) and not new:
        raise NothingToForgetError
    stores = stores_of(project.parent if lineage.is_fresh(project) else project.state)
    known = {name for store in stores.values() for name in names(store.spec)}
    for predicate in new:
        for name in sorted(predicate.names - known):
            raise UnknownFieldError(f"condition {predicate.text!r}", name, sorted(known))
    conditions = {each.text: _matches(each, stores) for each in new}
    alike, matched = _found(stores, asked, hashed)
    forget = ForgetList.read(project.forget_list).with_more(asked | alike, conditions)
    rows = {}
    for name, store in stores.items():
        named = forget.stored_rows(store)
        if named.any():
            live = int(named[store.stored_live()].sum())
            rows[name] = live, int(named.sum()) - live
    number = lineage.open_forget(project, forget)
    by_update = any("update" in each.names for each in new)
    found = _unmatched(project, ids, matched) if len(asked) else None
    return Opened(number, rows, found, conditions, by_update)


def _asked(ids: Iterable[str]) -> tuple[IdSet, IdSet]:
    """Return all ids that texts stand for, and those of them that are hashes we printed."""
    asked, hashed = bytearray(), bytearray()
    for text in ids:
        for each in _readings(text):
            asked += each
        if is_hash(text.strip()):
            hashed += id_of(text.strip())
    return IdSet(to_array([bytes(asked)])), IdSet(to_array([bytes(hashed)]))


def _readings(text: str) -> tuple[bytes, ...]:
    """Return what a line of a list may stand for: an id may itself have white space around it."""
    stripped = text.strip()
    return (id_of(stripped),) if stripped == text else (id_of(stripped), given_id(text))


def _found(stores: Mapping[str, ExampleStore], asked: IdSet, hashed: IdSet) -> tuple[IdSet, IdSet]:
    """Return the ids of examples whose content a hash names, and which of the asked ids are found.

    A hash that we printed may be that of an example's content. Other examples may have this content
    and an id of their own: they are found too.
    """
    alike, matched = [np.empty((0, 2), np.uint64)], [np.empty((0, 2), np.uint64)]
    for store in stores.values():
        own = stored_ids(store) if len(asked) else alike[0]
        matched.append(own[asked.among(own)])
        if len(hashed):
            content = stored_content_ids(store, np.arange(len(own)))
            same = hashed.among(content)
            alike.append(own[same])
            matched.append(content[same])
    return IdSet(np.concatenate(alike)), IdSet(np.concatenate(matched))


def _matches(predicate: Predicate, stores: Mapping[str, ExampleStore]) -> ConditionMatches:
    rows, unknown = {}, {}
    for name, store in stores.items():
        true, false = (each[store.stored_live()] for each in stored_truth(store, predicate))
        rows[name], unknown[name] = int(true.sum()), int((~(true | false)).sum())
    return ConditionMatches(
        *({n: each for n, each in part.items() if each} for part in (rows, unknown))
    )


def _unmatched(project: Project, ids: Iterable[str], matched: IdSet) -> IdMatches:
    """Find the ids of a request that no stored example has; more than a few go to a file."""
    given, missing = [np.empty((0, 2), np.uint64)], [np.empty((0, 2), np.uint64)]
    examples: dict[str, None] = {}
    project.scratch.mkdir(exist_ok=True)
    listed = project.scratch / UNMATCHED
    listed.unlink(missing_ok=True)  # of an earlier request
    with listed.open("x", encoding="utf-8") as stream:
        for block in _blocks(ids):
            readings = [_readings(text) for text in block]
            first = to_array(each[0] for each in readings)
            found = matched.among(first) | matched.among(to_array(each[-1] for each in readings))
            given.append(first)
            missing.append(first[~found])
            for text in (block[place] for place in np.flatnonzero(~found)):
                stream.write(f"{text}\n")
                if len(examples) < MOST_SHOWN:
                    examples[text] = None
    count = len(IdSet(np.concatenate(missing)))
    if few := count <= MOST_SHOWN:
        listed.unlink()
    all_given = len(IdSet(np.concatenate(given)))
    return IdMatches(all_given, count, tuple(examples), None if few else listed)


def _blocks(ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(ids)
    while block := list(islice(remaining, _BLOCK)):
        yield block


def stores_of(folder: Path) -> dict[str, ExampleStore]:
    """Return every store of a state by its path in it.

    Raises:
        MissingFileError: If there is no state.
    """
    state = State.open(folder)
    splits = {
        f"{name}/{update}": store
        for name in ("holdouts", "validation")
        for update, store in state.split(name).items()
    }
    return {"memory": state.memory(), **splits}


def still_held(project: Project) -> dict[str, int]:
    """Return how many rows to forget are where in the working tree, as live or as dead rows."""
    forget = ForgetList.read(project.forget_list)
    stores = {
        f"{project.relative(folder)}/{name}": store
        for folder in (project.parent, project.state)
        if folder.is_dir()
        for name, store in stores_of(folder).items()
    }
    if project.prepared.is_dir():
        data = PreparedData.open(project.prepared)
        stores |= {f"work/prepared/{split}": getattr(data, split) for split in SPLITS}
    rows = {name: int(forget.stored_rows(store).sum()) for name, store in stores.items()}
    return {name: count for name, count in rows.items() if count}
