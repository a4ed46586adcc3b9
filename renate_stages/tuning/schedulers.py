"""Create a scheduler by name.

After each epoch, trials report the metric and `epoch`, the number of epochs run so far. For your own
scheduler, write `package.module:Class`; the class must be a subclass of Syne Tune's `TrialScheduler`.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from renate_stages.errors import InvalidParamsError, MissingExtraError
from renate_stages.params.schedulers import problems_of
from renate_stages.params.search_space import SearchSpace
from renate_stages.tuning.experience import Experience

if TYPE_CHECKING:
    from renate_stages.tuning.builders import Request
    from renate_stages.tuning.seeded import SeededScheduler


def make_scheduler(
    name: str,
    space: SearchSpace,
    metric: str,
    mode: str,
    max_epochs: int,
    seed: int,
    past: Experience | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> SeededScheduler:
    """Create a scheduler.

    Args:
        name: A key of `SCHEDULERS`, or `package.module:Class`.
        space: The search space after `read_by`.
        metric: Name of the objective in trial reports.
        mode: `max` or `min`.
        max_epochs: Maximum epochs of a trial, >= 1.
        seed: Seed >= 0; equal seeds give equal suggestions.
        past: Trials of earlier updates from `History.usable`, or None.
        arguments: Keyword arguments of the scheduler.

    Raises:
        MissingExtraError: If the scheduler is `bo` and BoTorch is not installed.
        InvalidParamsError: If the scheduler does not exist or refuses its arguments.
    """
    problems = problems_of(name, arguments or {})
    if problems:
        raise InvalidParamsError("params.yaml", problems)
    if name == "bo":
        try:
            with warnings.catch_warnings(action="ignore"):  # BoTorch uses deprecated parts of torch
                import_module("botorch")
        except ImportError as error:
            raise MissingExtraError("tuning.scheduler bo", "BoTorch", "bo") from error
    if not (past and past.trials):
        past = Experience((), (), mode)

    from renate_stages.tuning import builders
    from renate_stages.tuning.seeded import SeededScheduler

    seed = seed % 2**32
    request = builders.Request(space, metric, mode, max_epochs, seed, past, arguments or {})
    build = builders.BUILDERS.get(name)

    def inner() -> Any:
        with benchmarks_left_out():
            return build(request) if build else _custom(_class_of(name), request)

    try:
        return SeededScheduler(inner, space, metric, mode, max_epochs, seed)
    except (AssertionError, TypeError, ValueError) as error:
        problem = f"{name} refuses {dict(request.arguments)}: {error}"
        problem = f"tuning.scheduler_arguments: {problem}"
        raise InvalidParamsError("params.yaml", [problem]) from error


@contextmanager
def benchmarks_left_out() -> Iterator[None]:
    """Make Syne Tune's searchers importable without `huggingface_hub`.

    Some of them are in a package with code that downloads benchmarks and imports `huggingface_hub`,
    which Syne Tune does not list as a dependency.
    """
    stand_in = ModuleType("huggingface_hub")
    stand_in.__dict__["snapshot_download"] = None
    missing = find_spec("huggingface_hub") is None
    if missing:
        sys.modules["huggingface_hub"] = stand_in
    try:
        yield
    finally:
        if missing:
            del sys.modules["huggingface_hub"]


def _class_of(name: str) -> Any:
    from syne_tune.optimizer.scheduler import TrialScheduler

    module, _, attribute = name.rpartition(":" if ":" in name else ".")
    try:
        scheduler_class = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        problem = f"tuning.scheduler: the class {name} cannot be imported: {error}"
        raise InvalidParamsError("params.yaml", [problem]) from error
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, TrialScheduler)):
        problem = f"tuning.scheduler: {name} is not a subclass of Syne Tune's TrialScheduler"
        raise InvalidParamsError("params.yaml", [problem])
    return scheduler_class


def _custom(scheduler_class: Any, request: Request) -> Any:
    """Create a user's scheduler with those of our arguments that its constructor has."""
    ours = {
        "config_space": request.space.syne_tune(),
        "metric": request.metric,
        "metrics": [request.metric],
        "do_minimize": request.mode == "min",
        "random_seed": request.seed,
        "time_attr": "epoch",
        "max_t": request.max_epochs,
        "points_to_evaluate": request.first,
    }
    parameters = inspect.signature(scheduler_class.__init__).parameters
    accepted = {name: value for name, value in ours.items() if name in parameters}
    return scheduler_class(**(accepted | dict(request.arguments)))
