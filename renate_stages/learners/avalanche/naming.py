"""Make the learner class for a name such as `Avalanche-ER+LwF`."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from renate_stages.learners.avalanche import catalog
from renate_stages.learners.avalanche.catalog import REQUIRED, Argument
from renate_stages.learners.avalanche.learner import AvalancheLearner
from renate_stages.learners.base import Learner
from renate_stages.learners.base.context import UpdateContext


@cache
def named(name: str) -> type[AvalancheLearner]:
    """Return the learner class for a name such as `Avalanche-EWC` or `Avalanche-ER+LwF`.

    The signature of its constructor lists its hyperparameters.

    Raises:
        ValueError: If the name is not valid.
        MissingExtraError: If avalanche-lib is not installed.
    """
    composed = catalog.composed(name)
    catalog.check_installed()

    def construct(self: AvalancheLearner, context: UpdateContext, **values: Any) -> None:
        AvalancheLearner.__init__(self, context, **values)

    kind = inspect.Parameter.KEYWORD_ONLY
    own = [
        inspect.Parameter(key, kind, default=_default(argument))
        for key, argument in composed.arguments.items()
    ]
    shown = inspect.signature(Learner.__init__).parameters.values()
    construct.__signature__ = inspect.Signature([*shown, *own])  # type: ignore[attr-defined]
    return type(name, (AvalancheLearner,), {"composed": composed, "__init__": construct})


def _default(argument: Argument) -> Any:
    return inspect.Parameter.empty if argument.default is REQUIRED else argument.default
