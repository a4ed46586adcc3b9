"""Open an update that forgets examples, and report which stored examples it will remove.

An update of kind `forget` uses no new data and takes no gradient step: `dvc repro` writes a state
without the examples in memory, holdouts and validation. Editing `state/` in place would not last,
because DVC's run cache restores the old output. Needs no torch.
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

UNMATCHED = "forget-unmatched.txt"  # in .renate/, because ids in plain text must not get into Git
MOST_SHOWN = 10
_BLOCK = 2**16  # ids that are hashed at once


@dataclass(frozen=True)
class IdMatches:
    """How many ids of a request match stored examples.

    Args:
        given: Number of different ids in the request.
        unmatched: Number of ids that match no stored example.
        examples: The first unmatched ids as the user wrote them, at most `MOST_SHOWN`.
        listed: The file that lists all unmatched ids; None if `examples` has all of them.
    """

    given: int
    unmatched: int
    examples: tuple[str, ...]
    listed: Path | None = None


@dataclass(frozen=True)
class ConditionMatches:
    """How many stored examples match a condition.

    Args:
        rows: By store, the number of rows for which it is true.
        unknown: By store, the number of rows for which it is neither true nor false, because they
            lack the metadata.
    """

    rows: Mapping[str, int]
    unknown: Mapping[str, int]


@dataclass(frozen=True)
class Opened:
    """A newly opened forget update.

    Args:
        number: Number of the update.
        rows: By store of the parent's state, the number of rows to remove, and the number of rows
            that were dropped earlier and whose bytes are removed too.
        ids: The matches of the ids in the request; None if it has no ids.
        conditions: The matches of each condition in the request.
        by_update: Whether a condition uses `update`, the update with which rows arrived.
    """

    number: int
    rows: Mapping[str, tuple[int, int]]
    ids: IdMatches | None = None
    conditions: Mapping[str, ConditionMatches] = field(default_factory=dict)
    by_update: bool = False


def open_update(project: Project, ids: Iterable[str], where: Iterable[str]) -> Opened:
    """Add examples to `forget.yaml` and open an update that forgets them.

    Args:
        project: Its update must be finished and committed, or must not have run yet.
        ids: The user's own ids, or hashed ids as `renate-stages memory --ids` prints them; read more
            than once. Each id is looked up as given and without surrounding white space.
        where: Conditions on metadata.

    Raises:
        NothingToForgetError: If there are neither ids nor conditions.
        InvalidPredicateError: If a condition cannot be parsed.
        UnknownFieldError: If a condition uses metadata that no example has.
        MissingFileError: If the state to start from is missing.
        NextRefusedError: If the update has run but is not finished or not committed.
    """
    asked, hashed = asked_ids(ids)
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


def asked_ids(ids: Iterable[str]) -> tuple[IdSet, IdSet]:
    """Return all ids that texts may stand for, and those of them that are hashes we printed."""
    asked, hashed = bytearray(), bytearray()
    for text in ids:
        for each in _readings(text):
            asked += each
        if is_hash(text.strip()):
            hashed += id_of(text.strip())
    return IdSet(to_array([bytes(asked)])), IdSet(to_array([bytes(hashed)]))


def _readings(text: str) -> tuple[bytes, ...]:
    """Return the ids that a line may stand for: surrounding white space may be part of an id."""
    stripped = text.strip()
    return (id_of(stripped),) if stripped == text else (id_of(stripped), given_id(text))


def _found(stores: Mapping[str, ExampleStore], asked: IdSet, hashed: IdSet) -> tuple[IdSet, IdSet]:
    """Return the ids of examples whose content has a requested hash, and all requested ids that match.

    A hash that we printed may be that of an example's content. Other examples with the same content
    may have their own ids; they match too.
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
    """Find the ids of a request that match no stored example; write many of them to a file."""
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
    """Return the stores of a state by their path in the state.

    Raises:
        MissingFileError: If the folder is not a state.
    """
    state = State.open(folder)
    splits = {
        f"{name}/{update}": store
        for name in ("holdouts", "validation")
        for update, store in state.split(name).items()
    }
    return {"memory": state.memory(), **splits}


def still_held(project: Project) -> dict[str, int]:
    """Return the number of rows to forget, live or dropped, in each store of the working tree."""
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
