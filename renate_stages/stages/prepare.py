"""`renate-stages prepare`: ingest the incoming data into stores and measure its shift."""

from __future__ import annotations

from collections.abc import Callable

from renate_stages import files, lineage
from renate_stages.errors import AllForgottenError, AllHeldOutError, UnweightedLearnerError
from renate_stages.export import carried_files
from renate_stages.learners import registry
from renate_stages.memory.earlier_rows import EarlierRows
from renate_stages.memory.forget_list import CountedForgetList, ForgetList
from renate_stages.memory.row_weights import check_weights, is_weighted
from renate_stages.params import Params
from renate_stages.preprocessing import link_preprocessing, read_preprocessing
from renate_stages.processes import heavy_imports
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.shift.data_metrics import LabelFigures, lines_of
from renate_stages.shift.features import write_features
from renate_stages.stages.hyperparameters import check_hyperparameters
from renate_stages.state import State, data_figures, new_data, prepared
from renate_stages.state.fingerprint import check_fingerprint, fingerprint_of
from renate_stages.state.fitted import check_kind, fit_preprocessing, take_targets, write_rejected
from renate_stages.state.inputs import StageInputs
from renate_stages.state.label_figures import FoundLabels
from renate_stages.state.label_names import label_names
from renate_stages.tasks import may_have_labels
from renate_stages.tasks.labels import LabelNames
from renate_stages.user.config import UserConfig


def run(project: Project, say: Callable[[str], None] = print) -> None:
    """Read `data/incoming` with the user's data module; write `work/prepared` and its figures.

    An update of kind `forget` has no new data: its splits are empty.

    Raises:
        RenateStagesError: If parameters, the user's functions or the data cannot be used.
    """
    stage = StageInputs.read(project, "prepare")
    lineage.check_inputs(project, "prepare")
    params = Params.load(project.params)
    registry.check_installed(params.search_space.learners)
    carried_files.check_files(project, params)  # fails now, not after hours of training
    forget = CountedForgetList(ForgetList.read(project.forget_list))
    parent, earlier, labels = None, EarlierRows(), LabelNames()
    fingerprint, known_preprocessing = {}, True
    splits, user, shift = new_data.Splits(), None, None
    if params.update.kind == "update":
        if project.outside is None:  # in a job, the data module may download its data
            new_data.require_files(project.incoming)
        with heavy_imports():
            user = UserConfig.of(project, "prepare", named=params.named)
            user.preprocessing = read_preprocessing(project.parent)
            known_preprocessing = user.preprocessing is not None
        check_hyperparameters(user, params, project.incoming)
        generators = Generators(params.seed, params.update.number)
        generators.seed_global("prepare")
        parent = new_data.parent_in(project.parent)
        labels = label_names(params, parent)
        kept = None if project.outside else project.scratch  # the folder of a job is removed
        splits = new_data.read_splits(user, project.incoming, params, generators, kept)
        if splits.preprocessing is not None:
            carried_files.check_folder(project, params)
        for name in splits.label_order:
            labels.number(name)
        check_kind(user.preprocessing, splits.preprocessing)
        fingerprint = fingerprint_of(project, params.data.fingerprint, splits.fingerprint)
        check_fingerprint(fingerprint, parent, params.data.accepted_fingerprint)
        if parent is not None:
            earlier = new_data.earlier_rows(parent, splits.preprocessing)

    with files.whole_directory(project.prepared) as folder:
        rejected = write_rejected(splits.rejected, folder)
        with new_data.reading(user):
            number, workers = params.update.number, params.data.num_workers
            stores = new_data.ingest_splits(
                splits, folder, number, forget, earlier, labels, workers
            )
        new_data.check_row_names(splits.row_names, earlier)
        if params.update.kind == "update" and not len(stores["train"]):
            raise (
                AllHeldOutError(earlier.held_out)
                if earlier.held_out
                else AllForgottenError(forget.rows)
            )
        if parent is not None:
            new_data.check_structure(stores["train"], parent)
        if is_weighted(stores["train"]):
            check_weights(stores["train"], "the training data")
            if refused := registry.without_weights(params.search_space.learners):
                raise UnweightedLearnerError(refused)
        task = params.task if parent is None else parent.provenance.task or params.task
        fitted = {}
        if user is None:
            link_preprocessing(project.parent, folder)
        elif splits.preprocessing is not None:
            take_targets(splits.preprocessing, splits.target_names, user.preprocessing)
            user.preprocessing = splits.preprocessing
            fitted = fit_preprocessing(splits.preprocessing, stores, labels.names, task, folder)
        prepared.write_manifest(folder, params.update.number, labels.names, fingerprint)
        labelled = may_have_labels(task)
        figures = data_figures.figures(stores, forget, earlier, number, labelled, labels.names)
        figures |= {"rejected": rejected} if splits.rows else {}
        figures |= {"preprocessing": fitted} if fitted else {}
        found = FoundLabels.of(stores, parent, task)
        counted = found.figures(labels)
        figures |= {"labels": counted} if counted else {}
        say(data_figures.summary(figures))
        if splits.preprocessing is not None and user is not None and not known_preprocessing:
            say(splits.preprocessing.summary())
        for line in lines_of(rejected, fitted) + LabelFigures(**counted).lines():
            say(line)
        if user is not None:
            for line in found.unused(params.data.labels, labels, parent):
                say(line)
        if user is not None and params.shift.enabled:
            from renate_stages.shift.against_parent import compare_with_parent

            parent = parent or State.open(project.parent)
            shift = compare_with_parent(
                user, params, parent, stores["train"], splits, len(labels.names), say
            )
    if shift is not None:
        figures["shift"] = shift.figures
    write_features(project.feature_shift, shift.features if shift is not None else [])
    files.write_json(project.data_metrics, figures)
    stage.check(user)
