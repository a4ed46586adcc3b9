"""Choose the update that serves: `renate-stages promote`, `demote` and `champion`.

Stages never change the champion, because `dvc exp run` executes every stage for an experiment, and a
hit in the run cache executes none.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace

from renate_stages import lineage
from renate_stages.errors import (
    CommandError,
    MalformedFileError,
    NoEarlierChampionError,
    PromotionRefusedError,
    RenateStagesError,
    UnknownUpdateError,
)
from renate_stages.export.exported import DESCRIPTION, Exported
from renate_stages.gate.verdict import Verdict
from renate_stages.lineage import ChampionPointer
from renate_stages.lineage.records import TAG
from renate_stages.params import Params
from renate_stages.project import Project


@dataclass(frozen=True)
class Moved:
    """A change of the champion.

    Args:
        now: The new pointer, which is committed.
        before: The pointer that it replaced.
    """

    now: ChampionPointer
    before: ChampionPointer


def promote(
    project: Project, number: int | None = None, *, force: bool = False, automatic: bool = False
) -> Moved | None:
    """Make a committed update the champion: `champion.dvc`, a commit, the published aliases.

    Args:
        project: To promote the open update, its working tree must be clean and its pipeline up to
            date.
        number: Number of a tagged update; None: the open one.
        force: Whether to promote even if the gate refused the update or has no verdict on it.
        automatic: Whether to refuse also an update that the gate did not judge.

    Returns:
        The change; None if the update is the champion already.

    Raises:
        PromotionRefusedError: If the update cannot be promoted, with all reasons; nothing is
            changed.
        UnknownUpdateError: If the update has no tag and is not the open one.
        MissingObjectsError: If neither cache nor remote has its model.
        CommandError: If the remote cannot be reached.
    """
    before = ChampionPointer.read(project)
    open_number = Params.load(project.params).update.number
    number = open_number if number is None else number
    tagged = number in lineage.tags(project)
    if not tagged and number != open_number:
        raise UnknownUpdateError(number, lineage.tags(project))
    if not tagged and (reasons := _not_ready(project, number)):
        raise PromotionRefusedError(number, reasons)
    revision = f"{TAG}{number}" if tagged else "HEAD"
    lock = lineage.git(project, "show", f"{revision}:dvc.lock")
    out = lineage.export_entry(lock)
    if out is None:
        raise PromotionRefusedError(number, [f"the dvc.lock of {revision} has no export/"])
    if out["md5"] == before.out["md5"]:
        publish_aliases(project, before, open_number)
        return None
    if not force and (reasons := _objections(project, revision, lock, before, tagged, automatic)):
        raise PromotionRefusedError(number, reasons)

    pointer = before.succeeded_by(out, number, "")

    def described(content: bytes) -> ChampionPointer:
        try:
            exported = Exported.parse(content)
        except MalformedFileError as error:
            old = f"its export/ has no valid {DESCRIPTION}; it was made before the gate existed"
            raise PromotionRefusedError(number, [old]) from error
        return replace(pointer, update=exported.update, state=exported.state)

    def message(pointer: ChampionPointer) -> str:
        forced = " (forced)" if force else ""
        return f"Promote update {pointer.update}{forced}; before: {before.label}"

    command = f"renate-stages promote {TAG}{number}"
    now = lineage.crown(project, command, pointer, message, described)
    publish_aliases(project, now, open_number)
    return Moved(now, before)


def demote(project: Project) -> Moved:
    """Restore the previous champion: `champion.dvc`, a commit, the published aliases.

    Other changes in the working tree are allowed, and are left alone.

    Raises:
        NoEarlierChampionError: If there is no previous champion.
        MissingObjectsError: If neither cache nor remote has its model; nothing is changed.
        CommandError: If the remote cannot be reached; nothing is changed.
    """
    before, open_number = ChampionPointer.read(project), Params.load(project.params).update.number
    if not before.replaced:
        raise NoEarlierChampionError(before.label)
    now = lineage.crown(
        project,
        "renate-stages demote",
        before.predecessor(),
        lambda pointer: f"Demote {before.label}; champion again: {pointer.label}",
    )
    publish_aliases(project, now, open_number)
    return Moved(now, before)


def promote_where_asked(project: Project) -> str | None:
    """Promote the open update if `export.promotion` is `auto` and its committed verdict passed.

    Returns:
        A message about the result; None if nothing was done, or if `next` will refuse anyway.
    """
    params = Params.load(project.params)
    number = params.update.number
    if params.export.promotion != "auto" or lineage.unfinished(project, number):
        return None
    try:
        moved = promote(project, automatic=True)
    except PromotionRefusedError as error:
        return str(error)
    return f"update {number} is the champion; before: {moved.before.label}" if moved else None


def publish_aliases(project: Project, champion: ChampionPointer, open_number: int) -> None:
    """Move MLflow's alias `champion`; called after `promote` and `demote` have committed.

    If the open update is the champion, it is published first. An error of MLflow is only a warning,
    because the champion is determined by `champion.dvc`.

    Args:
        project: The project; `champion/` is checked out.
        champion: The pointer to the champion; its `state` is "" if there is no champion.
        open_number: Number of the open update.
    """
    from renate_stages.actions import publish

    params = Params.load(project.params)
    if not params.tracking.enabled:
        return
    try:
        if champion.update == open_number:
            publish.publish(project, params)
        publish.point(project, params, "champion", champion.state or None)
    except RenateStagesError as error:
        print(f"warning: MLflow was not updated: {error}", file=sys.stderr)


def champion_status(project: Project) -> list[tuple[str, str]]:
    """Return the lines of `renate-stages champion`: name and value.

    Raises:
        NoChampionPointerError: If the project has no `champion.dvc`.
    """
    pointer = ChampionPointer.read(project)
    rows = [("champion", pointer.label)]
    if pointer.update or pointer.replaced:
        rows.append(("since", lineage.since(project) or "not committed yet"))
    if pointer.update:
        rows.append(("state", pointer.state))
        rows += _figures(project, pointer)
    if pointer.replaced:
        last = pointer.predecessor()
        rows.append(("before", f"{last.label} (`renate-stages demote` goes back to it)"))
    return rows


def _figures(project: Project, pointer: ChampionPointer) -> list[tuple[str, str]]:
    try:
        exported = Exported.read(project.champion)
    except MalformedFileError:
        return [("figures", "champion/ is missing or incomplete; run `dvc pull champion.dvc`")]
    if exported.update != pointer.update:
        return [
            ("figures", "champion/ does not match champion.dvc; run `dvc checkout champion.dvc`")
        ]
    return [
        (name.replace("_", " "), f"{value:.4f}")
        for name, value in exported.figures.items()
        if value is not None
    ]


def _not_ready(project: Project, number: int) -> list[str]:
    if lineage.is_fresh(project):
        parent = Params.load(project.params).update.parent
        hint = (
            f", or promote its parent with `renate-stages promote update-{parent}`"
            if parent
            else ""
        )
        return [f"update {number} is open and has not run; run `dvc repro`{hint}"]
    return lineage.unfinished(project, number)


def _objections(
    project: Project,
    revision: str,
    lock: str,
    champion: ChampionPointer,
    tagged: bool,
    automatic: bool,
) -> list[str]:
    """Return the gate's reasons against a promotion; `--force` overrides them."""
    forced = "`renate-stages promote --force` promotes it anyway"
    try:
        text = lineage.git(project, "show", f"{revision}:reports/verdict.json")
        verdict = Verdict.parse(text, "reports/verdict.json")
    except CommandError:
        return [
            f"{revision} has no reports/verdict.json, so the gate's verdict is unknown; {forced}"
        ]
    except MalformedFileError as error:
        return [f"{revision}: {error}; {forced}"]
    # `git()` strips the file's final newline.
    if hashlib.md5(f"{text}\n".encode()).hexdigest() != lineage.verdict_hash(lock):
        return [f"reports/verdict.json at {revision} does not match its dvc.lock; run `dvc repro`"]
    reasons = []
    same = lineage.judged_champion(lock) == champion.out["md5"]
    none = not verdict.content["champion_update"] and not champion.update
    if not (tagged or same or none):
        reasons.append(
            f"its verdict compares with {verdict.opponent}, but the champion is {champion.label}; "
            f"run `dvc repro` and commit; {forced}"
        )
    if verdict.refused:
        reasons.append(f"the gate refused it: {verdict.headline}")
        reasons += [*verdict.failures, *([verdict.problem] if verdict.problem else [])]
        reasons.append(f"improve the update, for example with `dvc exp run -S ...`; {forced}")
    elif automatic and not verdict.passed:
        reasons.append(f"{verdict.headline}; `renate-stages promote` promotes it")
    return reasons
