"""`LossComponent`: the base class of the terms of a learner's loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor, nn

from renate_stages.data import Batch

if TYPE_CHECKING:
    from renate_stages.learners.base.learner import Learner


class ForwardResult(NamedTuple):
    """A batch that went through the model.

    Args:
        batch: What went in.
        outputs: The model's outputs, `(B, K)` for a classifier.
        features: What went into its last layer, `(B, F)`; None unless a component needs them.
    """

    batch: Batch
    outputs: Any
    features: Tensor | None = None


class LossComponent(nn.Module):
    """One term of a learner's loss. A subclass is a term of a paper's equation.

    A component is a registered submodule of its learner: it moves to the device, its buffers are in
    every checkpoint and, where `survives`, in the state.

    Args:
        weight: Factor of the term, >= 0.
        own_draw: Whether it takes a draw from the memory of its own; else it shares the one of the
            component before it. Without effect where it does not replay.
    """

    replays: ClassVar[bool] = True  # without a memory the term is 0
    memory_fields: ClassVar[tuple[str, ...]] = ()  # what `remember` returns
    needs_features: ClassVar[bool] = False
    survives: ClassVar[bool] = False  # whether its state is kept for the next update

    def __init__(self, weight: float = 1.0, own_draw: bool = True) -> None:
        super().__init__()
        self.weight = weight
        self.own_draw = own_draw

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        """Return the term without its weight, a scalar.

        A mean over the examples of the draw or, where it does not replay, of the new batch; or of the
        weights alone.

        Args:
            new: The new batch.
            memory: The draw from the memory; None where the component does not replay.
        """
        raise NotImplementedError

    def remember(self, passed: ForwardResult) -> dict[str, Tensor]:
        """Return what is kept beside each example of a batch, by name, `(B, ...)` float."""
        return {}

    def start_update(self, learner: Learner) -> None:
        """Prepare for an update; the model has the parent's weights."""

    def after_step(self, learner: Learner) -> None:
        """Follow the model after an optimizer step."""

    def end_training(self, learner: Learner) -> None:
        """Take what the next update needs; training is over, and the weights are final."""

    def restore(self, left: Mapping[str, Tensor]) -> bool:
        """Take the state that this component left at the parent's end; called in `start_update`.

        Args:
            left: What `state_dict()` returned there.

        Returns:
            Whether it fits; where it does not, nothing is taken.
        """
        own = tensors_of(self)
        fits = left.keys() == own.keys() and all(left[k].shape == own[k].shape for k in own)
        if fits:
            self.load_state_dict({**self.state_dict(), **left})
        return fits


def tensors_of(component: nn.Module) -> dict[str, Tensor]:
    """Return its state without what modules in it say of themselves beside tensors."""
    state = component.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
