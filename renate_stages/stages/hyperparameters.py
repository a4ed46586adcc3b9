"""Check hyperparameters in the first stage, so that hours of reading data do not come before an error."""

from __future__ import annotations

from pathlib import Path

from renate_stages.errors import UnmeasuredMetricError
from renate_stages.learners.avalanche import catalog
from renate_stages.learners.hyperparameters import HYPERPARAMETERS
from renate_stages.params import Params
from renate_stages.processes import heavy_imports
from renate_stages.tasks import MEASURED
from renate_stages.user import optimization
from renate_stages.user.config import UserConfig

LARGE = 32 * 2**20
"""Bytes of data that take longer to read than Lightning, which learners need, takes to import."""


def check_hyperparameters(user: UserConfig, params: Params, incoming: Path) -> None:
    """Refuse unknown hyperparameters, and values outside their range, before data is read.

    Names and the values of the default optimizer are always checked. Values for learners are checked
    here only if the data is large; otherwise `train` checks them some seconds later.

    Args:
        user: The user's functions, of which none is called.
        params: The parameters; of a search space, the names and the middle are checked.
        incoming: Folder of the new data.

    Raises:
        UnknownHyperparameterError: If nothing reads one of the hyperparameters.
        InvalidHyperparameterError: If a value is outside its range.
        InvalidParamsError: If a searched hyperparameter is not read.
        UnsharedLearnerError: If the learner would ignore a setting of the trainer.
        UnmeasuredMetricError: If the task does not measure the headline metric.
    """
    check_metric(user, params)
    shared, space = optimization.shared_hyperparameters(user), params.search_space
    known = shared | HYPERPARAMETERS | catalog.hyperparameters() | {"max_epochs"}
    if "optimizer_fn" not in user.functions:
        optimization.optimizer_fn(user, space.middle())
    names = {*space.constants, *space.domains} - {"learner"}
    if names <= known and not _is_large(incoming):
        return
    with heavy_imports():
        from renate_stages.training import checks

    fixed = params.fixed(space.read_by(shared).middle())
    checks.check_hyperparameters(user, fixed.learner, fixed.hyperparameters)
    checks.check_sharing(fixed)
    checks.check_values(fixed, fixed.hyperparameters)


def check_metric(user: UserConfig, params: Params) -> None:
    """Refuse a headline metric that the task does not measure, unless `metrics_fn` may do it.

    Raises:
        UnmeasuredMetricError: If it is not measured.
    """
    measured = MEASURED.get(params.task)
    if measured is None or "metrics_fn" in user.functions:
        return
    if params.evaluation.metric not in (*measured, "loss"):
        raise UnmeasuredMetricError(params.evaluation.metric, (*measured, "loss"))


def _is_large(folder: Path) -> bool:
    size = 0
    for path in folder.rglob("*"):
        size += path.stat().st_size if path.is_file() else 0
        if size >= LARGE:
            return True
    return False
