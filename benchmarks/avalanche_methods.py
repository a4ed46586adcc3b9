"""The methods and streams of `avalanche.py`: names, sizes and hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from production import ScaledCNN, ScaledMLP

BATCH = 32  # new examples a step, and remembered ones
MEMORY = 500

# Training images that streams are drawn from; the others chose the settings.
FIRST = {"split": 50_000, "cifar": 40_000, "rotated": 50_000}
TRAIN = {"split": 20_000, "cifar": 20_000, "rotated": 50_000}  # of a stream
QUICK_TRAIN = {"split": 5000, "cifar": 3000, "rotated": 15_000}
HOLDOUT = 200  # rows of the holdout that a state keeps; accuracies are measured on `TEST`
TEST = {"split": 10_000, "cifar": 10_000, "rotated": 2000}  # test images, at each angle
CLASSES = 2  # of an update of the class-incremental protocols
ANGLES = tuple(range(0, 100, 10))  # degrees, an update each


@dataclass(frozen=True)
class Method:
    """A line of the table.

    Args:
        protocol: `split`, `cifar` or `rotated`.
        name: Of the part of Avalanche: inside, the learner is `Avalanche-NAME`.
        rate: Learning rate of SGD, on every side.
        inside: Hyperparameters of Avalanche, in our words.
        native: Our own learner of the method; None if we have none.
        own: Its hyperparameters.
        ties: Answers that may differ with equal weights, because class means are sums in another order.
    """

    protocol: str
    name: str
    rate: float
    inside: Mapping[str, Any] = field(default_factory=dict)
    native: str | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    ties: int = 0

    @property
    def label(self) -> str:
        """What its records are called."""
        return f"{self.protocol} {self.name}"

    @property
    def dataset(self) -> str:
        """Name of the dataset, as `mnist.decode` takes it."""
        return "cifar10" if self.protocol == "cifar" else "mnist"

    @property
    def model(self) -> type[ScaledMLP | ScaledCNN]:
        """The model's class."""
        return ScaledCNN if self.protocol == "cifar" else ScaledMLP

    @property
    def sides(self) -> tuple[str, ...]:
        """Its sides, as they are shown."""
        return ("alone", "inside", "native") if self.native else ("alone", "inside")

    @property
    def common(self) -> dict[str, Any]:
        """What all sides share."""
        return {"learning_rate": self.rate, "batch_size": BATCH}


# The weights of EWC are no equals: Avalanche's penalty is lambda times a sum over updates, of squared
# gradients of batches' means; ours is half the weight times one sum, of single examples' gradients,
# which are as many times larger as a batch has examples. iCaRL's rates are equals: its loss is a mean
# over ten classes there, and a sum here, as in the paper. With a lambda of 10 the weights of seed 3
# grow without end, alone as inside; so it is 3. Those of LwF are equals: Avalanche's lacks T^2.
METHODS = (
    Method(
        "split",
        "ER",
        0.1,
        {"memory_size": MEMORY},
        "ER",
        {"memory_size": MEMORY, "memory_batch_size": BATCH},
    ),
    Method(
        "split",
        "iCaRL",
        1.0,
        {"memory_size": MEMORY},
        "iCaRL",
        {"memory_size": MEMORY, "memory_batch_size": BATCH, "learning_rate": 0.1},
    ),
    Method(
        "cifar",
        "ER",
        0.03,
        {"memory_size": MEMORY},
        "ER",
        {"memory_size": MEMORY, "memory_batch_size": BATCH},
    ),
    Method(
        "cifar",
        "iCaRL",
        0.1,
        {"memory_size": MEMORY},
        "iCaRL",
        {"memory_size": MEMORY, "memory_batch_size": BATCH, "learning_rate": 0.01},
        ties=10,
    ),
    Method("rotated", "EWC", 0.1, {"ewc_lambda": 3.0}, "EWC", {"ewc_weight": 1.0}),
    Method("rotated", "LwF", 0.1, {"alpha": 12.0}, "LwF", {"distillation_weight": 3.0}),
    Method("rotated", "Naive", 0.1, native="FineTuning"),
)
