"""Remove forgotten examples from older versions: DVC's cache, its remotes, and the project.

Shards of stores are searched for rows to forget. `data/incoming` cannot be searched, but the rows
that `prepare` read from it can. A version of a folder with rows to forget is removed completely,
except for files that other versions need: if DVC has the file list of a folder, it assumes that all
files exist, and would never push a removed one again. Objects that only other projects refer to are
never touched. Needs no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from renate_stages import files
from renate_stages.actions.forget import UNMATCHED, still_held
from renate_stages.actions.held import HeldRows
from renate_stages.errors import NothingToForgetError, StillHeldError
from renate_stages.errors.wording import counted
from renate_stages.lineage.history import History
from renate_stages.lineage.objects import Objects, ObjectStorage
from renate_stages.memory.forget_list import ForgetList
from renate_stages.project import Project


@dataclass(frozen=True)
class Share:
    """The objects to remove from one cache or remote.

    Args:
        storage: The cache or remote.
        hashes: Hashes of the objects to remove.
        left: Why nothing is removed here; None: the objects are removed.
        listed: The file that lists the objects that are not removed.
        others: Temporary files of killed commands, which are removed too.
    """

    storage: ObjectStorage
    hashes: frozenset[str]
    left: str | None = None
    listed: Path | None = None
    others: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Total size of the objects in bytes."""
        return sum(self.storage.sizes.get(md5, 0) for md5 in self.hashes)


@dataclass(frozen=True)
class Erasure:
    """A plan of what to remove, with its consequences.

    Args:
        shares: The objects to remove: one entry for each remote, then one for the cache.
        incomplete: By tag, branch or experiment, the paths that lose files.
        unseen: Number of versions of `data/incoming` that are removed because their rows are unknown.
        uncommitted: Number of the cache's objects that are removed because no commit refers to them.
        incoming: Whether the present `data/incoming` contains, or may contain, rows to forget.
        unknown: Other paths that DVC tracks; these are not searched.
        folders: Files and folders of the project to remove.
        broken: Hashes of folders that lose files; the run cache must not restore them.
    """

    shares: tuple[Share, ...]
    incomplete: Mapping[str, list[str]]
    unseen: int
    uncommitted: int
    incoming: bool
    unknown: tuple[str, ...]
    folders: tuple[Path, ...]
    broken: frozenset[str]

    def __bool__(self) -> bool:
        going = any((each.hashes or each.others) and each.left is None for each in self.shares)
        return bool(going or self.folders)


def erase(project: Project, shared: bool, agreed: Callable[[Erasure], bool]) -> bool:
    """Remove forgotten examples from older versions; after an interruption, run it again.

    Args:
        project: Its present version must not contain rows to forget.
        shared: Whether to remove objects from storage that others may use, too.
        agreed: Function that shows the plan to the user; if it returns False, nothing is removed.

    Returns:
        Whether anything was removed.

    Raises:
        StillHeldError: If the present version contains rows to forget.
        ShallowHistoryError: If the clone is shallow.
        StorageUnreadableError: If a remote cannot be reached; nothing is removed.
        BusyError: If a stage or a DVC command is running in the project.
    """
    with project.lock("forget --erase"), Objects.open(project) as objects:
        erasure = plan(project, objects, shared)
        if not agreed(erasure):
            return False
        for share in erasure.shares:
            if share.left is None:
                share.storage.remove(share.hashes, share.others)
                if share.storage is objects.cache:
                    objects.remove_runs(erasure.broken)
        for path in erasure.folders:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return True


def plan(project: Project, objects: Objects, shared: bool = False) -> Erasure:
    """Find the objects to remove; changes nothing except the lists of objects in `.renate/`.

    Raises:
        NothingToForgetError: If `forget.yaml` is empty.
        StillHeldError: If the present version contains rows to forget.
        ShallowHistoryError: If the clone is shallow.
    """
    if remaining := still_held(project):
        raise StillHeldError(remaining)
    forget = ForgetList.read(project.forget_list)
    if not forget:
        raise NothingToForgetError
    history = History.read(project)
    held = HeldRows(project, objects, history, forget)
    needed = set[str]()
    for version in history.present:
        for path, md5 in version.outs.items():
            if md5 != held.incoming_of(version) and held.holds(md5):
                raise StillHeldError({f"{path} of the current commit": held.rows(md5)})
            if md5 in held.keeping_tensors:
                raise StillHeldError({f"the tensors of examples in {path}": "perhaps some"})
            needed |= objects.closure(md5)
    referenced = {md5 for version in history.versions for md5 in version.hashes}
    broken = {md5 for md5 in referenced if objects.closure(md5) & (held.hashes - needed)}
    intact = {part for md5 in referenced - broken for part in objects.closure(md5)}
    removable = frozenset(part for md5 in broken for part in objects.closure(md5))
    removable = removable - intact - needed
    reachable = {part for md5 in referenced for part in objects.closure(md5)}
    # An object in the project's own cache that no commit refers to may contain anything.
    unreferenced = frozenset(objects.cache.sizes.keys() - reachable if objects.is_own else ())
    ours = reachable | unreferenced

    removed = removable | unreferenced
    shares = [_share(project, remote, removed, ours, shared) for remote in objects.remotes]
    if objects.is_own:
        cached = removed & objects.cache.sizes.keys()
        shares.append(Share(objects.cache, cached, others=objects.cache.others))
    else:
        shares.append(_share(project, objects.cache, removable, ours, shared))
    gone = {md5 for share in shares if share.left is None for md5 in share.hashes}
    return Erasure(
        shares=tuple(shares),
        incomplete=_incomplete(objects, history, gone),
        unseen=len(held.unseen),
        uncommitted=len(unreferenced),
        incoming=any(held.incoming_of(version) in held.raw for version in history.present),
        unknown=held.unknown,
        folders=tuple(_folders(project, objects)),
        broken=frozenset(broken) | unreferenced,
    )


def _share(
    project: Project, storage: ObjectStorage, removed: frozenset[str], ours: set[str], shared: bool
) -> Share:
    """Return the objects to remove from a storage that other projects may use.

    Other projects use it if it has objects that no commit of this project refers to.
    """
    can_be_listed = storage.closed is None
    hashes = removed & storage.sizes.keys() if can_be_listed else removed
    left = storage.closed
    if foreign := len(storage.sizes.keys() - ours):
        reason = (
            f"it has {counted(foreign, 'object')} that no commit of this project refers to, so "
            "other projects may use it"
        )
        left = None if shared else reason
    listed = None
    name = project.scratch / f"erase-{storage.name}.txt"
    name.unlink(missing_ok=True)
    if left is not None and hashes and storage.odb is not None:
        listed = name
        files.write_text(name, "".join(f"{storage.shown(md5)}\n" for md5 in sorted(hashes)))
    return Share(storage, hashes, left, listed)


def _incomplete(objects: Objects, history: History, gone: set[str]) -> dict[str, list[str]]:
    """Return the paths that lose an object, by tag, branch and experiment."""
    incomplete = {}
    for name, versions in history.tips.items():
        outs = [out for version in versions for out in version.outs.items()]
        if paths := sorted({path for path, md5 in outs if objects.closure(md5) & gone}):
            incomplete[name] = paths
    return incomplete


def _folders(project: Project, objects: Objects) -> list[Path]:
    """Return the folders that interrupted stages left in the project, which may contain rows."""
    scratch = project.scratch
    paths = [path for path in sorted(scratch.iterdir()) if path.is_dir()]
    paths = [path for path in paths if path != objects.scratch]
    paths += [scratch / UNMATCHED] if (scratch / UNMATCHED).is_file() else []
    experiments = project.root / ".dvc" / "tmp" / "exps"
    workspaces = [*experiments.glob("*/.dvc"), *experiments.glob("standalone/*/.dvc")]
    return paths + sorted(path.parent for path in workspaces)
