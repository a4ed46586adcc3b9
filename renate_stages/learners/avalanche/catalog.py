"""Catalog of Avalanche's strategies and plugins as learners, without importing Avalanche.

A name is `Avalanche-` plus one or more parts joined by `+`: at most one strategy, and plugins.

    Avalanche-EWC    Avalanche-DER+LwF    Avalanche-ER+my_plugins:Mine
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Final

from renate_stages.errors import MissingExtraError, did_you_mean

PREFIX = "Avalanche-"
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_PLUGINS = "avalanche.training.plugins:"
_STRATEGIES = "avalanche.training.supervised:"
_PATCHED = "renate_stages.learners.avalanche.patched:"


class _Required:
    """Marks an argument without a default, which must be given."""

    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = _Required()


@dataclass(frozen=True)
class Argument:
    """An argument of a part.

    Args:
        default: Value if no hyperparameter is given; `REQUIRED` if one must be given.
        theirs: Its name in Avalanche, if different from ours.
        least: Smallest number allowed; None if it is not a number or has no limit.
    """

    default: Any = REQUIRED
    theirs: str = ""
    least: float | None = None


def _whole(default: Any = REQUIRED, theirs: str = "") -> Argument:
    return Argument(default, theirs, 1)


MEMORY = {"memory_size": _whole(200, "mem_size")}
REPLAY = {**MEMORY, "memory_batch_size": _whole(None, "batch_size_mem")}


@dataclass(frozen=True)
class Part:
    """A strategy or a plugin of Avalanche.

    Args:
        place: Module and class, `package.module:Class`.
        arguments: Arguments by our name.
        summary: What it does, in one line.
        reference: The paper.
        is_strategy: Whether it is a whole strategy, not a plugin.
        keeps: What it keeps between updates: `examples` in the memory, `tensors` of examples in the
            learner's state, `weights` or `importances` of parameters, `models`.
        fix: How it differs from Avalanche's version, which has a defect; empty if it does not.
        own_loss: Whether it uses its own loss instead of the user's.
        repeats: Whether interrupted training can resume from a checkpoint between two epochs.
    """

    place: str
    arguments: Mapping[str, Argument]
    summary: str
    reference: str
    is_strategy: bool = False
    keeps: tuple[str, ...] = ()
    fix: str = ""
    own_loss: bool = False
    repeats: bool = True


PARTS: dict[str, Part] = {
    "Naive": Part(
        "avalanche.training.templates:SupervisedTemplate",
        {},
        "fine-tuning in Avalanche's training loop",
        "fine-tuning",
        is_strategy=True,
    ),
    "ER": Part(
        _PLUGINS + "ReplayPlugin",
        REPLAY,
        "replay, balanced over updates",
        "Chaudhry et al. 2019",
        keeps=("examples",),
    ),
    "DER": Part(
        _STRATEGIES + "DER",
        {
            **REPLAY,
            "alpha": Argument(0.1, least=0),
            "beta": Argument(0.5, least=0),
        },
        "replays labels and logits in one batch; with beta 0, only logits",
        "Buzzega et al. 2020",
        is_strategy=True,
        keeps=("examples", "logits"),
        own_loss=True,
        repeats=False,
    ),
    "ER-ACE": Part(
        _STRATEGIES + "ER_ACE",
        {**MEMORY, "memory_batch_size": _whole(10, "batch_size_mem")},
        "keeps the loss on new classes from changing old ones",
        "Caccia et al. 2022",
        is_strategy=True,
        keeps=("examples",),
        own_loss=True,
        repeats=False,
    ),
    "MIR": Part(
        _PATCHED + "MaximallyInterfered",
        {
            **MEMORY,
            "memory_batch_size": _whole(10, "batch_size_mem"),
            "subsample": _whole(200),
        },
        "replays the examples whose loss a step would raise most",
        "Aljundi et al. 2019",
        keeps=("examples",),
        fix="if the last batch contains every class, it replays from all classes instead of nothing",
        repeats=False,
    ),
    "GDumb": Part(
        _PATCHED + "Dumb",
        MEMORY,
        "trains the first update's initial model on a class-balanced memory",
        "Prabhu et al. 2020",
        keeps=("examples", "models"),
    ),
    "iCaRL": Part(
        "avalanche.training.templates:SupervisedTemplate",
        {"memory_size": _whole(200), "fixed_memory": Argument(True)},
        "distils, chooses exemplars by herding, and predicts the class of the nearest mean",
        "Rebuffi et al. 2017",
        is_strategy=True,
        keeps=("examples", "models"),
        fix="new examples of a known class join its group instead of forming a second one",
        own_loss=True,
    ),
    "GEM": Part(
        _PLUGINS + "GEMPlugin",
        {
            "patterns_per_experience": _whole(256),
            "memory_strength": Argument(0.5, least=0),
        },
        "projects gradients so that the loss on no earlier update's examples rises",
        "Lopez-Paz & Ranzato 2017",
        keeps=("tensors",),
    ),
    "AGEM": Part(
        _PATCHED + "AveragedGEM",
        {"patterns_per_experience": _whole(256), "sample_size": _whole(256)},
        "projects gradients so that the mean loss on earlier updates' examples does not rise",
        "Chaudhry et al. 2019",
        keeps=("examples",),
        repeats=False,
    ),
    "EWC": Part(
        _PATCHED + "Elastic",
        {
            "ewc_lambda": Argument(least=0),
            "mode": Argument("separate"),
            "decay_factor": Argument(None, least=0),
            "fisher": Argument("batch"),
        },
        "penalizes changes of weights that were important for an earlier update",
        "Kirkpatrick et al. 2017",
        keeps=("importances",),
        fix="`fisher: example` squares the gradient of each example, as in the paper, instead of "
        "that of a batch's mean loss, which depends on the batch size",
    ),
    "SI": Part(
        _PATCHED + "Intelligence",
        {"si_lambda": Argument(least=0), "eps": Argument(1e-7, least=0)},
        "penalizes changes of weights that lowered the loss most during training",
        "Zenke et al. 2017",
        keeps=("importances",),
        fix="works on a CPU too; Avalanche's version compares the weights with a view of themselves there",
    ),
    "MAS": Part(
        _PLUGINS + "MASPlugin",
        {"lambda_reg": Argument(1.0, least=0), "alpha": Argument(0.5, least=0)},
        "penalizes changes of weights to which the outputs are sensitive",
        "Aljundi et al. 2018",
        keeps=("importances",),
    ),
    "RWalk": Part(
        _PLUGINS + "RWalkPlugin",
        {
            "ewc_lambda": Argument(0.1, least=0),
            "ewc_alpha": Argument(0.9, least=0),
            "delta_t": _whole(10),
        },
        "combines EWC and SI",
        "Chaudhry et al. 2018",
        keeps=("importances",),
    ),
    "LwF": Part(
        _PLUGINS + "LwFPlugin",
        {"alpha": Argument(1.0, least=0), "temperature": Argument(2.0, least=0)},
        "distils the parent's outputs on the new data",
        "Li & Hoiem 2018",
        keeps=("models",),
    ),
    "LFL": Part(
        _PLUGINS + "LFLPlugin",
        {"lambda_e": Argument(least=0)},
        "penalizes changes of features, and freezes the last layer after the first update",
        "Jung et al. 2016",
        keeps=("models",),
    ),
}

_WHOLE_DATA = "it keeps the data of all updates in main memory; use Joint, which keeps it on disk"
_PRETRAINED = "it works only with a model that it downloads"
REFUSED: dict[str, str] = {
    "AR1": _PRETRAINED,
    "BiC": "in avalanche-lib 0.6.0 it fails, because it passes an argument that PyTorch has removed",
    "CWRStar": "it stores its state as attributes of the model; use NCM or SLDA",
    "CoPE": "it is made for streams of single batches, and stops after one batch of each update",
    "Cumulative": _WHOLE_DATA,
    "ER-AML": "it hangs if a class has fewer examples than a batch; use ER-ACE",
    "ExpertGate": _PRETRAINED,
    "FeatureReplay": "its accuracy is at chance level with models that it did not build",
    "FromScratch": "it keeps nothing between updates; use Joint or GDumb",
    "GSS": "it keeps copies of examples in main memory instead of rows of a store; use this library's GSS",
    "GenerativeReplay": "it trains a second model to which it gives no access",
    "JointTraining": _WHOLE_DATA,
    "L2P": _PRETRAINED,
    "LaMAML": "it needs the package `higher`, which Avalanche does not install",
    "MER": "it takes one step per example, which needs twenty times as long as ER",
    "PNN": "it builds its own model, so the result would not be the model that model_fn returns",
    "SCR": "it predicts by class means and needs transforms as objects; use iCaRL or ER-ACE",
    "StreamingLDA": "this library's SLDA is the same method, exact, and can forget examples",
}
_ALIASES = {
    "Replay": "ER",
    "ICaRL": "iCaRL",
    "SynapticIntelligence": "SI",
    "ER_ACE": "ER-ACE",
    "ER_AML": "ER-AML",
    "GSS_greedy": "GSS",
    "Joint": "JointTraining",
    "CWR*": "CWRStar",
    "SLDA": "StreamingLDA",
    "A-GEM": "AGEM",
}


@dataclass(frozen=True)
class Composed:
    """The parts of a learner's name.

    Args:
        strategy: A key of `PARTS`.
        plugins: Keys of `PARTS`, or `package.module:Class` of your own plugins.
        arguments: All arguments of the parts, by our name.
    """

    strategy: str = "Naive"
    plugins: tuple[str, ...] = ()
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, Part]:
        """The parts that are in `PARTS`, the strategy first."""
        names = (self.strategy, *self.plugins)
        return {name: PARTS[name] for name in names if name in PARTS}


def is_name(name: str) -> bool:
    """Return whether a learner's name has Avalanche's prefix; the rest may be wrong."""
    return name.startswith(PREFIX)


def name_of(plugins: list[str]) -> str:
    """Return the learner's name for a list of parts."""
    return PREFIX + "+".join(plugins)


def problem_of(name: str) -> str | None:
    """Return what is wrong with a learner's name or why it is not supported, or None."""
    try:
        composed(name)
    except ValueError as error:
        return str(error)
    return None


def composed(name: str) -> Composed:
    """Split a learner's name into its parts.

    Raises:
        ValueError: If a part is unknown, unsupported or repeated, or there are two strategies.
    """
    names = [_ALIASES.get(each, each) for each in name.removeprefix(PREFIX).split("+")]
    for each in names:
        if each in REFUSED:
            raise ValueError(f"Avalanche's {each} is not supported: {REFUSED[each]}")
        if each not in PARTS and not _DOTTED.fullmatch(each):
            known = sorted(PARTS)
            raise ValueError(
                f"unknown Avalanche strategy or plugin '{each}'{did_you_mean(each, known)} "
                f"(known: {', '.join(known)}, or package.module:Class for your own plugin)"
            )
    if doubled := sorted({each for each in names if names.count(each) > 1}):
        raise ValueError(f"{', '.join(doubled)} is listed more than once")
    strategies = [each for each in names if each in PARTS and PARTS[each].is_strategy]
    if len(strategies) > 1:
        raise ValueError(f"{' and '.join(strategies)} are strategies, and only one is allowed")
    plugins = tuple(each for each in names if each not in strategies)
    result = Composed(*strategies, plugins=plugins) if strategies else Composed(plugins=plugins)
    arguments: dict[str, Argument] = {}
    for part in result.parts.values():
        for key, argument in part.arguments.items():
            arguments.setdefault(key, argument)
    return Composed(result.strategy, plugins, arguments)


def hyperparameters() -> set[str]:
    """Return the names of the arguments of all parts."""
    return {name for part in PARTS.values() for name in part.arguments}


def check_installed() -> None:
    """Check that avalanche-lib is installed, without importing it.

    Raises:
        MissingExtraError: If it is not.
    """
    spec = find_spec("avalanche")
    if spec is None or spec.origin is None:  # a folder of that name is not the package
        raise MissingExtraError("a learner of Avalanche", "avalanche-lib", "avalanche")
