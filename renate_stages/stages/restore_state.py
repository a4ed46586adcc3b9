"""`renate-stages restore-state`: check the parent's state and prepare it for training.

Examples are not copied: later stages read them from `parent-state/`. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable

from renate_stages import files, lineage
from renate_stages.errors import WrongParentError
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.state import State, state


def run(project: Project, say: Callable[[str], None] = print) -> None:
    """Check the parent's state and write its small files to `work/restored`.

    Compare `parent-state/` with its manifest (examples only by size). The small files are manifest,
    model, learner, tuning history and the figures of plasticity.

    Raises:
        RenateStagesError: If the parent is missing, damaged, written by a newer version, or not the
            one that `params.yaml` names.
    """
    lineage.check_inputs(project, "restore-state")
    params = Params.load(project.params)
    parent = State.open(project.parent)
    if parent.provenance.update != params.update.parent:
        raise WrongParentError(parent.provenance.update, params.update.parent, params.update.number)
    state.check(project.parent, deep=False)
    memory = len(parent.memory())

    histories = (state.TUNING_HISTORY, state.PLASTICITY)
    names = (state.MANIFEST, *state.MODEL_FILES, *state.LEARNER_FILES, *histories)
    with files.whole_directory(project.restored) as folder:
        for name in names:
            if (project.parent / name).is_file():
                files.link_or_copy(project.parent / name, folder / name)
    say(f"update {params.update.number} starts from {parent.label}, {memory} examples in memory")
