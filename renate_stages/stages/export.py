"""`renate-stages export`: write the deployable model, the verdict and the report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from renate_stages import files, lineage, tracking
from renate_stages.errors import shortage
from renate_stages.evaluation.update_metrics import read_update_metrics
from renate_stages.export import carried_files, program_files, raw_rows
from renate_stages.export.exported import Exported, is_same
from renate_stages.gate.figures import Measured
from renate_stages.gate.judging import judge
from renate_stages.gate.verdict import Verdict
from renate_stages.params import Params
from renate_stages.preprocessing import link_preprocessing, read_preprocessing
from renate_stages.processes import heavy_imports
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.reporting.model_card import model_card
from renate_stages.reporting.pictures import draw_pictures, links
from renate_stages.reporting.report import Findings, update_report
from renate_stages.shift.data_metrics import DataMetrics
from renate_stages.state import MANIFEST, MODEL_FILES, State
from renate_stages.state.inputs import StageInputs, read_tuned
from renate_stages.tracking import update_run
from renate_stages.tracking.update_run import run_identity
from renate_stages.tuning.outcome import SEARCH, Search
from renate_stages.user.config import UserConfig


def run(project: Project, say: Callable[[str], None] = print) -> None:
    """Write `export/` (model, program, card), the gate's verdict and the report with its pictures.

    Log them to the MLflow run. The content of `export/` does not depend on the champion. It is put
    in place only after a separate process has rebuilt the model from `export/` alone.

    Raises:
        RenateStagesError: If the state or a parameter cannot be used.
    """
    stage = StageInputs.read(project, "export")
    lineage.check_inputs(project, "export")
    params = Params.load(project.params).fixed(read_tuned(project.tuned))
    program_files.check_onnx(params)
    carried_files.check_files(project, params)
    state = State.open(project.state)
    results = {  # of earlier stages, read first so that errors occur before anything is written
        "data": DataMetrics.read(project.data_metrics),
        "search": Search.read(project.tuning / SEARCH),
        "figures": read_update_metrics(project.update_metrics),
    }
    identity = run_identity(
        project, params, key=state.provenance.inputs or "", parent=state.provenance.parent
    )
    with tracking.reopened_run(project.root, identity, enabled=params.tracking.enabled) as tracker:
        with heavy_imports():
            from renate_stages.export.built_model import BuiltModel
            from renate_stages.export.clean_build import clean_process
            from renate_stages.models import RenateWrapper
            from renate_stages.models.stored import write_checkpoint, write_tensors

        with clean_process() as clean, files.whole_directory(project.export) as folder:
            with heavy_imports():
                user = UserConfig.of(project, "export", named=params.named_model)
                user.preprocessing = read_preprocessing(project.state)
            built = BuiltModel.of(user, params.hyperparameters, params, state.folder, state)
            expected = built.outputs()
            for name in MODEL_FILES:
                files.link_or_copy(state.folder / name, folder / name)
            write_checkpoint(state.folder, folder / carried_files.CHECKPOINT)
            link_preprocessing(state.folder, folder)
            lacking = program_files.write_program(folder, state, params, built)
            carried = carried_files.carry_files(project, params, user, folder)
            grown = bool(built.model.grown) and isinstance(built.model, RenateWrapper)
            by_name = grown or params.model is not None
            card = [model_card(state, params.evaluation, by_name)]
            card += raw_rows.card_sections(built.preprocessing)
            card.append(program_files.card_section(folder))
            card = "\n".join(card) + carried_files.card_section(carried)
            files.write_text(folder / carried_files.CARD, card)
            description(params, state).write(folder)
            with project.empty_scratch("built") as scratch:
                write_tensors(scratch / "outputs.safetensors", expected)
                clean.begin(
                    folder=str(folder),
                    project=str(project.user_config.parent),
                    state=str(project.state),
                    params=params.model_dump(mode="json"),
                    outputs=str(scratch / "outputs.safetensors"),
                )
                measured = measure(project, params, state, user, folder)
                verdict = pass_gate(params, measured)
                pictures = draw_or_warn(
                    project, params, state
                )  # while another process imports MLflow
                clean.finish()
            findings = Findings(
                hyperparameters=params.hyperparameters,
                parent=params.update.parent,
                gate=verdict,
                measured=measured,
                pictures=links(pictures, project.report),
                **results,
            )
            report = update_report(state, params.evaluation, findings)
            stage.check(user)
        files.write_json(project.verdict, verdict.content)
        files.write_json(project.gate_metrics, verdict.metrics())
        files.write_text(project.report, report)
        if tracker.started:  # do not use `found`, which would wait for MLflow
            update_run.log_results(project, pictures, tracker)
            tracker.set_tags(update_run.state_tags(project, state))
    for name, reason in lacking.items():
        say(f"no export/{name}: {reason}")
    say(f"gate: {verdict.headline}")
    if verdict.problem:
        say(f"gate: {verdict.problem}")


def draw_or_warn(project: Project, params: Params, state: State) -> list[Path]:
    """Draw the pictures of the report; if that fails, print a warning and return an empty list.

    A failed picture must not make a finished update fail. Only a full disk or missing memory is an
    error, because otherwise the same update would give a different report.

    Raises:
        OSError: If the disk is full or fails.
        MemoryError: If there is not enough memory.
    """
    try:
        return draw_pictures(project, params, state)
    except Exception as error:  # noqa: BLE001 -- ours or the plotting library's defect
        shortage.reraise(error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"warning: the pictures could not be drawn: {reason}", file=sys.stderr)
        return []


def description(params: Params, state: State) -> Exported:
    """Return what the exported model says of itself."""
    number, metric = state.provenance.update, params.evaluation.metric
    history = state.evaluations()
    figures = {}
    if number in history.matrix(metric):  # retention may have left no holdout
        better = metric not in params.evaluation.lower_is_better
        summary = history.summary(number, metric, higher_is_better=better)
        figures = {
            f"{each}_{metric}": value
            for each in ("average", "overall")
            if not isinstance(value := summary[each], dict)
        }
    return Exported(
        *(number, state.identity, params.update.task_id),
        *(dict(params.hyperparameters), figures, params.model),
    )


def measure(
    project: Project, params: Params, state: State, user: UserConfig, exported: Path
) -> Measured:
    """Measure the exported new model and its opponent on all holdouts of the state.

    The opponent is the champion, or without one the parent's model. If the champion is the new model
    itself, as after `promote`, there is no comparison.
    """
    champion = Exported()
    if project.champion.is_dir():  # projects generated before the gate was added have no champion
        champion = Exported.read(project.champion)
    itself = champion.state == state.identity and is_same(project.champion, exported)
    opponent = Exported() if itself else champion
    parent = None
    if not champion and (project.restored / MANIFEST).is_file():
        restored = State.open(project.restored)
        parent = restored if restored.has_model else None
    compares = opponent or parent is not None
    if (compares or any(rule.by_row for rule in params.rules)) and state.split("holdouts"):
        from renate_stages.gate.challenge import challenge

        measured = challenge(project, params, state, user, opponent, parent)
    else:
        history, number = state.evaluations(), state.provenance.update
        problem = "no holdout is kept to measure it on" if compares else None
        measured = Measured(
            number,
            history.examined(number),
            opponent.update,
            problem=problem,
            parent_update=None if parent is None else parent.provenance.update,
            names=state.provenance.labels,
        )
    if itself:
        return replace(measured, champion_update=champion.update, relation="itself")
    if champion and champion.state == state.provenance.parent:
        return replace(measured, relation="parent")
    return measured


def pass_gate(params: Params, measured: Measured) -> Verdict:
    """Judge the measurements by the rules in `export.promote`."""
    lower = params.evaluation.lower_is_better
    generators = Generators(params.seed, params.update.number)
    return judge(params.rules, measured, params.evaluation.metric, lower, generators)
