"""`renate-stages tune`: choose the hyperparameters of this update.

If all hyperparameters are constants, they are used as they are, and nothing heavy is imported. If
`hyperparameters` contains a search space, trials run; see `renate_stages.tuning.update_search`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from renate_stages import files, lineage, tracking
from renate_stages.errors import ChangedInputsError
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.state import TUNING_HISTORY
from renate_stages.state.inputs import StageInputs, write_tuned
from renate_stages.tracking.update_run import logged_parameters, search_identity
from renate_stages.tuning.outcome import summary, unrepeatable, write_search, write_unsearched
from renate_stages.tuning.trial_log import TrialLog

if TYPE_CHECKING:
    from renate_stages.tuning.search import SearchResult


def run(project: Project, say: Callable[[str], None] = print) -> None:
    """Write `tuned.yaml`, and `work/tuning` with the trials of all updates so far.

    Raises:
        RenateStagesError: If an input cannot be used, or no trial has finished; in that case
            nothing is written.
    """
    stage = StageInputs.read(project, "tune")
    lineage.check_inputs(project, "tune")
    params = Params.load(project.params)
    space = params.search_space
    if not space:
        with files.whole_directory(project.tuning) as folder:
            write_unsearched(folder, project.restored / TUNING_HISTORY)
        stage.check()
        write_tuned(project.tuned, space.constants)
        say("no search space: the hyperparameters are used as they are set")
        return

    from renate_stages.tuning.update_search import UpdateSearch, started_processes

    if params.update.kind == "forget":
        with files.whole_directory(project.tuning) as folder:
            write_unsearched(folder, project.restored / TUNING_HISTORY)
        write_tuned(project.tuned, UpdateSearch.open(project, params, say).best_known())
        say("nothing is trained, so nothing is searched: using the best known hyperparameters")
        return
    with started_processes(project, params) as processes:
        search = UpdateSearch.open(project, params, say)
        key = search.folder.name
        identity = search_identity(project, params, key=key, parent=search.parent)
        with tracking.new_run(project.root, identity, enabled=params.tracking.enabled) as tracker:
            log = TrialLog(tracker)
            tracker.log_parameters(logged_parameters(params))
            result = search.run(processes, log)
            try:
                stage.check(search.user)
            except ChangedInputsError as error:
                search.files.drop_unseen(error.names)
                raise
            log.finish(result)
            tracker.set_tags({"tuning.repeatable": not unrepeatable(params)})
            value = result.best.seen[-1].metrics
            tracker.log_metrics({f"best_{name}": each for name, each in value.items()})
    with files.whole_directory(project.tuning) as folder:
        write_search(*(folder, params, result, search.history, search.past.notes, search.suited))
    write_tuned(project.tuned, result.best.configuration)
    if project.outside is None:  # a job keeps its trials until it ends, so that it can be restarted
        search.clear()
    say(describe(params, result))


def describe(params: Params, result: SearchResult) -> str:
    """Return a summary of the search in two lines."""
    content = summary(params, result, ())
    best, (metric, _) = content["best"], params.objective
    counted = ", ".join(f"{count} {status}" for status, count in content["trials"].items())
    chosen = ", ".join(f"{name} {each}" for name, each in best["configuration"].items())
    return (
        f"{len(result.trials)} trials ({counted}), {content['epochs']} epochs, ended by "
        f"{result.ended_by}; best: trial {best['trial']}, {metric} {best['value']:.3f}\n"
        f"chosen: {chosen}"
    )
