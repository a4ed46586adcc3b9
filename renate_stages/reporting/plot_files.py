"""Write the plot data of an update: the output `plots` of the stage `train`."""

from __future__ import annotations

from renate_stages import files
from renate_stages.memory.composition import composition
from renate_stages.project import Project
from renate_stages.reporting.plasticity_plots import write_plasticity
from renate_stages.reporting.plots import write_plot_data
from renate_stages.reporting.search_plots import Searched, write_search_plots
from renate_stages.reporting.update_plots import write_update_plots
from renate_stages.state import State
from renate_stages.tasks import may_have_labels
from renate_stages.training.measured_update import MeasuredUpdate


def write_plots(project: Project, update: MeasuredUpdate, searched: Searched) -> None:
    """Write `plots/` as a whole.

    Args:
        project: Its `state/` must be written already: the memory's composition is read from it.
        update: The update.
        searched: The search of its hyperparameters.
    """
    updated, lower = update.updated, update.params.evaluation.lower_is_better
    with files.whole_directory(project.plots) as folder:
        write_plot_data(
            folder, update.history, updated.curves, updated.tables, lower_is_better=lower
        )
        labelled = may_have_labels(update.provenance.task)
        names = update.provenance.labels
        memory = composition(State.open(project.state).memory(), labelled, names)
        write_update_plots(folder, update.answers, memory)
        write_plasticity(folder, update.plasticity)
        write_search_plots(folder, searched)
