"""Write plot data of one update for `dvc plots`: confusion, classes, memory.

The files are stage outputs in Git, and deterministic. All are always written, with only a header if
there is no data, because the plots in `dvc.yaml` need the files.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from renate_stages import files
from renate_stages.evaluation.figures import Answers
from renate_stages.files.csv_file import csv_text
from renate_stages.memory.composition import Part
from renate_stages.tasks.labels import shown


def write_update_plots(folder: Path, answers: Answers, memory: Iterable[Part]) -> list[Path]:
    """Write the plot data that concerns only this update.

        confusion.csv   actual, predicted        a row for each example of all holdouts, sorted
        classes.csv     class, accuracy, rows    over all holdouts
        memory.csv      update, class, rows      rows in memory by update and class

    DVC's template for `confusion.csv` counts the rows itself. Sorted rows compress to almost nothing
    in Git.

    Args:
        folder: Folder to write to; created if it is missing.
        answers: The new model's predictions on the holdouts.
        memory: Composition of the new state's memory; `class` is empty if targets are not labels.

    Returns:
        The files written, in the order above.
    """
    classes = (
        {"class": label, "accuracy": part.accuracy, "rows": part.rows}
        for label, part in answers.classes().items()
    )
    kept = (
        {"update": part.update, "class": label, "rows": rows}
        for part in memory
        for label, rows in (part.classes or {"": part.rows}).items()
    )
    texts = {
        "confusion.csv": _confusion(answers),
        "classes.csv": csv_text(("class", "accuracy", "rows"), classes),
        "memory.csv": csv_text(("update", "class", "rows"), kept),
    }
    for name, text in texts.items():
        files.write_text(folder / name, text)
    return [folder / name for name in texts]


def _confusion(answers: Answers) -> str:
    columns = ("actual", "predicted")
    lines = [csv_text(columns, ())]
    predictions = answers.predictions.values()
    if predictions:
        pairs = np.concatenate([np.stack([p.labels, p.predicted], axis=1) for p in predictions])
        distinct, counts = np.unique(pairs, axis=0, return_counts=True)
        for pair, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            actual, predicted = (shown(label, answers.names) for label in pair)
            text = csv_text(columns, [{"actual": actual, "predicted": predicted}])
            _, _, line = text.partition("\n")
            lines.append(line * count)
    return "".join(lines)
