"""Errors about named labels, and about models that cannot grow for new ones."""

from __future__ import annotations

from collections.abc import Sequence

from renate_stages.errors.base import RenateStagesError
from renate_stages.errors.wording import counted

LISTED = 8  # maximum number of names in a message


class LabelNameError(RenateStagesError):
    """A target is a text that cannot be the name of a label."""

    def __init__(self, name: str, most: int) -> None:
        super().__init__(
            f"the targets contain the label {name[:80]!r}; expected a name of 1 to {most} printable "
            "characters, without spaces at its ends.\n"
            "To fix this: let the data module return other names, or -100 for rows to ignore."
        )


class UnnamedLabelsError(RenateStagesError):
    """Targets are names, but those of earlier updates are numbers without names."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the targets contain the label {name!r}, but the parent's model has numbered labels "
            "without names.\n"
            "To fix this: list the names of its outputs, in order, in data.labels.order of "
            "params.yaml; or let the data module return numbers."
        )


class NamesNeededError(RenateStagesError):
    """Targets are numbers, but those of earlier updates are names."""

    def __init__(self, split: str, names: Sequence[str]) -> None:
        super().__init__(
            f"{split} data: targets are numbers, but labels have names: {listed(names)}.\n"
            "To fix this: let the data module return the names, or -100 for rows to ignore."
        )


class MergedLabelsError(RenateStagesError):
    """`data.labels.rename` would give one name to two labels that the model has outputs for."""

    def __init__(self, first: str, second: str, name: str) -> None:
        super().__init__(
            f"params.yaml, data.labels.rename: {first!r} and {second!r} would both be {name!r}, but "
            "earlier updates were trained on them as two labels, each with its own output.\n"
            "To fix this: rename them to different names, or start from a state that has only one "
            "of them."
        )


class LabelOrderError(RenateStagesError):
    """`data.labels.order` does not begin like the labels of the parent."""

    def __init__(self, known: Sequence[str], order: Sequence[str]) -> None:
        super().__init__(
            f"params.yaml, data.labels.order: found {listed(order)}, but the outputs of the "
            f"parent's model are {listed(known)}, and the order of outputs never changes.\n"
            "To fix this: begin with those names in that order, or remove data.labels.order."
        )


class TooFewNamesError(RenateStagesError):
    """The parent's model has more outputs than `data.labels.order` has names."""

    def __init__(self, outputs: int, names: Sequence[str]) -> None:
        super().__init__(
            f"params.yaml, data.labels.order: it lists {len(names)} names, but the parent's model "
            f"has {outputs} outputs.\n"
            "To fix this: list a name for each output, in order, also for unused ones."
        )


class NamedTargetsError(RenateStagesError):
    """Targets are names, but the task does not have labels."""

    def __init__(self, task: str, name: str, tasks: Sequence[str]) -> None:
        super().__init__(
            f"the targets contain the text {name!r}, but the targets of task {task} are numbers.\n"
            f"To fix this: set task in params.yaml to one of {', '.join(tasks)}, or let the data "
            "module return numbers."
        )


class UnusableLabelsError(RenateStagesError):
    """No model can be made for the labels of the first update."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"{problem}.\nTo fix this: {cure}.")


class PositiveLabelError(RenateStagesError):
    """A binary task has named labels, but nothing says which of them is 1."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"task binary: labels have the names {listed(names)}, but it is not declared which of "
            "them is 0 and which is 1.\n"
            "To fix this: set data.labels.order in params.yaml to the two names, label 1 last."
        )


class OutputLayerError(RenateStagesError):
    """A model has fewer outputs than there are labels, and cannot grow."""

    def __init__(self, model: str, outputs: int, labels: int, reason: str) -> None:
        super().__init__(
            f"{model} has {counted(outputs, 'output')}, but the data has {labels} labels, and the "
            f"model cannot grow: {reason}.\n"
            "To fix this: name the last layer `head` and make it a torch.nn.Linear; or set "
            "`output_layer` of the model to its name; or let model_fn build enough outputs."
        )


def listed(names: Sequence[str]) -> str:
    """Return names for a message, at most `LISTED`."""
    more = ", …" if len(names) > LISTED else ""
    return ", ".join(map(repr, names[:LISTED])) + more
