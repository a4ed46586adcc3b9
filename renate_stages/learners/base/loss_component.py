"""`LossComponent`: the base class of the terms of a learner's loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor, nn

from renate_stages.data import Batch

if TYPE_CHECKING:
    from renate_stages.learners.base.learner import Learner


class ForwardResult(NamedTuple):
    """A batch and the model's outputs for it.

    Args:
        batch: The batch.
        outputs: The model's outputs, `(B, K)` for a classifier.
        features: The inputs of the last layer, `(B, F)`; None unless a component needs them.
        layers: Outputs of the model's hooked layers, `(B, ...)` each; empty unless a component needs
            them.
    """

    batch: Batch
    outputs: Any
    features: Tensor | None = None
    layers: tuple[Tensor, ...] = ()


class LossComponent(nn.Module):
    """One term of a learner's loss, usually a term of a paper's equation.

    A component is a submodule of its learner: it moves to the device, and its buffers are in every
    checkpoint and, if `survives` is true, in the state.

    Args:
        weight: Factor of the term, >= 0.
        own_draw: Whether the term uses its own draw from the memory; otherwise it shares the draw
            of the component before it. No effect if the component does not replay.
    """

    replays: ClassVar[bool] = (
        True  # whether it needs a draw from memory; without one, the term is 0
    )
    memory_fields: ClassVar[tuple[str, ...]] = ()  # the keys of what `remember` returns
    needs_features: ClassVar[bool] = False
    needs_layers: ClassVar[bool] = False  # outputs of hooked layers, see `models.features`
    survives: ClassVar[bool] = False  # whether its state is kept for the next update
    follows_steps: ClassVar[bool] = False  # whether it sums or averages the weights over the steps
    starts_anew: ClassVar[bool] = False  # whether it replaces the parent's weights by new ones

    def __init__(self, weight: float = 1.0, own_draw: bool = True) -> None:
        super().__init__()
        self.weight = weight
        self.own_draw = own_draw

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        """Return the term as a scalar, without its weight.

        It is a mean over the examples of the draw or, if the component does not replay, of the new
        batch; or it depends on the weights alone.

        Args:
            new: The new batch.
            memory: The draw from the memory; None if the component does not replay.
        """
        raise NotImplementedError

    def remember(self, passed: ForwardResult) -> dict[str, Tensor]:
        """Return the fields to store with each example of a batch, by name, `(B, ...)` float."""
        return {}

    def start_update(self, learner: Learner) -> None:
        """Prepare for an update; the model has the parent's weights."""

    def weights_changed(self, learner: Learner) -> None:
        """Use the model's weights as the start of training; `change_weights` has changed them.

        It is called after `start_update` and `restore`. What is a copy of the parent's model stays.
        """

    def start_training(self, learner: Learner) -> None:
        """Prepare for the first step; called last, after `weights_changed`."""

    def after_step(self, learner: Learner) -> None:
        """Update the component after an optimizer step."""

    def end_training(self, learner: Learner) -> None:
        """Record what the next update needs; training is over and the weights are final."""

    def restore(self, left: Mapping[str, Tensor]) -> bool:
        """Load the state that this component had after the parent's training.

        The learner calls this in `start_update`.

        Args:
            left: What `state_dict()` returned then.

        Returns:
            Whether the state fits; if not, nothing is loaded.
        """
        own = tensors_of(self)
        fits = left.keys() == own.keys() and all(left[k].shape == own[k].shape for k in own)
        if fits:
            self.load_state_dict({**self.state_dict(), **left})
        return fits


def tensors_of(component: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a component's state dict, without extra state of other types."""
    state = component.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
