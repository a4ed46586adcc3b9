"""Which update serves: `renate-stages promote`, `demote` and `champion`.

A stage never moves the champion: `dvc exp run` executes every stage for each what-if, and a hit in
the run cache executes none.
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
    """A champion and the one before.

    Args:
        now: The pointer that is committed.
        before: The pointer that it took the place of.
    """

    now: ChampionPointer
    before: ChampionPointer


def promote(project: Project, number: int | None = None, *, force: bool = False) -> Moved | None:
    """Make a committed update the champion: `champion.dvc`, a commit, the published aliases.

    Args:
        project: For the open update, its tree is clean and its pipeline up to date.
        number: Of a tagged update; None: the open one.
        force: Whether also where the gate refused it, or has said nothing of it.

    Returns:
        What changed; None if it is champion already.

    Raises:
        PromotionRefusedError: With all reasons; nothing is changed then.
        UnknownUpdateError: If a number is given that has no tag and is not the open update's.
        CommandError: If neither cache nor remote has its model.
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
        raise PromotionRefusedError(number, [f"{revision} has no export/ in its dvc.lock"])
    if out["md5"] == before.out["md5"]:
        publish_aliases(project, before, open_number)
        return None
    if not force and (reasons := _objections(project, revision, lock, before, tagged)):
        raise PromotionRefusedError(number, reasons)

    pointer = before.succeeded_by(out, number, "")

    def described(content: bytes) -> ChampionPointer:
        try:
            exported = Exported.parse(content)
        except MalformedFileError as error:
            old = f"its export/ has no usable {DESCRIPTION}: made before there was a gate"
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
    """Bring back the champion before: `champion.dvc`, a commit, the published aliases.

    Other changes in the working tree are no obstacle, and stay as they are.

    Raises:
        NoEarlierChampionError: If no champion was replaced.
        CommandError: If neither cache nor remote has its model; nothing is changed then.
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
    """Do what `export.promotion: auto` asks of `next`: promote where the committed verdict passed.

    Returns:
        What was done or why not; None where there is nothing to say, or `next` refuses anyway.
    """
    params = Params.load(project.params)
    number = params.update.number
    if params.export.promotion != "auto" or lineage.unfinished(project, number):
        return None
    try:
        moved = promote(project)
    except PromotionRefusedError as error:
        return str(error)
    return f"update {number} is the champion; before: {moved.before.label}" if moved else None


def publish_aliases(project: Project, champion: ChampionPointer, open_number: int) -> None:
    """Tell MLflow who is champion: called after `promote` and `demote` have committed.

    The champion's version is published where the working tree has it. What MLflow does not take is
    a warning: the project's own files say who is champion.

    Args:
        project: Where `champion/` is in place.
        champion: Its `state` is the identity of the champion's state, "" where there is none.
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
        print(f"warning: MLflow was not told: {error}", file=sys.stderr)


def standing(project: Project) -> list[tuple[str, str]]:
    """Return what `renate-stages champion` says, a name and a value a line.

    Raises:
        NoChampionPointerError: If the project has no `champion.dvc`.
    """
    pointer = ChampionPointer.read(project)
    found = [("champion", pointer.label)]
    if pointer.update or pointer.replaced:
        found.append(("since", lineage.since(project) or "not committed yet"))
    if pointer.update:
        found.append(("state", pointer.state))
        found += _figures(project, pointer)
    if pointer.replaced:
        last = pointer.predecessor()
        found.append(("before", f"{last.label} (`renate-stages demote` goes back to it)"))
    return found


def _figures(project: Project, pointer: ChampionPointer) -> list[tuple[str, str]]:
    try:
        exported = Exported.read(project.champion)
    except MalformedFileError:
        return [("figures", "not here: `dvc pull champion.dvc`")]
    if exported.update != pointer.update:
        return [
            ("figures", "champion/ is not what champion.dvc names: `dvc checkout champion.dvc`")
        ]
    return [
        (name.replace("_", " "), f"{value:.4f}")
        for name, value in exported.figures.items()
        if value is not None
    ]


def _not_ready(project: Project, number: int) -> list[str]:
    if lineage.is_fresh(project):
        parent = Params.load(project.params).update.parent
        hint = f"; for the one before: `renate-stages promote update-{parent}`" if parent else ""
        return [f"update {number} is open and has not run: `dvc repro`{hint}"]
    return lineage.unfinished(project, number)


def _objections(
    project: Project, revision: str, lock: str, champion: ChampionPointer, tagged: bool
) -> list[str]:
    """Return what speaks against a promotion that is possible."""
    forced = "`renate-stages promote --force` promotes it anyway"
    try:
        text = lineage.git(project, "show", f"{revision}:metrics/verdict.json")
        verdict = Verdict.parse(text, "metrics/verdict.json")
    except CommandError:
        return [f"{revision} has no verdict of the gate; {forced}"]
    except MalformedFileError as error:
        return [f"at {revision} {error}; {forced}"]
    # `git show` loses the final newline, which the file had.
    if hashlib.md5(f"{text}\n".encode()).hexdigest() != lineage.verdict_hash(lock):
        return [f"metrics/verdict.json at {revision} is not the one of its dvc.lock: `dvc repro`"]
    reasons = []
    same = lineage.judged_champion(lock) == champion.out["md5"]
    none = not verdict.content["champion_update"] and not champion.update
    if not (tagged or same or none):
        reasons.append(
            f"its verdict is on another champion ({verdict.champion}) than {champion.label}: "
            f"`dvc repro`, commit; {forced}"
        )
    if not verdict.passed:
        reasons.append(f"the gate says: {verdict.headline}")
        reasons += verdict.failures
        reasons.append(f"repair it (`dvc exp run -S ...`), or {forced}")
    return reasons
