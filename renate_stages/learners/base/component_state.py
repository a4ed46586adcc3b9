"""`ComponentState`: the tensors of loss components that the next update continues from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from torch import Tensor

from renate_stages.learners.base.loss_component import LossComponent, tensors_of
from renate_stages.learners.base.new_rows import with_new_rows


class ComponentState:
    """Passes the state of components from one update to the next, by the class of a component.

    What the parent's learner left is held until an update starts. Without a start, as when the
    parent is carried over, it is passed on unchanged.
    """

    def __init__(self) -> None:
        self._left: dict[str, Tensor] = {}

    def receive(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold the component state among the tensors of the parent's learner."""
        self._left = {name: value for name, value in tensors.items() if "." in name}

    def restore(self, parts: Iterable[LossComponent], grown: Collection[str]) -> list[str]:
        """Load the held state into components; nothing is held afterwards.

        Args:
            parts: The components of the learner.
            grown: As in `StartingPoint`.

        Returns:
            The class names of components whose state does not fit, and which start anew.
        """
        anew = []
        for name, component in _surviving(parts).items():
            prefix = f"{name}."
            found = {k[len(prefix) :]: v for k, v in self._left.items() if k.startswith(prefix)}
            found = with_new_rows(found, tensors_of(component), grown)
            if found and not component.restore(found):
                anew.append(name)
        self._left = {}
        return anew

    def tensors(self, parts: Iterable[LossComponent]) -> dict[str, Tensor]:
        """Return the state for the next update: that of the components, and what is still held."""
        tensors = dict(self._left)
        for name, component in _surviving(parts).items():
            for key, value in tensors_of(component).items():
                tensors.setdefault(f"{name}.{key}", value)
        return tensors


def _surviving(parts: Iterable[LossComponent]) -> dict[str, LossComponent]:
    return {type(component).__name__: component for component in parts if component.survives}
