"""The learners among which `learner: auto` searches.

When `params.yaml` is read, only the parameters are known: `possible_learners`. When `tune` starts, so
are data, parent and model, and the list becomes short: `suited_learners`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CLOSED_FORM = ("SLDA", "RanPAC", "NCM")
"""Solve for the last layer of a backbone that stays as it is; they store no examples."""

REPLAY = ("ER", "DER++", "FineTuning")
"""For any task: replay of examples, replay of outputs, and no protection as the baseline."""

REPLAY_OF_LABELS = ("ER", "DER++", "ER-ACE", "FineTuning")
"""With new classes: also a loss that spares old classes."""

WITHOUT_MEMORY = ("L2-SP", "LwF", "WiSE-FT", "FineTuning")
"""If no example may be stored: each needs only the parent's weights."""

WITHOUT_MEMORY_OR_NEW_CLASSES = ("WiSE-FT", "LwF", "L2-SP", "FineTuning")
"""The same, in the order of their accuracy if only the inputs shift."""

IMPORTANCE = "MAS"
"""Protects the weights that mattered in earlier updates, if it has trained these too."""


@dataclass(frozen=True)
class Situation:
    """What the parameters, the data, the parent and the model of an update show.

    Args:
        task: Name of the task; None if it is not known.
        stores_examples: Whether examples may be stored, as `stores_examples` returns.
        is_first: Whether the update starts from a new model.
        new_classes: Labels that no earlier update had; None if it is not known which are new.
        trained_share: Share in [0, 1] of the parameters before the last layer that are trained.
        frozen: Whether so few are trained that features hardly change.
        parent_learner: The learner that wrote the parent; None if no learner did.
        unfit: Why the model or the data cannot be used by a learner, by its name.
    """

    task: str | None
    stores_examples: bool
    is_first: bool = False
    new_classes: tuple[int, ...] | None = None
    trained_share: float = 1.0
    frozen: bool = False
    parent_learner: str | None = None
    unfit: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SuitedLearners:
    """The list of an update.

    Args:
        learners: Names, the first to try first.
        reasons: What decided about the list, a clause each.
    """

    learners: tuple[str, ...]
    reasons: tuple[str, ...]


def stores_examples(hyperparameters: Any) -> bool:
    """Return whether examples may be stored: not with the hyperparameter `memory_size: 0`."""
    values = hyperparameters if isinstance(hyperparameters, Mapping) else {}
    return values.get("memory_size") != 0


def possible_learners(hyperparameters: Any, task: str) -> tuple[str, ...]:
    """Return all learners that `suited_learners` may list with these parameters.

    Args:
        hyperparameters: As in `params.yaml`.
        task: As in `params.yaml`, where `auto` may become any task.
    """
    labelled = task in ("classification", "auto")
    closed = CLOSED_FORM if labelled else ()
    if stores_examples(hyperparameters):
        return (*(REPLAY_OF_LABELS if labelled else REPLAY), *closed)
    return (*WITHOUT_MEMORY, IMPORTANCE, *closed)


def suited_learners(situation: Situation) -> SuitedLearners:
    """Return a short list of learners for an update.

    In a first update all learners with gradients train alike, so that only one is listed, which
    leaves what later updates need. If the backbone is frozen, learners that solve for the last
    layer replace some of the others.
    """
    listed, reasons = _with_gradients(situation)
    if situation.task == "classification":
        part = f"{situation.trained_share:.1%} of the parameters before the last layer are trained"
        reasons.append(f"the backbone is {'frozen' if situation.frozen else 'trained'}: {part}")
        if situation.frozen:
            listed = (*CLOSED_FORM, listed[0], *listed[1:][-1:])
    left_out = [name for name in listed if name in situation.unfit]
    reasons += [f"without {name}: {situation.unfit[name]}" for name in left_out]
    return SuitedLearners(tuple(n for n in listed if n not in left_out), tuple(reasons))


def _with_gradients(situation: Situation) -> tuple[tuple[str, ...], list[str]]:
    """Return the learners that train with gradients, and what decided about them."""
    stores = situation.stores_examples
    reasons = [
        "examples may be stored" if stores else "no example may be stored (memory_size is 0)",
        f"task {situation.task}" if situation.task else "the task is not known",
    ]
    if situation.is_first:
        reasons.append("first update, so there is nothing to forget")
        return ("ER",) if stores else (IMPORTANCE,), reasons
    if situation.task == "classification":
        reasons.append(_about(situation.new_classes))
    only_inputs_shift = situation.task != "classification" or situation.new_classes == ()
    if stores:
        return REPLAY if only_inputs_shift else REPLAY_OF_LABELS, reasons
    listed = WITHOUT_MEMORY_OR_NEW_CLASSES if only_inputs_shift else WITHOUT_MEMORY
    if situation.parent_learner == IMPORTANCE:
        reasons.append(f"the parent has the importance of weights ({IMPORTANCE})")
        listed = (IMPORTANCE, *listed)
    return listed, reasons


def _about(new_classes: tuple[int, ...] | None) -> str:
    if new_classes is None:
        return "it is not known which classes are new"
    if not new_classes:
        return "no new classes"
    return f"{len(new_classes)} new class{'es' * (len(new_classes) != 1)}"
