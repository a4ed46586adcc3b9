"""`RenateModule`: an `nn.Module` that can be rebuilt from its own state dict.

`RenateModule` has the interface of the class of that name in awslabs/Renate, with two changes: its
state dict contains only tensors and plain values, so that `torch.load(weights_only=True)` can read
it, and a state dict that does not match is an error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NoReturn, Self, final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from renate_stages.errors import ModelInputsError, ModelStateError, StoredArgumentError
from renate_stages.models.extra_state import EXTRA_STATE, checked_extra_state, plain
from renate_stages.models.growing_embedding import GrowingEmbedding
from renate_stages.models.growth import can_grow, grow_layer, outputs_of


class RenateModule(nn.Module, ABC):
    """A model whose state dict includes its constructor arguments and task ids.

    A subclass passes its constructor arguments to this class and defines `forward`. With parameters
    per task, it also overrides `_add_task_params` and `get_params`.

        class Classifier(RenateModule):
            def __init__(self, hidden: int = 64) -> None:
                super().__init__(constructor_arguments={"hidden": hidden})
                self.layers = nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))

            def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
                return self.layers(x)

        torch.save(Classifier(32).state_dict(), path)
        model = Classifier.from_state_dict(torch.load(path, weights_only=True))

    Args:
        constructor_arguments: Keyword arguments to build this model again. Must be JSON values:
            None, bool, int, float, str, and lists, tuples and string-keyed dicts of those. Copied.

    Raises:
        StoredArgumentError: If a value has another type.
    """

    output_layer: str | None = None
    """Name of the submodule that computes the outputs and grows for new labels; None: `head`, or
    else the last linear layer."""

    def __init__(self, constructor_arguments: dict[str, Any]) -> None:
        super().__init__()
        self._constructor_arguments = plain(constructor_arguments, "constructor_arguments")
        self._task_ids: list[str] = []
        self._grown: dict[str, list[int]] = {}  # outputs or rows of a layer: as built, and now
        self._cache = _RepresentationCache()
        self._hooks: list[RemovableHandle] = []

    @abstractmethod
    def forward(self, x: Any, task_id: str | None = None) -> Any:
        """Return the model's outputs for a batch.

        Args:
            x: A tensor (B, ...), or a tuple or dict of such tensors.
            task_id: Task of all rows; models without parameters per task ignore it.
        """

    def get_logits(self, x: Any, task_id: str | None = None) -> Any:
        """Return the outputs before any decision rule; by default the model's outputs."""
        return self(x, task_id=task_id)

    def get_params(self, task_id: str | None = None) -> list[nn.Parameter]:
        """Return the parameters to train for a task; by default all."""
        return list(self.parameters())

    # -- tasks ------------------------------------------------------------------------------------

    @property
    def task_ids(self) -> list[str]:
        """Ids of the tasks whose parameters were added, in order of addition (a copy)."""
        return list(self._task_ids)

    @final
    def add_task_params(self, task_id: str | None = None) -> None:
        """Add a task's parameters; does nothing if they exist or `task_id` is None.

        If all parameters are on one device, the new ones are moved there.

        Raises:
            StoredArgumentError: If the id is not a string.
        """
        if task_id is None or task_id in self._task_ids:
            return
        if not isinstance(task_id, str):
            raise StoredArgumentError("task_id", task_id)
        devices = {parameter.device for parameter in self.parameters()}
        self._add_task_params(task_id)
        self._task_ids.append(task_id)
        if len(devices) == 1:
            self.to(devices.pop())

    def _add_task_params(self, task_id: str) -> None:
        """Add the parameters of a new task; must not change those of other tasks."""

    # -- growth -----------------------------------------------------------------------------------

    @property
    def grown(self) -> dict[str, list[int]]:
        """The layers that have grown, by name: outputs, or rows of embeddings, as built and now (a copy)."""
        return {name: list(outputs) for name, outputs in self._grown.items()}

    @property
    def grown_outputs(self) -> dict[str, list[int]]:
        """Those layers of `grown` that are not embeddings: their outputs as built, and now (a copy)."""
        layers = dict(unwrap(self).named_modules())
        return {
            name: outputs
            for name, outputs in self.grown.items()
            if not isinstance(layers.get(name), GrowingEmbedding)
        }

    def grow_inputs(self, sizes: Mapping[str, Any]) -> None:
        """Give embeddings rows for all codes that the data may have now; by default none.

        Override it in a model whose inputs contain codes, and call `grow_outputs` with the name of each
        embedding, which must be a `GrowingEmbedding`. It is called before each update.

        Args:
            sizes: Sizes of the data by the name of the constructor argument, such as `vocab_size: int`
                or `cardinalities: list[int]`. Those that this model does not have are ignored.
        """

    def grow_outputs(self, layer: str, number: int) -> None:
        """Give a layer more outputs, or an embedding more rows; those it has keep their bits.

        The state dict records it, so that loading it lets the layer grow again.

        Args:
            layer: Name of the submodule, without a wrapper's prefix: the one that computes the outputs,
                or a `GrowingEmbedding`.
            number: Number of outputs or rows after it. Nothing happens if there are as many.

        Raises:
            ModelStateError: If the model has no such layer, or it cannot grow.
        """
        child = dict(unwrap(self).named_modules()).get(layer)
        if child is None or not can_grow(child):
            name = type(unwrap(self)).__name__
            raise ModelStateError(
                name,
                f"its layer '{layer}' has {number} outputs, but {name} has no such layer that can grow.",
                "use the code that wrote the state",
            )
        built, _ = self._grown.get(layer, [outputs_of(child), 0])
        if outputs_of(child) < number:
            grow_layer(child, number)
            self._grown[layer] = [built, number]

    # -- state ------------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """Return the part of the state dict that is not tensors, as plain values (a copy)."""
        arguments = plain(self._constructor_arguments, "constructor_arguments")
        extra = {"constructor_arguments": arguments, "task_ids": list(self._task_ids)}
        return {**extra, "grown": self.grown} if self._grown else extra

    def set_extra_state(self, state: Any) -> None:
        """Add the parameters of the stored tasks, and what was added for new labels and codes.

        The module keeps its own constructor arguments, which may differ from those in the state, for
        example in the dropout rate.

        Raises:
            ModelStateError: If the state was not written by a `RenateModule` of this library.
        """
        extra = checked_extra_state(state, type(self).__name__)
        for task_id in extra["task_ids"]:
            self.add_task_params(task_id)
        with torch.random.fork_rng(devices=[]):  # the new rows' initial weights are not used
            for layer, (_, number) in extra.get("grown", {}).items():
                self.grow_outputs(layer, number)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # The extra state must be set before any tensor is loaded. PyTorch sets it last, which is too
        # late for task parameters that are registered on this module itself.
        if prefix + EXTRA_STATE in state_dict:
            self.set_extra_state(state_dict[prefix + EXTRA_STATE])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Any]) -> Self:
        """Build the model that a state dict describes, and load the state strictly.

        Args:
            state_dict: The state dict of a model of this class; not changed.

        Raises:
            ModelStateError: If it has no constructor arguments, if this class does not take them,
                or if a tensor is missing, unexpected or of another shape.
        """
        extra = checked_extra_state(state_dict.get(EXTRA_STATE), cls.__name__)
        try:
            model = cls(**plain(extra["constructor_arguments"], "constructor_arguments"))
        except TypeError as error:
            raise ModelStateError(
                cls.__name__,
                f"its constructor does not accept the stored arguments: {error}.",
                f"use the class that wrote the state, or add these arguments to {cls.__name__}",
            ) from error
        for task_id in extra["task_ids"]:
            model.add_task_params(task_id)
        try:
            model.load_state_dict(state_dict, strict=True)
        except RuntimeError as error:  # PyTorch's message lists the keys
            raise ModelStateError(
                cls.__name__,
                str(error),
                "use the code that wrote the state, or load the matching parts yourself in model_fn, "
                "with load_state_dict(..., strict=False)",
            ) from error
        return model

    # -- intermediate representations -------------------------------------------------------------

    def register_intermediate_representation_caching_hook(self, submodule: nn.Module) -> None:
        """Cache the outputs of a submodule in every call of this model, in train and eval mode.

        The cache has only the outputs of the last call, with their graph. It is not in the state
        dict. A deep copy of the model has its own hooks and an empty cache.
        """
        if not self._hooks:
            self._hooks.append(self.register_forward_pre_hook(self._cache.clear))
        self._hooks.append(submodule.register_forward_hook(self._cache.keep))

    @property
    def has_hooks(self) -> bool:
        """Whether outputs of submodules are cached."""
        return bool(self._hooks)

    def get_intermediate_representation(self) -> list[Tensor]:
        """Return the hooked submodules' outputs in the last call, in the order of execution."""
        return list(self._cache.outputs)

    def reset_intermediate_representation_cache(self) -> None:
        """Clear the cached outputs, but keep the hooks."""
        self._cache.clear()

    def deregister_hooks(self) -> None:
        """Remove all caching hooks and clear the cached outputs."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._cache.clear()


class RenateWrapper(RenateModule):
    """Wraps any `nn.Module` as a `RenateModule`: ignores task ids and unpacks inputs.

    It cannot rebuild the module, so load weights with `load_state_dict`:

        model = RenateWrapper(torchvision.models.resnet18(num_classes=10))
        model.load_state_dict(torch.load(path, weights_only=True))

    Args:
        model: The module, kept as attribute `wrapped`, which is also its prefix in the state dict.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(constructor_arguments={})
        self.wrapped = model

    def forward(self, x: Any, task_id: str | None = None) -> Any:
        """Call the module: a tuple or list as positional arguments, a dict as keywords.

        Returns:
            The module's outputs; a tuple of one element is unpacked.

        Raises:
            ModelInputsError: If `x` is not a tensor, tuple, list or dict.
        """
        if isinstance(x, Tensor):
            outputs = self.wrapped(x)
        elif isinstance(x, tuple | list):
            outputs = self.wrapped(*x)
        elif isinstance(x, Mapping):
            outputs = self.wrapped(**x)
        else:
            expected = "a tensor, or a tuple, list or dict of tensors"
            raise ModelInputsError(type(self.wrapped).__name__, type(x).__name__, expected)
        return outputs[0] if isinstance(outputs, tuple) and len(outputs) == 1 else outputs

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load the state dict of a wrapper, or that of the module alone, which a state contains."""
        inner = self.wrapped.state_dict().keys()
        if inner <= state_dict.keys() <= inner | {EXTRA_STATE}:
            extra = self.get_extra_state()
            if EXTRA_STATE not in inner:  # otherwise it is that of the module
                extra = state_dict.get(EXTRA_STATE, extra)
            own = {f"wrapped.{name}": state_dict[name] for name in inner}
            state_dict = {**own, EXTRA_STATE: extra}
        return super().load_state_dict(state_dict, strict, assign)

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Any]) -> NoReturn:
        """Raise an error, because a wrapped module's constructor arguments are unknown.

        Raises:
            ModelStateError: Always.
        """
        raise ModelStateError(
            cls.__name__,
            "it has no constructor arguments for the wrapped module.",
            "build that module, wrap it with RenateWrapper(module) and call load_state_dict",
        )


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside a `RenateWrapper`; return other models unchanged."""
    return model.wrapped if isinstance(model, RenateWrapper) else model


class _RepresentationCache:
    """Outputs cached by hooks. It is copied and pickled as an empty cache.

    Deep-copying a hooked module copies its hooks. The hooks are bound methods of this object, so
    the copies write to the copied cache; closures would write to the original's.
    """

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []

    def keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.outputs.append(output)

    def clear(self, *_: Any) -> None:
        self.outputs = []

    def __reduce__(self) -> tuple[type[_RepresentationCache], tuple[()]]:
        return _RepresentationCache, ()
