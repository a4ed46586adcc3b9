"""`FeatureClassifier`: the base class of the reference models, with features and a head."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from renate_stages.errors import ModelArgumentError, ModelMismatchError, ModelStateError
from renate_stages.models.heads import NearestMeanHead, PerTaskHeads, RandomFeatureHead
from renate_stages.models.module import RenateModule, unwrap

Heads = Literal["shared", "per_task"]


class FeatureClassifier(RenateModule):
    """A model that computes `head(features(x))`.

    Args:
        constructor_arguments: See `RenateModule`.
        features: Maps inputs to (B, F) floats; kept as `features`.
        num_features: F.
        num_outputs: K, the number of classes, or of values in a regression.
        heads: `shared`: one linear head for all tasks; task ids are ignored. `per_task`: one head
            for each id passed to `add_task_params`; every call must then name a task.
        random_features: Number of random features before the shared head; 0: none. See
            `RandomFeatureHead`. If a subclass takes this argument, a learner can set it later.
        nearest_mean: Whether the shared head predicts the nearest mean; see `NearestMeanHead`. If a
            subclass takes this argument, a learner can set it later.
    """

    head: nn.Linear | PerTaskHeads | RandomFeatureHead | NearestMeanHead

    def __init__(
        self,
        constructor_arguments: dict[str, Any],
        features: nn.Module,
        num_features: int,
        num_outputs: int,
        heads: Heads,
        random_features: int = 0,
        nearest_mean: bool = False,
    ) -> None:
        if random_features:  # only if set, so that other states keep their old form
            constructor_arguments = {**constructor_arguments, "random_features": random_features}
        if nearest_mean:
            constructor_arguments = {**constructor_arguments, "nearest_mean": True}
        super().__init__(constructor_arguments)
        name = type(self).__name__
        if heads not in ("shared", "per_task"):
            raise ModelArgumentError(name, "heads", heads, "'shared' or 'per_task'")
        check_positive(name, num_outputs=num_outputs)
        self.features = features
        self._sizes = num_features, num_outputs
        if heads != "shared":
            if random_features or nearest_mean:
                which = "random_features" if random_features else "nearest_mean"
                value = random_features or nearest_mean
                raise ModelArgumentError(name, which, value, "none with these heads")
            self.head = PerTaskHeads(num_features, num_outputs)
            return
        if random_features:
            check_positive(name, random_features=random_features)
        if random_features and nearest_mean:
            raise ModelArgumentError(name, "nearest_mean", True, "False with random_features")
        self.head = self._shared_head(random_features, nearest_mean)

    @torch.no_grad()
    def begin_at(self, means: Sequence[float], scales: Sequence[float]) -> None:
        """Scale the weights of a new head so that its outputs have the size of a regression's targets.

        Otherwise the first steps are spent on reaching their mean. Nothing happens to heads that are
        not one linear layer.

        Args:
            means: Mean of each target, K values, which become the biases.
            scales: Standard deviation of each target, K values > 0.
        """
        if type(self.head) is nn.Linear and self.head.out_features == len(means):
            self.head.weight.mul_(torch.tensor(scales, dtype=torch.float32)[:, None])
            self.head.bias.copy_(torch.tensor(means, dtype=torch.float32))

    @property
    def random_features(self) -> int:
        """Number of random features before the head; 0: none."""
        return self._constructor_arguments.get("random_features", 0)

    @property
    def nearest_mean(self) -> bool:
        """Whether the head predicts the nearest mean."""
        return self._constructor_arguments.get("nearest_mean", False)

    @property
    def takes_random_features(self) -> bool:
        """Whether the constructor takes `random_features`, so that such a state can be loaded."""
        return "random_features" in inspect.signature(type(self)).parameters

    @property
    def takes_nearest_mean(self) -> bool:
        """Whether the constructor takes `nearest_mean`, so that such a state can be loaded."""
        return "nearest_mean" in inspect.signature(type(self)).parameters

    def layers_to_distil(self) -> list[nn.Module]:
        """Return the layers whose outputs POD-ER distils: the last one of each stage."""
        return []

    def use_random_features(self, number: int, generator: torch.Generator | None = None) -> None:
        """Replace the shared head by a new one with weights 0.

        `from_state_dict` then builds the model with this head from its state dict.

        Args:
            number: Number of random features before the head, >= 0; 0: none.
            generator: Draws the projection; None uses the global generator.

        Raises:
            ModelStateError: If the class does not take `random_features`, so that its state could
                not be loaded.
        """
        if number:
            self._refuse_unless(
                self.takes_random_features, "random features", "random_features: int = 0"
            )
        self._put_head(number, False, generator)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def use_nearest_mean(self) -> None:
        """Replace the head by a nearest-mean head, which keeps the weights of a linear one.

        Raises:
            ModelStateError: If the class does not take `nearest_mean`, so that its state could not
                be loaded.
        """
        self._refuse_unless(
            self.takes_nearest_mean, "means of classes", "nearest_mean: bool = False"
        )
        old_head = self.head
        self._put_head(0, True)
        if isinstance(old_head, nn.Linear) and isinstance(self.head, NearestMeanHead):
            self.head.linear = old_head

    def _put_head(
        self, random_features: int, nearest_mean: bool, generator: torch.Generator | None = None
    ) -> None:
        parameter = next(self.parameters())
        with torch.random.fork_rng(devices=[]):  # the layer's random initial weights are not used
            head = self._shared_head(random_features, nearest_mean, generator)
        self.head = head.to(parameter.device, parameter.dtype)
        for name, value in (("random_features", random_features), ("nearest_mean", nearest_mean)):
            self._constructor_arguments.pop(name, None)
            if value:
                self._constructor_arguments[name] = value

    def _shared_head(
        self, random_features: int, nearest_mean: bool, generator: torch.Generator | None = None
    ) -> nn.Linear | RandomFeatureHead | NearestMeanHead:
        num_features, num_outputs = self._sizes
        if random_features:
            return RandomFeatureHead(num_features, random_features, num_outputs, generator)
        return (NearestMeanHead if nearest_mean else nn.Linear)(num_features, num_outputs)

    def _refuse_unless(self, takes: bool, what: str, argument: str) -> None:
        if not takes:
            name = type(self).__name__
            raise ModelStateError(
                name,
                f"it needs a head with {what}, which its constructor does not support.",
                f"add the argument `{argument}` to {name} and pass it to FeatureClassifier",
            )

    def grow_outputs(self, layer: str, number: int) -> None:
        super().grow_outputs(layer, number)
        if layer == "head":
            self._sizes = self._sizes[0], max(number, self._sizes[1])

    def set_extra_state(self, state: Any) -> None:
        """Add the stored tasks' heads, or make the shared head of the stored kind.

        Raises:
            ModelStateError: If the state was not written by a `RenateModule` of this library.
        """
        super().set_extra_state(state)
        stored = state["constructor_arguments"]
        number, nearest = stored.get("random_features", 0), stored.get("nearest_mean", False)
        if isinstance(self.head, PerTaskHeads):
            return
        if number != self.random_features:
            self.use_random_features(number)
        if nearest and not self.nearest_mean:
            self.use_nearest_mean()

    def forward(self, x: Any, task_id: str | None = None) -> Tensor:
        """Return the logits (B, K) for what `features` takes.

        Raises:
            UnknownTaskError: If heads are per task and the task has none.
        """
        features = self.features(x)  # (B, F)
        if isinstance(self.head, PerTaskHeads):
            return self.head(features, task_id)
        return self.head(features)

    def get_params(self, task_id: str | None = None) -> list[nn.Parameter]:
        """Return the parameters of the features and of the task's head; for None, all.

        Raises:
            UnknownTaskError: If heads are per task and the task has none.
        """
        if task_id is None or not isinstance(self.head, PerTaskHeads):
            return list(self.parameters())
        return [*self.features.parameters(), *self.head.of(task_id).parameters()]

    def _add_task_params(self, task_id: str) -> None:
        if isinstance(self.head, PerTaskHeads):
            self.head.add(task_id)


def give_nearest_mean(model: RenateModule, learner: str) -> None:
    """Give a model a nearest-mean head, which acts as a linear head until its means are set.

    Args:
        model: The model.
        learner: Name of the learner that needs it, for the message.

    Raises:
        ModelMismatchError: If the model cannot have such a head.
    """
    module = unwrap(model)
    if not (
        isinstance(module, FeatureClassifier)
        and module.takes_nearest_mean
        and isinstance(module.head, nn.Linear | NearestMeanHead)
    ):
        raise ModelMismatchError(
            f"{learner} predicts the nearest class mean, but {type(module).__name__} has no head for it",
            "use a model of renate_stages.models, or add the argument `nearest_mean: bool = False` "
            "to your FeatureClassifier subclass and pass it to FeatureClassifier",
        )
    if isinstance(module.head, nn.Linear):
        module.use_nearest_mean()
    head: Any = module.head
    head.uses_means = False


def check_positive(model: str, **arguments: int) -> None:
    """Check that a model's arguments are whole numbers >= 1.

    Raises:
        ModelArgumentError: If an argument is not.
    """
    for argument, value in arguments.items():
        if not isinstance(value, int) or value < 1:
            raise ModelArgumentError(model, argument, value, "a whole number, at least 1")


def check_share(model: str, **arguments: float) -> None:
    """Check that a model's arguments are numbers in [0, 1).

    Raises:
        ModelArgumentError: If an argument is not.
    """
    for argument, value in arguments.items():
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise ModelArgumentError(model, argument, value, "a number in [0, 1)")
