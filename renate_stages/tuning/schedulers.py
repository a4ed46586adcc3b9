"""Make a scheduler by its name.

Trials report `epoch`, the epochs they have run, and the metric, after each epoch. A scheduler of
yours is named by `package.module:Class`, a `TrialScheduler` of Syne Tune.
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
    """Make a scheduler.

    Args:
        name: A key of `SCHEDULERS`, or `package.module:Class`.
        space: What is searched, with `read_by` applied.
        metric: What reports call the objective.
        mode: `max` or `min`.
        max_epochs: Most epochs of a trial, >= 1.
        seed: >= 0; equal seeds give equal suggestions.
        past: `History.usable` of this space; None: there was nothing before.
        arguments: Keyword arguments of the scheduler.

    Raises:
        MissingExtraError: If `bo` is asked for and BoTorch is not installed.
        InvalidParamsError: If there is no such scheduler, or it refuses its arguments.
    """
    problems = problems_of(name, arguments or {})
    if problems:
        raise InvalidParamsError("params.yaml", problems)
    if name == "bo":
        try:
            with warnings.catch_warnings(action="ignore"):  # of PyTorch, about how BoTorch uses it
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
        given = f"{name} refuses {dict(request.arguments)}: {error}"
        raise InvalidParamsError("params.yaml", [f"tuning.scheduler_arguments: {given}"]) from error


@contextmanager
def benchmarks_left_out() -> Iterator[None]:
    """Let some of Syne Tune's searchers be imported without what downloads its benchmarks.

    They share a package with code that imports `huggingface_hub`, of which Syne Tune does not say
    that it needs it.
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
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        problem = f"tuning.scheduler: there is no class {name}: {error}"
        raise InvalidParamsError("params.yaml", [problem]) from error
    if not (isinstance(found, type) and issubclass(found, TrialScheduler)):
        problem = f"tuning.scheduler: {name} is not a subclass of Syne Tune's TrialScheduler"
        raise InvalidParamsError("params.yaml", [problem])
    return found


def _custom(scheduler_class: Any, request: Request) -> Any:
    """Make a scheduler of the user's, with those of our arguments that it takes."""
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
    taken = inspect.signature(scheduler_class.__init__).parameters
    given = {name: value for name, value in ours.items() if name in taken}
    return scheduler_class(**(given | dict(request.arguments)))
