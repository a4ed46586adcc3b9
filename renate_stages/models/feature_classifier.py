"""The base class of the reference models: features and a head."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn

from renate_stages.errors import ModelArgumentError, ModelMismatchError, ModelStateError
from renate_stages.models.heads import NearestMeanHead, PerTaskHeads, RandomFeatureHead
from renate_stages.models.module import RenateModule, unwrap

Heads = Literal["shared", "per_task"]


class FeatureClassifier(RenateModule):
    """`head(features(x))`: the common part of the reference models.

    Args:
        constructor_arguments: See `RenateModule`.
        features: Maps inputs to (B, F) floats; kept as `features`.
        num_features: F.
        num_outputs: K, the number of classes, or of values in a regression.
        heads: `shared`: one linear head for all tasks, task ids are ignored. `per_task`: one for
            each id given to `add_task_params`; every call then has to name a task.
        random_features: Random features between the features and the shared head; 0: none. See
            `RandomFeatureHead`. A subclass that takes this argument too can be given them later.
        nearest_mean: Whether the shared head serves the nearest mean; see `NearestMeanHead`. As
            with random features, a subclass that takes this argument can be given it later.
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
        if random_features:  # without them a state stays as it was before there were any
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

    @property
    def random_features(self) -> int:
        """How many random features lie before the head; 0: none."""
        return self._constructor_arguments.get("random_features", 0)

    @property
    def nearest_mean(self) -> bool:
        """Whether the head serves the nearest mean."""
        return self._constructor_arguments.get("nearest_mean", False)

    @property
    def takes_random_features(self) -> bool:
        """Whether a state with random features can be loaded again: the constructor takes them."""
        return "random_features" in inspect.signature(type(self)).parameters

    @property
    def takes_nearest_mean(self) -> bool:
        """Whether a state with means can be loaded again: the constructor takes `nearest_mean`."""
        return "nearest_mean" in inspect.signature(type(self)).parameters

    def use_random_features(self, number: int, generator: torch.Generator | None = None) -> None:
        """Put a new shared head in place of the old one. Its weights are 0.

        The model's state dict is then one that `from_state_dict` builds with this head.

        Args:
            number: Random features before the head, >= 0; 0: none.
            generator: Draws the projection; None: the global one.

        Raises:
            ModelStateError: If the class does not take `random_features`, so that its state could
                not be loaded again.
        """
        if number:
            self._refuse_unless(
                self.takes_random_features, "random features", "random_features: int = 0"
            )
        self._put_head(number, False, generator)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def use_nearest_mean(self) -> None:
        """Put a head that serves the nearest mean in place of a linear one, whose weights it keeps.

        Raises:
            ModelStateError: If the class does not take `nearest_mean`, so that its state could not
                be loaded again.
        """
        self._refuse_unless(
            self.takes_nearest_mean, "means of classes", "nearest_mean: bool = False"
        )
        before = self.head
        self._put_head(0, True)
        if isinstance(before, nn.Linear) and isinstance(self.head, NearestMeanHead):
            self.head.linear = before

    def _put_head(
        self, random_features: int, nearest_mean: bool, generator: torch.Generator | None = None
    ) -> None:
        place = next(self.parameters())
        with torch.random.fork_rng(devices=[]):  # the weights that a layer draws are not used
            head = self._shared_head(random_features, nearest_mean, generator)
        self.head = head.to(place.device, place.dtype)
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
                f"it would have a head on {what}, which its constructor does not know.",
                f"let {name} take `{argument}` and give it to FeatureClassifier",
            )

    def set_extra_state(self, state: Any) -> None:
        """Take the stored tasks' heads, and the kind of the shared one, as the state has them.

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

    def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
        """Return the outputs (B, K), not normalised.

        Raises:
            UnknownTaskError: If heads are per task and this one has none.
        """
        features = self.features(x)  # (B, F)
        if isinstance(self.head, PerTaskHeads):
            return self.head(features, task_id)
        return self.head(features)

    def get_params(self, task_id: str | None = None) -> list[nn.Parameter]:
        """Return the features' parameters and those of the task's head; all for None.

        Raises:
            UnknownTaskError: If heads are per task and this one has none.
        """
        if task_id is None or not isinstance(self.head, PerTaskHeads):
            return list(self.parameters())
        return [*self.features.parameters(), *self.head.of(task_id).parameters()]

    def _add_task_params(self, task_id: str) -> None:
        if isinstance(self.head, PerTaskHeads):
            self.head.add(task_id)


def give_nearest_mean(model: RenateModule) -> None:
    """Let a model serve the nearest mean, and its linear head until it is given means.

    Raises:
        ModelMismatchError: If it has no head that could.
    """
    module = unwrap(model)
    if not (
        isinstance(module, FeatureClassifier)
        and module.takes_nearest_mean
        and isinstance(module.head, nn.Linear | NearestMeanHead)
    ):
        raise ModelMismatchError(
            f"iCaRL serves the nearest class mean, which {type(module).__name__} has no head for",
            "use a model of renate_stages.models, or let a FeatureClassifier of yours take "
            "`nearest_mean: bool = False` and give it to FeatureClassifier",
        )
    if isinstance(module.head, nn.Linear):
        module.use_nearest_mean()
    head: Any = module.head
    head.uses_means = False


def check_positive(model: str, **arguments: int) -> None:
    """Check that arguments of a model are whole numbers of at least 1.

    Raises:
        ModelArgumentError: If one is not.
    """
    for argument, value in arguments.items():
        if not isinstance(value, int) or value < 1:
            raise ModelArgumentError(model, argument, value, "a whole number, at least 1")
