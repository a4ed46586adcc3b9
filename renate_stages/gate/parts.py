"""Parts of the holdouts to which rules can apply: classes and slices.

A part is identified by its label, `("7",)`, or by field and value, `("camera", "night")`. Both
models are measured on the same rows, so they have the same parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from renate_stages.errors import did_you_mean
from renate_stages.evaluation.examined import Examined
from renate_stages.evaluation.figures import Answers
from renate_stages.params.rules import CLASSES, PARTS

Part = tuple[str, ...]
Slices = Mapping[str, Mapping[int, np.ndarray]]  # by field and holdout: value of each row, (rows,)
KINDS = {"classes": "class", "slices": "slice"}
LISTED = 10  # maximum number of parts in a message


def accuracies(
    figure: str,
    examined: Mapping[int, Examined] | None,
    slices: Slices,
    names: Sequence[str] = (),
) -> dict[Part, float]:
    """Return the accuracy on each part: classes ascending, or slices by field and value.

    Args:
        figure: `classes` or `slices`.
        examined: A model's results on each holdout; without labels there are no parts.
        slices: What `evaluation.slices.slices_of` returned for the same holdouts.
        names: Names of the labels.
    """
    answers = Answers(examined or {}, None, slices, names)
    if figure == CLASSES:
        return {(label,): part.accuracy for label, part in answers.classes().items()}
    return {
        (field, value): part.accuracy
        for field, parts in answers.by_slice().items()
        for value, part in parts.items()
    }


def rows_of(
    part: Part, examined: Mapping[int, Examined], slices: Slices, names: Sequence[str] = ()
) -> dict[int, np.ndarray]:
    """Return which rows of each holdout are in a part, bool `(rows,)`."""
    if len(part) == PARTS[CLASSES]:
        labels = {n: each.predictions.labels for n, each in examined.items() if each.predictions}
        label = names.index(part[0]) if part[0] in names else int(part[0])
        return {n: each == label for n, each in labels.items()}
    field, value = part
    return {n: each == value for n, each in slices[field].items()}


def absent(figure: str, part: Part, known: Mapping[Part, float]) -> str | None:
    """Return why the part in a rule has no figure, or None if it has one.

    Args:
        figure: `classes` or `slices`.
        part: The part in the rule; `()` for all parts.
        known: The existing parts.
    """
    if not part or any(each[: len(part)] == part for each in known):
        return None
    *field, value = part
    names = [each[-1] for each in known if list(each[:-1]) == field]
    if not names:
        return f"no row of the holdouts has a {KINDS[figure]}"
    listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
    hint = did_you_mean(value, names) if field or not value.isdecimal() else ""
    return f"no row of the holdouts is in this {KINDS[figure]}{hint} (known: {listed})"
