"""Run the search of one update, or continue an interrupted one.

    .renate/tuning/<key>/trials/     a folder for each trial; see trial_folder.py
    .renate/tuning/<key>/files.json  hashes of the user's files that the trials used

The key is a digest of all inputs except the budget, and of the versions of the libraries that
affect the result. So if a search is interrupted, starting it again continues from its trials, even
with a larger budget. All trials of a search use the same versions of the user's files; see
search_files.py.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renate_stages import files
from renate_stages._version import __version__
from renate_stages.errors import NoValidationDataError
from renate_stages.params import Params
from renate_stages.params.auto_learner import SuitedLearners, suited_learners
from renate_stages.params.search_space import AUTO, SearchSpace
from renate_stages.preprocessing import read_preprocessing
from renate_stages.processes import heavy_imports
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.state import TUNING_HISTORY, State
from renate_stages.state.inputs import Inputs, user_files
from renate_stages.state.prepared import PreparedData
from renate_stages.tuning.experience import Experience
from renate_stages.tuning.history import History
from renate_stages.tuning.objective import Objective
from renate_stages.tuning.processes import ForkedProcesses, FreshProcesses, Processes
from renate_stages.tuning.schedulers import make_scheduler
from renate_stages.tuning.search_files import SearchFiles, digest_of
from renate_stages.tuning.trial_view import TrialView
from renate_stages.user.config import UserConfig

if TYPE_CHECKING:
    from renate_stages.tuning.search import SearchResult, Show

LIBRARIES = ("numpy", "pytorch-lightning", "syne-tune", "torch")
BUDGET = {
    "max_trials",
    "max_completed",
    "max_epochs_total",
    "max_time",
    "n_workers",
    "processes",
    "reuse_best",
}


@dataclass(frozen=True)
class UpdateSearch:
    """The search of one update.

    Args:
        project: A project in which `prepare` and `restore-state` have run.
        params: Parameters of the update.
        space: The search space, with the hyperparameters that the user's functions read.
        suited: The learners that `learner: auto` searches; None with another value of `learner`.
        history: Trials of earlier updates.
        past: The trials of `history` that fit this search.
        parent: Identity of the parent's state.
        parent_learner: The learner that wrote it; None if no learner did.
        folder: Folder of this search alone.
        user: The user's functions.
        files: The user's files that the trials use.
        say: Prints one line for the user.
    """

    project: Project
    params: Params
    space: SearchSpace
    suited: SuitedLearners | None
    history: History
    past: Experience
    parent: str
    parent_learner: str | None
    folder: Path
    user: UserConfig
    files: SearchFiles
    say: Callable[[str], None]

    @classmethod
    def open(cls, project: Project, params: Params, say: Callable[[str], None]) -> UpdateSearch:
        """Open the search and check everything that can be checked before a trial.

        Raises:
            ChangedInputsError: If one of the user's files was edited in the meantime.
            NoValidationDataError: If there is no validation data to compare trials on.
            RenateStagesError: If another input cannot be used.
        """
        parent = State.open(project.restored, examples=project.parent)
        data = PreparedData.open(project.prepared)
        if params.update.kind != "forget":
            _check_validation(params, parent, data)
        with heavy_imports():
            from renate_stages.tuning.situation import situation_of
            from renate_stages.user import optimization  # torch

            user = UserConfig.of(project, "tune", named=params.named_model)
            user.preprocessing = read_preprocessing(project.prepared)
        space, suited = params.search_space.read_by(optimization.shared_hyperparameters(user)), None
        if params.learner == AUTO and params.update.kind != "forget":
            suited = suited_learners(situation_of(user, params, space.middle(), parent, data))
            space = space.among(suited.learners)
        history = History.read(project.restored / TUNING_HISTORY)
        used = history if params.tuning.use_history else History()
        past = used.usable(space, *params.objective)
        inputs = _inputs(project, params, parent, data)
        folder = project.searches / inputs.key
        parameters = digest_of(Params.load(project.params))  # each trial reads them itself
        kept = SearchFiles.open(folder, inputs, user.files, parameters, say)
        return cls(
            *(project, params, space, suited, history, past),
            *(parent.identity, parent.provenance.learner, folder, user, kept, say),
        )

    def best_known(self) -> dict[str, Any]:
        """Return the configuration to use without a search: that of the best earlier trial."""
        found, middle = self.past.best(1), self.space.middle()
        if self.parent_learner in self.space.learners and "learner" in middle:
            middle = self.space.complete(self.space.encode({"learner": self.parent_learner}))
        return self.space.complete(found[0]) if found else middle

    def run(self, processes: Processes, *watchers: Show) -> SearchResult:
        """Run trials until the budget is used up.

        Args:
            processes: Starts the processes of the trials.
            watchers: Called repeatedly with all trials.

        Raises:
            NoFinishedTrialError: If no trial has finished.
            ObjectiveNotFiniteError: If no trial has reported a finite objective.
            RenateStagesError: If an input that all trials share cannot be used.
        """
        from renate_stages.tuning.search import search  # Syne Tune
        from renate_stages.tuning.trials import Trials

        logging.getLogger("syne_tune").setLevel(logging.ERROR)
        if self.suited is not None:
            self.say(f"learner: auto searches {', '.join(self.suited.learners)}")
            self.say(f"because: {'; '.join(self.suited.reasons)}")
        for note in self.past.notes:
            self.say(note)
        known = len(list(self.folder.glob("trials/*/reports.jsonl")))
        if known:
            self.say(f"continuing the search: {known} trials found")
        tuning, objective = self.params.tuning, Objective.of(self.params)
        epochs = self.space.most_epochs(self.params.trainer.max_epochs) or 1
        devices = cuda_devices(self.params.trainer.accelerator)
        trials = Trials(
            *(self.folder / "trials", processes, self.space.complete, devices, self.files.add)
        )
        scheduler = make_scheduler(
            tuning.scheduler,
            self.space,
            objective.metric,
            objective.mode,
            epochs,
            Generators(self.params.seed, self.params.update.number).integer("tuning"),
            self.past,
            tuning.scheduler_arguments,
        )
        view = TrialView(objective, tuple(self.space.domains), self.say)
        return search(trials, scheduler, tuning, objective, view, *watchers)

    def clear(self) -> None:
        """Remove the trials, after their results have been written."""
        shutil.rmtree(self.project.searches, ignore_errors=True)


@contextmanager
def started_processes(project: Project, params: Params) -> Iterator[Processes]:
    """Start the processes for trials, whose imports take some seconds; end them with the block.

    They also end when this process ends for any reason.
    """
    with project.empty_scratch("trial-inputs") as scratch:
        processes: Processes
        if params.tuning.processes == "fork":
            processes = ForkedProcesses(project, scratch)
        else:
            processes = FreshProcesses(project)
        try:
            yield processes
        finally:
            processes.close()


def cuda_devices(accelerator: str) -> list[str]:
    """Return the CUDA devices to distribute among trials, without initializing CUDA.

    The list is empty for other accelerators.
    """
    if accelerator not in ("auto", "cuda", "gpu"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [each.strip() for each in visible.split(",") if each.strip()]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, _ in enumerate(listed.strip().splitlines())]


def _check_validation(params: Params, parent: State, data: PreparedData) -> None:
    if params.tuning.objective != "union" and not len(data.val):
        raise NoValidationDataError("of this update ")
    if not len(data.val) and not any(len(store) for store in parent.split("validation").values()):
        raise NoValidationDataError("")


def _inputs(project: Project, params: Params, parent: State, data: PreparedData) -> Inputs:
    own = {"evaluation", "hyperparameters", "learner", "retention", "seed", "trainer", "update"}
    forget, history = project.forget_list, project.restored / TUNING_HISTORY
    values = {
        "data": data.digest,
        "forget": files.sha256(forget) if forget.is_file() else None,
        "history": files.sha256(history) if history.is_file() else None,
        "params": params.model_dump(mode="json", include=own),
        "parent": parent.identity,
        "tuning": params.tuning.model_dump(mode="json", exclude=BUDGET),
        "versions": [__version__, *map(version, LIBRARIES)],
    }
    return Inputs(values, user_files(project, "tune"))
