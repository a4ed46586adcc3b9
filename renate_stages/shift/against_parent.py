"""Compare the new training examples with the parent's, for the stage `prepare`."""

from __future__ import annotations

from collections.abc import Callable

from renate_stages.memory import ExampleStore
from renate_stages.params import Params
from renate_stages.shift.comparison import Shift, compare
from renate_stages.state import State
from renate_stages.state.new_data import Splits
from renate_stages.user.config import UserConfig


def compare_with_parent(
    user: UserConfig,
    params: Params,
    parent: State,
    new: ExampleStore,
    splits: Splits,
    labels: int,
    say: Callable[[str], None],
) -> Shift | None:
    """Compare new training examples with the parent's; None where it has no examples.

    Args:
        user: The user's functions.
        params: Of the update.
        parent: The state to compare with.
        new: The new training examples.
        splits: The data module's datasets, with the names of features and their kinds.
        labels: Number of named labels.
        say: Prints one line for the user.
    """
    if not parent.has_examples:
        return None
    shift = compare(user, params, parent, new, splits, labels)
    if shift is None:
        return None
    for what, reason in shift.figures.get("skipped", {}).items():
        say(f"{what} is left out: {reason}")
    tests = [
        f"{name} p {'unknown' if (p := test['corrected_p_value']) is None else f'{p:.2g}'}"
        for name, test in shift.figures["tests"].items()
    ]
    if tests:
        verdict = "shift" if shift.figures["alarms"] else "no shift"
        corrected = f" (corrected for {len(tests)} tests)" if len(tests) > 1 else ""
        say(f"{verdict} against {parent.label}: {', '.join(tests)}{corrected}")
    features = shift.figures.get("features", {})
    if features.get("shifted"):
        worst = features["most_shifted"]
        say(f"{features['shifted']} of {features['compared']} features, most of all {worst}")
    estimate = shift.figures.get("estimated_performance")
    if estimate is not None:
        say(
            f"{estimate['rows']} new rows have no labels: estimated accuracy of the parent's model "
            f"{estimate['accuracy']:.3f}"
        )
    return shift
