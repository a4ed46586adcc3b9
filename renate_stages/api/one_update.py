"""Train the update of `run_training_job`, in this process or in several.

python -m renate_stages.api.one_update PROJECT CONFIG OUTCOME SEARCHED [TARGET]     in each of them
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.errors import SharedTrainingError
from renate_stages.files import yaml_file
from renate_stages.params import Params
from renate_stages.processes import heavy_imports
from renate_stages.project import Project
from renate_stages.state import TUNING_HISTORY, State
from renate_stages.state.inputs import update_inputs
from renate_stages.state.prepared import PreparedData
from renate_stages.training import launch
from renate_stages.user.config import UserConfig


def run(
    project: Project, user: UserConfig, params: Params, target: Path | None, *, searched: bool
) -> dict[str, Any]:
    """Run an update, and write its state; return its `summary`, `curves` and `tables`.

    Args:
        project: With the parent and the prepared data.
        user: The user's functions.
        params: Without spaces; of several devices, each gets a process.
        target: Folder for the new state; None keeps none.
        searched: Whether the search's history belongs to the state, and its best trial is known.

    Raises:
        SharedTrainingError: If one of several processes failed, which has said why.
    """
    if not launch.is_to_launch(params):
        return run_here(project, user, params, target, searched=searched)
    files.write_text(project.params, yaml_file.dump(params.model_dump(mode="json")))
    with project.empty_scratch("launched") as scratch, project.empty_scratch("outcome") as folder:
        outcome = folder / "outcome.json"
        given = [project.root, project.user_config, outcome, int(searched)]
        given += [] if target is None else [target.resolve()]
        command = ["-m", "renate_stages.api.one_update", *map(str, given)]
        code = launch.start(command, params.trainer.devices, scratch)
        if code:
            raise SharedTrainingError(code)
        return files.read_json(outcome)


def run_here(
    project: Project, user: UserConfig, params: Params, target: Path | None, *, searched: bool
) -> dict[str, Any]:
    """Do what `run` does in this process, which may be one of several."""
    with heavy_imports():
        from renate_stages.data.ranks import joined
        from renate_stages.training.measured_update import MeasuredUpdate
        from renate_stages.training.resume import Resume

    parent = State.open(project.parent)
    data = PreparedData.open(project.prepared)
    inputs = update_inputs(project, params, parent, data, user)
    resume = None
    if searched:
        resume = Resume.of(project.checkpoints, inputs, used=user.files)
        resume.take_over(project.tuning / "checkpoints")
    with (
        project.empty_scratch(launch.own("kept")) as kept,
        joined(params.trainer.accelerator),
    ):
        update = MeasuredUpdate.run(
            user, params, params.hyperparameters, parent, data, inputs.key, kept, resume=resume
        )
        if target is not None and not launch.rank():
            history = project.tuning / TUNING_HISTORY if searched else None
            update.write_state(target, history, replace=False)
    updated = update.updated
    return {"summary": update.summary(), "curves": updated.curves, "tables": dict(updated.tables)}


def main() -> None:
    """Be one of the processes."""
    root, config, outcome, searched, *target = sys.argv[1:]
    project = Project(Path(root), Path(config))
    params, user = Params.load(project.params), UserConfig.of(project, None)
    folder = Path(target[0]) if target else None
    found = run_here(project, user, params, folder, searched=bool(int(searched)))
    if not launch.rank():
        files.write_json(Path(outcome), found)


if __name__ == "__main__":
    from renate_stages.training.guarded import guarded

    launch.begin(trains=True)
    guarded(main)
