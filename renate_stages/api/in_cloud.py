"""Run the search and the training of `run_training_job` in the cloud.

The workplace of the job is made a project, and its stages `tune` and `train` run as a project's do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.evaluation.update_metrics import read_update_metrics
from renate_stages.files import yaml_file
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.remote import cloud
from renate_stages.reporting.plots import read_curves
from renate_stages.stages import tune
from renate_stages.state.inputs import read_tuned
from renate_stages.tuning.outcome import SEARCH, Search
from renate_stages.tuning.search_files import READ
from renate_stages.user.config import UserConfig

CONFIG = "renate_config.py"
PIPELINE: dict[str, Any] = {
    "tune": {
        "deps": [
            "parent-state/memory",
            "parent-state/validation",
            CONFIG,
            "work/prepared",
            "work/restored",
        ],
        "params": sorted(READ),
        "outs": ["work/tuning", "tuned.yaml"],
    },
    "train": {
        "deps": [
            "parent-state/evaluations.csv",
            "parent-state/holdouts",
            "parent-state/memory",
            "parent-state/validation",
            CONFIG,
            "work/prepared",
            "work/restored",
            "work/tuning",
        ],
        "params": [*sorted(READ - {"hyperparameters", "tuning"}), {"tuned.yaml": None}],
        "outs": ["state", "plots", "metrics/update.json"],
    },
}
"""What the stages read and write, as the `dvc.yaml` of a generated project says; nothing is forgotten."""


def run(project: Project, user: UserConfig, params: Params, target: Path | None) -> dict[str, Any]:
    """Search where there is a space, and train, in jobs.

    Args:
        project: The workplace, with the parent and the prepared data.
        user: The user's functions, which know the files that importing them used.
        params: As its `params.yaml` has them.
        target: Folder for the new state; None keeps none.

    Returns:
        The update's `summary`, `curves` to the eight digits of a plot, `tables`, the values
        `chosen`, and what the `search` found. Tables of a learner's own stay there.

    Raises:
        RenateStagesError: If something does not fit here, or a job fails.
    """
    files.link_or_copy(project.user_config, project.root / CONFIG)
    beside = [name for name in user.files.imported() if name != project.user_config.name]
    for name in beside:
        files.link_or_copy(project.user_config.parent / name, project.root / name)
    stages = {n: {**stage, "deps": [*stage["deps"], *beside]} for n, stage in PIPELINE.items()}
    files.write_text(project.pipeline, yaml_file.dump({"stages": stages}))
    if params.search_space:
        cloud.run(project, params, "tune")
    else:
        tune.run(project, lambda said: None)
    cloud.run(project, params, "train")
    rows = read_curves(project.plots)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        project.state.rename(target)
    search = Search.read(project.tuning / SEARCH)
    return {
        "summary": read_update_metrics(project.update_metrics),
        "curves": rows,
        "tables": {},
        "chosen": read_tuned(project.tuned),
        "search": {"searched": True, **search.model_dump()} if search is not None else {},
    }
