"""Write plot data of one update for `dvc plots`: classes, confusion, memory.

Outputs of a stage: deterministic and in Git. All are written always, with a header alone where
there is nothing to tell, so that a plot of `dvc.yaml` never lacks its file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from renate_stages import files
from renate_stages.evaluation.figures import Answers
from renate_stages.files.csv_file import csv_text
from renate_stages.memory.composition import Part


def write_update_plots(folder: Path, answers: Answers, memory: Iterable[Part]) -> list[Path]:
    """Write what is of this update alone.

        confusion.csv   actual, predicted        a row for each example of all holdouts, sorted
        classes.csv     class, accuracy, rows    over all holdouts
        memory.csv      update, class, rows      how many of which update the memory holds

    DVC's template counts the rows of `confusion.csv` itself. Sorted they compress to almost nothing
    in Git.

    Args:
        folder: Made if it is missing.
        answers: What the new model says of the holdouts.
        memory: What the new state's memory holds; its class is empty where targets are no labels.

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
    lines = ["actual,predicted\n"]
    found = answers.predictions.values()
    if found:
        pairs = np.concatenate([np.stack([p.labels, p.predicted], axis=1) for p in found])
        distinct, counts = np.unique(pairs, axis=0, return_counts=True)
        for (actual, predicted), count in zip(distinct.tolist(), counts.tolist(), strict=True):
            lines.append(f"{actual},{predicted}\n" * count)
    return "".join(lines)
