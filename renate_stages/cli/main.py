"""The command line: one command for each stage and each thing a user does; messages only.

Everything heavy is imported inside a command: `renate-stages --help` answers at once.
"""

from __future__ import annotations

import hashlib
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from renate_stages.cli import remote
from renate_stages.errors import (
    MissingFileError,
)
from renate_stages.project import Project
from renate_stages.training import launch
from renate_stages.training.guarded import guarded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from renate_stages.actions import erase
    from renate_stages.actions import forget as forget_action

app = typer.Typer(
    help="Update PyTorch models with new data, again and again, without forgetting.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.add_typer(remote.app)


def main() -> None:
    """Run the command line: a user's mistake is one message and exit code 2, without traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if launch.begin(trains=sys.argv[1:2] == ["train"]):
        guarded(app)


# -- stages ----------------------------------------------------------------------------------------


@app.command()
def prepare() -> None:
    """Stage 1: turn data/incoming into stores of examples."""
    from renate_stages.params import Params
    from renate_stages.remote import elsewhere
    from renate_stages.stages import prepare as stage

    project = Project.find()
    elsewhere.check_backend(Params.load(project.params))  # now, not after hours of preparing
    with project.lock("prepare"):
        stage.run(project)


@app.command()
def restore_state() -> None:
    """Stage 2: check the parent's state and lay it out."""
    from renate_stages.stages import restore_state as stage

    project = Project.find()
    with project.lock("restore-state"):
        stage.run(project)


@app.command()
def tune() -> None:
    """Stage 3: choose the hyperparameters."""
    from renate_stages.stages import tune as stage

    project = Project.find()
    if _ran_elsewhere(project, "tune"):
        return
    with project.lock("tune"):
        stage.run(project)


@app.command()
def train() -> None:
    """Stage 4: train the parent's model on the new data, measure both."""
    from renate_stages.params import Params
    from renate_stages.stages import train as stage

    project = Project.find()
    if _ran_elsewhere(project, "train"):
        return
    params = Params.load(project.params)
    if launch.is_to_launch(params):
        with project.lock("train"), project.empty_scratch("launched") as scratch:
            command = ["-m", "renate_stages", "train"]
            raise typer.Exit(launch.start(command, params.trainer.devices, scratch))
    with launch.held(project, "train"):
        stage.run(project)


@app.command()
def export() -> None:
    """Stage 5: write the deployable model, the gate's verdict and the report."""
    from renate_stages.stages import export as stage

    project = Project.find()
    with project.lock("export"):
        stage.run(project)


def _ran_elsewhere(project: Project, stage: str) -> bool:
    """Run a stage in the cloud where `remote` in params.yaml says so; return whether it did."""
    from renate_stages.params import Params
    from renate_stages.remote import elsewhere

    params = Params.load(project.params)
    if elsewhere.backend_of(params, stage) == "local":
        return False
    with project.lock(stage):
        elsewhere.run(project, params, stage)
    return True


# -- what a user does ------------------------------------------------------------------------------


@app.command()
def init(
    model: Annotated[
        Path | None,
        typer.Option(help="start from this model: a state dict (torch or safetensors)"),
    ] = None,
    memory: Annotated[
        Path | None,
        typer.Option(help="with --model: a folder of its old data, as data_module_fn reads it"),
    ] = None,
) -> None:
    """Make the project ready for its first update: git, DVC, the first state. Safe to repeat."""
    from renate_stages.actions import init as action

    with _changing("init") as project:
        done = action.initialise(project, model=model, memory=memory)
    for line in done or ["nothing to do: the project is ready"]:
        print(line)
    print("next: put new data in data/incoming, `dvc add data/incoming`, `dvc repro`")


@app.command("next")
def next_update(
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="update-K", help="fork: start from an earlier update"),
    ] = None,
) -> None:
    """Close the finished update and open the next: tag, parent.dvc, number, commit."""
    from renate_stages import lineage
    from renate_stages.actions import promote as action
    from renate_stages.params import Params

    with _changing("next") as project:
        if start is None:
            if said := action.promote_where_asked(project):
                print(said)
            closed = Params.load(project.params).update.number
            number = lineage.open_next(project)
            print(f"tagged update-{closed}; update {number} is open, and starts from it")
        else:
            number = lineage.open_from(project, _number(start))
            print(f"update {number} is open on a branch of its own, and starts from {start}")
    print(
        f"next: put the data of update {number} in data/incoming (what lies there is of the update "
        "before, and read-only: replace the files, do not write into them), `dvc add "
        "data/incoming`, `dvc repro`"
    )


@app.command()
def gate() -> None:
    """Say whether the update passed the gate: exit code 0, or 1 if it is refused."""
    from renate_stages import lineage
    from renate_stages.errors import ForeignVerdictError, StaleVerdictError
    from renate_stages.gate import verdict
    from renate_stages.params import Params

    project = Project.find()
    found = verdict.Verdict.read(project.verdict)
    number = Params.load(project.params).update.number
    if found.update != number:
        raise StaleVerdictError(found.update, number)
    written = lineage.verdict_hash(lineage.lock_text(project))
    if written not in (None, hashlib.md5(project.verdict.read_bytes()).hexdigest()):
        raise ForeignVerdictError
    print(found.headline)
    rows = [verdict.COLUMNS, *found.table()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if found.rules else []:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'  '.join(cells)}".rstrip())
    if not found.passed:
        raise typer.Exit(1)


@app.command()
def promote(
    update: Annotated[
        str | None, typer.Argument(metavar="[update-K]", help="a tagged update; none: the open one")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="also where the gate refused it")] = False,
) -> None:
    """Make a committed update the champion: champion.dvc, commit, aliases."""
    from renate_stages.actions import promote as action

    with _changing("promote") as project:
        moved = action.promote(project, _number(update) if update else None, force=force)
    if moved is None:
        print("it is champion already")
        return
    print(f"{moved.now.label} is champion; before: {moved.before.label}")
    print("next: `git push`; `renate-stages demote` takes it back")


@app.command()
def demote() -> None:
    """Bring back the champion before: champion.dvc, commit, aliases."""
    from renate_stages.actions import promote as action

    with _changing("demote") as project:
        moved = action.demote(project)
    print(f"{moved.before.label} is not champion any more; champion again: {moved.now.label}")


@app.command()
def champion() -> None:
    """Say which update is champion, since when, and what its figures were."""
    from renate_stages.actions import promote as action

    rows = action.standing(Project.find())
    width = max(len(name) for name, _ in rows) + 1
    for name, value in rows:
        print(f"{name + ':':<{width}} {value}")


@app.command()
def example_data(
    update: Annotated[int, typer.Argument(help="1: digits 0-3, 2: digits 4-6, 3: digits 7-9")],
) -> None:
    """Write the example's data of an update into data/incoming."""
    from renate_stages.actions import init as action

    project = Project.find()
    action.write_example(project, update)
    print(f"data/incoming holds the digits of update {update}; next: `dvc add data/incoming`")


@app.command()
def forget(
    ids: Annotated[
        Path | None,
        typer.Option(
            help="UTF-8 text file with an example's id a line: yours, or as `memory --ids`"
        ),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="condition on metadata, such as \"source == 'eu'\"")
    ] = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="remove what older versions hold of forgotten examples")
    ] = False,
    shared: Annotated[
        bool,
        typer.Option("--shared-storage", help="with --erase: also where others may keep theirs"),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="with --erase: do not ask")] = False,
) -> None:
    """Open an update that forgets examples; with --erase, remove what older versions hold."""
    from renate_stages.actions import forget as action
    from renate_stages.memory.id_file import IdFile

    if erase and (ids or where):
        raise typer.BadParameter("--erase removes what was forgotten before; forget these first")
    if not erase and (shared or yes):
        raise typer.BadParameter("--shared-storage and --yes go with --erase")
    project = Project.find()
    if erase:
        _erase(project, shared, yes)
        return
    listed = IdFile(ids) if ids else ()
    with _changing("forget"):
        opened = action.open_update(project, listed, where or [])
    for line in _matches(opened, project):
        print(line)
    nothing_found = opened.ids is not None and opened.ids.unmatched == opened.ids.given
    if isinstance(listed, IdFile) and nothing_found and listed.looks_like_a_table():
        print(f"the lines of {ids} look like rows of a table: give its column of ids alone,")
        print("one id a line, without quotes and separators")
    if opened.by_update:
        print(
            "`update` is the one that rows came with: those that come in again are of a later one,"
        )
        print("and new; to keep them out name their ids, or give a condition without `update`")
    print(f"update {opened.number} is open, and forgets: no new data, no training")
    print("the weights may still reflect these examples; only training without them undoes that")
    print(
        "next: `dvc repro`, `git add -A && git commit`, `renate-stages next`; then older versions"
    )
    print("still hold the rows: `renate-stages forget --erase` lists and removes these")


def _matches(opened: forget_action.Opened, project: Project) -> Iterator[str]:
    """Yield lines on which stored examples a request to forget names."""
    if found := opened.ids:
        yield f"{found.given} id(s) given: {found.given - found.unmatched} match stored examples"
        if found.unmatched:
            shown = ", ".join(map(repr, found.examples))
            rest = f", ...; all of them: {project.relative(found.listed)}" if found.listed else ""
            yield f"{found.unmatched} match no stored example: {shown}{rest}"
    for text, matches in opened.conditions.items():
        yield f"{text}: {_rows(matches.rows) or 'true of no stored example'}"
        if matches.unknown:
            yield f"  unknown for {_rows(matches.unknown)}, which lack the metadata, and stay"
    for store, (rows, dropped) in opened.rows.items():
        also = f", and the bytes of {dropped} that were dropped before" if dropped else ""
        yield f"{rows} row(s) of {store} will leave{also}"
    if not opened.rows:
        yield ("No stored example matches. Matching examples will be left out of future updates.")


def _rows(by_store: Mapping[str, int]) -> str:
    return ", ".join(f"{rows} row(s) of {store}" for store, rows in by_store.items())


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
    """Yield lines on what would be removed, what it costs, and what is not reached."""
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
            yield f"  what it has of forgotten examples is listed in {listed}: {count}"
            yield "  once its other users agree: `renate-stages forget --erase --shared-storage`"
    if erasure.uncommitted:
        yield f"  among them {erasure.uncommitted} of runs and data that were never committed"
    if erasure.unseen:
        yield (
            f"  among them {erasure.unseen} version(s) of data/incoming that `prepare` has not "
            "read, or whose prepared rows are removed already: which rows they have is not known"
        )
    for path in erasure.folders:
        yield f"  {project.relative(path)}"
    if erasure.incomplete:
        left = any(share.left and share.hashes for share in erasure.shares)
        pulled = " (`dvc pull` still has what is left alone)" if left else ""
        yield f"afterwards these can no longer be checked out in full{pulled}:"
        for name, paths in erasure.incomplete.items():
            yield f"  {name}: {', '.join(paths)}"
    if erasure.incoming:
        yield "data/incoming has, or may have, rows to forget, and stays: put other data there,"
        yield "`dvc add data/incoming`, `dvc repro`, commit, and erase again"
    if erasure.unknown:
        yield f"not looked into: {', '.join(erasure.unknown)}"
    yield "not reached: other clones and their caches, backups, versions that a bucket keeps, what"
    yield "jobs left in a bucket"


@app.command()
def memory(
    plot: Annotated[Path | None, typer.Option(help="also draw it to this PNG file")] = None,
    ids: Annotated[bool, typer.Option("--ids", help="list the rows' hashed ids instead")] = False,
) -> None:
    """Show what is in the memory: rows, bytes, classes, sources and age, by update."""
    from renate_stages.memory import composition
    from renate_stages.memory.identity import printed, stored_ids
    from renate_stages.params import Params
    from renate_stages.state import State

    project = Project.find()
    folder = project.state if project.state.is_dir() else project.parent
    state = State.open(folder)
    store = state.memory()
    if ids:
        for each in printed(stored_ids(store)[store.stored_live()]):
            print(each)
        return
    parts = composition.composition(store)
    print(f"memory of {state.label}:")
    print(composition.table(parts, Params.load(project.params).update.number))
    if plot is not None:
        from renate_stages.reporting import memory_picture

        memory_picture.draw(parts, plot)
        print(f"drawn: {plot}")


@app.command()
def copy_state(
    source: Annotated[str, typer.Argument(help="folder or URL of a state, such as s3://bucket/1")],
    target: Annotated[str, typer.Argument(help="folder or URL where none is yet")],
) -> None:
    """Copy a whole state from a folder to a URL, or back; in no project, as run_training_job."""
    from renate_stages.errors.redaction import shown
    from renate_stages.storage import states
    from renate_stages.storage.progress import readable

    moved, place = states.copy_state(source, target), shown(target)
    if not moved.files:
        print(f"this state is whole in {place} already")
        return
    print(f"state copied to {place}: {moved.files} files travelled, {readable(moved.bytes)}")


@app.command()
def learners() -> None:
    """List the learners: what each does, needs and costs a step."""
    from renate_stages.learners import registry

    print(registry.table())


@app.command()
def publish() -> None:
    """Put the finished update into MLflow: run, curves, pictures, model version. Safe to repeat."""
    from renate_stages.actions import publish as action
    from renate_stages.params import Params

    project = Project.find()
    with project.lock("publish"):
        action.publish(project, Params.load(project.params))


@app.command()
def should_update() -> None:
    """Say whether the prepared data calls for an update, and why: exit code 0 if so, 1 if not."""
    import time

    from renate_stages import lineage
    from renate_stages.errors import StaleDataMetricsError
    from renate_stages.params import Params
    from renate_stages.shift.data_metrics import DataMetrics
    from renate_stages.shift.decision import decide

    project = Project.find()
    params = Params.load(project.params)
    where, number = project.data_metrics, params.update.number
    if not where.is_file():
        raise MissingFileError(where, "`prepare` has not run", "run `dvc repro prepare`")
    data = DataMetrics.read(where)
    if data.update != number:
        raise StaleDataMetricsError(where, number)
    made = lineage.committed_at(project, params.update.parent) if params.update.parent else None
    decision = decide(params, data, None if made is None else (time.time() - made) / 86400)
    for ruling in decision.rulings:
        print(ruling)
    print(f"update {number}: {'needed' if decision.update else 'not needed'}")
    if not decision.update:
        raise typer.Exit(1)


@app.command()
def resolve(
    ours: Annotated[
        bool, typer.Option("--ours", help="of a merge: take what was checked out")
    ] = False,
    theirs: Annotated[
        bool, typer.Option("--theirs", help="of a merge: take what is merged into it")
    ] = False,
) -> None:
    """Go on after an interrupted command, or after a merge of two clones that met in one update."""
    from renate_stages.actions import resolve as action

    if ours and theirs:
        raise typer.BadParameter("--ours and --theirs are mutually exclusive; give one")
    project = Project.find()
    with project.lock("resolve", recovers=True):
        if done := action.recover(project):
            print(done)
        if not (ours or theirs):
            if not done:
                print("no command was interrupted; of a merge, --ours or --theirs takes one side")
            return
        left = action.take_side(project, "ours" if ours else "theirs")
    if left:
        print(f"still in conflict: {', '.join(left)}")
        print("next: settle these, `git add` them, `git commit`, `dvc checkout`")
    else:
        print("next: `git commit`, `dvc checkout` (or `dvc pull`), `renate-stages verify --deep`")


@contextmanager
def _changing(command: str) -> Iterator[Project]:
    """Hold the project for a command that changes the lineage, and first end an interrupted one."""
    from renate_stages import lineage
    from renate_stages.actions import resolve as action

    project = Project.find()
    with project.lock(command, recovers=True):
        if done := action.recover(project):
            print(done)
            if done.completed and done.command.split()[1] == command:
                raise typer.Exit  # it is what was asked for
        if command != "init" and (settled := lineage.settle_remote(project)):
            print(settled)
        yield project


@app.command()
def status() -> None:
    """Say where the project stands: update, parent, champion, what is dirty, what to run next."""
    from renate_stages import lineage
    from renate_stages.gate.verdict import Verdict

    project = Project.find()
    if command := project.interrupted:
        print(f"interrupted: `{command}` is half done")
        print("next:        `renate-stages resolve` takes it back or completes it")
        return
    lines = list(lineage.status(project).items())
    if project.verdict.is_file():
        verdict = Verdict.read(project.verdict)
        if ("update", str(verdict.update)) in lines:
            lines.insert(-1, ("gate", verdict.headline))
    for name, value in lines:
        print(f"{name + ':':<10} {value}")


@app.command()
def verify(
    deep: Annotated[
        bool, typer.Option("--deep", help="also read every file that Git names by its hash")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="put back what differs, from DVC's cache or remote")
    ] = False,
) -> None:
    """Check the chain of hashes over all tagged updates, and the champion; --deep: the files."""
    from renate_stages import lineage
    from renate_stages.state import state

    project = Project.find()
    if repair:
        with project.lock("verify --repair"):
            lineage.repair(project)
    if deep or repair:
        for folder in lineage.folders_to_verify(project):
            if lineage.check(project, folder, deep=True):
                print(f"{project.relative(folder)}/: every file is what Git names")
            if folder in (project.parent, project.state):
                state.check(folder)
                print(f"{project.relative(folder)}/: every file is as its manifest says")
    checked, problems = lineage.verify(project)
    for problem in problems:
        print(f"broken: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(1)
    print(f"{checked} tagged update(s): each starts from the state its parent wrote")
    if project.champion_pointer.is_file():
        pointer = lineage.ChampionPointer.read(project)
        if pointer.update:
            print(f"champion: {pointer.label}, which a commit has; its files can be had")


def _number(name: str) -> int:
    from renate_stages.lineage.records import NUMBER

    digits = name.removeprefix("update-")
    if not NUMBER.fullmatch(digits):
        raise typer.BadParameter(f"expected update-K, for example update-2; found {name!r}")
    return int(digits)
