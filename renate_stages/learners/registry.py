"""Registry of all learners by name, which imports a learner only when it is needed.

Name your own learner as `package.module:Class`, or by a name that an installed package registers as
an entry point of the group `renate_stages.learners`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from renate_stages.errors import UnknownLearnerError, did_you_mean
from renate_stages.learners.avalanche import catalog

if TYPE_CHECKING:
    from renate_stages.learners.base import Learner

GROUP = "renate_stages.learners"
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*")


@dataclass(frozen=True)
class Entry:
    """A learner's class, requirements and cost.

    Args:
        place: Module and class, `package.module:Class`.
        needs: Requirements: `memory` (it stores examples), `labels` (targets are class labels),
            `features` (the model has submodules `features` and `head`), `layers` (the model names or
            hooks layers, as the reference models do), `backbone` (the features are already trained).
        examples: Examples per step: B new and M remembered ones; "fwd" without a backward pass.
        cost: Time of a step relative to FineTuning, measured with a small CNN and B = M by
            `benchmarks/step.py --relative`.
        summary: What it does, in one line.
        reference: The paper.
    """

    place: str
    needs: tuple[str, ...]
    examples: str
    cost: str
    summary: str
    reference: str


LEARNERS = {
    "ER": Entry(
        "renate_stages.learners.er:ExperienceReplay",
        ("memory",),
        "B + M",
        "1.9x",
        "new and remembered examples as one batch",
        "Chaudhry et al. 2019",
    ),
    "DER++": Entry(
        "renate_stages.learners.der:DarkExperienceReplayPlusPlus",
        ("memory",),
        "B + 2 M",
        "2.8x",
        "replays labels and the logits that the model gave earlier",
        "Buzzega et al. 2020",
    ),
    "DER": Entry(
        "renate_stages.learners.der:DarkExperienceReplay",
        ("memory",),
        "B + M",
        "1.9x",
        "replays the logits that the model gave earlier",
        "Buzzega et al. 2020",
    ),
    "ER-ACE": Entry(
        "renate_stages.learners.er_ace:ERACE",
        ("memory", "labels"),
        "B + M",
        "1.9x",
        "keeps the loss on new classes from changing old ones",
        "Caccia et al. 2022",
    ),
    "iCaRL": Entry(
        "renate_stages.learners.icarl:ICaRL",
        ("memory", "labels", "features"),
        "B + M, B + M fwd",
        "2.5x",
        "distils old classes, predicts the nearest exemplar mean",
        "Rebuffi et al. 2017",
    ),
    "CLS-ER": Entry(
        "renate_stages.learners.cls_er:CLSER",
        ("memory", "labels"),
        "B + M, 2 M fwd",
        "2.6x",
        "ER with distillation from a slow and a fast average of the model",
        "Arani et al. 2022",
    ),
    "POD-ER": Entry(
        "renate_stages.learners.pod_er:PODER",
        ("memory", "layers"),
        "B + M",
        "2.4x",
        "ER that replays the pooled outputs of layers",
        "Douillard et al. 2020",
    ),
    "Super-ER": Entry(
        "renate_stages.learners.super_er:SuperER",
        ("memory", "labels", "layers"),
        "B + M, 2 M fwd",
        "3.0x",
        "ER with DER, CLS-ER and POD-ER, after shrinking the weights",
        "awslabs/Renate",
    ),
    "WA": Entry(
        "renate_stages.learners.wa:WeightAligning",
        ("memory", "labels"),
        "B + M, B + M fwd",
        "2.5x",
        "ER with distillation, aligns the weights of new classes",
        "Zhao et al. 2020",
    ),
    "BiC": Entry(
        "renate_stages.learners.bic:BiC",
        ("memory", "labels"),
        "B + M, B + M fwd",
        "2.5x",
        "ER with distillation, corrects new classes on held-out examples",
        "Wu et al. 2019",
    ),
    "LUCIR": Entry(
        "renate_stages.learners.lucir:LUCIR",
        ("memory", "labels", "features"),
        "B + M, B + M fwd",
        "2.3x",
        "ER that keeps directions of features, separates old and new classes",
        "Hou et al. 2019",
    ),
    "SCR": Entry(
        "renate_stages.learners.scr:SCR",
        ("memory", "labels", "features"),
        "2 B + 2 M",
        "3.7x",
        "contrasts two views of each example, predicts the nearest exemplar mean",
        "Mai et al. 2021",
    ),
    "MIR": Entry(
        "renate_stages.learners.mir:MIR",
        ("memory",),
        "2 B + M, 10 M fwd",
        "7.5x",
        "ER that replays examples whose loss the next step raises most",
        "Aljundi et al. 2019",
    ),
    "ASER": Entry(
        "renate_stages.learners.aser:ASER",
        ("memory", "labels", "features"),
        "B + M, B + 5 M + 32 fwd",
        "4.1x",
        "ER that replays examples at the boundaries of old and new classes",
        "Shim et al. 2021",
    ),
    "GSS": Entry(
        "renate_stages.learners.gss:GSS",
        ("memory",),
        "2 B + M + 10",
        "5.2x",
        "ER that keeps examples with different loss gradients",
        "Aljundi et al. 2019",
    ),
    "PODNet": Entry(
        "renate_stages.learners.podnet:PODNet",
        ("memory", "labels", "features", "layers"),
        "B + M, B + M fwd",
        "3.1x",
        "ER that keeps pooled outputs of layers, classifies by cosines",
        "Douillard et al. 2020",
    ),
    "LatentReplay": Entry(
        "renate_stages.learners.latent_replay:LatentReplay",
        ("memory", "features"),
        "B fwd, B + M above",
        "0.4x",
        "ER that replays outputs of a layer, and freezes what is below",
        "Pellegrini et al. 2020",
    ),
    "A-GEM": Entry(
        "renate_stages.learners.a_gem:AGEM",
        ("memory",),
        "B + M",
        "1.9x",
        "fine-tunes without steps that raise the loss on the memory",
        "Chaudhry et al. 2019",
    ),
    "Offline-ER": Entry(
        "renate_stages.learners.offline_er:OfflineER",
        ("memory",),
        "B + M",
        "2.0x",
        "ER that weights new data by its share of all data so far",
        "awslabs/Renate",
    ),
    "Budgeted": Entry(
        "renate_stages.learners.scratch:BudgetedReplay",
        ("memory",),
        "B + M",
        "1.9x",
        "samples from all data on disk for a fixed number of steps",
        "Prabhu et al. 2023",
    ),
    "NCM": Entry(
        "renate_stages.learners.nearest_mean:NearestClassMean",
        ("labels", "features", "backbone"),
        "B fwd",
        "one pass",
        "nearest class mean; exact for any order of data",
        "Mensink et al. 2013",
    ),
    "SLDA": Entry(
        "renate_stages.learners.streaming_lda:StreamingLDA",
        ("labels", "features", "backbone"),
        "B fwd",
        "one pass",
        "class means and one covariance; exact for any order of data",
        "Hayes & Kanan 2020",
    ),
    "RanPAC": Entry(
        "renate_stages.learners.ranpac:RanPAC",
        ("labels", "features", "backbone"),
        "B fwd",
        "one pass",
        "ridge regression on random features; exact for any order of data",
        "McDonnell et al. 2023",
    ),
    "GDumb": Entry(
        "renate_stages.learners.scratch:GDumb",
        ("memory", "labels"),
        "B",
        "1x",
        "trains a new model on a class-balanced memory",
        "Prabhu et al. 2020",
    ),
    "RD": Entry(
        "renate_stages.learners.rd:RepeatedDistillation",
        ("memory",),
        "B, then B, 2 B fwd",
        "1.3x",
        "trains an expert, then distils it and the parent into a new model",
        "Zhang et al. 2020",
    ),
    "Joint": Entry(
        "renate_stages.learners.scratch:Joint",
        ("memory",),
        "B",
        "1x",
        "trains a new model on all data so far: the upper bound",
        "retraining",
    ),
    "WiSE-FT": Entry(
        "renate_stages.learners.wise_ft:WiSEFT",
        (),
        "B",
        "1x",
        "fine-tunes, then interpolates with the parent's weights",
        "Wortsman et al. 2022",
    ),
    "LwF": Entry(
        "renate_stages.learners.lwf:LwF",
        (),
        "B, B fwd",
        "1.3x",
        "distils the parent's outputs on the new data",
        "Li & Hoiem 2018",
    ),
    "EWC": Entry(
        "renate_stages.learners.ewc:EWC",
        (),
        "B",
        "1.1x",
        "penalizes changes of important weights",
        "Kirkpatrick et al. 2017, Schwarz et al. 2018",
    ),
    "MAS": Entry(
        "renate_stages.learners.mas:MAS",
        (),
        "B",
        "1.1x",
        "penalizes changes of weights that the outputs are sensitive to",
        "Aljundi et al. 2018",
    ),
    "SI": Entry(
        "renate_stages.learners.si:SI",
        (),
        "B",
        "1.2x",
        "penalizes changes of weights that lowered earlier losses",
        "Zenke et al. 2017",
    ),
    "L2-SP": Entry(
        "renate_stages.learners.l2:L2SP",
        (),
        "B",
        "1.1x",
        "penalizes the distance from the parent's weights",
        "Li et al. 2018",
    ),
    "L2-Init": Entry(
        "renate_stages.learners.l2:L2Init",
        (),
        "B",
        "1.1x",
        "penalizes the distance from the initial weights",
        "Kumar et al. 2023",
    ),
    "FineTuning": Entry(
        "renate_stages.learners.fine_tuning:FineTuning",
        (),
        "B",
        "1x",
        "trains on new data alone and forgets: the baseline",
        "fine-tuning",
    ),
}


UNAVAILABLE = {
    "LearningToPrompt": ("RanPAC", "it also adapts a frozen, pretrained model"),
    "LearningToPromptReplay": ("ER", "it replays, and trains the parameters of any model"),
    "SPeft": ("NCM", "it also uses the frozen features of a pretrained model"),
}
"""Renate's updaters without a counterpart here: the nearest learner, and what both do."""


UNWEIGHTED = ("iCaRL", "SCR")
"""Learners that cannot weight rows, besides those of Avalanche; a test compares their classes."""


def without_weights(learners: Iterable[str]) -> list[str]:
    """Return the names of learners that would ignore the weights of rows."""
    return [name for name in learners if name in UNWEIGHTED or catalog.is_name(name)]


def _unavailable(name: str) -> str:
    nearest, why = UNAVAILABLE[name]
    return f"Renate's updater '{name}' is not available; the nearest learner is {nearest}: {why}"


def names() -> list[str]:
    """Return the names of all learners: built-in ones, then those of installed packages."""
    return [*LEARNERS, *(name for name in sorted(_added()) if name not in LEARNERS)]


def table() -> str:
    """Return a table of all learners for a terminal."""
    rows = [("learner", "needs", "examples per step", "cost", "what it does", "reference")]
    rows += [
        (
            name,
            ", ".join(entry.needs) or "nothing",
            entry.examples,
            entry.cost,
            entry.summary,
            entry.reference,
        )
        for name, entry in LEARNERS.items()
    ]
    rows += [(name, "", "", "", _added()[name], "") for name in names() if name not in LEARNERS]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [
        "",
        "B: batch_size new examples, M: memory_batch_size remembered ones (fwd: forward only).",
        "Cost: step time relative to FineTuning, small CNN with B = M; one pass: no epochs.",
        "backbone: needs a model whose features are trained. How to choose: docs/learners.md.",
        f"{catalog.PREFIX}NAME, with the extra `avalanche`: {', '.join(catalog.PARTS)}",
        "Choose one with `dvc exp run -S learner=NAME`; for your own, NAME is package.module:Class.",
        "`learner: auto` searches among a few; `renate-stages simulate` compares them over many updates.",
    ]
    return "\n".join(lines)


def problem_of(name: str) -> str | None:
    """Return what is wrong with a learner's name, or None; does not import the learner."""
    if catalog.is_name(name):
        return catalog.problem_of(name)
    if is_known(name):
        return None
    for renates in UNAVAILABLE:
        if name.lower() == renates.lower():
            return _unavailable(renates)
    known = names()
    return f"unknown learner '{name}'{_closest(name, known)} (known: {', '.join(known)})"


def _closest(name: str, known: Iterable[str]) -> str:
    """Suggest a name that differs only in case and punctuation, or else the closest one."""
    plain = {_letters(each): each for each in known}
    if same := plain.get(_letters(name)):
        return f", did you mean '{same}'?"
    return did_you_mean(name, plain.values())


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def is_known(name: str) -> bool:
    """Return whether a name is valid; does not import a dotted name."""
    if catalog.is_name(name):
        return catalog.problem_of(name) is None
    return name in LEARNERS or _DOTTED.fullmatch(name) is not None or name in _added()


def learner_class(name: str) -> type[Learner]:
    """Return the class of a learner.

    Args:
        name: A key of `LEARNERS`, an entry point's name, or `package.module:Class`.

    Raises:
        UnknownLearnerError: If there is no such class, or it is not a learner.
        MissingExtraError: If it is a strategy of Avalanche, which is not installed.
    """
    if catalog.is_name(name):
        return _of_avalanche(name)
    from renate_stages.learners.base import Learner

    place = LEARNERS[name].place if name in LEARNERS else _added().get(name, name)
    module, _, attribute = place.rpartition(":" if ":" in place else ".")
    try:
        learner = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownLearnerError(name, str(error), names()) from error
    if not (isinstance(learner, type) and issubclass(learner, Learner)):
        raise UnknownLearnerError(name, f"{place} is not a subclass of Learner", names())
    return learner


def _of_avalanche(name: str) -> type[Learner]:
    problem = catalog.problem_of(name)
    if problem is not None:
        raise UnknownLearnerError(name, problem, names())
    from renate_stages.learners.avalanche.naming import named

    return named(name)


def check_installed(learners: Iterable[str]) -> None:
    """Check that the packages that these learners need are installed, without importing them.

    Raises:
        MissingExtraError: If a package is missing.
    """
    if any(catalog.is_name(name) for name in learners):
        catalog.check_installed()


def _added() -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group=GROUP)}
