"""Replace names of labels in targets by numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from renate_stages.memory.spec import IGNORED


def numbered(targets: Any, number: Callable[[str], int]) -> Any:
    """Return the targets of an item with names replaced by numbers; others as they are.

    Args:
        targets: A name; a list or array of names and -100, for tasks with a label for each
            position; or anything else.
        number: Returns the number of a name.
    """
    if isinstance(targets, str):
        return np.asarray(number(targets), dtype=np.int64)
    is_of_texts = isinstance(targets, np.ndarray) and targets.dtype.kind == "U"
    names = targets.tolist() if is_of_texts else targets
    if not isinstance(names, list) or not any(isinstance(each, str) for each in names):
        return targets
    if not all(isinstance(each, str) or each == IGNORED for each in names):
        return targets
    known = [each if each == IGNORED else number(each) for each in names]
    return np.array(known, dtype=np.int64)
