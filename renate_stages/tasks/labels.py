"""Named labels: an ordered list of names, in which a label's place is its number.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from renate_stages.errors import (
    LabelNameError,
    LabelOrderError,
    MergedLabelsError,
    NamedTargetsError,
    NamesNeededError,
    UnnamedLabelsError,
)
from renate_stages.memory.label_names import numbered
from renate_stages.preprocessing.table_columns import folded
from renate_stages.tasks import TASKS

MOST_CHARACTERS = 200  # of a name, so that reports and plots stay readable
NAMED_TASKS = ("auto", "classification", "binary", "tokens")  # tasks whose targets may be names


class LabelNames:
    """Numbers names of labels: a new name gets the next number, and numbers never change.

        names = LabelNames(["cat", "dog"])
        names.number("bird")  # 2
        names.number("dog")  # 1

    Args:
        known: The names so far, in the order of the model's outputs.
        rename: What to call labels instead, by the name in the data. Several names may get the same
            new name.
        numbered: Whether earlier targets are numbers without names, so that names cannot be used.
        task: Name of the task, as in `params.yaml`.
        declared: Whether the user declared the order, so that the data may have numbers.
    """

    def __init__(
        self,
        known: Sequence[str] = (),
        rename: Mapping[str, str] | None = None,
        *,
        numbered: bool = False,
        task: str = "auto",
        declared: bool = False,
    ) -> None:
        self._rename = dict(rename or {})
        self._numbers = {name: number for number, name in enumerate(known)}
        self._numbered = numbered
        self._task = task
        self._declared = declared
        self._found: set[str] = set()
        self._read = False  # whether a name was read since the last call of `check`

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of their numbers."""
        return tuple(self._numbers)

    @property
    def found(self) -> frozenset[str]:
        """All names that `number` was called with, before they were renamed."""
        return frozenset(self._found)

    def number(self, name: str) -> int:
        """Return the number of a label's name; a new name gets the next one.

        Raises:
            LabelNameError: If it is no usable name.
            NamedTargetsError: If the task has no labels.
            UnnamedLabelsError: If earlier updates have numbers without names.
        """
        shown = self._rename.get(name, name)
        check_name(shown)
        if self._task in TASKS and self._task not in NAMED_TASKS:
            raise NamedTargetsError(self._task, name, NAMED_TASKS)
        if self._numbered:
            raise UnnamedLabelsError(name)
        self._read = True
        self._found.add(name)
        return self._numbers.setdefault(shown, len(self._numbers))

    def numbers(self, targets: Any) -> Any:
        """Return the targets of an item with names replaced by numbers; others as they are.

        Args:
            targets: A name; a list or array of names and -100, for tasks with a label for each
                position; or anything else.
        """
        return numbered(targets, self.number)

    def check(self, split: str, labelled_rows: Callable[[], int]) -> None:
        """Check that the data read since the last call had names, if labels have names.

        Args:
            split: "train", "val" or "test", for the message.
            labelled_rows: Returns the number of rows whose targets are not all ignored.

        Raises:
            NamesNeededError: If it had numbers.
        """
        read, self._read = self._read, False
        if not read and self._numbers and not self._declared and labelled_rows():
            raise NamesNeededError(split, self.names)


def check_name(name: str) -> None:
    """Check that a label's name can be shown in one line, and told apart from others there.

    Raises:
        LabelNameError: If it is empty, too long, contains control characters, or begins or ends with
            a space.
    """
    if not name or name != name.strip() or len(name) > MOST_CHARACTERS or not name.isprintable():
        raise LabelNameError(name, MOST_CHARACTERS)


def known_names(
    names: Sequence[str], rename: Mapping[str, str], order: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the names to start an update from: those of the parent, renamed, and the declared ones.

    Args:
        names: The parent's names, in the order of its model's outputs.
        rename: As in `LabelNames`.
        order: Declared names, which must begin like the parent's.

    Raises:
        MergedLabelsError: If two of the parent's labels would get one name.
        LabelOrderError: If the declared order differs from that of the parent.
    """
    renamed = [rename.get(name, name) for name in names]
    for place, name in enumerate(renamed):
        if name in renamed[:place]:
            both = names[renamed.index(name)], names[place]
            raise MergedLabelsError(*both, name)
    if any(one != other for one, other in zip(renamed, order, strict=False)):
        raise LabelOrderError(renamed, order)
    return tuple(renamed) + tuple(order[len(renamed) :])


def lookalikes(new: Sequence[str], known: Iterable[str]) -> dict[str, str]:
    """Return new names that differ from another one only in case, spaces or Unicode form.

    Args:
        new: New names; of those that look alike, the first is the one that others look like.
        known: Names of other labels, which come before the new ones.

    Returns:
        The name that it looks like, by the new name.
    """
    first = {folded(name): name for name in reversed([*known, *new])}
    return {name: other for name in new if (other := first[folded(name)]) != name}


def shown(label: int, names: Sequence[str]) -> str:
    """Return a label's name, or its number if it has none."""
    return names[label] if 0 <= label < len(names) else str(label)
