"""Parts of the holdouts that rules can name: classes and slices.

A part is called by its label, `("7",)`, or by field and value, `("camera", "night")`. Both models
are measured on the same rows, so a part that the update has the champion has too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from renate_stages.errors import did_you_mean
from renate_stages.evaluation.examined import Examined
from renate_stages.evaluation.figures import Answers
from renate_stages.params.rules import CLASSES, PARTS

Part = tuple[str, ...]
Slices = Mapping[str, Mapping[int, np.ndarray]]  # by field and holdout: value of each row, (rows,)
KINDS = {"classes": "class", "slices": "slice"}
LISTED = 10  # parts that a message names


def accuracies(
    figure: str, examined: Mapping[int, Examined] | None, slices: Slices
) -> dict[Part, float]:
    """Return the accuracy on each part there is, classes ascending, slices by field and value.

    Args:
        figure: `classes` or `slices`.
        examined: A model on each holdout; without labels there is no part.
        slices: As `evaluation.slices.slices_of` reads them, of the same holdouts.
    """
    answers = Answers(examined or {}, None, slices)
    if figure == CLASSES:
        return {(label,): part.accuracy for label, part in answers.classes().items()}
    return {
        (field, value): part.accuracy
        for field, parts in answers.by_slice().items()
        for value, part in parts.items()
    }


def rows_of(part: Part, examined: Mapping[int, Examined], slices: Slices) -> dict[int, np.ndarray]:
    """Return which rows of each holdout are in a part, bool `(rows,)`."""
    if len(part) == PARTS[CLASSES]:
        labels = {n: each.predictions.labels for n, each in examined.items() if each.predictions}
        return {n: each == int(part[0]) for n, each in labels.items()}
    field, value = part
    return {n: each == value for n, each in slices[field].items()}


def absent(figure: str, part: Part, known: Mapping[Part, float]) -> str | None:
    """Return why there is no figure of a part that a rule names; None where there is one.

    Args:
        figure: `classes` or `slices`.
        part: What the rule names; `()`: every one.
        known: The parts there are.
    """
    if not part or any(each[: len(part)] == part for each in known):
        return None
    *field, value = part
    names = [each[-1] for each in known if list(each[:-1]) == field]
    if not names:
        return f"no row of the holdouts has a {KINDS[figure]}"
    listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
    hint = did_you_mean(value, names) if field else ""
    return f"no row of the holdouts is in this {KINDS[figure]}{hint} (there are: {listed})"
