"""The strategies and plugins of Avalanche that can be learners. Does not import Avalanche.

A name is `Avalanche-` and a part, or several joined by `+`: at most one strategy, and plugins.

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
    """The default of an argument that must be given."""

    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = _Required()


@dataclass(frozen=True)
class Argument:
    """An argument of a part.

    Args:
        default: Its value where no hyperparameter is given; `REQUIRED`: one must be.
        theirs: Its name in Avalanche, where ours is another.
        least: The smallest number allowed; None: not a number, or any.
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
        place: Module and class.
        arguments: By our name.
        summary: What it does, in a line.
        reference: The paper.
        is_strategy: Whether it is a whole strategy, and not a plugin to any.
        keeps: Of `examples` in the memory, `tensors` of examples in the learner's state, `weights`
            or `importances` of parameters, `models`.
        mended: What of Avalanche's defects does not come through.
        own_loss: Whether it has a loss of its own, beside which the user's has no place.
        repeats: Whether an interrupted training can go on from a checkpoint between two epochs.
    """

    place: str
    arguments: Mapping[str, Argument]
    summary: str
    reference: str
    is_strategy: bool = False
    keeps: tuple[str, ...] = ()
    mended: str = ""
    own_loss: bool = False
    repeats: bool = True


PARTS: dict[str, Part] = {
    "Naive": Part(
        "avalanche.training.templates:SupervisedTemplate",
        {},
        "fine-tuning by Avalanche's loop",
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
        "replays labels and logits in one batch; beta 0: logits alone",
        "Buzzega et al. 2020",
        is_strategy=True,
        keeps=("examples", "logits"),
        own_loss=True,
        repeats=False,
    ),
    "ER-ACE": Part(
        _STRATEGIES + "ER_ACE",
        {**MEMORY, "memory_batch_size": _whole(10, "batch_size_mem")},
        "new classes do not push old ones away",
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
        "replays what a step would harm most",
        "Aljundi et al. 2019",
        keeps=("examples",),
        mended="where the last batch has every class it replays from all, rather than nothing",
        repeats=False,
    ),
    "GDumb": Part(
        _PATCHED + "Dumb",
        MEMORY,
        "the first model anew, from a class-balanced memory",
        "Prabhu et al. 2020",
        keeps=("examples", "models"),
    ),
    "iCaRL": Part(
        "avalanche.training.templates:SupervisedTemplate",
        {"memory_size": _whole(200), "fixed_memory": Argument(True)},
        "distils, keeps exemplars by herding, and serves the nearest of their means",
        "Rebuffi et al. 2017",
        is_strategy=True,
        keeps=("examples", "models"),
        mended="classes that come again join the group they have, rather than a second one",
        own_loss=True,
    ),
    "GEM": Part(
        _PLUGINS + "GEMPlugin",
        {
            "patterns_per_experience": _whole(256),
            "memory_strength": Argument(0.5, least=0),
        },
        "no step that harms any earlier update's examples",
        "Lopez-Paz & Ranzato 2017",
        keeps=("tensors",),
    ),
    "AGEM": Part(
        _PATCHED + "AveragedGEM",
        {"patterns_per_experience": _whole(256), "sample_size": _whole(256)},
        "no step that harms earlier updates' examples on average",
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
        "holds the weights that mattered to each update",
        "Kirkpatrick et al. 2017",
        keeps=("importances",),
        mended="`fisher: example` squares the gradient of each example, as the paper does, and not "
        "that of a batch's mean, which depends on its size",
    ),
    "SI": Part(
        _PATCHED + "Intelligence",
        {"si_lambda": Argument(least=0), "eps": Argument(1e-7, least=0)},
        "holds the weights that did the work on the way",
        "Zenke et al. 2017",
        keeps=("importances",),
        mended="on a CPU it had no effect: it compared the weights with a view of themselves",
    ),
    "MAS": Part(
        _PLUGINS + "MASPlugin",
        {"lambda_reg": Argument(1.0, least=0), "alpha": Argument(0.5, least=0)},
        "holds the weights that the outputs depend on",
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
        "EWC and SI in one",
        "Chaudhry et al. 2018",
        keeps=("importances",),
    ),
    "LwF": Part(
        _PLUGINS + "LwFPlugin",
        {"alpha": Argument(1.0, least=0), "temperature": Argument(2.0, least=0)},
        "stays close to what the parent says of the new data",
        "Li & Hoiem 2018",
        keeps=("models",),
    ),
    "LFL": Part(
        _PLUGINS + "LFLPlugin",
        {"lambda_e": Argument(least=0)},
        "holds the features, and freezes the last layer after the first update",
        "Jung et al. 2016",
        keeps=("models",),
    ),
}

_WHOLE_DATA = "it keeps the data of all updates in main memory: take Joint, which keeps it on disk"
_PRETRAINED = "it downloads the one model that it works with"
REFUSED: dict[str, str] = {
    "AR1": _PRETRAINED,
    "BiC": "of avalanche-lib 0.6.0 it calls PyTorch with an argument that is no more, and fails",
    "CWRStar": "it writes its state onto the model as attributes: take NCM or SLDA",
    "CoPE": "it ends after one batch of each update: it is made for streams of single batches",
    "Cumulative": _WHOLE_DATA,
    "ER-AML": "it waits for ever where a class has fewer examples than a batch: take ER-ACE",
    "ExpertGate": _PRETRAINED,
    "FeatureReplay": "its accuracies are at chance with models that it did not build",
    "FromScratch": "it keeps nothing between updates: take Joint or GDumb",
    "GSS": "it keeps copies of examples in main memory, not rows of a store: take ER",
    "GenerativeReplay": "it trains a second model that it does not hand out",
    "JointTraining": _WHOLE_DATA,
    "L2P": _PRETRAINED,
    "LaMAML": "it needs the package `higher`, which Avalanche does not install",
    "MER": "it takes a step for each single example: twenty times the time of ER",
    "PNN": "it builds its own model: of the one that model_fn returns nothing would be served",
    "SCR": "it serves class means and takes transforms as objects: take iCaRL or ER-ACE",
    "StreamingLDA": "SLDA of this library is the same, exact, and takes examples out again",
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
    """A learner's name, taken apart.

    Args:
        strategy: A key of `PARTS`.
        plugins: Keys of `PARTS`, and places of plugins that are not ours, `package.module:Class`.
    """

    strategy: str = "Naive"
    plugins: tuple[str, ...] = ()
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, Part]:
        """The parts that are known here, the strategy first."""
        names = (self.strategy, *self.plugins)
        return {name: PARTS[name] for name in names if name in PARTS}


def is_name(name: str) -> bool:
    """Return whether a learner's name is one of Avalanche's, right or wrong."""
    return name.startswith(PREFIX)


def name_of(plugins: list[str]) -> str:
    """Return the learner's name for a list of parts."""
    return PREFIX + "+".join(plugins)


def problem_of(name: str) -> str | None:
    """Return what is wrong with a learner's name, or why it is refused; None: nothing."""
    try:
        composed(name)
    except ValueError as error:
        return str(error)
    return None


def composed(name: str) -> Composed:
    """Take a learner's name apart.

    Raises:
        ValueError: If a part is not known or refused, or there are two strategies.
    """
    names = [_ALIASES.get(each, each) for each in name.removeprefix(PREFIX).split("+")]
    for each in names:
        if each in REFUSED:
            raise ValueError(f"Avalanche's {each} is refused: {REFUSED[each]}")
        if each not in PARTS and not _DOTTED.fullmatch(each):
            known = sorted(PARTS)
            raise ValueError(
                f"Avalanche has no '{each}' that can be a learner{did_you_mean(each, known)} "
                f"(known: {', '.join(known)}, or package.module:Class of a plugin of yours)"
            )
    if doubled := sorted({each for each in names if names.count(each) > 1}):
        raise ValueError(f"{', '.join(doubled)} stands there twice")
    strategies = [each for each in names if each in PARTS and PARTS[each].is_strategy]
    if len(strategies) > 1:
        raise ValueError(f"{' and '.join(strategies)} are strategies, of which there can be one")
    plugins = tuple(each for each in names if each not in strategies)
    found = Composed(*strategies, plugins=plugins) if strategies else Composed(plugins=plugins)
    arguments: dict[str, Argument] = {}
    for part in found.parts.values():
        for key, argument in part.arguments.items():
            arguments.setdefault(key, argument)
    return Composed(found.strategy, plugins, arguments)


def hyperparameters() -> set[str]:
    """Return the names of all arguments of all parts."""
    return {name for part in PARTS.values() for name in part.arguments}


def check_installed() -> None:
    """Refuse where avalanche-lib is not installed; imports nothing.

    Raises:
        MissingExtraError: If it is not.
    """
    spec = find_spec("avalanche")
    if spec is None or spec.origin is None:  # a folder of that name is no package
        raise MissingExtraError("a learner of Avalanche", "avalanche-lib", "avalanche")
