"""Commands for stored examples and states: show the memory, forget examples, copy a state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from renate_stages.cli.shared import changing
from renate_stages.errors.wording import counted
from renate_stages.project import Project

if TYPE_CHECKING:
    from renate_stages.actions import erase
    from renate_stages.actions import forget as forget_action


def memory(
    plot: Annotated[Path | None, typer.Option(help="also draw it as this PNG file")] = None,
    ids: Annotated[
        bool, typer.Option("--ids", help="list the hashed ids of the rows instead")
    ] = False,
    find: Annotated[
        list[str] | None,
        typer.Option(help="say where examples with this id are: in memory, holdouts, validation"),
    ] = None,
) -> None:
    """Show what is in the memory: rows, bytes, classes, sources and age, by update."""
    from renate_stages.memory import composition
    from renate_stages.memory.identity import printed, stored_ids
    from renate_stages.params import Params
    from renate_stages.state import State
    from renate_stages.tasks import may_have_labels

    if sum(map(bool, (plot, ids, find))) > 1:
        raise typer.BadParameter("give only one of --plot, --ids and --find")
    project = Project.find()
    folder = project.state if project.state.is_dir() else project.parent
    state = State.open(folder)
    if find:
        print(f"found in {state.label}:")
        for line in _found(folder, find):
            print(line)
        return
    store = state.memory()
    if ids:
        for each in printed(stored_ids(store)[store.stored_live()]):
            print(each)
        return
    labelled, names = may_have_labels(state.provenance.task), state.provenance.labels
    parts = composition.composition(store, labelled, names)
    print(f"memory of {state.label}:")
    print(composition.table(parts, Params.load(project.params).update.number))
    if plot is not None:
        from renate_stages.reporting import memory_picture

        memory_picture.draw(parts, plot)
        print(f"plot written to {plot}")


def _found(folder: Path, texts: list[str]) -> Iterator[str]:
    """Yield a line for each id that a user looks for in a state."""
    from renate_stages.actions.find_rows import find_rows

    for text, rows in find_rows(folder, texts).items():
        parts = []
        for place, number in rows.items():
            what = counted(number, "dropped row" if place.dropped else "row")
            part = f"{what} of {place.store}"
            if place.store == "memory" and place.update is not None:
                part += f" (from update {place.update})"
            parts.append(part + ", still in its files" * place.dropped)
        yield f"{text}: {'; '.join(parts) or 'in no store of this state'}"


def forget(
    ids: Annotated[
        Path | None,
        typer.Option(
            help="UTF-8 text file with one example id per line: yours, or those of `memory --ids`"
        ),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="condition on metadata, such as \"source == 'eu'\"")
    ] = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="remove forgotten examples from older versions")
    ] = False,
    shared: Annotated[
        bool,
        typer.Option("--shared-storage", help="with --erase: also in storage that others may use"),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="with --erase: do not ask for confirmation")
    ] = False,
) -> None:
    """Open an update that forgets examples; with --erase, remove them from older versions."""
    from renate_stages.actions import forget as action
    from renate_stages.memory.id_file import IdFile

    if erase and (ids or where):
        raise typer.BadParameter(
            "--erase removes examples that are already forgotten; forget these first"
        )
    if not erase and (shared or yes):
        raise typer.BadParameter("--shared-storage and --yes need --erase")
    project = Project.find()
    if erase:
        _erase(project, shared, yes)
        return
    listed = IdFile(ids) if ids else ()
    with changing("forget"):
        opened = action.open_update(project, listed, where or [])
    for line in _matches(opened, project):
        print(line)
    nothing_found = opened.ids is not None and opened.ids.unmatched == opened.ids.given
    if isinstance(listed, IdFile) and nothing_found and listed.looks_like_a_table():
        print(f"the lines of {ids} look like rows of a table: give only its column of ids,")
        print("one id per line, without quotes and separators")
    if opened.by_update:
        print("`update` is the update in which a row arrived: rows that arrive again belong to a")
        print("later update and do not match; to leave them out, give their ids, or a condition")
        print("without `update`")
    print(f"update {opened.number} is open and only forgets: no new data, no training")
    print("the weights may still reflect these examples; only training without them undoes that")
    print(
        "next: `dvc repro`, `git add -A && git commit`, `renate-stages next`; then older versions"
    )
    print("still contain the rows: `renate-stages forget --erase` lists and removes them")


def _matches(opened: forget_action.Opened, project: Project) -> Iterator[str]:
    """Yield lines about the stored examples that a forget request matches."""
    if found := opened.ids:
        matching = found.given - found.unmatched
        yield f"{counted(found.given, 'id')} given, {matching} found among the stored examples"
        if found.unmatched:
            shown = ", ".join(map(repr, found.examples))
            rest = f", ...; all of them: {project.relative(found.listed)}" if found.listed else ""
            yield f"{found.unmatched} match no stored example: {shown}{rest}"
    for text, matches in opened.conditions.items():
        yield f"{text}: {_rows(matches.rows) or 'matches no stored example'}"
        if matches.unknown:
            yield f"  unknown for {_rows(matches.unknown)}: they lack the metadata and are kept"
    for store, (rows, dropped) in opened.rows.items():
        also = f", and the bytes of {counted(dropped, 'row')} dropped earlier" if dropped else ""
        yield f"{counted(rows, 'row')} of {store} will be removed{also}"
    if not opened.rows:
        yield ("No stored example matches. Matching examples will be left out of future updates.")


def _rows(by_store: Mapping[str, int]) -> str:
    return ", ".join(f"{counted(rows, 'row')} of {store}" for store, rows in by_store.items())


def _erase(project: Project, shared: bool, yes: bool) -> None:
    from renate_stages.actions import erase

    def agreed(erasure: erase.Erasure) -> bool:
        for line in _erasure(erasure, project):
            print(line)
        if not erasure:
            print("nothing to remove")
            return False
        if yes or typer.confirm("remove them?"):
            return True
        raise typer.Exit(1)

    if erase.erase(project, shared, agreed):
        print("removed")


def _erasure(erasure: erase.Erasure, project: Project) -> Iterator[str]:
    """Yield lines about what would be removed, the consequences, and what is not erased."""
    from renate_stages.storage.progress import readable

    for share in erasure.shares:
        where = f"{share.storage.name} ({share.storage.location})"
        count = f"{len(share.hashes)} objects, {readable(share.nbytes)}"
        if share.left is None:
            yield f"from {where}: {count}"
            continue
        yield f"not from {where}: {share.left}"
        if share.listed:
            listed = project.relative(share.listed)
            yield f"  its objects with forgotten examples are listed in {listed}: {count}"
            yield "  if its other users agree, run `renate-stages forget --erase --shared-storage`"
    if erasure.uncommitted:
        yield f"  among them {erasure.uncommitted} of runs and data that were never committed"
    if erasure.unseen:
        yield (
            f"  among them {counted(erasure.unseen, 'version')} of data/incoming whose rows are "
            "unknown: `prepare` has not read them, or their prepared rows are already removed"
        )
    for path in erasure.folders:
        yield f"  {project.relative(path)}"
    if erasure.incomplete:
        left = any(share.left and share.hashes for share in erasure.shares)
        pulled = " (`dvc pull` still gets files from storage that is not erased)" if left else ""
        yield f"afterwards these can no longer be checked out in full{pulled}:"
        for name, paths in erasure.incomplete.items():
            yield f"  {name}: {', '.join(paths)}"
    if erasure.incoming:
        yield "data/incoming contains, or may contain, rows to forget and is not removed: put other"
        yield "data there, `dvc add data/incoming`, `dvc repro`, commit, and erase again"
    if erasure.unknown:
        yield f"not checked: {', '.join(erasure.unknown)}"
    yield "not erased: other clones and their caches, backups, old versions in a bucket, and files"
    yield "that jobs left in a bucket"


def copy_state(
    source: Annotated[str, typer.Argument(help="folder or URL of a state, such as s3://bucket/1")],
    target: Annotated[str, typer.Argument(help="new folder or URL for the copy")],
) -> None:
    """Copy a state from a folder to a URL, or back; needs no project, like run_training_job."""
    from renate_stages.errors.redaction import shown
    from renate_stages.storage import states
    from renate_stages.storage.progress import readable

    moved, place = states.copy_state(source, target), shown(target)
    if not moved.files:
        print(f"this state is already complete in {place}")
        return
    print(f"state copied to {place}: {moved.files} files transferred, {readable(moved.bytes)}")
