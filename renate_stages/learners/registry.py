"""The learners by name. Imports none of them until one is asked for: they need Lightning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renate_stages.learners.base import Learner

LEARNERS = {
    "ER": "renate_stages.learners.replay:ExperienceReplay",
    "FineTuning": "renate_stages.learners.base:FineTuning",
    "Joint": "renate_stages.learners.joint:Joint",
}


def learner_class(name: str) -> type[Learner]:
    """Return the class of a learner; `name` is a key of `LEARNERS`."""
    module, _, attribute = LEARNERS[name].partition(":")
    return getattr(import_module(module), attribute)
