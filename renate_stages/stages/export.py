"""Turn the new state into what is deployed and what is read: `renate-stages export`."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from renate_stages import exported_program, files, publishing, tracking
from renate_stages.evaluation.report import model_card, update_report
from renate_stages.imports import heavy_imports
from renate_stages.inputs import read_tuned
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.stages.run_identity import run_identity
from renate_stages.state import MODEL_FILES, State
from renate_stages.tuning.outcome import SEARCH
from renate_stages.user_config import UserConfig


def run(project: Project, say: Callable[[str], None] = print) -> None:
    """Write `export/` (model, program, card) and `reports/update.md`; add them to the MLflow run.

    Raises:
        RenateStagesError: If the state or a parameter cannot be used.
    """
    params = Params.load(project.params).fixed(read_tuned(project.tuned))
    exported_program.check_onnx(params)
    state = State.open(project.state)
    identity = run_identity(
        project, params, key=state.provenance.inputs or "", parent=state.provenance.parent
    )
    with tracking.reopened_run(project.root, identity, enabled=params.tracking.enabled) as tracker:
        with heavy_imports():
            user = UserConfig.load(project.user_config, stage="export")
            from renate_stages.models.stored import write_checkpoint

        with files.whole_directory(project.export) as folder:
            for name in MODEL_FILES:
                files.link_or_copy(state.folder / name, folder / name)
            user_config = project.user_config  # copied: a user edits it, and DVC links its outputs
            shutil.copyfile(user_config, folder / user_config.name)
            write_checkpoint(state.folder, folder / "model.ckpt")
            reason = exported_program.write_program(folder, state, params, user)
            card = f"{model_card(state, params.evaluation)}\n{exported_program.card_section(folder)}"
            files.write_text(folder / "MODEL_CARD.md", card)
        path = project.tuning / SEARCH
        search = files.read_json(path) if path.is_file() else None  # older projects have none
        files.write_text(project.report, update_report(state, params.evaluation, search))
        if tracker.started:  # not `found`: pictures are drawn while MLflow is still imported
            publishing.log_results(project, params, state, tracker)
    if reason:
        say(f"no export/{exported_program.PROGRAM}: PyTorch could not trace the model: {reason}")
    say(f"model in {project.relative(project.export)}/, report {project.relative(project.report)}")
