"""`RenateModule`: an `nn.Module` that can be rebuilt from its own state dict.

`RenateModule` keeps the interface of the class of that name in awslabs/Renate, with two changes:
what it stores besides tensors are plain values, so that `torch.load(weights_only=True)` reads it,
and a state dict that does not fit is an error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NoReturn, Self, final

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from renate_stages.errors import ModelInputsError, ModelStateError, StoredArgumentError

EXTRA_STATE = "_extra_state"  # the name PyTorch gives to what `get_extra_state` returns


class RenateModule(nn.Module, ABC):
    """A model that carries its constructor arguments and its task ids in its state dict.

    A subclass passes its constructor arguments on and defines `forward`; one with parameters per
    task also overrides `_add_task_params` and `get_params`.

        class Classifier(RenateModule):
            def __init__(self, hidden: int = 64) -> None:
                super().__init__(constructor_arguments={"hidden": hidden})
                self.layers = nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))

            def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
                return self.layers(x)

        torch.save(Classifier(32).state_dict(), path)
        model = Classifier.from_state_dict(torch.load(path, weights_only=True))

    Args:
        constructor_arguments: Keyword arguments that build this model again. JSON values: None,
            bool, int, float, str, and lists, tuples and string-keyed dicts of those. Copied.

    Raises:
        StoredArgumentError: If a value is not one of these.
    """

    def __init__(self, constructor_arguments: dict[str, Any]) -> None:
        super().__init__()
        self._constructor_arguments = _plain(constructor_arguments, "constructor_arguments")
        self._task_ids: list[str] = []
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
        """Return the outputs before any decision rule; by default those of the model's call."""
        return self(x, task_id=task_id)

    def get_params(self, task_id: str | None = None) -> list[nn.Parameter]:
        """Return the parameters to train for a task: all, unless a subclass narrows it."""
        return list(self.parameters())

    # -- tasks ------------------------------------------------------------------------------------

    @property
    def task_ids(self) -> list[str]:
        """Ids of the tasks whose parameters were added, in that order (a copy)."""
        return list(self._task_ids)

    @final
    def add_task_params(self, task_id: str | None = None) -> None:
        """Add a task's parameters once; nothing happens where they exist, or for None.

        Where all parameters lie on one device, the new ones are moved there.

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
        """Add the parameters of a new task; must leave those of other tasks as they are."""

    # -- state ------------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """Return what the state dict holds besides tensors, as plain values (a copy)."""
        return {
            "constructor_arguments": _plain(self._constructor_arguments, "constructor_arguments"),
            "task_ids": list(self._task_ids),
        }

    def set_extra_state(self, state: Any) -> None:
        """Add the parameters of the stored tasks.

        The module keeps its own constructor arguments: they say how *it* was built, and a dropout
        rate, say, may differ from that of the module which wrote the state.

        Raises:
            ModelStateError: If the state was not written by a `RenateModule` of this library.
        """
        for task_id in _checked_extra_state(state, type(self).__name__)["task_ids"]:
            self.add_task_params(task_id)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Before any tensor is read: PyTorch sets the extra state last, too late for parameters
        # of a task that are registered on this module itself.
        if prefix + EXTRA_STATE in state_dict:
            self.set_extra_state(state_dict[prefix + EXTRA_STATE])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Any]) -> Self:
        """Build the model that a state dict describes and load it, strictly.

        Args:
            state_dict: What `state_dict()` of a model of this class returned; left as it is.

        Raises:
            ModelStateError: If it holds no constructor arguments, if this class does not take
                them, or if any tensor is missing, unexpected or of another shape.
        """
        extra = _checked_extra_state(state_dict.get(EXTRA_STATE), cls.__name__)
        try:
            model = cls(**_plain(extra["constructor_arguments"], "constructor_arguments"))
        except TypeError as error:
            raise ModelStateError(
                cls.__name__,
                f"its constructor refused the stored arguments: {error}.",
                f"use the class that wrote the state, or give {cls.__name__} these arguments",
            ) from error
        for task_id in extra["task_ids"]:
            model.add_task_params(task_id)
        try:
            model.load_state_dict(state_dict, strict=True)
        except RuntimeError as error:  # PyTorch's message lists the keys
            raise ModelStateError(
                cls.__name__,
                str(error),
                "use the code that wrote the state, or load the parts that still fit yourself, in "
                "model_fn, with load_state_dict(..., strict=False)",
            ) from error
        return model

    # -- intermediate representations -------------------------------------------------------------

    def register_intermediate_representation_caching_hook(self, submodule: nn.Module) -> None:
        """Keep the outputs of a submodule in every call of this model, in train and eval mode.

        The cache holds those of the latest call only, with their graph; it is not in the state
        dict, and a deep copy of the model has hooks and an empty cache of its own.
        """
        if not self._hooks:
            self._hooks.append(self.register_forward_pre_hook(self._cache.clear))
        self._hooks.append(submodule.register_forward_hook(self._cache.keep))

    def get_intermediate_representation(self) -> list[Tensor]:
        """Return the outputs of the hooked submodules in the latest call, in the order they ran."""
        return list(self._cache.outputs)

    def reset_intermediate_representation_cache(self) -> None:
        """Forget the cached outputs; the hooks stay."""
        self._cache.clear()

    def deregister_hooks(self) -> None:
        """Remove all caching hooks and forget the cached outputs."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._cache.clear()


class RenateWrapper(RenateModule):
    """Any `nn.Module` as a `RenateModule`: ignores task ids and unpacks inputs.

    It cannot rebuild the module, so load with `load_state_dict`:

        model = RenateWrapper(torchvision.models.resnet18(num_classes=10))
        model.load_state_dict(torch.load(path, weights_only=True))

    Args:
        model: The module, kept as `wrapped`, which is also the prefix of its state-dict keys.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(constructor_arguments={})
        self.wrapped = model

    def forward(self, x: Any, task_id: str | None = None) -> Any:
        """Call the module: a tuple or list as positional arguments, a dict as keywords.

        Returns:
            What the module returns; a tuple of one is unpacked.

        Raises:
            ModelInputsError: If `x` is none of tensor, tuple, list and dict.
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

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Any]) -> NoReturn:
        """Refuse: a wrapped module's constructor arguments are not known.

        Raises:
            ModelStateError: Always.
        """
        raise ModelStateError(
            cls.__name__,
            "it does not say how to build the module that was wrapped.",
            "build that module, wrap it with RenateWrapper(module) and call load_state_dict",
        )


def unwrap(model: nn.Module) -> nn.Module:
    """Return the user's own module: what a `RenateWrapper` wraps, any other model as it is."""
    return model.wrapped if isinstance(model, RenateWrapper) else model


class _RepresentationCache:
    """Outputs kept by hooks. Copied and pickled as an empty one, so that each copy has its own.

    Deep-copying a hooked module copies its hooks; as these are bound methods of this object, the
    copies write to the copied cache. (Closures would go on writing to the original's.)
    """

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []

    def keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.outputs.append(output)

    def clear(self, *_: Any) -> None:
        self.outputs = []

    def __reduce__(self) -> tuple[type[_RepresentationCache], tuple[()]]:
        return _RepresentationCache, ()


def _plain(value: Any, where: str) -> Any:
    """Return a deep copy of a JSON value, subclasses of its types as the types themselves."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # a string enum, say, as a plain string
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)  # np.float64 is a float
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise StoredArgumentError(f"a key of {where}", key)
        return {_plain(k, where): _plain(v, f"{where}[{k!r}]") for k, v in value.items()}
    raise StoredArgumentError(where, value)


def _checked_extra_state(extra: Any, model: str) -> dict[str, Any]:
    keys = {"constructor_arguments", "task_ids"}
    if isinstance(extra, Mapping) and keys <= extra.keys():
        return dict(extra)
    found = "is missing" if extra is None else f"is of type {type(extra).__name__}"
    if isinstance(extra, Tensor):
        found += ", as awslabs/Renate wrote it (pickled bytes)"
    raise ModelStateError(
        model,
        f"its entry '{EXTRA_STATE}' {found}; expected a dict with {' and '.join(sorted(keys))}.",
        "build the model yourself and load the tensors alone: drop that entry and call "
        "load_state_dict(..., strict=False)",
    )
