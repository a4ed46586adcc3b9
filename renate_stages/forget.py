"""Forgetting examples: opening an update that removes them, and removing what older versions hold.

An update of kind `forget` takes no new data and no gradient step: `dvc repro` writes a state whose
memory, holdouts and validation no longer hold the examples. Editing `state/` in place would be
undone, for DVC's run cache restores the old output. Needs no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from renate_stages import lineage
from renate_stages.errors import NothingToForgetError, StillHeldError, UnknownFieldError
from renate_stages.forget_list import ForgetList, names
from renate_stages.memory import ExampleStore
from renate_stages.memory.predicate import Predicate
from renate_stages.prepared import SPLITS, PreparedData
from renate_stages.project import Project
from renate_stages.state import State


@dataclass(frozen=True)
class Opened:
    """A forget update that is open now.

    Args:
        number: Of the update.
        rows: By store of the state it starts from, how many rows will leave, and of how many that
            were dropped before the bytes still lie there, and will leave as well.
        by_update: Whether a condition asks for the update that rows came with.
    """

    number: int
    rows: dict[str, tuple[int, int]]
    by_update: bool


def open_update(project: Project, ids: list[str], where: list[str]) -> Opened:
    """Add examples to `forget.yaml` and open an update that forgets them.

    Args:
        project: Its update must be finished and committed, or open and not yet run.
        ids: As their user calls them, or as 32 hexadecimal digits.
        where: Conditions on metadata.

    Raises:
        NothingToForgetError: If neither names anything.
        InvalidPredicateError: If a condition cannot be understood.
        UnknownFieldError: If a condition names metadata that no example has.
        NextRefusedError: If the update is neither finished nor fresh.
    """
    if not ids and not where:
        raise NothingToForgetError
    forget = ForgetList.read(project.forget_list).with_more(ids, where)
    start = project.parent if lineage.is_fresh(project) else project.state
    stores = stores_of(start)
    known = {name for store in stores.values() if store.spec for name in names(store.spec)}
    for predicate in forget.where:
        for name in sorted(predicate.names - known):
            raise UnknownFieldError(f"condition {predicate.text!r}", name, sorted(known))
    rows = {}
    for name, store in stores.items():
        named = forget.stored_rows(store)
        if named.any():
            live = int(named[store.stored_live()].sum())
            rows[name] = live, int(named.sum()) - live
    number = lineage.open_forget(project, forget)
    by_update = any("update" in Predicate.parse(text).names for text in where)
    return Opened(number, rows, by_update)


def stores_of(folder: Path) -> dict[str, ExampleStore]:
    """Return every store of a state by its path in it; none where there is no state."""
    if not folder.is_dir():
        return {}
    state = State.open(folder)
    splits = {
        f"{name}/{update}": store
        for name in ("holdouts", "validation")
        for update, store in state.split(name).items()
    }
    return {"memory": state.memory(), **splits}


def still_held(project: Project) -> dict[str, int]:
    """Return how many rows to forget lie where in the working tree, as live or as dead rows."""
    forget = ForgetList.read(project.forget_list)
    stores = {
        f"{project.relative(folder)}/{name}": store
        for folder in (project.parent, project.state)
        for name, store in stores_of(folder).items()
    }
    if project.prepared.is_dir():
        data = PreparedData.open(project.prepared)
        stores |= {f"work/prepared/{split}": getattr(data, split) for split in SPLITS}
    rows = {name: int(forget.stored_rows(store).sum()) for name, store in stores.items()}
    return {name: count for name, count in rows.items() if count}


@dataclass(frozen=True)
class Step:
    """One thing to do so that older versions are gone.

    Args:
        shown: How a user would do it.
        run: Does it.
    """

    shown: str
    run: Callable[[], object]


def erasing(project: Project) -> list[Step]:
    """Return what removes every version of data and states but the present one.

    Raises:
        StillHeldError: If the present one still holds rows to forget.
    """
    if held := still_held(project):
        raise StillHeldError(held)
    steps = [
        Step("dvc exp remove --all-commits", lambda: lineage.dvc(project, "exp", "remove", "-A")),
        _folder(project, project.root / ".dvc" / "tmp" / "exps"),
        _folder(project, project.root / ".dvc" / "cache" / "runs"),
        _folder(project, project.scratch),
    ]
    cloud = ["--cloud"] if lineage.has_remote(project) else []
    collect = ["gc", "--workspace", "--force", *cloud]
    steps.append(Step(f"dvc {' '.join(collect)}", lambda: lineage.dvc(project, *collect)))
    return steps


def _folder(project: Project, path: Path) -> Step:
    shown = f"rm -rf {project.relative(path)}"
    return Step(shown, lambda: shutil.rmtree(path, ignore_errors=True))
