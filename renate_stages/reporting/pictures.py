"""Draw all pictures of an update for its report: `reports/pictures/<key>/*.png`.

The pictures are in neither Git nor DVC, because their bytes depend on the version of matplotlib. So
the pictures stay when another update is checked out. Their folder is named by the hash of their
data, and a report links that folder, so that it never shows pictures of another update.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from renate_stages import files
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.shift.data_metrics import DataMetrics
from renate_stages.state import State
from renate_stages.tasks import may_have_labels

CAPTIONS = {  # by the prefix of a file's name; {} is the metric after the prefix
    "matrix_": "{} on every holdout after each update, as a matrix",
    "holdouts_": "{} on each holdout over the updates",
    "forgetting_": "forgetting of {} after each update",
    "interpolation_": "{} for weights between the parent's and the new ones",
    "confusion": "confusion matrix",
    "classes": "accuracy on each class",
    "learning_curve": "losses and metrics over the epochs",
    "plasticity": "dead units, features and weights over the updates",
    "memory": "rows in memory by update and class",
    "shift_features": "shift of features from the parent's examples",
    "tuning_parallel": "hyperparameters and results of the search's trials",
    "tuning_importance": "importance of hyperparameters in the search",
}


def draw_pictures(project: Project, params: Params, state: State) -> list[Path]:
    """Draw all pictures of the finished update, and remove those of other updates.

    Args:
        project: The project, with `plots/` and `metrics/` of that update.
        params: Parameters without search spaces, as `Params.fixed` returns them.
        state: The update's state.

    Returns:
        The files written.
    """
    from renate_stages.memory.composition import composition
    from renate_stages.reporting import memory_picture
    from renate_stages.reporting.plasticity_plots import draw_plasticity
    from renate_stages.reporting.plots import draw
    from renate_stages.reporting.search_pictures import draw_search
    from renate_stages.reporting.shift_picture import draw_shift
    from renate_stages.reporting.update_pictures import draw_update

    headline, lower = params.evaluation.metric, params.evaluation.lower_is_better
    metric, mode = params.objective
    history = state.evaluations()
    name = folder_name(project, params, state)
    with files.whole_directory(project.pictures) as temporary:
        folder = temporary / name
        folder.mkdir()
        trials = project.plots / "tuning_trials.csv"
        drawn = draw(folder, history, project.plots, lower_is_better=lower)
        worse = headline in lower
        drawn += draw_update(folder, history, project.plots, headline, lower_is_better=worse)
        drawn += draw_plasticity(folder, project.plots)
        labelled, names = may_have_labels(state.provenance.task), state.provenance.labels
        if memory := composition(state.memory(), labelled, names):
            memory_picture.draw(memory, folder / "memory.png")
            drawn.append(folder / "memory.png")
        shift = DataMetrics.read(project.data_metrics).shift
        drawn += draw_shift(folder, project.feature_shift, shift, shape_of_inputs(state))
        drawn += draw_search(folder, trials, metric, lower_is_better=mode == "min")
    return [project.pictures / name / path.name for path in drawn]


def pictures_at_hand(project: Project, params: Params, state: State) -> list[Path]:
    """Return the pictures of the finished update, and draw them if they are missing."""
    folder = project.pictures / folder_name(project, params, state)
    return sorted(folder.glob("*.png")) or draw_pictures(project, params, state)


def folder_name(project: Project, params: Params, state: State) -> str:
    """Return the name of the pictures' folder: 12 hexadecimal digits of the hash of their data."""
    shown = {path.name: files.sha256(path) for path in project.plots.glob("*.csv")}
    for path in (project.data_metrics, project.feature_shift):
        if path.is_file():  # projects of old releases lack some
            shown[path.name] = files.sha256(path)
    metrics = [params.evaluation.metric, params.evaluation.mode, *params.objective]
    return files.digest({"metrics": metrics, "state": state.identity, "shown": shown})[:12]


def shape_of_inputs(state: State) -> tuple[int, ...]:
    """Return the shape of an example's inputs; `()` unless they are one array of fixed shape."""
    stores = [*state.split("holdouts").values(), state.memory()]
    specs = [store.spec for store in stores if len(store) and store.spec is not None]
    field = specs[0].fields.get("inputs") if specs else None
    return () if field is None or field.ragged else field.shape


def links(pictures: Sequence[Path], report: Path) -> list[str]:
    """Return a line of Markdown for each picture, with its caption and a link."""
    return [
        f"- [{caption(path)}]({quote(path.relative_to(report.parent).as_posix())})"
        for path in pictures
    ]


def caption(picture: Path) -> str:
    """Return a picture's caption."""
    name = unquote(picture.stem)
    for beginning, text in CAPTIONS.items():
        if name.startswith(beginning):
            return text.format(name.removeprefix(beginning))
    return name
