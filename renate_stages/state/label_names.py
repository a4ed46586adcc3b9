"""The names of labels that an update starts from: those of the parent, and those of `data.labels`."""

from __future__ import annotations

from renate_stages.errors import InvalidParamsError, TooFewNamesError
from renate_stages.params import Params
from renate_stages.state.state import State
from renate_stages.tasks import TASKS, labels
from renate_stages.tasks.labels import LabelNames


def label_names(params: Params, parent: State | None, *, has_model: bool = False) -> LabelNames:
    """Return the names of labels to start from, those of the parent and of `data.labels`.

    Args:
        params: Parameters with `data.labels` and the task.
        parent: The state to start from.
        has_model: Whether there is a model already, whose labels have no names.

    Raises:
        MergedLabelsError: If two of the parent's labels would get one name.
        LabelOrderError: If the declared order differs from that of the parent.
        TooFewNamesError: If names are declared, but not for all labels of the parent.
        InvalidParamsError: If names are declared, but the task has no labels.
    """
    declared, names = params.data.labels, ()
    numbered = has_model and not declared.order
    task = parent.provenance.task if parent is not None else None
    task = task or params.task
    if declared.order and task in TASKS and task not in labels.NAMED_TASKS:
        problem = f"data.labels.order: expected an empty list, because task {task} has no labels"
        raise InvalidParamsError("params.yaml", [problem])
    if parent is not None:
        names, classes = parent.provenance.labels, parent.provenance.classes
        most = max(classes, default=-1) + 1
        if not names and declared.order and most > len(declared.order):
            raise TooFewNamesError(most, declared.order)
        numbered = not names and not declared.order and (parent.has_model or bool(classes))
    known = labels.known_names(names, declared.rename, declared.order)
    return LabelNames(
        known, declared.rename, numbered=numbered, task=task, declared=bool(declared.order)
    )
