"""Remove forgotten examples from older versions: DVC's cache, its remotes, and the project.

Shards of stores are looked into; `data/incoming` is not, but its prepared rows are known. A version
of a folder that holds rows to forget goes as a whole, but for files that other versions need: DVC
takes the list of a folder's files as proof that all of them are there, and would not push one of them
again. What only other projects name is never touched. Needs no torch.
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
from renate_stages.lineage.history import History
from renate_stages.lineage.objects import Objects, ObjectStorage
from renate_stages.memory.forget_list import ForgetList
from renate_stages.project import Project


@dataclass(frozen=True)
class Share:
    """What goes from one cache or remote.

    Args:
        storage: The cache or remote.
        hashes: Of the objects to remove, of those that it has.
        left: Why it is left to its owner; None: objects are removed.
        listed: The file that lists the objects which are left.
        others: Files to remove that are no objects: what killed commands left.
    """

    storage: ObjectStorage
    hashes: frozenset[str]
    left: str | None = None
    listed: Path | None = None
    others: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of the objects."""
        return sum(self.storage.sizes.get(md5, 0) for md5 in self.hashes)


@dataclass(frozen=True)
class Erasure:
    """What would be removed, and what cannot be.

    Args:
        shares: Of the remotes and, last, of the cache.
        incomplete: By tag, branch or experiment, what of it can no longer be checked out in full.
        unseen: How many versions of `data/incoming` go because nothing says what rows they have.
        uncommitted: How many of the cache's objects go because nothing in the history names them.
        incoming: Whether the present `data/incoming` has rows to forget, or may have.
        unknown: What else DVC tracks, which is not looked into.
        folders: What goes of the project's own folder.
        broken: Hashes of folders of which files go: the run cache must not restore them.
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
    """Remove what older versions hold; repeated after an interruption, it goes on.

    Args:
        project: Its present version must hold no row to forget.
        shared: Whether storage that others may use is included.
        agreed: Is shown what would go; False: nothing is removed.

    Returns:
        Whether anything was removed.

    Raises:
        StillHeldError: If the present version holds rows to forget.
        ShallowHistoryError: If Git has only a part of the history.
        StorageUnreadableError: If a remote cannot be reached; nothing is removed then.
        BusyError: If a stage or a DVC command is at work in the project.
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
    """Find what is to be removed; changes nothing but the lists of objects in `.renate/`.

    Raises:
        NothingToForgetError: If `forget.yaml` names nothing.
        StillHeldError: If the present version holds rows to forget.
        ShallowHistoryError: If Git has only a part of the history.
    """
    if held := still_held(project):
        raise StillHeldError(held)
    forget = ForgetList.read(project.forget_list)
    if not forget:
        raise NothingToForgetError
    history = History.read(project)
    found = HeldRows(project, objects, history, forget)
    needed = set[str]()
    for version in history.present:
        for path, md5 in version.outs.items():
            if md5 != found.incoming_of(version) and found.holds(md5):
                raise StillHeldError({f"{path} of the current commit": found.rows(md5)})
            if md5 in found.keeping_tensors:
                raise StillHeldError({f"the tensors of examples in {path}": "perhaps some"})
            needed |= objects.closure(md5)
    named = {each for version in history.versions for each in version.hashes}
    broken = {md5 for md5 in named if objects.closure(md5) & (found.hashes - needed)}
    whole = {each for md5 in named - broken for each in objects.closure(md5)}
    going = frozenset(each for md5 in broken for each in objects.closure(md5)) - whole - needed
    reached = {each for md5 in named for each in objects.closure(md5)}
    lost = frozenset(objects.cache.sizes.keys() - reached if objects.is_own else ())
    ours = reached | lost

    shares = [_share(project, remote, going | lost, ours, shared) for remote in objects.remotes]
    if objects.is_own:
        mine = (going | lost) & objects.cache.sizes.keys()
        shares.append(Share(objects.cache, mine, others=objects.cache.others))
    else:
        shares.append(_share(project, objects.cache, going, ours, shared))
    gone = {md5 for share in shares if share.left is None for md5 in share.hashes}
    return Erasure(
        shares=tuple(shares),
        incomplete=_incomplete(objects, history, gone),
        unseen=len(found.unseen),
        uncommitted=len(lost),
        incoming=any(found.incoming_of(each) in found.raw for each in history.present),
        unknown=found.unknown,
        folders=tuple(_folders(project, objects)),
        broken=frozenset(broken) | lost,
    )


def _share(
    project: Project, storage: ObjectStorage, going: frozenset[str], ours: set[str], shared: bool
) -> Share:
    """Return what goes from storage that others may use: it can be seen where it holds theirs."""
    can_be_listed = storage.closed is None
    hashes = going & storage.sizes.keys() if can_be_listed else going
    left = storage.closed
    if foreign := len(storage.sizes.keys() - ours):
        theirs = f"{foreign} of its objects are of no commit of this project: others may use it"
        left = None if shared else theirs
    listed = None
    name = project.scratch / f"erase-{storage.name}.txt"
    name.unlink(missing_ok=True)
    if left is not None and hashes and storage.odb is not None:
        listed = name
        files.write_text(name, "".join(f"{storage.shown(md5)}\n" for md5 in sorted(hashes)))
    return Share(storage, hashes, left, listed)


def _incomplete(objects: Objects, history: History, gone: set[str]) -> dict[str, list[str]]:
    """Return by tag, branch and experiment the paths that lose an object."""
    found = {}
    for name, versions in history.tips.items():
        outs = [each for version in versions for each in version.outs.items()]
        if paths := sorted({path for path, md5 in outs if objects.closure(md5) & gone}):
            found[name] = paths
    return found


def _folders(project: Project, objects: Objects) -> list[Path]:
    """Return what may hold rows in the project's own folder: all that stages left unfinished."""
    own = project.scratch
    found = [each for each in sorted(own.iterdir()) if each.is_dir() and each != objects.scratch]
    found += [own / UNMATCHED] if (own / UNMATCHED).is_file() else []
    experiments = project.root / ".dvc" / "tmp" / "exps"
    workspaces = [*experiments.glob("*/.dvc"), *experiments.glob("standalone/*/.dvc")]
    return found + sorted(path.parent for path in workspaces)
